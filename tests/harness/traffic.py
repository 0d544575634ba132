"""A program for a container beside the gateway: the merchant's endpoint, its clients, and load.

It runs in the gateway's own image (`python traffic.py`) and needs aiohttp only. Tests steer it
over HTTP: GET /webhooks, POST /fetch, POST /start, POST /stop, GET /report.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

PORT = 8000
TIMEOUT_S = 35.0
# A client that got no answer asks again with the same key, as the API's documentation says.
RETRY_AFTER_S = 0.5
GIVE_UP_S = 60.0
LEDGER_EVERY_S = 0.5
# Duplicates are made of the newest callbacks, so that some come before theirs is applied.
NEWEST = 200


@dataclass
class Initiate:
    """One payment that a merchant's server asked for, until it had its answer."""

    phone: str
    amount: int
    key: str
    started: float
    status: int | None = None
    transaction_id: str | None = None
    seconds: float = 0.0
    # The answer's body, when it was not 201.
    refusal: str | None = None
    # What went wrong before the answer: an error's name or a status that means "ask again".
    troubles: list[str] = field(default_factory=list)


@dataclass
class Callback:
    """One callback that was posted straight to the gateway: a status or an error.

    `sent` is when its head had left: what came before is name look-up and connecting.
    """

    started: float
    kept: bool
    sent: float | None = None
    status: int | None = None
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Target:
    """What the load is aimed at, as POST /start says it. Rates are per second."""

    gateway: str
    api_key: str
    simulator: str
    webhook: str
    initiates: float
    callbacks: float
    first_phone: int
    # The ledger's last record before this load: older callbacks are not its to repeat.
    since: int


