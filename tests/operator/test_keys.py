"""The generated keys: made once, rotated when asked, the old ones valid for the overlap."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from harness.operating import FRESH, HOUR, NOON, sha
from mpesa_gateway.domain.merchant import Credentials
from mpesa_gateway.domain.signature import signing_key
from mpesa_operator.entry import Published
from mpesa_operator.keys import (
    API_KEY,
    APPLIED_ROTATION,
    MAX_PREVIOUS,
    PREVIOUS_API_KEYS,
    PREVIOUS_WEBHOOK_SECRETS,
    WEBHOOK_SECRET,
    FreshKeys,
    Keyring,
    fresh_keys,
    plan_keys,
)
from mpesa_operator.spec import Rotation

OLD = {API_KEY: b"mpg_old", WEBHOOK_SECRET: b"whsec_b2xk"}
OVERLAP = timedelta(hours=24)


def published(*, keys: tuple[str, ...] = (), secrets: tuple[str, ...] = ()) -> Published:
    return Published(Credentials("k", "s", "p"), keys, secrets)


IN_USE = published(keys=(sha("mpg_old"),), secrets=("whsec_b2xk",))


def keys(
    data: Mapping[str, bytes] | None, known: Published | None = None, **changes: Any
) -> Keyring:
    values: dict[str, Any] = {
        "rotation": Rotation(),
        "external": None,
        "fresh": FRESH,
        "now": NOON,
        "overlap": OVERLAP,
    }
    return plan_keys(data, known, **{**values, **changes})


def test_fresh_keys_are_long_different_and_usable() -> None:
    one, two = fresh_keys(), fresh_keys()
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
    assert ring.api_key_sha256 == (sha("mpg_old"),)
    assert ring.webhook_secrets == ("whsec_b2xk",)


def test_a_text_at_the_start_is_no_rotation() -> None:
    first = keys(None, rotation=Rotation(apiKey="one"))
    again = keys(first.data, rotation=Rotation(apiKey="one"), fresh=FreshKeys("mpg_other", "other"))
    assert again.data == first.data
    assert json.loads(first.data[APPLIED_ROTATION]) == {"apiKey": "one"}


def test_a_new_text_replaces_the_api_key_alone() -> None:
    ring = keys(OLD, IN_USE, rotation=Rotation(apiKey="one"))
    assert ring.api_key_sha256 == (sha(FRESH.api_key), sha("mpg_old"))
    assert ring.webhook_secrets == ("whsec_b2xk",)
    assert ring.previous_valid_until == ring.next_change == NOON + OVERLAP
    assert ring.applied == Rotation(apiKey="one")
    assert b"mpg_old" not in b"".join(ring.data.values())  # Of the old key the hash is enough.


def test_a_new_text_replaces_the_webhook_secret_alone() -> None:
    ring = keys(OLD, IN_USE, rotation=Rotation(webhookSecret="one"))
    assert ring.api_key_sha256 == (sha("mpg_old"),)
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
    assert twice.api_key_sha256 == (sha("mpg_newest"), sha(FRESH.api_key), sha("mpg_old"))
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
    assert ring.api_key_sha256 == (sha(FRESH.api_key), sha("mpg_old"))
    assert ring.webhook_secrets == (FRESH.webhook_secret, "whsec_b2xk")


def test_a_webhook_secret_that_cannot_sign_is_replaced() -> None:
    ring = keys({**OLD, WEBHOOK_SECRET: b"whsec_!!"}, IN_USE)
    assert ring.webhook_secrets == (FRESH.webhook_secret, "whsec_b2xk")


def test_a_key_edited_by_hand_counts_and_the_old_one_stays_for_the_overlap() -> None:
    ring = keys({**OLD, API_KEY: b"by-hand\n"}, IN_USE)
    assert ring.api_key_sha256 == (sha("by-hand"), sha("mpg_old"))


def test_taking_the_old_keys_out_of_the_secret_ends_them_at_once() -> None:
    ring, known = after_rotation(NOON)
    data = {name: value for name, value in ring.data.items() if name != PREVIOUS_API_KEYS}
    rotation = Rotation(apiKey="one", webhookSecret="one")
    assert keys(data, known, rotation=rotation).api_key_sha256 == (sha(FRESH.api_key),)


@pytest.mark.parametrize(
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
    assert keys({**OLD, PREVIOUS_API_KEYS: text}, IN_USE).api_key_sha256 == (sha("mpg_old"),)


@pytest.mark.parametrize("text", [b"no json", b"[]", b'{"apiKey": 5}'])
def test_an_applied_rotation_that_cannot_be_read_is_none(text: bytes) -> None:
    assert keys({**OLD, APPLIED_ROTATION: text}, IN_USE).api_key_sha256 == (sha("mpg_old"),)


def test_a_secret_of_the_merchants_own_is_not_copied_and_its_change_overlaps() -> None:
    ring = keys(OLD, IN_USE, external="theirs-one")
    assert WEBHOOK_SECRET not in ring.data
    assert ring.webhook_secrets == ("theirs-one", "whsec_b2xk")
    known = published(keys=(sha("mpg_old"),), secrets=ring.webhook_secrets)
    changed = keys(ring.data, known, external="theirs-two", now=NOON + HOUR)
    assert changed.webhook_secrets == ("theirs-two", "theirs-one", "whsec_b2xk")
    # Back to the first one: it is not its own predecessor.
    known = published(keys=(sha("mpg_old"),), secrets=changed.webhook_secrets)
    back = keys(changed.data, known, external="theirs-one", now=NOON + HOUR)
    assert back.webhook_secrets == ("theirs-one", "theirs-two", "whsec_b2xk")


def test_the_plan_settles() -> None:
    """With what it wrote and published, it asks for the same again."""
    ring, known = after_rotation(NOON)
    rotation = Rotation(apiKey="one", webhookSecret="one")
    other = FreshKeys("mpg_never", "whsec_" + base64.b64encode(b"never").decode())
    again = keys(ring.data, known, rotation=rotation, fresh=other, now=NOON + HOUR)
    assert again.data == ring.data
    assert again.api_key_sha256 == ring.api_key_sha256
    assert again.webhook_secrets == ring.webhook_secrets
