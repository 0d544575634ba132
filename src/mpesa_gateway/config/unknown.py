"""Variables that look like ours and are none: nearly always a slip of the pen."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from mpesa_gateway.config.env_file import FILE_SUFFIX
from mpesa_gateway.config.settings import PREFIX, SETTINGS

KNOWN = frozenset(PREFIX + it.name for it in SETTINGS) | frozenset(
    PREFIX + it.name + FILE_SUFFIX for it in SETTINGS if it.secret
)
# Those of the operator and the simulator, which read them for themselves.
OF_OTHERS = (f"{PREFIX}OPERATOR_", f"{PREFIX}SIMULATOR_")
# A name that is likelier another program's than one of ours, wrongly written.
LEAST_LIKENESS = 0.7


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each unknown variable that begins with MPESA_. Values are never repeated."""
    services = _services(environment)
    return [
        _sentence(name)
        for name in sorted(environment)
        if name.upper().startswith(PREFIX)
        and name not in KNOWN
        and not name.startswith(OF_OTHERS)
        and not name.startswith(services)
    ]


def _services(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What Kubernetes sets in every pod for a Service whose name begins with mpesa-."""
    end = "SERVICE_HOST"
    hosts = [name.removesuffix(end) for name in environment if name.endswith("_" + end)]
    return tuple(f"{host}{word}" for host in hosts for word in ("SERVICE_", "PORT"))


def _sentence(name: str) -> str:
    nearest = difflib.get_close_matches(name.upper(), sorted(KNOWN), n=1, cutoff=LEAST_LIKENESS)
    meant = f": {nearest[0]} was probably meant" if nearest else ""
    return f"{name} is not a variable of mpesa-gateway and has no effect{meant}"
