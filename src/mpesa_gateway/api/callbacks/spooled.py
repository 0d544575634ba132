"""Callbacks that were answered 503, on the disk: an arrival as a spool's entry, and back."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import json
from collections.abc import Iterator
from datetime import datetime

from mpesa_gateway.api.callbacks.pending import PendingCallback
from mpesa_gateway.domain.ids import find_callback_token
from mpesa_gateway.store.inbox import Verdict
from mpesa_gateway.store.spool import Spool


def put(spool: Spool, arrival: PendingCallback) -> None:
    """Write it down, unless it is already; the arrival knows its entry then."""
    if arrival.entry is not None:
        return
    content = {
        "token": arrival.token.text if arrival.token is not None else None,
        "body": base64.b64encode(arrival.body).decode(),
        "headers": arrival.headers,
        "address": str(arrival.address),
        "received_at": arrival.received_at.isoformat(),
    }
    arrival.entry = spool.put(json.dumps(content).encode())


def load(spool: Spool) -> Iterator[PendingCallback]:
    """What a process before this one could not commit. Nobody waits for an answer."""
    for entry, content in spool.load():
        try:
            arrival = _parse(content)
        except (ValueError, KeyError, TypeError):
            spool.quarantine(entry)
            continue
        arrival.entry = entry
        yield arrival


def _parse(content: bytes) -> PendingCallback:
    fields = json.loads(content)
    body = base64.b64decode(fields["body"], validate=True)
    token = None if fields["token"] is None else find_callback_token(fields["token"])
    if token is None and fields["token"] is not None:
        raise ValueError("not a callback token")
    return PendingCallback(
        token=token,
        body=body,
        headers={str(name): str(value) for name, value in fields["headers"].items()},
        address=ipaddress.ip_address(fields["address"]),
        received_at=datetime.fromisoformat(fields["received_at"]),
        future=_nobody(),
        sha256=hashlib.sha256(body).digest(),
    )


def _nobody() -> asyncio.Future[Verdict]:
    """The future of a waiter that has gone: its event loop is closed."""
    loop = asyncio.new_event_loop()
    future: asyncio.Future[Verdict] = loop.create_future()
    future.cancel()
    loop.close()
    return future
