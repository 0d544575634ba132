"""How long a recovery took when other faults went on beside it."""

from __future__ import annotations

from harness.chaos_report import recovered, spread_of, undisturbed_s
from harness.collecting import every_case
from harness.nemesis import Done
from harness.nemesis_plan import Fault
from harness.recovery import Recovery


def killed(*, over_at: float) -> Recovery:
    """Killed at 100, and nothing to be done but its restart."""
    return Recovery("kill worker", 100.0, ready_at=over_at, empty_at=over_at)


def fault(kind: str, began_at: float, healed_at: float) -> Done:
    return Done(Fault(0.0, kind, "it"), began_at, healed_at)


ITSELF = fault("kill worker", 100.0, 100.1)


@every_case(
    ("others", "seconds"),
    [
        ([], 30.0),
        ([fault("stop postgres", 90.0, 99.0)], 30.0),
        ([fault("stop postgres", 90.0, 110.0)], 20.0),
        ([fault("stop postgres", 90.0, 110.0), fault("stop redis", 105.0, 125.0)], 5.0),
        ([fault("stop redis", 105.0, 140.0)], 30.0),
        ([fault("endpoint hangs", 105.0, 125.0)], 30.0),
    ],
)
def test_the_clock_starts_again_when_other_harm_ends(others: list[Done], seconds: float) -> None:
    assert undisturbed_s(killed(over_at=130.0), [ITSELF, *others]) == seconds


def test_a_recovery_that_never_was_is_no_number() -> None:
    never = killed(over_at=0.0)

    assert undisturbed_s(never, [ITSELF]) is None
    assert spread_of([None, 3.0, 1.0]) == {"n": 3, "never": 1, "p50": 2.0, "p99": 3.0, "max": 3.0}


def test_what_went_on_beside_it_is_named() -> None:
    others = [fault("stop redis", 105.0, 140.0), fault("flushall", 131.0, 131.0)]

    assert recovered(killed(over_at=130.0), [ITSELF, *others])["beside"] == ["stop redis"]
