"""Pieces of PromQL. Every selector has the dashboard's variables, and needs no Kubernetes labels.

A series without the label `namespace` matches `namespace=~".*"`, which is what the variable's
"All" stands for.
"""

from __future__ import annotations

VARIABLES = 'namespace=~"$namespace", instance=~"$instance"'
# One series of each of our processes, and of nobody else's.
EVERY_PROCESS = (
    '{__name__=~"mpesa_config_last_reload_successful|mpesa_operator_last_sweep_timestamp_seconds"}'
)
INTERVAL = "$__rate_interval"
RANGE = "$__range"


def series(metric: str, *matchers: str) -> str:
    """A selector: `matchers` as PromQL writes them."""
    return f"{metric}{{{', '.join([*matchers, VARIABLES])}}}"


def rate(metric: str, *matchers: str) -> str:
    """A counter's growth per second."""
    return f"rate({series(metric, *matchers)}[{INTERVAL}])"


def total_rate(metric: str, *matchers: str, by: str = "") -> str:
    """The same, summed up."""
    return f"sum{_by(by)} ({rate(metric, *matchers)})"


def increase(metric: str, *matchers: str, over: str = RANGE, by: str = "") -> str:
    """A counter's growth over a time."""
    return f"sum{_by(by)} (increase({series(metric, *matchers)}[{over}]))"


def per_minute(metric: str, *matchers: str, by: str = "") -> str:
    """A counter's growth per minute: at a few payments a minute, numbers a person can read."""
    return f"60 * {total_rate(metric, *matchers, by=by)}"


def quantile(q: float, histogram: str, *matchers: str, by: str = "") -> str:
    """A quantile of a histogram, over all processes."""
    labels = f"le, {by}" if by else "le"
    buckets = rate(f"{histogram}_bucket", *matchers)
    return f"histogram_quantile({q}, sum by ({labels}) ({buckets}))"


def share_within(seconds: float, histogram: str, over: str = RANGE) -> str:
    """The share of a histogram's observations that took at most so long: one of its bounds."""
    within = increase(f"{histogram}_bucket", f'le="{float(seconds)}"', over=over)
    return f"{within} / {increase(f'{histogram}_count', over=over)}"


def largest(metric: str, *matchers: str, by: str = "") -> str:
    """The largest of a gauge's series: two processes may export one age for a moment."""
    return f"max{_by(by)} ({series(metric, *matchers)})"


def of_our_processes(expr: str) -> str:
    """Of metrics that every Python program has, those of ours."""
    return f"({expr}) and on (job, instance) {EVERY_PROCESS}"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
