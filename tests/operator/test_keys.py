"""The generated keys: made once, rotated when asked, the old ones valid for the overlap."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from harness.collecting import every_case
from harness.operating import FRESH, HOUR, NOON, OWNER, SEAL, sha
from mpesa_gateway.domain.merchant import Credentials
from mpesa_gateway.domain.signature import signing_key
from mpesa_operator.keys import (
    API_KEY,
    APPLIED_ROTATION,
    MAX_PREVIOUS,
    PREVIOUS_API_KEYS,
    PREVIOUS_WEBHOOK_SECRETS,
    WEBHOOK_SECRET,
    Brought,
    FreshKeys,
    Keyring,
    Provenance,
    fresh_keys,
    plan_keys,
)
from mpesa_operator.merchant_file import Published
from mpesa_operator.seal import Seal
from mpesa_operator.spec import Rotation

OLD_KEY = SEAL.make_api_key(OWNER)
OLD = {API_KEY: OLD_KEY.encode(), WEBHOOK_SECRET: b"whsec_b2xk"}
OVERLAP = timedelta(hours=24)


def published(*, keys: tuple[str, ...] = (), secrets: tuple[str, ...] = ()) -> Published:
    return Published(Credentials("k", "s", "p"), keys, secrets)


IN_USE = published(keys=(sha(OLD_KEY),), secrets=("whsec_b2xk",))


def keys(
    data: Mapping[str, bytes] | None, known: Published | None = None, **changes: Any
) -> Keyring:
    values: dict[str, Any] = {
        "provenance": Provenance(OWNER, SEAL),
        "rotation": Rotation(),
        "brought": Brought(),
        "fresh": FRESH,
        "now": NOON,
        "overlap": OVERLAP,
    }
    return plan_keys(data, known, **{**values, **changes})


def test_fresh_keys_are_long_different_and_usable() -> None:
    one, two = fresh_keys(SEAL, OWNER), fresh_keys(SEAL, OWNER)
    assert one != two
    assert one.api_key.startswith("mpg_")
    assert len(one.api_key) == len("mpg_") + 43
    assert len(signing_key(one.webhook_secret)) == 32
    assert one.api_key not in repr(one)
    assert one.webhook_secret not in repr(one)


def test_the_first_keys_are_the_fresh_ones() -> None:
    ring = keys(None)
    assert ring.data == {
        API_KEY: FRESH.api_key.encode(),
        WEBHOOK_SECRET: FRESH.webhook_secret.encode(),
    }
    assert ring.api_key_sha256 == (sha(FRESH.api_key),)
    assert ring.webhook_secrets == (FRESH.webhook_secret,)
    assert ring.next_change is None


def test_keys_stay() -> None:
    ring = keys(OLD, IN_USE)
    assert ring.data == OLD
    assert ring.api_key_sha256 == (sha(OLD_KEY),)
    assert ring.webhook_secrets == ("whsec_b2xk",)


def test_a_text_at_the_start_is_no_rotation() -> None:
    first = keys(None, rotation=Rotation(apiKey="one"))
    again = keys(first.data, rotation=Rotation(apiKey="one"), fresh=FreshKeys("mpg_other", "other"))
    assert again.data == first.data
    assert json.loads(first.data[APPLIED_ROTATION]) == {"apiKey": "one"}


def test_a_new_text_replaces_the_api_key_alone() -> None:
    ring = keys(OLD, IN_USE, rotation=Rotation(apiKey="one"))
    assert ring.api_key_sha256 == (sha(FRESH.api_key), sha(OLD_KEY))
    assert ring.webhook_secrets == ("whsec_b2xk",)
    assert ring.previous_valid_until == ring.next_change == NOON + OVERLAP
    assert ring.applied == Rotation(apiKey="one")
    assert OLD_KEY.encode() not in b"".join(
        ring.data.values()
    )  # Of the old key the hash is enough.


def test_a_new_text_replaces_the_webhook_secret_alone() -> None:
    ring = keys(OLD, IN_USE, rotation=Rotation(webhookSecret="one"))
    assert ring.api_key_sha256 == (sha(OLD_KEY),)
    assert ring.webhook_secrets == (FRESH.webhook_secret, "whsec_b2xk")


def test_a_text_that_is_taken_back_asks_for_nothing() -> None:
    rotated = keys(OLD, IN_USE, rotation=Rotation(apiKey="one"))
    later = keys(rotated.data, published(keys=rotated.api_key_sha256), rotation=Rotation())
    assert later.data == rotated.data


def after_rotation(now: datetime) -> tuple[Keyring, Published]:
    ring = keys(OLD, IN_USE, rotation=Rotation(apiKey="one", webhookSecret="one"), now=now)
    return ring, published(keys=ring.api_key_sha256, secrets=ring.webhook_secrets)


def test_the_old_ones_end_with_the_overlap_and_not_before() -> None:
    ring, known = after_rotation(NOON)
    rotation = Rotation(apiKey="one", webhookSecret="one")
    just_before = keys(
        ring.data, known, rotation=rotation, now=NOON + OVERLAP - timedelta(seconds=1)
    )
    assert just_before.data == ring.data
    assert just_before.api_key_sha256 == ring.api_key_sha256
    after = keys(ring.data, known, rotation=rotation, now=NOON + OVERLAP)
    assert after.api_key_sha256 == (sha(FRESH.api_key),)
    assert after.webhook_secrets == (FRESH.webhook_secret,)
    assert PREVIOUS_API_KEYS not in after.data
    assert PREVIOUS_WEBHOOK_SECRETS not in after.data


def test_two_rotations_within_the_overlap_keep_all_three() -> None:
    ring, known = after_rotation(NOON)
    newest = FreshKeys("mpg_newest", "whsec_bmV3ZXN0")
    twice = keys(ring.data, known, rotation=Rotation(apiKey="two"), fresh=newest, now=NOON + HOUR)
    assert twice.api_key_sha256 == (sha("mpg_newest"), sha(FRESH.api_key), sha(OLD_KEY))
    assert twice.next_change == NOON + OVERLAP
    assert twice.previous_valid_until == NOON + HOUR + OVERLAP
    assert twice.applied == Rotation(apiKey="two", webhookSecret="one")


def test_no_more_old_keys_than_a_merchant_file_takes() -> None:
    data: Mapping[str, bytes] = OLD
    known = IN_USE
    for number in range(12):
        fresh = FreshKeys(f"mpg_{number}", FRESH.webhook_secret)
        ring = keys(data, known, rotation=Rotation(apiKey=str(number)), fresh=fresh)
        data, known = ring.data, published(keys=ring.api_key_sha256, secrets=("whsec_b2xk",))
    assert len(ring.api_key_sha256) == MAX_PREVIOUS + 1
    assert ring.api_key_sha256[:2] == (sha("mpg_11"), sha("mpg_10"))


def test_a_rotation_before_anything_was_published_leaves_no_old_key() -> None:
    assert keys(OLD, None, rotation=Rotation(apiKey="one")).api_key_sha256 == (sha(FRESH.api_key),)


def test_without_an_overlap_the_old_key_ends_at_once() -> None:
    ring = keys(OLD, IN_USE, rotation=Rotation(apiKey="one"), overlap=timedelta(0))
    assert ring.api_key_sha256 == (sha(FRESH.api_key),)


@pytest.mark.parametrize(
    "data",
    [None, {}, {API_KEY: b"", WEBHOOK_SECRET: b" \n"}, {API_KEY: b"\xff", WEBHOOK_SECRET: b"\xff"}],
)
def test_a_secret_that_is_gone_or_emptied_is_a_rotation(data: dict[str, bytes] | None) -> None:
    ring = keys(data, IN_USE)
    assert ring.api_key_sha256 == (sha(FRESH.api_key), sha(OLD_KEY))
    assert ring.webhook_secrets == (FRESH.webhook_secret, "whsec_b2xk")


def test_a_webhook_secret_that_cannot_sign_is_replaced() -> None:
    ring = keys({**OLD, WEBHOOK_SECRET: b"whsec_!!"}, IN_USE)
    assert ring.webhook_secrets == (FRESH.webhook_secret, "whsec_b2xk")


@every_case(
    "text",
    [
        "by-hand",
        "mpg_own",
        "mpg_" + "A" * 43,
        SEAL.make_api_key("shops/another"),
        Seal(b"the secret of another operator").make_api_key(OWNER),
        OLD_KEY + "=",
        OLD_KEY[:-1],
        OLD_KEY.replace("mpg_", ""),
        "mpg_é",
    ],
    # Seals differ from process to process, and xdist compares names.
    ids=range(9),
)
def test_a_key_that_the_operator_did_not_make_for_this_merchant_counts_as_deleted(
    text: str,
) -> None:
    ring = keys({**OLD, API_KEY: text.encode()}, IN_USE)
    assert ring.api_key_sha256 == (sha(FRESH.api_key), sha(OLD_KEY))
    assert ring.data[API_KEY] == FRESH.api_key.encode()


def test_a_key_has_one_text_only() -> None:
    """The last of 43 base64 characters has spare bits: other characters there mean the same."""
    same = [
        OLD_KEY[:-1] + c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    ]
    assert [it for it in same if SEAL.made_api_key(it, OWNER)] == [OLD_KEY]


def test_a_key_from_before_keys_were_sealed_is_known_by_its_published_file() -> None:
    known = published(keys=(sha("mpg_of_an_older_operator"),), secrets=("whsec_b2xk",))
    data = {**OLD, API_KEY: b"mpg_of_an_older_operator"}
    assert keys(data, known).data == data
    assert keys(data, None).api_key_sha256 == (sha(FRESH.api_key),)


def test_a_restored_key_is_recognised_though_nothing_is_published() -> None:
    assert keys(OLD, None).data == OLD


def test_a_list_of_old_keys_that_the_operator_did_not_write_opens_nothing() -> None:
    victim = sha("a key of another merchant")
    far = "2099-01-01T00:00:00+00:00"
    for item in (
        {"value": victim, "validUntil": far},
        {"seal": SEAL.seal(PREVIOUS_API_KEYS, "shops/another", victim, far), "validUntil": far},
        {"seal": SEAL.seal(PREVIOUS_API_KEYS, OWNER, victim, far), "validUntil": far},
    ):
        data = {**OLD, PREVIOUS_API_KEYS: json.dumps([item]).encode()}
        ring = keys(data, IN_USE)
        assert ring.api_key_sha256 == (sha(OLD_KEY),)
        assert ring.next_change is None


def test_nobody_can_make_an_old_key_live_longer() -> None:
    ring, known = after_rotation(NOON)
    (item,) = json.loads(ring.data[PREVIOUS_API_KEYS])
    edited = {**item, "validUntil": "2099-01-01T00:00:00+00:00"}
    data = {**ring.data, PREVIOUS_API_KEYS: json.dumps([edited]).encode()}
    rotation = Rotation(apiKey="one", webhookSecret="one")
    again = keys(data, known, rotation=rotation, now=NOON + HOUR)
    assert again.api_key_sha256 == (sha(FRESH.api_key),)


def test_an_old_key_that_an_older_operator_wrote_down_stays_for_the_overlap_at_most() -> None:
    known = published(keys=(sha(OLD_KEY), sha("mpg_older")), secrets=("whsec_b2xk",))
    item = {"value": sha("mpg_older"), "validUntil": "2099-01-01T00:00:00+00:00"}
    data = {**OLD, PREVIOUS_API_KEYS: json.dumps([item]).encode()}
    ring = keys(data, known)
    assert ring.api_key_sha256 == (sha(OLD_KEY), sha("mpg_older"))
    assert ring.next_change == NOON + OVERLAP


def test_a_brought_key_is_known_by_its_digest_and_nothing_of_it_is_written() -> None:
    own = sha("a key of the merchant's own making, long enough")
    ring = keys(OLD, IN_USE, brought=Brought(api_key_sha256=own))
    assert ring.api_key_sha256 == (own, sha(OLD_KEY))
    assert API_KEY not in ring.data
    known = published(keys=ring.api_key_sha256, secrets=("whsec_b2xk",))
    back = keys(ring.data, known, now=NOON + HOUR)
    assert back.api_key_sha256 == (sha(FRESH.api_key), own, sha(OLD_KEY))
    assert own not in str(back.data)


def test_taking_the_old_keys_out_of_the_secret_ends_them_at_once() -> None:
    ring, known = after_rotation(NOON)
    data = {name: value for name, value in ring.data.items() if name != PREVIOUS_API_KEYS}
    rotation = Rotation(apiKey="one", webhookSecret="one")
    assert keys(data, known, rotation=rotation).api_key_sha256 == (sha(FRESH.api_key),)


@every_case(
    "text",
    [
        b"no json",
        b'{"value": 1}',
        b'[1, {"value": "x"}, {"value": "x", "validUntil": "never"}]',
        b'[{"value": "x", "validUntil": "2099-01-01T00:00:00"}]',
        b"\xff",
    ],
)
def test_a_list_of_old_keys_that_cannot_be_read_is_empty(text: bytes) -> None:
    assert keys({**OLD, PREVIOUS_API_KEYS: text}, IN_USE).api_key_sha256 == (sha(OLD_KEY),)


@pytest.mark.parametrize("text", [b"no json", b"[]", b'{"apiKey": 5}'])
def test_an_applied_rotation_that_cannot_be_read_is_none(text: bytes) -> None:
    assert keys({**OLD, APPLIED_ROTATION: text}, IN_USE).api_key_sha256 == (sha(OLD_KEY),)


def test_a_secret_of_the_merchants_own_is_not_copied_and_its_change_overlaps() -> None:
    ring = keys(OLD, IN_USE, brought=Brought("theirs-one"))
    assert WEBHOOK_SECRET not in ring.data
    assert ring.webhook_secrets == ("theirs-one", "whsec_b2xk")
    known = published(keys=(sha(OLD_KEY),), secrets=ring.webhook_secrets)
    changed = keys(ring.data, known, brought=Brought("theirs-two"), now=NOON + HOUR)
    assert changed.webhook_secrets == ("theirs-two", "theirs-one", "whsec_b2xk")
    # Back to the first one: it is not its own predecessor.
    known = published(keys=(sha(OLD_KEY),), secrets=changed.webhook_secrets)
    back = keys(changed.data, known, brought=Brought("theirs-one"), now=NOON + HOUR)
    assert back.webhook_secrets == ("theirs-one", "theirs-two", "whsec_b2xk")


def test_a_replaced_secret_of_the_merchants_own_is_nowhere_to_be_read() -> None:
    ring = keys(OLD, IN_USE, brought=Brought("S3cret-of-another-team"))
    known = published(keys=(sha(OLD_KEY),), secrets=ring.webhook_secrets)
    gone = keys(ring.data, known, now=NOON + HOUR)
    assert gone.webhook_secrets == (FRESH.webhook_secret, "S3cret-of-another-team", "whsec_b2xk")
    assert PREVIOUS_WEBHOOK_SECRETS in gone.data
    texts = b"".join(gone.data.values()).decode()
    digest = hashlib.sha256(b"S3cret-of-another-team").hexdigest()
    for leak in ("S3cret", base64.b64encode(b"S3cret-of-another-team").decode()[:8], digest[:12]):
        assert leak not in texts


def test_the_plan_settles() -> None:
    """With what it wrote and published, it asks for the same again."""
    ring, known = after_rotation(NOON)
    rotation = Rotation(apiKey="one", webhookSecret="one")
    other = FreshKeys("mpg_never", "whsec_" + base64.b64encode(b"never").decode())
    again = keys(ring.data, known, rotation=rotation, fresh=other, now=NOON + HOUR)
    assert again.data == ring.data
    assert again.api_key_sha256 == ring.api_key_sha256
    assert again.webhook_secrets == ring.webhook_secrets
