"""The faults of a chaos run: a seed repeats them, and each heals before the end."""

from __future__ import annotations

import collections
from itertools import pairwise

import pytest

from harness.chaos_load import make_arrivals
from harness.collecting import every_case
from harness.nemesis_plan import (
    END_BEFORE_S,
    GROUPS,
    KINDS,
    OUTAGES,
    choose_kinds,
    make_kills,
    make_plan,
)

TEN_MINUTES_S = 600.0


@every_case("seed", range(20))
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


@every_case("seed", range(20))
def test_an_outage_that_must_be_alone_is_alone(seed: int) -> None:
    plan = make_plan(seed, TEN_MINUTES_S, GROUPS["all"])
    alone = [it for it in plan if it.alone]

    assert {it.kind for it in alone} == {it.name for it in OUTAGES if it.alone}
    for it in alone:
        others = [other for other in plan if other is not it]
        assert not [
            other for other in others if other.at_s < it.ends_s and other.ends_s > it.at_s
        ], it


def test_an_hour_has_every_outage_and_each_is_as_long_as_it_may_be() -> None:
    plan = make_plan(7, 3600.0, GROUPS["all"])

    assert {it.kind for it in plan} == {it.name for it in GROUPS["all"]}
    for it in plan:
        (kind,) = [kind for kind in GROUPS["all"] if kind.name == it.kind]
        shortest_s, longest_s = kind.lasts_s or (0.0, 0.0)
        assert shortest_s <= it.lasts_s <= longest_s
        assert kind.amount[0] <= it.amount <= kind.amount[1]


def test_a_short_run_has_short_outages() -> None:
    plan = make_plan(7, 180.0, choose_kinds("refuse"))

    assert plan
    assert all(20.0 <= it.lasts_s <= 0.15 * 180.0 for it in plan)


@every_case(
    ("words", "names"),
    [
        ("faults", {it.name for it in KINDS}),
        ("outages", {it.name for it in OUTAGES}),
        ("refuse, restore a", {"refuse connections", "restore a backup"}),
        ("fail over", {"fail over synchronously", "fail over asynchronously"}),
    ],
)
def test_words_choose_kinds_of_faults(words: str, names: set[str]) -> None:
    assert {it.name for it in choose_kinds(words)} == names


@every_case("words", ["nothing", "kills,", "", "refuse,"])
def test_words_that_choose_nothing_say_what_there_is(words: str) -> None:
    with pytest.raises(ValueError, match="the groups are: kills, faults, outages, all"):
        choose_kinds(words)
