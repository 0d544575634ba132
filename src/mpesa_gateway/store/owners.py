"""Tables `merchant_owners` and `merchant_adoptions`: which object of a name was the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import psycopg

from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store import payment_keys
from mpesa_gateway.store.pool import Connection


def claim_names(conn: Connection, uids: Mapping[str, str], now: datetime) -> dict[str, str]:
    """Return the first object's uid for each name; who is first to ask is the first object.

    Raises UnavailableError while the schema is older.
    """
    names = sorted(uids)
    values = {"names": names, "uids": [uids[name] for name in names], "now": now}
    try:
        conn.execute(
            """
            INSERT INTO merchant_owners (merchant, uid, since)
            SELECT name, uid, %(now)s
              FROM unnest(%(names)s::text[], %(uids)s::text[]) AS asked (name, uid)
                ON CONFLICT (merchant) DO NOTHING
            """,
            values,
        )
    except psycopg.errors.UndefinedTable as error:
        raise UnavailableError("the schema has no owners of names yet") from error
    cursor = conn.execute(
        "SELECT merchant, uid FROM merchant_owners WHERE merchant = ANY(%(names)s)", values
    )
    return dict(cursor.fetchall())


def lock_owner(conn: Connection, name: str) -> str | None:
    """Return the uid whose history has the plain name, locked; None when nobody has one."""
    cursor = conn.execute(
        "SELECT uid FROM merchant_owners WHERE merchant = %(name)s FOR UPDATE", {"name": name}
    )
    row = cursor.fetchone()
    return None if row is None else str(row[0])


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """The hand-over of a history: of which name, to which object, by whom and why."""

    name: str
    from_uid: str
    to_uid: str
    by: str
    reason: str


def hand_over(conn: Connection, adoption: Adoption, now: datetime) -> None:
    """Give the plain name's history to another object, and store who did it."""
    values = {**adoption.__dict__, "now": now}
    conn.execute(
        "UPDATE merchant_owners SET uid = %(to_uid)s, since = %(now)s WHERE merchant = %(name)s",
        values,
    )
    conn.execute(
        """
        INSERT INTO merchant_adoptions (merchant, from_uid, to_uid, by, reason, at)
        VALUES (%(name)s, %(from_uid)s, %(to_uid)s, %(by)s, %(reason)s, %(now)s)
        """,
        values,
    )


def move_payments(conn: Connection, *, ledger: str, to_ledger: str) -> int:
    """Move the payments of one ledger into another with their deliveries; how many.

    A payment whose idempotency key stands in both stays where it is: a key means one payment. So
    does one of an order that is paid, or may be, in both.
    """
    values = {"ledger": ledger, "to_ledger": to_ledger}
    cursor = conn.execute(
        """
        UPDATE transactions AS t
           SET merchant = %(to_ledger)s
         WHERE merchant = %(ledger)s
           AND NOT EXISTS (SELECT FROM transactions AS other
                            WHERE other.merchant = %(to_ledger)s
                              AND (other.idempotency_key = t.idempotency_key
                                   OR other.order_id = t.order_id
                                  AND other.status <> 'FAILED'
                                  AND t.status <> 'FAILED'))
           AND NOT EXISTS (SELECT FROM payment_keys AS other
                            WHERE other.merchant = %(to_ledger)s
                              AND (other.idempotency_key = t.idempotency_key
                                   OR other.order_id = t.order_id
                                  AND other.status <> 'FAILED'
                                  AND t.status <> 'FAILED'))
        """,
        values,
    )
    conn.execute(
        """
        UPDATE deliveries AS d
           SET merchant = %(to_ledger)s
          FROM transactions AS t
         WHERE t.id = d.transaction_id
           AND t.merchant = %(to_ledger)s
           AND d.merchant = %(ledger)s
        """,
        values,
    )
    payment_keys.move(conn, ledger=ledger, to_ledger=to_ledger)
    return cursor.rowcount


def count_payments(conn: Connection, ledger: str) -> int:
    """Return how many payments stand in a ledger."""
    cursor = conn.execute(
        "SELECT count(*) FROM transactions WHERE merchant = %(ledger)s", {"ledger": ledger}
    )
    row = cursor.fetchone()
    assert row is not None
    return int(row[0])
