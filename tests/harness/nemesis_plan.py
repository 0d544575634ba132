"""What goes wrong in a chaos run, and when: a pure function of its seed and length."""

from __future__ import annotations

import random
from dataclasses import dataclass

# The first fault, the pause between two (they last, so they overlap), and the last one's end.
FIRST_S = 4.0
PAUSE_S = (2.0, 6.0)
END_BEFORE_S = 3.0
SIGSTOP_S = (5.0, 30.0)


@dataclass(frozen=True)
class Kind:
    """A kind of fault. `targets` are the process groups that it may hit, or the thing it spoils.

    `lasts_s` is None when it is over at once.
    """

    name: str
    targets: tuple[str, ...]
    lasts_s: tuple[float, float] | None = None
    amount: tuple[int, int] = (0, 0)


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

    @property
    def ends_s(self) -> float:
        """When it heals."""
        return self.at_s + self.lasts_s


def make_plan(seed: int, duration_s: float) -> list[Fault]:
    """Faults in the order of their beginning: each kind once, then more of them, as time allows.

    A target has one fault at a time, and all have healed before the end.
    """
    chance = random.Random(f"{seed}-nemesis")  # noqa: S311 - it is to be repeatable
    waiting = list(KINDS)
    chance.shuffle(waiting)
    busy_until: dict[str, float] = {}
    plan: list[Fault] = []
    at_s = FIRST_S
    while at_s < duration_s - END_BEFORE_S:
        free = [it for it in waiting if _free(it, busy_until, at_s)]
        kind = free[0] if free else _favourite(chance)
        fault = _draw(chance, kind, at_s)
        is_free = busy_until.get(fault.target, 0.0) <= at_s
        if is_free and fault.ends_s <= duration_s - END_BEFORE_S:
            busy_until[fault.target] = fault.ends_s + 1.0
            plan.append(fault)
            if kind in waiting:
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
            plan.append(_draw(chance, kind, at_s))
            at_s += PAUSE_S[0]
    return plan


def _free(kind: Kind, busy_until: dict[str, float], at_s: float) -> bool:
    return all(busy_until.get(it, 0.0) <= at_s for it in kind.targets)


def _favourite(chance: random.Random) -> Kind:
    favourites = [it for it in KINDS if it.name.startswith(FAVOURITES)]
    return chance.choice(favourites if chance.random() < 0.5 else KINDS)


def _draw(chance: random.Random, kind: Kind, at_s: float) -> Fault:
    lasts_s = chance.uniform(*kind.lasts_s) if kind.lasts_s else 0.0
    return Fault(
        round(at_s, 3),
        kind.name,
        chance.choice(kind.targets),
        round(lasts_s, 3),
        chance.randint(*kind.amount),
    )
