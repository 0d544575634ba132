"""What goes wrong in a chaos run, and when: a pure function of its seed and length."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

# The first fault, the pause between two (they last, so they overlap), and the last one's end.
FIRST_S = 4.0
PAUSE_S = (2.0, 6.0)
END_BEFORE_S = 3.0
SIGSTOP_S = (5.0, 30.0)


@dataclass(frozen=True)
class Kind:
    """A kind of fault. `targets` are the process groups that it may hit, or the thing it spoils.

    `lasts_s` is None when it is over at once. Beside one that is `alone` nothing else goes wrong:
    it loses what only a process remembers, or is to be told from what goes on beside it.
    """

    name: str
    targets: tuple[str, ...]
    lasts_s: tuple[float, float] | None = None
    amount: tuple[int, int] = (0, 0)
    alone: bool = False


APIS = ("api-1", "api-2")
WORKERS = ("worker-1", "worker-2")
KINDS = (
    Kind("kill api", APIS),
    Kind("kill api's server", APIS),
    Kind("kill worker", WORKERS),
    Kind("kill postgres", ("postgres",)),
    Kind("kill redis", ("redis",)),
    Kind("stop api", APIS, SIGSTOP_S),
    Kind("stop worker", WORKERS, SIGSTOP_S),
    Kind("stop postgres", ("postgres",), SIGSTOP_S),
    Kind("stop redis", ("redis",), SIGSTOP_S),
    Kind("restart api", APIS),
    Kind("restart worker", WORKERS),
    Kind("flushall", ("redis",)),
    Kind("terminate backends", ("postgres",), (3.0, 8.0)),
    Kind("swallow commits", ("network",), (8.0, 12.0), (5, 15)),
    Kind("slow network", ("network",), (5.0, 15.0), (20, 150)),
    Kind("cut network", ("network",), (3.0, 8.0), (200, 4000)),
    Kind("frozen network", ("network",), (4.0, 12.0)),
    Kind("idle connections", APIS, (8.0, 20.0), (300, 300)),
    Kind("daraja busy", ("daraja",), (5.0, 12.0)),
    Kind("daraja slow", ("daraja",), (5.0, 12.0)),
    Kind("daraja drops callbacks", ("daraja",), (5.0, 12.0)),
    Kind("daraja doubles callbacks", ("daraja",), (5.0, 12.0)),
    Kind("daraja calls back late", ("daraja",), (5.0, 12.0)),
    Kind("daraja knows nothing", ("daraja",), (5.0, 12.0)),
    Kind("daraja forgets tokens", ("daraja",)),
    Kind("endpoint hangs", ("endpoint",), (6.0, 15.0)),
    Kind("endpoint drips", ("endpoint",), (6.0, 15.0)),
    Kind("endpoint redirects", ("endpoint",), (4.0, 8.0)),
    Kind("endpoint says 410", ("endpoint",), (4.0, 8.0)),
    Kind("endpoint says 429", ("endpoint",), (4.0, 8.0)),
    Kind("secret replaced", ("merchant",)),
)
# What happens to real infrastructure, and takes minutes or has no end of its own. Those that are
# alone also make a replica, or wait for an operator: they take longer than `lasts_s`.
OUTAGES = (
    Kind("refuse connections", ("postgres",), (20.0, 90.0)),
    Kind("connections used up", ("postgres",), (12.0, 40.0)),
    Kind("disk full", ("postgres",), (8.0, 20.0)),
    Kind("redis demoted", ("redis",), (8.0, 25.0)),
    Kind("clock wrong", (*APIS, *WORKERS), (10.0, 40.0), (-900, 900)),
    Kind("freeze for good", ("postgres",), (30.0, 45.0), alone=True),
    Kind("fail over synchronously", ("postgres",), (5.0, 10.0), alone=True),
    Kind("fail over asynchronously", ("postgres",), (5.0, 10.0), (2, 6), alone=True),
    Kind("restore a backup", ("postgres",), (5.0, 10.0), (5, 20), alone=True),
)
# An outage is no longer than this share of the run.
LONGEST_SHARE = 0.15
ALONE_TAKES_S = 45.0
GROUPS = {"faults": KINDS, "outages": OUTAGES, "all": (*KINDS, *OUTAGES)}
# Half of the faults are these: what a gateway is most afraid of.
FAVOURITES = ("kill", "swallow", "stop", "terminate")


@dataclass(frozen=True)
class Fault:
    """One fault of a plan. `lasts_s` is 0 when it is over at once; `amount` is the kind's own."""

    at_s: float
    kind: str
    target: str
    lasts_s: float = 0.0
    amount: int = 0
    alone: bool = False

    @property
    def ends_s(self) -> float:
        """When it heals."""
        return self.at_s + self.lasts_s