class Load:
    """Initiates and callbacks at a fixed rate, whatever the answers are, until `stop`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._initiates: list[Initiate] = []
        self._callbacks: list[Callback] = []
        self._known: deque[tuple[str, str]] = deque(maxlen=NEWEST)
        self._in_flight: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._sequence = target.since
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_note_sent)
        # Half of the requests on kept connections, half on new ones: proxies do both.
        self._kept = aiohttp.ClientSession(timeout=timeout, trace_configs=[trace])
        self._fresh = aiohttp.ClientSession(
            timeout=timeout,
            trace_configs=[trace],
            connector=aiohttp.TCPConnector(force_close=True),
        )

    def start(self) -> None:
        """Begin. Duplicates begin once there is a callback to duplicate."""
        self._loops = [
            asyncio.create_task(self._every(self._target.initiates, self._begin_initiate)),
            asyncio.create_task(self._every(self._target.callbacks, self._begin_callback)),
            asyncio.create_task(self._every(1 / LEDGER_EVERY_S, self._read_ledger)),
        ]

    async def stop(self) -> None:
        """Begin nothing more, and wait for every answer."""
        for loop in self._loops:
            loop.cancel()
        while self._in_flight:
            await asyncio.wait(self._in_flight)
        await self._kept.close()
        await self._fresh.close()

    def report(self) -> dict[str, Any]:
        """Everything that was sent, and what came of it."""
        return {
            "initiates": [asdict(it) for it in self._initiates],
            "callbacks": [asdict(it) for it in self._callbacks],
        }

    async def _every(self, rate: float, begin: Callable[[], Coroutine[None, None, None]]) -> None:
        """Against the clock and not against the answers: slow ones do not lower the rate."""
        started, count = time.monotonic(), 0
        while rate:
            count += 1
            await asyncio.sleep(max(0.0, started + count / rate - time.monotonic()))
            task = asyncio.create_task(begin())
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)

    def _session(self, number: int) -> aiohttp.ClientSession:
        return self._kept if number % 2 else self._fresh

    async def _begin_initiate(self) -> None:
        number = len(self._initiates)
        payment = Initiate(
            phone=f"254{self._target.first_phone + number:05d}0000",
            amount=10 + number % 50,
            key=str(uuid.uuid4()),
            started=time.time(),
        )
        self._initiates.append(payment)
        while not await self._try_initiate(payment, self._session(number)):
            if time.time() > payment.started + GIVE_UP_S:
                return
            await asyncio.sleep(RETRY_AFTER_S)

    async def _try_initiate(self, payment: Initiate, session: aiohttp.ClientSession) -> bool:
        """Whether it has its answer."""
        body = {
            "amount": str(payment.amount),
            "phone": payment.phone,
            "webhook_url": self._target.webhook,
            "idempotency_key": payment.key,
        }
        headers = {"X-Internal-Secret": self._target.api_key}
        try:
            async with session.post(
                f"{self._target.gateway}/initiate", json=body, headers=headers
            ) as response:
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            payment.troubles.append(type(error).__name__)
            return False
        if response.status == 409:
            payment.troubles.append("409")
            return False
        payment.status = response.status
        payment.transaction_id = answer.get("transaction_id")
        payment.refusal = None if response.status == 201 else json.dumps(answer)[:400]
        payment.seconds = round(time.time() - payment.started, 3)
        return True

    async def _begin_callback(self) -> None:
        if not self._known:
            return
        number = len(self._callbacks)
        url, body = self._known[number % len(self._known)]
        sent = Callback(started=time.time(), kept=bool(number % 2))
        self._callbacks.append(sent)
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session(number).post(
                url, data=body.encode(), headers=headers, trace_request_ctx=sent
            ) as response:
                await response.read()
                sent.status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            sent.error = type(error).__name__
        sent.seconds = round(time.time() - sent.started, 3)

    async def _read_ledger(self) -> None:
        """Learn what Safaricom posted, as anyone on its side of the wire knows it."""
        params = {"since": str(self._sequence)}
        try:
            async with self._fresh.get(f"{self._target.simulator}/ledger", params=params) as answer:
                ledger = await answer.json()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return
        self._sequence = max(self._sequence, ledger["sequence"])
        self._known.extend((it["callback_url"], it["body"]) for it in ledger["callbacks"])


async def _note_sent(_: aiohttp.ClientSession, context: Any, __: Any) -> None:
    sent = context.trace_request_ctx
    if isinstance(sent, Callback):
        sent.sent = time.time()


class Witness:
    """The endpoints."""

    def __init__(self) -> None:
        self._webhooks: list[dict[str, Any]] = []
        self._load: Load | None = None

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [
            web.get("/", self.index),
            web.post("/hook", self.hook),
            web.get("/webhooks", self.webhooks),
            web.post("/fetch", self.fetch),
            web.post("/start", self.start),
            web.post("/stop", self.stop),
            web.get("/report", self.report),
        ]

    async def index(self, _: web.Request) -> web.Response:
        """Whether it is up."""
        return web.Response(text="ok\n")

    async def hook(self, request: web.Request) -> web.Response:
        """The merchant's endpoint: keeps every request."""
        self._webhooks.append(
            {
                "headers": {name.lower(): value for name, value in request.headers.items()},
                "body": base64.b64encode(await request.read()).decode(),
                "at": time.time(),
            }
        )
        return web.Response()

    async def webhooks(self, request: web.Request) -> web.Response:
        """Those from number `since` on."""
        return web.json_response(self._webhooks[int(request.query.get("since", "0")) :])

    async def fetch(self, request: web.Request) -> web.Response:
        """Make one request from here, as a neighbour of the gateway."""
        asked = await request.json()
        started = time.monotonic()
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session,
            session.request(
                asked.get("method", "GET"),
                asked["url"],
                headers=asked.get("headers"),
                data=asked["body"].encode() if "body" in asked else None,
            ) as response,
        ):
            return web.json_response(
                {
                    "status": response.status,
                    "headers": {name.lower(): value for name, value in response.headers.items()},
                    "body": (await response.read()).decode(errors="replace"),
                    "seconds": time.monotonic() - started,
                }
            )

    async def start(self, request: web.Request) -> web.Response:
        """Begin the load that the body describes."""
        self._load = Load(Target(**await request.json()))
        self._load.start()
        return web.Response(status=202)

    async def stop(self, _: web.Request) -> web.Response:
        """End the load; the report."""
        assert self._load is not None
        await self._load.stop()
        return web.json_response(self._load.report())

    async def report(self, _: web.Request) -> web.Response:
        """What the load has seen so far."""
        return web.json_response(self._load.report() if self._load else {})


def main() -> None:
    """Serve until SIGTERM."""
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.add_routes(Witness().routes())
    sys.stdout.write(json.dumps({"event": "witness started", "port": PORT}) + "\n")
    web.run_app(app, port=PORT, print=None, access_log=None)


if __name__ == "__main__":
    main()
