"""A name that goes to somebody else shows nothing of the one before; the platform hands it over.

Attacks of the next owner of a name, against a real gateway whose merchant file it has.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harness.gateway import Gateway, Gateways
from harness.merchants import write_merchant
from harness.receiver import Answer
from harness.waiting import wait_for
from mpesa_gateway.errors import NotFoundError
from mpesa_gateway.usecases.ownership import Adopted, Ledgers, adopt_history

NAME = "shops/duka"
FIRST, NEXT = "11111111-0000-0000-0000-000000000001", "22222222-0000-0000-0000-000000000002"
PHONE, OTHER_PHONE = "254712340000", "254712341032"


class Names:
    """The merchant file of one name, as the operator writes it for one object after the other."""

    def __init__(self, gateway: Gateway, directory: Path) -> None:
        self.gateway, self.directory = gateway, directory

    def belongs_to(self, uid: str | None, **changes: Any) -> str:
        """The name belongs to that object from now on; the object's API key."""
        key = f"key-of-{uid}"
        known = {"uid": uid} if uid else {}
        secret = f"secret-of-{uid}"
        file = {"webhook": {"secrets": [secret]}, **known, **changes}
        write_merchant(self.directory, "shops.duka.json", name=NAME, key=key, **file)
        self.gateway.services.merchants.refresh()
        return key

    def goes(self) -> None:
        (self.directory / "shops.duka.json").unlink()
        self.gateway.services.merchants.refresh()

    def adopt(self, uid: str = NEXT) -> Adopted:
        gateway = self.gateway
        done = adopt_history(
            gateway.pool, NAME, uid, by="jane", reason="OPS-71", now=gateway.clock()
        )
        # What a running process does within five seconds.
        gateway.services.merchants._ask_owners_at = 0.0
        gateway.services.merchants.refresh()
        return done


@pytest.fixture
def names(gateways: Gateways, tmp_path: Path) -> Iterator[Names]:
    with gateways.start(merchants_dir=str(tmp_path)) as gateway:
        yield Names(gateway, tmp_path)


def listed(gateway: Gateway, key: str, **filters: Any) -> list[str]:
    answer = gateway.get("/transactions", key=key, **filters)
    assert answer.status_code == 200, answer.text
    return [item["transaction_id"] for item in answer.json()["items"]]


def settled(gateway: Gateway, count: int = 1) -> None:
    """That many payments have ended, and what follows is done."""

    def done() -> bool:
        gateway.work()
        rows = gateway.rows("SELECT count(*) AS ended FROM transactions WHERE status <> 'PENDING'")
        return bool(rows[0]["ended"] >= count)

    wait_for(done, what=f"{count} payments to end")
    gateway.work()


def told(gateway: Gateway) -> list[dict[str, Any]]:
    """The bodies of the webhooks that came."""
    return [json.loads(request.body) for request in gateway.receiver.requests]


def test_the_next_owner_of_a_name_sees_nothing_of_the_one_before(names: Names) -> None:
    gateway, key = names.gateway, names.belongs_to(FIRST)
    paid = gateway.pay(key=key, phone=PHONE)
    again = gateway.pay(key=key, phone=OTHER_PHONE)
    gateway.work()
    cursor = gateway.get("/transactions", key=key, limit=1).json()["next"]
    names.goes()
    key = names.belongs_to(NEXT)
    assert listed(gateway, key) == []
    assert listed(gateway, key, phone=PHONE) == []
    assert gateway.get("/transactions", key=key, cursor=cursor).status_code == 400
    for path in (paid, again, f"{paid}/deliveries", f"{paid}/timeline"):
        assert gateway.get(f"/transactions/{path}", key=key).status_code == 404, path
    assert redeliver(gateway, paid, key) == 404


def redeliver(gateway: Gateway, paid: str, key: str) -> int:
    url = f"{gateway.url}/transactions/{paid}/redeliver"
    return gateway.session.post(url, headers={"X-Internal-Secret": key}, timeout=30).status_code


def test_an_idempotency_key_of_the_one_before_is_no_replay(names: Names) -> None:
    gateway, key = names.gateway, names.belongs_to(FIRST)
    same = str(uuid.uuid4())
    before = gateway.pay(key=key, idempotency_key=same)
    settled(gateway)
    key = names.belongs_to(NEXT)
    answer = gateway.initiate(key=key, idempotency_key=same, phone=OTHER_PHONE)
    assert answer.status_code == 201, answer.text
    assert answer.json()["transaction_id"] != before
    assert listed(gateway, key) == [answer.json()["transaction_id"]]
    # Nobody reads the mark of the owner: the name is the merchant's own.
    view = gateway.get(f"/transactions/{answer.json()['transaction_id']}", key=key).json()
    assert view["merchant"] == NAME
    settled(gateway, 2)
    assert [it["merchant"] for it in told(gateway)][-1] == NAME


def test_webhooks_of_the_one_before_are_neither_signed_nor_sent_for_the_next(names: Names) -> None:
    gateway, key = names.gateway, names.belongs_to(FIRST)
    gateway.receiver.default = Answer(status=503)
    gateway.pay(key=key)
    settled(gateway)
    assert len(told(gateway)) == 1
    names.belongs_to(NEXT)
    gateway.receiver.default = Answer()
    gateway.clock.advance(minutes=10)
    gateway.sweep()
    gateway.work()
    assert len(told(gateway)) == 1
    (waiting,) = gateway.rows("SELECT state, attempts_made FROM deliveries")
    assert waiting == {"state": "PENDING", "attempts_made": 1}


