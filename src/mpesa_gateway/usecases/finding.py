"""Which payment an operator means: an id, its end, a receipt, a key or a CheckoutRequestID."""

from __future__ import annotations

import re
import uuid

from mpesa_gateway.errors import InvalidInputError, NotFoundError
from mpesa_gateway.store import finding, payment_keys
from mpesa_gateway.store.pool import Connection, Pool

MAX_LENGTH = 128
# A table shows this much of an id.
_SUFFIX = re.compile(r"[0-9a-f-]{8,35}", re.IGNORECASE)
WAYS = "transaction id or the end of one, receipt, idempotency key or CheckoutRequestID"


def find_transaction(pool: Pool, text: str) -> uuid.UUID:
    """The id of the payment that `text` names.

    Raises NotFoundError, and InvalidInputError when more than one payment fits.
    """
    text = text.strip()
    with pool.connection("command.find") as conn:
        found = _look_up(conn, text) if 0 < len(text) <= MAX_LENGTH else []
        kept = None if found else payment_keys.find_by_name(conn, text[:MAX_LENGTH], _as_uuid(text))
    if kept is not None:
        raise NotFoundError(
            f"the rows of payment {kept.id} were removed with their month; it was {kept.status},"
            f" {kept.amount} shillings, receipt {kept.receipt or 'unknown'}, ended at"
            f" {kept.finished_at:%Y-%m-%dT%H:%M:%SZ}"
        )
    if not found:
        raise NotFoundError(f"no payment has {text!r} as its {WAYS}")
    if len(found) > 1:
        ids = ", ".join(str(it) for it in found)
        raise InvalidInputError.of("transaction", f"more than one payment fits {text!r}: {ids}")
    return found[0]


def _look_up(conn: Connection, text: str) -> list[uuid.UUID]:
    public_id = _as_uuid(text)
    if public_id is not None:
        return finding.find_by_public_id(conn, public_id)
    # Receipts are written in capitals, and read out over a telephone.
    for form in dict.fromkeys((text, text.upper())):
        if found := finding.find_by_text(conn, form):
            return found
    return finding.find_by_suffix(conn, text.lower()) if _SUFFIX.fullmatch(text) else []


def _as_uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
