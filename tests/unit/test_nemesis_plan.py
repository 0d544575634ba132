"""The faults of a chaos run: a seed repeats them, and each heals before the end."""

from __future__ import annotations

import collections
from itertools import pairwise

import pytest

from harness.chaos_load import make_arrivals
from harness.nemesis_plan import END_BEFORE_S, KINDS, make_kills, make_plan

TEN_MINUTES_S = 600.0


@pytest.mark.parametrize("seed", range(20))
def test_ten_minutes_have_every_kind_of_fault_and_all_heal(seed: int) -> None:
    plan = make_plan(seed, TEN_MINUTES_S)

    assert {it.kind for it in plan} == {it.name for it in KINDS}
    assert max(it.ends_s for it in plan) <= TEN_MINUTES_S - END_BEFORE_S
    assert [it.at_s for it in plan] == sorted(it.at_s for it in plan)
    for target in {it.target for it in plan}:
        of_it = [it for it in plan if it.target == target]
        assert all(one.ends_s < other.at_s for one, other in pairwise(of_it))


def test_a_seed_repeats_the_plan_and_the_payments() -> None:
    assert make_plan(7, 60.0) == make_plan(7, 60.0) != make_plan(8, 60.0)
    assert make_arrivals(7, 60.0, 5.0) == make_arrivals(7, 60.0, 5.0) != make_arrivals(8, 60.0, 5.0)


def test_a_run_of_kills_has_every_kind_of_them_as_often_and_nothing_else() -> None:
    plan = make_kills(7, TEN_MINUTES_S)
    times = collections.Counter(it.kind for it in plan)

    assert set(times) == {it.name for it in KINDS if it.name.startswith("kill")}
    assert len(set(times.values())) == 1
    assert {it.target for it in plan} > {"api-1", "api-2", "worker-1", "worker-2"}
    assert plan == make_kills(7, TEN_MINUTES_S) != make_kills(8, TEN_MINUTES_S)


def test_every_payment_of_an_hour_has_a_phone_and_a_key_of_its_own() -> None:
    arrivals = make_arrivals(1, 3600.0, 8.0)

    assert len(arrivals) > 25_000
    assert len({it.phone for it in arrivals}) == len({it.key for it in arrivals}) == len(arrivals)
    assert {len(it.phone) for it in arrivals} == {12}
