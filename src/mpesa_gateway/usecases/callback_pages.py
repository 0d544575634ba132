"""One callback for an operator's eyes: what it says, with phone numbers masked or not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mpesa_gateway.domain.amount import amount_text
from mpesa_gateway.domain.callback import CallbackUnreadableError, parse_stk_callback
from mpesa_gateway.domain.phone import mask_phone
from mpesa_gateway.domain.representation import time_text
from mpesa_gateway.errors import NotFoundError
from mpesa_gateway.store import callbacks
from mpesa_gateway.store.callbacks import CallbackRow
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry.masking import mask_phones

MAX_BODY_SHOWN = 64 * 1024


@dataclass(frozen=True)
class CallbackPage:
    """A callback's row, what its body says, the body as text, and who saw it unmasked."""

    row: CallbackRow
    said: dict[str, Any]
    body: str
    reveals: list[dict[str, Any]]


def read_callback(
    pool: Pool, callback_id: int, now: datetime, *, revealed_by: str | None = None
) -> CallbackPage:
    """Read a callback; `revealed_by` sees whole phone numbers, and is stored.

    Raises NotFoundError.
    """
    with pool.transaction("command.callback") as conn:
        found = callbacks.find(conn, callback_id)
        if found is None:
            raise NotFoundError(f"there is no callback {callback_id}")
        if revealed_by is not None:
            callbacks.record_reveal(conn, callback_id, revealed_by, now)
        reveals = callbacks.list_reveals(conn, [callback_id])
    row, body = found
    said = _said(body)
    text = _readable(body)
    if revealed_by is None:
        text = mask_phones(text)
        said["phone"] = said["phone"] and mask_phone(str(said["phone"]))
        said["checkout_request_id"] = mask_phones(said.get("checkout_request_id") or "")
    return CallbackPage(row, said, text, [{"by": it.by, "at": time_text(it.at)} for it in reveals])


def _said(body: bytes) -> dict[str, Any]:
    """What the body says, or why nobody can read it."""
    try:
        said = parse_stk_callback(body)
    except CallbackUnreadableError as error:
        return {"unreadable": str(error), "phone": None}
    return {
        "result_code": said.result_code,
        "result_desc": said.result_desc,
        "amount": amount_text(said.amount) if said.amount is not None else None,
        "receipt": said.receipt,
        "phone": said.phone,
        "checkout_request_id": said.checkout_request_id,
    }


def _readable(body: bytes) -> str:
    """The body as text: indented if it is JSON, cut if it is long."""
    text = body[:MAX_BODY_SHOWN].decode("utf-8", "replace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    # An escape sequence would be carried out by the terminal.
    text = "".join(it if it.isprintable() or it == "\n" else "\ufffd" for it in text)
    cut = len(body) - MAX_BODY_SHOWN
    return text if cut <= 0 else f"{text}\n… {cut} more bytes"
