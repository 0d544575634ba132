"""The hold on new payments, and what a process writes again, step by step."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis
import requests

from harness.bodies import callback_body
from harness.callbacks import applied, paid_silently
from harness.gateway import Gateway
from harness.losing import lose
from mpesa_gateway.clients.high_water import HighWater
from mpesa_gateway.domain.ids import TokenKeys
from mpesa_gateway.store import recovery
from mpesa_gateway.store.recovery import Hold

PHONE, ANOTHER = "254712340000", "254712350000"
SILENT = "254712344042"
KEY = str(uuid.uuid4())


def is_held(answer: requests.Response) -> bool:
    return answer.status_code == 503 and answer.json()["type"].endswith("/recovery")


def hold_by_hand(gateway: Gateway) -> None:
    with gateway.pool.connection("test") as conn:
        recovery.write_hold(conn, Hold(uuid.uuid4(), gateway.clock(), "wanjiru", "a restore"))


def accept(gateway: Gateway) -> int:
    with gateway.pool.connection("test") as conn:
        return recovery.accept_holds(conn, "wanjiru", "compared", gateway.clock())


def lost_rows(gateway: Gateway) -> list[tuple[str, bool]]:
    rows = gateway.rows("SELECT kind, written_again FROM lost_rows ORDER BY kind")
    return [(row["kind"], row["written_again"]) for row in rows]


def test_a_hold_by_hand_stops_unknown_keys_and_replays_known_ones(gateway: Gateway) -> None:
    first = gateway.initiate(PHONE, idempotency_key=KEY)
    hold_by_hand(gateway)

    refused = gateway.initiate(ANOTHER)

    assert is_held(refused)
    assert refused.headers["Retry-After"] == "30"
    assert gateway.simulator.ledger(phone=ANOTHER)["pushes"] == []
    again = gateway.initiate(PHONE, idempotency_key=KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    assert accept(gateway) == 1
    assert gateway.initiate(ANOTHER).status_code == 201


def test_a_process_that_obeys_a_hold_writes_it_to_a_database_that_predates_it(
    gateway: Gateway,
) -> None:
    hold_by_hand(gateway)
    gateway.services.recovery.examine()
    gateway.execute("DELETE FROM recovery_holds")

    assert is_held(gateway.initiate(PHONE)), "before it has looked again"
    gateway.services.recovery.examine()

    (row,) = gateway.rows("SELECT opened_by, reason FROM recovery_holds")
    assert row == {"opened_by": "wanjiru", "reason": "a restore"}
    accept(gateway)
    gateway.services.recovery.examine()
    assert gateway.initiate(PHONE).status_code == 201


def test_a_payment_that_is_gone_is_noticed_and_written_again_with_its_callback(
    gateway: Gateway,
) -> None:
    transaction_id = gateway.pay(PHONE, idempotency_key=KEY)
    applied(gateway, transaction_id)
    gateway.services.recovery.examine()
    lose(gateway, transaction_id)

    gateway.services.recovery.examine()

    assert lost_rows(gateway) == [
        ("callback", True),
        ("outcome", True),
        ("payment", True),
        ("webhook", False),
    ]
    again = gateway.initiate(PHONE, idempotency_key=KEY)
    assert again.status_code == 201
    assert again.json()["transaction_id"] == transaction_id
    assert len(gateway.simulator.ledger(phone=PHONE)["pushes"]) == 1
    gateway.sweep()
    gateway.clock.advance(seconds=2)
    gateway.sweep()
    assert gateway.transaction(transaction_id)["status"] == "COMPLETED"
    assert is_held(gateway.initiate(ANOTHER))


def test_a_key_that_is_repeated_before_anybody_noticed_is_not_pushed_again(
    gateway: Gateway,
) -> None:
    """The request itself meets the database that lost its payment."""
    transaction_id = gateway.pay(PHONE, idempotency_key=KEY)
    applied(gateway, transaction_id)
    gateway.services.recovery.examine()
    lose(gateway, transaction_id)

    answer = gateway.initiate(PHONE, idempotency_key=KEY)

    assert answer.status_code in (201, 503), answer.text
    assert len(gateway.simulator.ledger(phone=PHONE)["pushes"]) == 1


def test_to_examine_again_and_again_changes_nothing(gateway: Gateway) -> None:
    transaction_id = gateway.pay(PHONE)
    applied(gateway, transaction_id)
    for _ in range(3):
        gateway.services.recovery.examine()
        gateway.clock.advance(seconds=40)
    gateway.execute("VACUUM FULL transactions")
    gateway.services.recovery.examine()

    assert lost_rows(gateway) == []
    assert gateway.rows("SELECT * FROM recovery_holds") == []
    assert gateway.initiate(ANOTHER).status_code == 201


def test_what_is_older_than_a_minute_is_forgotten_once_the_database_was_seen_whole(
    gateway: Gateway,
) -> None:
    old = gateway.pay(PHONE)
    gateway.services.recovery.examine()
    gateway.clock.advance(seconds=61)
    memory = gateway.services.recovery.acknowledged
    assert [str(it.intent.id) for it in memory.copy().payments] == [old], "nobody has looked"
    gateway.services.recovery.examine()
    assert memory.copy().payments == []


def test_a_payment_whose_key_made_another_one_meanwhile_is_listed_only(gateway: Gateway) -> None:
    transaction_id, _ = paid_silently(gateway, SILENT, idempotency_key=KEY)
    gateway.services.recovery.examine()
    row = lose(gateway, transaction_id)
    other = paid_elsewhere(gateway, row)

    gateway.services.recovery.examine()

    assert ("payment", False) in lost_rows(gateway)
    rows = gateway.rows("SELECT internal_transaction_id AS id FROM transactions")
    assert [str(it["id"]) for it in rows] == [other]


def test_a_payment_whose_order_has_another_one_now_is_listed_only(gateway: Gateway) -> None:
    transaction_id, _ = paid_silently(gateway, SILENT, order_id="INV-1")
    gateway.services.recovery.examine()
    row = lose(gateway, transaction_id)
    other = paid_elsewhere(gateway, {**row, "idempotency_key": uuid.uuid4()})

    gateway.services.recovery.examine()

    assert ("payment", False) in lost_rows(gateway)
    rows = gateway.rows("SELECT internal_transaction_id AS id FROM transactions")
    assert [str(it["id"]) for it in rows] == [other]


def paid_elsewhere(gateway: Gateway, row: dict[str, Any]) -> str:
    """The same key under another id, as a process makes it that knew nothing of the first."""
    other = str(uuid.uuid4())
    names = [name for name in row if name not in ("id", "internal_transaction_id")]
    values = [row[name] for name in names]
    names.append("internal_transaction_id")
    gateway.execute(
        f"INSERT INTO transactions ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})",
        *(None if it == row["checkout_request_id"] else it for it in values),
        other,
    )
    return other


def test_a_push_under_way_whose_row_is_gone_moves_no_other_payment(gateway: Gateway) -> None:
    """Row numbers are given out again after a fail-over."""
    transaction_id, path = paid_silently(gateway, SILENT)
    row = lose(gateway, transaction_id)
    gateway.execute(f"ALTER TABLE transactions ALTER COLUMN id RESTART WITH {row['id']}")
    other = gateway.pay("254712354042")
    (before,) = gateway.rows("SELECT * FROM transactions")
    assert before["id"] == row["id"]

    gateway.post(path, callback_body(row["checkout_request_id"]))
    gateway.services.recovery.examine()
    gateway.sweep()

    (after,) = gateway.rows("SELECT * FROM transactions WHERE internal_transaction_id = %s", other)
    assert after["checkout_request_id"] == before["checkout_request_id"]
    assert after["status"] == "PENDING"


def mark(client: redis.Redis, key: bytes = b"k" * 32, name: str = "one") -> HighWater:
    return HighWater(client, TokenKeys((key,)), f"postgresql://user@db/{name}?sslmode=require")


def test_the_mark_is_believed_only_with_the_mac_of_a_key_and_for_its_database(
    redis_url: str,
) -> None:
    payment = uuid.uuid4()
    with redis.Redis.from_url(redis_url) as client:
        assert mark(client).read() is None
        mark(client).write(payment)
        assert mark(client).read() == payment
        assert mark(client, b"o" * 32).read() is None
        assert mark(client, name="two").read() is None
        (key,) = client.keys("mpesa:acknowledged:*")
        client.set(key, b"nonsense")
        assert mark(client).read() is None


@pytest.mark.parametrize("use", [HighWater.read, lambda it: it.write(uuid.uuid4())])
def test_without_redis_or_a_key_there_is_no_mark(use: Callable[[HighWater], Any]) -> None:
    nowhere = redis.Redis(port=1, socket_connect_timeout=0.1)
    assert use(mark(nowhere)) is None
    assert use(HighWater(nowhere, TokenKeys(), "postgresql://db/one")) is None
    nowhere.close()


def test_a_fresh_process_that_finds_a_mark_which_is_not_in_the_database_holds(
    gateway: Gateway,
) -> None:
    config = gateway.services.config
    HighWater(gateway.services.redis, config.token_keys, config.database_url).write(uuid.uuid4())
    gateway.services.recovery.forget()

    assert is_held(gateway.initiate(PHONE)) or is_held(gateway.initiate(PHONE))
    assert gateway.simulator.ledger(phone=PHONE)["pushes"] == []
    accept(gateway)
    gateway.services.recovery.examine()
    assert gateway.initiate(PHONE).status_code == 201
