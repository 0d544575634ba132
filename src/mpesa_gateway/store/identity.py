"""Which database this is, and whether it still holds what a process has seen committed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg import Error, errors
from psycopg.rows import class_row

from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store.pool import Connection

# A callback on the plain path has no index to be found by: so many of the newest are looked at.
PLAIN_CALLBACKS = 10_000


@dataclass(frozen=True)
class Incarnation:
    """What changes with every start of a server, and with every database made anew.

    While it stays the same, nothing can have been lost: not in a transaction, not by a vacuum.
    """

    started_at: datetime
    database: int
    transactions: int


@dataclass(frozen=True)
class Marks:
    """The newest payment and callback that a process saw committed. None: none was there."""

    payment: uuid.UUID | None = None
    callback: int | None = None
    callback_sha256: bytes | None = None


@dataclass(frozen=True)
class Sight:
    """One look at the database: its incarnation, whether the old marks are there, and new ones."""

    incarnation: Incarnation
    is_standby: bool
    has_payment: bool
    has_callback: bool
    marks: Marks


@dataclass(frozen=True)
class History:
    """Where a server stands in its log. Reading it needs no rights on PostgreSQL itself."""

    system: str
    timeline: int
    position: int

    def continues(self, before: History) -> bool:
        """Whether nothing before that position can be missing: one server, one line, further on."""
        return (self.system, self.timeline) == (before.system, before.timeline) and (
            self.position >= before.position
        )


# The first columns of a statement that says which database it ran on.
_SELECT_INCARNATION: LiteralString = """
SELECT pg_postmaster_start_time() AS started_at,
       (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database,
       to_regclass('transactions')::oid::bigint AS transactions
"""


def look(conn: Connection, marks: Marks) -> Sight:
    """Look for the marks, and at the newest rows. Each part is one probe of an index."""
    row = conn.execute(
        _SELECT_INCARNATION  # noqa: S608 - both are constants
        + """,
               pg_is_in_recovery(),
               %(payment)s::uuid IS NULL OR EXISTS (
                   SELECT FROM transactions WHERE internal_transaction_id = %(payment)s),
               %(callback)s::bigint IS NULL OR EXISTS (
                   SELECT FROM callbacks
                    WHERE id = %(callback)s AND body_sha256 = %(callback_sha256)s),
               (SELECT internal_transaction_id FROM transactions
                 ORDER BY internal_transaction_id DESC LIMIT 1),
               newest.id, newest.body_sha256
          FROM (VALUES (1)) AS one
          LEFT JOIN LATERAL (
                   SELECT id, body_sha256 FROM callbacks ORDER BY id DESC LIMIT 1) AS newest ON true
        """,
        vars(marks),
    ).fetchone()
    assert row is not None
    return Sight(Incarnation(*row[:3]), row[3], row[4], row[5], Marks(*row[6:]))


@dataclass(frozen=True)
class Admission:
    """What decides in one transaction whether a new payment may start in it."""

    incarnation: Incarnation
    is_held: bool
    has_payment: bool


def read_admission(conn: Connection, payment: uuid.UUID | None) -> Admission:
    """Read it on the connection that will write the payment: no other one can answer for it."""
    try:
        row = conn.execute(
            _SELECT_INCARNATION  # noqa: S608 - both are constants
            + """,
                   EXISTS (SELECT FROM recovery_holds WHERE accepted_at IS NULL),
                   %(payment)s::uuid IS NULL OR EXISTS (
                       SELECT FROM transactions WHERE internal_transaction_id = %(payment)s)
            """,
            {"payment": payment},
        ).fetchone()
    except errors.UndefinedTable as error:
        raise UnavailableError("the schema is behind: run mpesa-gateway migrate") from error
    assert row is not None
    return Admission(Incarnation(*row[:3]), row[3], row[4])


def find_history(conn: Connection) -> History | None:
    """Return where the server stands; None where a managed service does not say.

    The timeline comes from the name of the log's current file: that of `pg_control_checkpoint()`
    follows a promotion minutes later.
    """
    cursor = conn.cursor(row_factory=class_row(History))
    try:
        cursor.execute(
            """
            SELECT s.system_identifier::text AS system,
                   ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
                       AS timeline,
                   (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS position
              FROM pg_control_system() AS s
            """
        )
        return cursor.fetchone()
    except (errors.OperationalError, errors.InterfaceError):
        raise
    except Error:
        return None


def list_missing_payments(conn: Connection, payments: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Return those that are not in the database."""
    cursor = conn.execute(
        """
        SELECT asked.id
          FROM unnest(%(payments)s::uuid[]) AS asked (id)
         WHERE NOT EXISTS (
                   SELECT FROM transactions WHERE internal_transaction_id = asked.id)
        """,
        {"payments": list(payments)},
    )
    return {row[0] for row in cursor}


def list_missing_callbacks(
    conn: Connection, callbacks: Sequence[tuple[uuid.UUID | None, bytes]]
) -> set[tuple[uuid.UUID | None, bytes]]:
    """Return those that are not in the inbox, by the payment that the token names and the digest.

    On the plain path, where there is no payment, only the newest rows are looked at.
    """
    cursor = conn.execute(
        """
        SELECT asked.payment, asked.sha256
          FROM unnest(%(payments)s::uuid[], %(sha256s)s::bytea[]) AS asked (payment, sha256)
         WHERE CASE WHEN asked.payment IS NULL THEN NOT EXISTS (
                   SELECT FROM callbacks
                    WHERE id > (SELECT coalesce(max(id), 0) FROM callbacks) - %(plain)s
                      AND NOT by_token AND orphan_of IS NULL AND body_sha256 = asked.sha256)
               ELSE NOT EXISTS (
                   SELECT FROM callbacks c
                     JOIN transactions t ON t.id = c.transaction_id
                    WHERE t.internal_transaction_id = asked.payment
                      AND (c.by_token OR NOT c.by_token) AND c.body_sha256 = asked.sha256)
                AND NOT EXISTS (
                   SELECT FROM callbacks
                    WHERE orphan_of = asked.payment AND body_sha256 = asked.sha256) END
        """,
        {
            "payments": [payment for payment, _ in callbacks],
            "sha256s": [sha256 for _, sha256 in callbacks],
            "plain": PLAIN_CALLBACKS,
        },
    )
    return {(row[0], row[1]) for row in cursor}


def list_missing_webhooks(conn: Connection, webhooks: Sequence[tuple[uuid.UUID, str]]) -> set[str]:
    """Return the ids of those, given with their payments, that have no delivery."""
    cursor = conn.execute(
        """
        SELECT asked.webhook_id
          FROM unnest(%(payments)s::uuid[], %(webhook_ids)s::text[]) AS asked (payment, webhook_id)
         WHERE NOT EXISTS (
                   SELECT FROM transactions t
                     JOIN deliveries d ON d.transaction_id = t.id
                    WHERE t.internal_transaction_id = asked.payment
                      AND d.webhook_id = asked.webhook_id)
        """,
        {
            "payments": [payment for payment, _ in webhooks],
            "webhook_ids": [webhook_id for _, webhook_id in webhooks],
        },
    )
    return {row[0] for row in cursor}


def list_unanswered(conn: Connection, payments: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Return those whose push has no outcome in the database."""
    cursor = conn.execute(
        """
        SELECT internal_transaction_id
          FROM transactions
         WHERE internal_transaction_id = ANY(%(payments)s) AND response_status IS NULL
        """,
        {"payments": list(payments)},
    )
    return {row[0] for row in cursor}


def find_row(conn: Connection, payment: uuid.UUID) -> int | None:
    """Return the row of a payment in this database.

    Row numbers are good for one database: after a fail-over that lost rows, another payment may
    have the number.
    """
    found = conn.execute(
        "SELECT id FROM transactions WHERE internal_transaction_id = %(payment)s",
        {"payment": payment},
    ).fetchone()
    return found[0] if found else None
