"""What is remembered of API keys that were in use once."""

from __future__ import annotations

import json

from mpesa_operator.bundle import apply_changes
from mpesa_operator.claims import key_claim
from mpesa_operator.retired import (
    MAX_RETIRED,
    MAX_RETIRED_PER_NAMESPACE,
    read_retired,
    retire,
    write_retired,
)

OLD, NEW = "a" * 64, "b" * 64


def file(short_code: str, *digests: str) -> bytes:
    content = {"environment": "sandbox", "shortCode": short_code, "apiKeySHA256": digests}
    return json.dumps(content).encode()


def test_a_key_that_leaves_a_file_is_written_down_with_its_owner() -> None:
    before = {"shop.owner.json": file("600200", OLD)}

    rotated = retire({}, before, {"shop.owner.json": file("600200", NEW)}, {})
    deleted = retire(rotated, {"shop.owner.json": file("600200", NEW)}, {}, {})

    assert rotated == {key_claim(OLD): "shop/owner"}
    assert deleted == {key_claim(OLD): "shop/owner", key_claim(NEW): "shop/owner"}
    assert read_retired(write_retired(deleted)) == deleted


def test_a_file_that_moves_to_another_shard_retires_nothing() -> None:
    before = {"shop.owner.json": file("600200", OLD)}

    assert retire({}, before, {}, before) == {}


def test_a_retired_key_is_refused_to_another_and_given_to_its_namespace() -> None:
    retired = {key_claim(OLD): "shop/owner"}
    theft, back = ("aaa.x.json", file("999999", OLD)), ("shop.owner.json", file("600200", OLD))

    refused = apply_changes({}, dict([theft]), retired=retired)
    granted = apply_changes({}, dict([back]), retired=retired)
    renamed = apply_changes({}, {"shop.new.json": back[1]}, retired=retired)

    assert refused.files == {}
    assert refused.refused["aaa.x.json"].reason == "ApiKeyConflict"
    assert granted.files == dict([back])
    assert renamed.files == {"shop.new.json": back[1]}


def test_a_key_is_not_free_in_the_write_that_retires_it() -> None:
    before = {"shop.owner.json": file("600200", OLD)}
    for after in (None, file("600200", NEW)):
        changes = {"shop.owner.json": after, "aaa.x.json": file("999999", OLD)}
        assert "aaa.x.json" not in apply_changes(before, changes).files


def test_a_namespace_pushes_out_its_own_keys_only() -> None:
    """Rotating without end makes nobody else's key free."""
    retired = {key_claim(OLD): "shop/owner"}
    for number in range(2 * MAX_RETIRED_PER_NAMESPACE):
        before = {"aaa.x.json": file("999999", f"{number:064x}")}
        retired = dict(retire(retired, before, {}, {}))

    assert retired[key_claim(OLD)] == "shop/owner"
    assert len(retired) == MAX_RETIRED_PER_NAMESPACE + 1


def test_there_is_room_for_so_many_in_one_secret() -> None:
    longest = "n" * 63 + "/" + "m" * 20
    full = {key_claim(f"{number:064x}"): longest for number in range(MAX_RETIRED)}

    assert len(write_retired(full)) < 1024 * 1024


def test_what_cannot_be_read_is_nothing() -> None:
    for value in (None, b"", b"[]", b"{", b"\xff", b"3"):
        assert read_retired(value) == {}
