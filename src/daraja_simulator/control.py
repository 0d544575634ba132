"""The endpoints for testers: what was charged, and what happens next."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any

from aiohttp import web

from daraja_simulator import daraja
from daraja_simulator.ledger import Entry, Selection
from daraja_simulator.outcomes import OUTCOMES
from daraja_simulator.overrides import OverrideError, parse_next_push, parse_next_query
from daraja_simulator.settings import SettingsError
from daraja_simulator.simulator import Simulator

# Entries of the ledger that are written between two chances for other requests.
CHUNK_ENTRIES = 200

ENDPOINTS = {
    f"GET {daraja.TOKEN_PATH}?grant_type=client_credentials": "an OAuth token",
    f"POST {daraja.PUSH_PATH}": "STK push",
    f"POST {daraja.QUERY_PATH}": "STK query",
    "GET /": "this page",
    "GET /health": "whether the simulator answers",
    "GET /ledger": "what happened; ?phone=, ?callback_url_contains=, ?since=<sequence>",
    "PATCH /settings": "change settings",
    "PUT /next": (
        "for the next accepted push only: MerchantRequestID, CheckoutRequestID, outcome (a name),"
        " answer {status, body, content_type, accepted}"
    ),
    "PUT /next-query": "the answer of the next query only: status, body, content_type",
    "POST /expire-tokens": "make every token invalid",
}


def routes(simulator: Simulator) -> list[web.RouteDef]:
    """The endpoints that Daraja does not have."""
    endpoints = ControlEndpoints(simulator)
    return [
        web.get("/", endpoints.index),
        web.get("/health", endpoints.health),
        web.get("/ledger", endpoints.ledger, allow_head=False),
        web.patch("/settings", endpoints.patch_settings),
        web.put("/next", endpoints.put_next),
        web.put("/next-query", endpoints.put_next_query),
        web.post("/expire-tokens", endpoints.expire_tokens),
    ]


class ControlEndpoints:
    """Nobody has to log in here: the simulator belongs in tests and on private networks."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    async def index(self, _: web.Request) -> web.Response:
        """GET /: what this is and can do."""
        simulator = self._simulator
        outcomes = [
            {"digits": each.digits, "outcome": each.name, "what": each.what} for each in OUTCOMES
        ]
        return web.json_response(
            {
                "name": "daraja-simulator",
                "outcomes": outcomes,
                "endpoints": ENDPOINTS,
                "settings": simulator.settings.public(),
                "payments_under_way": simulator.payments_under_way,
                "records": simulator.ledger.counts(),
                "memory": (
                    f"the last {simulator.settings.max_records} records of each kind, and as many"
                    " payments, stay in memory; the ledger file keeps all"
                ),
            }
        )

    async def health(self, _: web.Request) -> web.Response:
        """GET /health."""
        return web.json_response({"status": "ok"})

    async def ledger(self, request: web.Request) -> web.StreamResponse:
        """GET /ledger, in pieces: it may be long, and pushes must not wait for it."""
        try:
            selection = _selection(request)
        except ValueError as error:
            return _bad(str(error))
        ledger = self._simulator.ledger
        head = {"sequence": ledger.last_sequence, "records": ledger.counts()}
        selected = ledger.select(selection)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        async for text in _ledger_text(head, selected):
            await response.write(text.encode())
        await response.write_eof()
        return response

    async def patch_settings(self, request: web.Request) -> web.Response:
        """PATCH /settings: all of the changes, or none."""
        try:
            changes = await _read_json(request)
            if not isinstance(changes, dict):
                return _bad("body must be an object of settings")
            self._simulator.change(changes)
        except (SettingsError, OverrideError) as error:
            return _bad(str(error))
        return web.json_response(self._simulator.settings.public())

    async def put_next(self, request: web.Request) -> web.Response:
        """PUT /next: replaces what was set before; an empty object takes it back."""
        try:
            override = parse_next_push(await _read_json(request))
        except OverrideError as error:
            return _bad(str(error))
        if override.checkout_request_id in self._simulator.payments:
            return _bad("CheckoutRequestID is that of another payment", status=409)
        self._simulator.next_push = override
        return web.Response(status=204)

    async def put_next_query(self, request: web.Request) -> web.Response:
        """PUT /next-query: replaces what was set before."""
        try:
            self._simulator.next_query = parse_next_query(await _read_json(request))
        except OverrideError as error:
            return _bad(str(error))
        return web.Response(status=204)

    async def expire_tokens(self, _: web.Request) -> web.Response:
        """POST /expire-tokens."""
        return web.json_response({"expired": self._simulator.tokens.expire_all()})


def _bad(message: str, status: int = 400) -> web.Response:
    return web.json_response({"error": message}, status=status)


async def _read_json(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise OverrideError("body must be JSON") from error


def _selection(request: web.Request) -> Selection:
    """The filters of the query string. Raises ValueError."""
    unknown = sorted(set(request.query) - {"phone", "callback_url_contains", "since"})
    if unknown:
        raise ValueError(f"{unknown[0]} is no filter")
    since = request.query.get("since", "0")
    if not since.isascii() or not since.isdecimal() or len(since) > 18:
        raise ValueError("since must be the sequence of a record")
    return Selection(
        phone=request.query.get("phone"),
        callback_url_contains=request.query.get("callback_url_contains"),
        since=int(since),
    )


async def _ledger_text(
    head: dict[str, object], selected: dict[str, Iterator[Entry]]
) -> AsyncIterator[str]:
    """The JSON text of the ledger, in pieces of at most CHUNK_ENTRIES entries."""
    yield json.dumps(head)[:-1]
    for kind, entries in selected.items():
        separator = f', "{kind}": ['
        while chunk := list(islice(entries, CHUNK_ENTRIES)):
            yield separator + ", ".join(json.dumps(entry.as_json()) for entry in chunk)
            separator = ", "
        yield "]" if separator == ", " else f"{separator}]"
    yield "}"
