"""Shards: where a file belongs, what fits, and what moves when their number is raised."""

from __future__ import annotations

from mpesa_gateway.domain.bundle import file_name
from mpesa_operator.bundle import (
    LARGEST_SHARD,
    ROTATION_ROOM,
    all_files,
    apply_changes,
    is_merchant_file,
    merchant_key,
    settle_shards,
    shard_bytes,
    shard_of,
)

FILES = {f"shops.m{number}.json": b"{}" for number in range(100)}


def test_a_file_has_a_name_and_a_merchant_and_they_belong_together() -> None:
    file = file_name("shops", "a.b.c")
    assert merchant_key(file) == "shops/a.b.c"
    assert is_merchant_file(file)
    assert not is_merchant_file("README")
    assert not is_merchant_file("other.json")


def test_a_file_stays_in_its_shard_and_files_spread() -> None:
    assert [shard_of(name, 1) for name in FILES] == [0] * 100
    shards = [shard_of(name, 4) for name in FILES]
    assert shards == [shard_of(name, 4) for name in FILES]
    assert all(15 <= shards.count(shard) <= 35 for shard in range(4))


def test_changes_are_applied() -> None:
    applied = apply_changes(
        {"a.a.json": b"1", "a.b.json": b"2"}, {"a.a.json": None, "a.c.json": b"3"}
    )
    assert applied.files == {"a.b.json": b"2", "a.c.json": b"3"}
    assert applied.refused == {}
    assert apply_changes({}, {"a.a.json": None}).files == {}


def test_what_does_not_fit_is_refused_alone() -> None:
    half = b"x" * (LARGEST_SHARD // 2)
    before = {"a.a.json": half, "a.b.json": b"old"}
    applied = apply_changes(before, {"a.b.json": half, "a.c.json": b"small"})
    assert applied.refused["a.b.json"].reason == "BundleTooLarge"
    assert applied.files == {"a.a.json": half, "a.b.json": b"old", "a.c.json": b"small"}
    assert shard_bytes(applied.files) <= LARGEST_SHARD


def test_what_goes_makes_room_for_what_comes() -> None:
    large = b"x" * (LARGEST_SHARD - ROTATION_ROOM - 100)
    applied = apply_changes({"z.z.json": large}, {"z.z.json": None, "a.a.json": large})
    assert applied.files == {"a.a.json": large}
    # A file is not counted twice when it is replaced.
    assert apply_changes({"a.a.json": large}, {"a.a.json": large}).refused == {}


def test_shards_that_are_as_they_should_be_are_not_written() -> None:
    assert settle_shards({0: FILES}, 1) == ({0: FILES}, [])
    assert settle_shards({0: {}}, 1) == ({0: {}}, [])


def test_a_second_shard_takes_its_files_before_the_first_loses_them() -> None:
    wanted, changed = settle_shards({0: FILES, 1: {}}, 2)
    assert changed == [1, 0]
    assert all_files(wanted.values()) == FILES
    assert all(shard_of(name, 2) == shard for shard, files in wanted.items() for name in files)


def test_a_move_that_was_interrupted_keeps_the_copy_that_is_in_place() -> None:
    name = next(name for name in FILES if shard_of(name, 2) == 1)
    wanted, changed = settle_shards({0: {name: b"old"}, 1: {name: b"new"}}, 2)
    assert wanted == {0: {}, 1: {name: b"new"}}
    assert changed == [0]
