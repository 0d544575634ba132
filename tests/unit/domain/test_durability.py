from dataclasses import replace

import pytest

from harness.collecting import every_case
from mpesa_gateway.domain.durability import (
    Durability,
    Expected,
    Level,
    concerns,
    refusal_of,
    refused_engine,
)

SINGLE = Durability(
    fsync=True,
    full_page_writes=True,
    synchronous_commit="on",
    synchronous_standby_names="",
    replicas=0,
    read_only=False,
)
ASYNCHRONOUS = replace(SINGLE, replicas=2)
SYNCHRONOUS = replace(ASYNCHRONOUS, synchronous_standby_names="ANY 1 (a, b)")
UNSAFE = [
    replace(SYNCHRONOUS, fsync=False),
    replace(SYNCHRONOUS, full_page_writes=False),
    replace(SYNCHRONOUS, synchronous_commit="off"),
]


@every_case(
    ("durability", "level"),
    [
        (SINGLE, Level.SINGLE),
        (ASYNCHRONOUS, Level.ASYNCHRONOUS),
        (SYNCHRONOUS, Level.SYNCHRONOUS),
        (replace(SYNCHRONOUS, synchronous_commit="remote_apply"), Level.SYNCHRONOUS),
        (replace(SYNCHRONOUS, synchronous_commit="local"), Level.ASYNCHRONOUS),
        (replace(ASYNCHRONOUS, synchronous_standby_names="  "), Level.ASYNCHRONOUS),
        *((it, Level.UNSAFE) for it in UNSAFE),
    ],
)
def test_a_database_has_the_level_of_its_weakest_part(durability, level):
    assert durability.level is level


@every_case("durability", UNSAFE)
@every_case("expected", [None, *Expected])
def test_what_a_crash_may_damage_is_a_concern_whatever_was_decided(durability, expected):
    assert len(concerns(durability, expected, production=False)) == 1


@every_case(
    ("durability", "expected", "production", "said"),
    [
        (SYNCHRONOUS, None, True, ""),
        (SYNCHRONOUS, Expected.SYNCHRONOUS, True, ""),
        (SINGLE, None, False, ""),
        (SINGLE, None, True, "MPESA_DATABASE_DURABILITY"),
        (SINGLE, Expected.SINGLE, True, ""),
        (SINGLE, Expected.STORAGE, True, ""),
        (SINGLE, Expected.SYNCHRONOUS, True, "synchronous_standby_names is empty"),
        (ASYNCHRONOUS, None, False, "asynchronous"),
        (ASYNCHRONOUS, None, True, "asynchronous"),
        (ASYNCHRONOUS, Expected.SINGLE, True, "asynchronous"),
        (ASYNCHRONOUS, Expected.STORAGE, True, ""),
        (ASYNCHRONOUS, Expected.SYNCHRONOUS, True, "synchronous_standby_names is empty"),
    ],
)
def test_copies_are_a_concern_unless_somebody_decided(durability, expected, production, said):
    found = concerns(durability, expected, production=production)
    assert len(found) == (1 if said else 0)
    assert said in "".join(found)


@pytest.mark.parametrize(
    ("version", "engine"),
    [
        ("PostgreSQL 16.4 (Debian 16.4-1.pgdg120+1) on x86_64-pc-linux-gnu", None),
        ("CockroachDB CCL v23.1.11 (x86_64-pc-linux-gnu)", "CockroachDB"),
        ("PostgreSQL 11.2-YB-2.19.0.0-b190 on x86_64-pc-linux-gnu", "YugabyteDB"),
        ("PostgreSQL 15.2-YB-2.25.1.0-b0 on x86_64-pc-linux-gnu", "YugabyteDB"),
    ],
)
def test_other_engines_are_told_by_name(version, engine):
    assert refused_engine(version) == engine


def test_a_refusal_names_the_engine():
    assert "CockroachDB" in refusal_of("CockroachDB")
