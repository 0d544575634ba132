"""Who has a short code, and who an API key: first come counts only with something behind it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from harness.collecting import every_case
from harness.operating import NOON, make_merchant, make_observed, plan, sha
from mpesa_operator.bundle import LARGEST_SHARD, ROTATION_ROOM, apply_changes, shard_bytes
from mpesa_operator.claims import WARNINGS, Standing, claims_of, first_claim

LATER = NOON + timedelta(hours=1)
OWNER, SQUATTER = "shopb/owner", "aaa/squat"


def standing(key: str = OWNER, **changes: Any) -> Standing:
    return Standing(**{"key": key, "created_at": LATER, **changes})


def squatter(**changes: Any) -> Standing:
    """It was there first, and its name sorts first."""
    return standing(SQUATTER, created_at=NOON, **changes)


@every_case(
    ("first", "second"),
    [
        # A claim without credentials, or with refused ones, holds nobody up.
        (standing(resolved=True), squatter()),
        (standing(resolved=True), squatter(resolved=True, outcome="rejected")),
        (standing(resolved=True, outcome="unreachable"), squatter()),
        # Nor does it once it is published, when another's credentials are accepted.
        (
            standing(resolved=True, outcome="valid"),
            squatter(published=True, resolved=True, outcome="rejected"),
        ),
        (standing(resolved=True, outcome="valid"), squatter(resolved=True)),
        # What is published and was accepted cannot be taken, whatever became of its credentials.
        (
            standing(published=True, accepted=True, outcome="rejected"),
            squatter(resolved=True, outcome="valid"),
        ),
        (standing(published=True, accepted=True), squatter(resolved=True, outcome="valid")),
        # While Daraja does not answer, who is published stays.
        (
            standing(published=True, outcome="unreachable"),
            squatter(resolved=True, outcome="valid"),
        ),
        # A published claim with a typing error in its secret is not lost to a mere name.
        (standing(published=True, outcome="rejected"), squatter(resolved=True)),
    ],
)
def test_the_stronger_claim_has_the_short_code(first: Standing, second: Standing) -> None:
    assert first_claim([second, first]) is first
    assert first_claim([first, second]) is first


def test_of_equal_claims_the_older_objects_counts_then_the_name() -> None:
    assert first_claim([standing(), squatter()]).key == SQUATTER
    assert first_claim([standing("b/x"), standing("a/x")]).key == "a/x"


def entry(namespace: str, name: str, **spec: Any) -> bytes:
    found = plan(make_merchant(spec, namespace=namespace, name=name), make_observed()).entry
    assert found is not None
    return found


def own(number: int, *, namespace: str = "n", **spec: Any) -> tuple[str, bytes]:
    """A file with a key and a short code of its own."""
    spec = {"apiKey": {"sha256": sha(f"key {number}")}, "shortCode": str(100000 + number), **spec}
    return f"{namespace}.m{number}.json", entry(namespace, f"m{number}", **spec)


def test_what_a_file_claims() -> None:
    till = {"transactionType": "CustomerBuyGoodsOnline", "tillNumber": "900900"}
    _, content = own(1, **till)
    assert claims_of(content) == {f"api-key:{sha('key 1')}", "account:sandbox/100001/900900"}
    for broken in (b"", b"[]", b"1", b"{}", b"\xff"):
        assert claims_of(broken) == frozenset()


def test_a_second_claim_to_a_key_is_refused_before_it_is_written() -> None:
    victim, theirs = own(1)
    thief, claim = own(2, namespace="aaa", apiKey={"sha256": sha("key 1")})
    for elsewhere in (False, True):
        here = {} if elsewhere else {victim: theirs}
        there = {victim: theirs} if elsewhere else {}
        applied = apply_changes(here, {thief: claim}, elsewhere=there)
        assert applied.refused[thief].reason == "ApiKeyConflict"
        assert applied.refused[thief].holder == "n/m1"
        assert "m1" not in applied.refused[thief].message
        assert thief not in applied.files


def test_of_two_claims_in_one_write_the_first_wish_counts() -> None:
    one, first = own(1, namespace="zzz")
    two, second = own(2, namespace="aaa", apiKey={"sha256": sha("key 1")})
    applied = apply_changes({}, {one: first, two: second})
    assert (set(applied.files), set(applied.refused)) == ({one}, {two})


def test_a_short_code_with_its_till_is_in_one_file_only() -> None:
    one, first = own(1)
    two, second = own(2, shortCode="100001")
    assert apply_changes({one: first}, {two: second}).refused[two].reason == "ShortCodeConflict"
    buy = {"transactionType": "CustomerBuyGoodsOnline", "shortCode": "100001"}
    three, till = own(3, **buy, tillNumber="900900")
    four, other = own(4, **buy, tillNumber="900901")
    assert apply_changes({one: first}, {three: till, four: other}).refused == {}


def test_a_claim_is_free_once_its_file_is_gone() -> None:
    one, first = own(1)
    two, second = own(2, apiKey={"sha256": sha("key 1")})
    assert apply_changes({one: first}, {two: second, one: None}).files == {two: second}


def test_a_refused_claim_holds_up_neither_a_suspension_nor_the_own_keys() -> None:
    victim, theirs = own(1)
    thief, before = own(2)
    _, claim = own(2, apiKey={"sha256": sha("key 1")}, suspended=True)
    applied = apply_changes({victim: theirs, thief: before}, {thief: claim})
    assert applied.refused[thief].reason == "ApiKeyConflict"
    assert json.loads(applied.files[thief]) == {**json.loads(before), "suspended": True}


def full_shard() -> dict[str, bytes]:
    """A shard into which nothing goes any more."""
    files: dict[str, bytes] = {}
    for number in range(5000):
        name, content = own(number)
        if apply_changes(files, {name: content}).refused:
            break
        files[name] = content
    return files


def rotated(content: bytes, times: int) -> bytes:
    document = json.loads(content)
    keys = [sha(f"new {n} of {document['name']}") for n in range(times)]
    document["apiKeySHA256"] = (keys + document["apiKeySHA256"])[:8]
    secrets = [f"whsec_{n:043}=" for n in range(times)]
    document["webhook"]["secrets"] = (secrets + document["webhook"]["secrets"])[:8]
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def test_in_a_full_shard_every_merchant_can_rotate_and_be_suspended_and_go() -> None:
    files = full_shard()
    assert len(files) > 100
    newcomer, content = own(9999)
    assert apply_changes(files, {newcomer: content}).refused[newcomer].reason == "BundleTooLarge"
    for name in list(files):
        wanted = rotated(files[name], 7)
        assert len(wanted) - len(files[name]) <= ROTATION_ROOM
        files = dict(apply_changes(files, {name: wanted}).files)
        assert json.loads(files[name])["apiKeySHA256"] == json.loads(wanted)["apiKeySHA256"]
    assert shard_bytes(files) <= LARGEST_SHARD
    name = next(iter(files))
    suspended = {**json.loads(files[name]), "suspended": True}
    hosts = {"allowedHosts": ["h" * 200] * 20}
    edit = json.dumps({**suspended, "webhook": {**suspended["webhook"], **hosts}}).encode()
    applied = apply_changes(files, {name: edit})
    assert applied.refused[name].reason == "BundleTooLarge"
    assert json.loads(applied.files[name]) == suspended
    assert name not in apply_changes(files, {name: None}).files


def test_the_warnings_name_nobody() -> None:
    for text in WARNINGS.values():
        assert "/" not in text
        assert "{" not in text