def test_what_the_platform_hands_over_is_the_next_owners_own(names: Names) -> None:
    gateway, key = names.gateway, names.belongs_to(FIRST)
    gateway.receiver.default = Answer(status=503)
    before = gateway.pay(key=key)
    settled(gateway)
    key = names.belongs_to(NEXT)
    own = gateway.pay(key=key, phone=OTHER_PHONE)
    settled(gateway, 2)
    gateway.receiver.default, gateway.receiver.requests = Answer(), []
    assert names.adopt() == Adopted(moved=1, left=0)
    assert listed(gateway, key) == [own, before]
    gateway.clock.advance(minutes=10)
    gateway.sweep()
    gateway.work()
    assert {it["transaction_id"] for it in told(gateway)} == {own, before}
    assert {it["merchant"] for it in gateway.rows("SELECT merchant FROM deliveries")} == {NAME}
    # Who did it, and why, is there to be read and cannot be changed.
    (said,) = gateway.rows('SELECT from_uid, to_uid, "by", reason FROM merchant_adoptions')
    assert said == {"from_uid": FIRST, "to_uid": NEXT, "by": "jane", "reason": "OPS-71"}
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        gateway.execute("DELETE FROM merchant_adoptions")
    # The one before, should it come back, has nothing left here.
    assert listed(gateway, names.belongs_to(FIRST)) == []
    assert names.adopt(NEXT) == Adopted(moved=0, left=0)
    assert len(gateway.rows("SELECT FROM merchant_adoptions")) == 1


def test_one_key_in_both_histories_is_still_two_payments(names: Names) -> None:
    gateway, key = names.gateway, names.belongs_to(FIRST)
    same = str(uuid.uuid4())
    before = gateway.pay(key=key, idempotency_key=same)
    settled(gateway)
    key = names.belongs_to(NEXT)
    own = gateway.pay(key=key, idempotency_key=same, phone=OTHER_PHONE)
    assert names.adopt() == Adopted(moved=0, left=1)
    # The history's own answers the key; the other is not lost: it settles and is told.
    assert listed(gateway, key) == [before]
    settled(gateway, 2)
    assert own in {it["transaction_id"] for it in told(gateway)}


def test_one_order_in_both_histories_is_paid_in_the_own_one(names: Names) -> None:
    gateway, key = names.gateway, names.belongs_to(FIRST)
    before = gateway.pay(key=key, order_id="INV-1")
    settled(gateway)
    key = names.belongs_to(NEXT)
    own = gateway.pay(key=key, phone=OTHER_PHONE, order_id="INV-1")
    assert names.adopt() == Adopted(moved=0, left=1)
    assert listed(gateway, key, order_id="INV-1") == [before]
    settled(gateway, 2)
    assert own in {it["transaction_id"] for it in told(gateway)}


def test_payments_from_before_uids_belong_to_the_first_object_that_has_one(names: Names) -> None:
    gateway, key = names.gateway, names.belongs_to(None)
    before = gateway.pay(key=key)
    gateway.work()
    assert listed(gateway, names.belongs_to(FIRST)) == [before]
    assert listed(gateway, names.belongs_to(NEXT)) == []


def test_a_merchant_without_a_uid_goes_on_under_its_name(names: Names) -> None:
    gateway, key = names.gateway, names.belongs_to(None)
    before = gateway.pay(key=key)
    names.goes()
    assert listed(gateway, names.belongs_to(None)) == [before]
    assert gateway.rows("SELECT FROM merchant_owners") == []


def test_a_payment_moves_to_no_other_merchant(names: Names) -> None:
    gateway, key = names.gateway, names.belongs_to(FIRST)
    gateway.pay(key=key)
    gateway.execute("UPDATE transactions SET merchant = merchant || '#x'")
    for other in ("shops/other", "shops/duka2", "default", "shops/other#x"):
        with pytest.raises(psycopg.errors.RaiseException, match="cannot change"):
            gateway.execute("UPDATE transactions SET merchant = %s", other)


def test_a_name_without_a_history_cannot_be_adopted(names: Names) -> None:
    with pytest.raises(NotFoundError):
        names.adopt()


def test_while_postgres_does_not_answer_a_new_owner_is_not_served(
    gateways: Gateways, tmp_path: Path
) -> None:
    """Whose history the name has is not guessed; who is known already goes on."""
    with gateways.start(merchants_dir=str(tmp_path)) as gateway:
        found = Ledgers(gateway.pool, gateway.clock)
        assert found({NAME: FIRST}) == {NAME: NAME}
        gateway.execute("ALTER TABLE merchant_owners RENAME TO away")
        assert found({NAME: FIRST}) == {NAME: NAME}
        assert Ledgers(gateway.pool, gateway.clock)({NAME: NEXT}) == {}
        names = Names(gateway, tmp_path)
        key = names.belongs_to(NEXT)
        assert gateway.get("/transactions", key=key).status_code == 401
        assert list(gateway.services.merchants.current().errors) == ["shops.duka.json"]
        gateway.execute("ALTER TABLE away RENAME TO merchant_owners")
        wait_for(
            lambda: gateway.get("/transactions", key=key).status_code == 200,
            what="the merchant, without another change of its file",
        )
