"""The inbox's one statement: whose the callbacks are, whether they may be kept, and their rows.

One round trip and one commit, because most of what an answer waits for is that
(docs/decisions/0016). Reading and ending callbacks is `store/callbacks.py`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache

from psycopg.rows import args_row

from mpesa_gateway.domain.ids import CallbackToken
from mpesa_gateway.store import binary_arrays
from mpesa_gateway.store.pool import Connection


class Verdict(Enum):
    """How a callback was taken."""

    KEPT = "kept"
    # A token of ours whose payment is not in this database: kept too, by the payment's id.
    ORPHAN = "orphan"
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105 - a reason
    NOT_ALLOWED = "not_allowed"

    @property
    def is_stored(self) -> bool:
        """Whether its sender is answered 200."""
        return self in (Verdict.KEPT, Verdict.ORPHAN)


@dataclass(frozen=True)
class Denial:
    """Who may not be called back from an address: everybody, or merchants whose lists lack it.

    `merchants` is a JSON array of names, or None.
    """

    everybody: bool = False
    merchants: str | None = None


NOBODY = Denial()


@dataclass(frozen=True)
class NewCallback:
    """A callback to keep. `token` is None on the plain path; `copies` counts equals.

    `is_ours`: the token carries a MAC of this gateway, whether or not its payment is known.
    """

    token: CallbackToken | None
    body: bytes
    body_sha256: bytes
    headers: dict[str, str]
    source: str
    received_at: datetime
    denied: Denial = NOBODY
    copies: int = 1
    traceparent: str | None = None
    is_ours: bool = False

    @property
    def payment(self) -> uuid.UUID | None:
        """The payment that its token names."""
        return None if self.token is None else self.token.transaction


@dataclass(frozen=True)
class Taken:
    """How each callback was taken, in their order, and the ids of the rows that are new."""

    verdicts: list[Verdict]
    new: list[int]


class IncompleteError(Exception):
    """Postgres wrote another number of rows than it said it would. Nobody may be told 200."""


# `OFFSET 0` keeps each look-up one of the unique index: a plan that was made while the table was
# small would read the whole of it later. A secret is compared as its digest, so that the time of
# a comparison tells nothing of use. Sorted, so that two processes never lock each other out.
_KEEP = (
    "WITH asked AS MATERIALIZED ("
    " SELECT u.*, t.id AS transaction_id, CASE"
    " WHEN u.uid IS NULL THEN 'kept'"
    " WHEN t.callback_secret_sha256 = u.secret_sha256 THEN CASE"
    "  WHEN u.is_denied OR coalesce((%b::jsonb[])[u.denials] ? t.merchant, false)"
    "  THEN 'not_allowed' ELSE 'kept' END"
    " WHEN t.id IS NULL AND u.is_ours THEN"
    "  CASE WHEN u.is_denied THEN 'not_allowed' ELSE 'orphan' END"
    " ELSE 'unknown_token' END AS verdict"
    " FROM unnest(%b::uuid[], %b::bytea[], %b::bool[], %b::int[], %b::bytea[], %b::bytea[],"
    "  %b::text[], %b::text[], %b::timestamptz[], %b::int[], %b::text[], %b::bool[])"
    "  WITH ORDINALITY AS u (uid, secret_sha256, is_denied, denials, body, body_sha256,"
    "  headers, source, received_at, copies, traceparent, is_ours, number)"
    " LEFT JOIN LATERAL (SELECT id, merchant, callback_secret_sha256 FROM transactions"
    "  WHERE internal_transaction_id = u.uid OFFSET 0) AS t ON true"
    "), kept AS ("
    " INSERT INTO callbacks (transaction_id, by_token, body, body_sha256, headers, source,"
    "  received_at, last_received_at, copies, next_attempt_at, traceparent)"
    " SELECT transaction_id, uid IS NOT NULL, body, body_sha256, headers::jsonb, source::inet,"
    "  received_at, received_at, copies, received_at, traceparent"
    " FROM asked WHERE verdict = 'kept' ORDER BY transaction_id, body_sha256"
    " ON CONFLICT (transaction_id, body_sha256) WHERE by_token DO UPDATE"
    "  SET copies = callbacks.copies + excluded.copies,"
    "  last_received_at = excluded.last_received_at"
    " RETURNING id, xmax = 0 AS is_new"
    "), orphaned AS ("
    " INSERT INTO callbacks (orphan_of, by_token, body, body_sha256, headers, source,"
    "  received_at, last_received_at, copies, next_attempt_at, traceparent, state, outcome,"
    "  applied_at)"
    " SELECT uid, false, body, body_sha256, headers::jsonb, source::inet,"
    "  received_at, received_at, copies, received_at, traceparent, 'QUARANTINED', 'orphan',"
    "  received_at"
    " FROM asked WHERE verdict = 'orphan' ORDER BY uid, body_sha256"
    " ON CONFLICT (orphan_of, body_sha256) WHERE orphan_of IS NOT NULL DO UPDATE"
    "  SET copies = callbacks.copies + excluded.copies,"
    "  last_received_at = excluded.last_received_at"
    # Nobody can apply it yet, so no worker is to be woken up.
    " RETURNING id, false AS is_new"
    ") SELECT number, verdict, NULL::bigint AS id, NULL::bool AS is_new FROM asked"
    " UNION ALL SELECT NULL, NULL, id, is_new FROM kept"
    " UNION ALL SELECT NULL, NULL, id, is_new FROM orphaned"
)


def keep(conn: Connection, batch: Sequence[NewCallback]) -> Taken:
    """Judge the callbacks and keep those that may be kept, in one statement and one commit.

    Callers merge equal ones, because one statement must not meet a key twice. Raises
    IncompleteError when a row is missing that was to be kept.
    """
    # Prepared at once: so long a statement is dear to parse.
    rows = conn.execute(_KEEP, _parameters(batch), prepare=True, binary=True).fetchall()
    verdicts = [Verdict.UNKNOWN_TOKEN] * len(batch)
    new, kept = [], 0
    for number, verdict, callback_id, is_new in rows:
        if number is not None:
            verdicts[number - 1] = Verdict(verdict)
            continue
        kept += 1
        if is_new:
            new.append(callback_id)
    wanted = sum(verdict.is_stored for verdict in verdicts)
    if kept != wanted:
        raise IncompleteError(f"{kept} rows for {wanted} callbacks")
    return Taken(verdicts, new)


def _parameters(batch: Sequence[NewCallback]) -> list[bytes]:
    tokens = [it.token for it in batch]
    # Each list of names once: Safaricom has a dozen addresses.
    denials: dict[str, int] = {}
    for it in batch:
        if it.denied.merchants is not None:
            denials.setdefault(it.denied.merchants, len(denials) + 1)
    return [
        binary_arrays.jsonb_array(denials),
        binary_arrays.uuid_array([None if it is None else it.transaction for it in tokens]),
        binary_arrays.bytea_array([None if it is None else it.secret_sha256 for it in tokens]),
        binary_arrays.bool_array([it.denied.everybody for it in batch]),
        binary_arrays.int4_array([denials.get(it.denied.merchants or "") for it in batch]),
        binary_arrays.bytea_array([it.body for it in batch]),
        binary_arrays.bytea_array([it.body_sha256 for it in batch]),
        binary_arrays.text_array([_as_json(tuple(it.headers.items())) for it in batch]),
        binary_arrays.text_array([it.source for it in batch]),
        binary_arrays.timestamptz_array([it.received_at for it in batch]),
        binary_arrays.int4_array([it.copies for it in batch]),
        binary_arrays.text_array([it.traceparent for it in batch]),
        binary_arrays.bool_array([it.is_ours for it in batch]),
    ]


# One proxy and one sender write the same headers on every callback.
@lru_cache(maxsize=256)
def _as_json(headers: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(headers))


@dataclass(frozen=True)
class TokenOwner:
    """The transaction that a callback token names, and where it stands in its trace."""

    id: uuid.UUID
    callback_secret_sha256: bytes
    traceparent: str | None


def find_token_owners(conn: Connection, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, TokenOwner]:
    """For spans only: `keep` judges. By public id; the secret is checked by the caller."""
    cursor = conn.cursor(binary=True, row_factory=args_row(TokenOwner))
    cursor.execute(
        "SELECT internal_transaction_id, callback_secret_sha256, traceparent"
        " FROM transactions WHERE internal_transaction_id = ANY(%b)",
        [list(ids)],
    )
    return {owner.id: owner for owner in cursor}


def find_merchant(conn: Connection, token: CallbackToken) -> str | None:
    """Whose payment the token is of; None when its payment or its secret is not known."""
    row = conn.execute(
        """
        SELECT merchant
          FROM transactions
         WHERE internal_transaction_id = %(id)s
           AND callback_secret_sha256 = %(secret_sha256)s
        """,
        {"id": token.transaction, "secret_sha256": token.secret_sha256},
    ).fetchone()
    return row[0] if row else None