def choose_kinds(words: str) -> tuple[Kind, ...]:
    """A group of GROUPS, or kinds by the beginnings of their names, with commas between them.

    Raises ValueError when there is none.
    """
    if words in GROUPS:
        return GROUPS[words]
    beginnings = tuple(it.strip() for it in words.split(","))
    found = tuple(it for it in GROUPS["all"] if it.name.startswith(beginnings))
    if not found or "" in beginnings:
        groups = ", ".join(["kills", *GROUPS])
        raise ValueError(f"no kind of fault begins with {words!r}, and the groups are: {groups}")
    return found


def make_plan(seed: int, duration_s: float, kinds: Sequence[Kind] = KINDS) -> list[Fault]:
    """Faults in the order of their beginning: each kind once, then more of them, as time allows.

    A target has one fault at a time, and all have healed before the end.
    """
    chance = random.Random(f"{seed}-nemesis")  # noqa: S311 - it is to be repeatable
    waiting = list(kinds)
    chance.shuffle(waiting)
    busy_until: dict[str, float] = {}
    plan: list[Fault] = []
    at_s = FIRST_S
    while at_s < duration_s - END_BEFORE_S:
        free = [it for it in waiting if it.alone or _free(it, busy_until, at_s)]
        kind = free[0] if free else _favourite(chance, kinds)
        if kind.alone:
            # All that is under way heals first.
            at_s = max([at_s, *busy_until.values()])
        fault = _draw(chance, kind, at_s, duration_s)
        over_s = fault.ends_s + (ALONE_TAKES_S if kind.alone else 0.0)
        is_free = busy_until.get(fault.target, 0.0) <= at_s
        is_in_time = over_s <= duration_s - END_BEFORE_S
        if is_free and is_in_time:
            busy_until[fault.target] = over_s + 1.0
            plan.append(fault)
            if kind.alone:
                at_s = over_s
        if kind in waiting and (kind.alone or (is_free and is_in_time)):
            waiting.remove(kind)
        at_s += chance.uniform(*PAUSE_S)
    return plan


def make_kills(seed: int, duration_s: float) -> list[Fault]:
    """Only what dies by `kill -9`, every kind as often: for a run in which each has its time."""
    chance = random.Random(f"{seed}-kills")  # noqa: S311 - it is to be repeatable
    kinds = [it for it in KINDS if it.name.startswith("kill")]
    plan: list[Fault] = []
    at_s = FIRST_S
    while at_s < duration_s - END_BEFORE_S:
        for kind in chance.sample(kinds, len(kinds)):
            plan.append(_draw(chance, kind, at_s, duration_s))
            at_s += PAUSE_S[0]
    return plan


def _free(kind: Kind, busy_until: dict[str, float], at_s: float) -> bool:
    return all(busy_until.get(it, 0.0) <= at_s for it in kind.targets)


def _favourite(chance: random.Random, kinds: Sequence[Kind]) -> Kind:
    favourites = [it for it in kinds if it.name.startswith(FAVOURITES)]
    return chance.choice(favourites if favourites and chance.random() < 0.5 else kinds)


def _draw(chance: random.Random, kind: Kind, at_s: float, duration_s: float) -> Fault:
    lasts_s = chance.uniform(*_bounds(kind, duration_s)) if kind.lasts_s else 0.0
    return Fault(
        round(at_s, 3),
        kind.name,
        chance.choice(kind.targets),
        round(lasts_s, 3),
        chance.randint(*kind.amount),
        kind.alone,
    )


def _bounds(kind: Kind, duration_s: float) -> tuple[float, float]:
    assert kind.lasts_s is not None
    shortest_s, longest_s = kind.lasts_s
    if kind in OUTAGES:
        longest_s = max(shortest_s + 1.0, min(longest_s, LONGEST_SHARE * duration_s))
    return shortest_s, longest_s
