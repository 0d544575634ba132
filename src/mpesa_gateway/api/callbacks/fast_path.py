"""The fast path of a callback: from the HTTP parser to the inbox, and back in one write.

Nearly all that an API under load hears is a small `POST /callback/{token}`. Its task, ASGI and its
route would cost more than everything else about it does. Whatever is unusual about a request goes
the slow path (`api/callbacks.py`), to the same inbox and with the same answers; a test compares the
two (docs/decisions/0011).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from functools import lru_cache

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from mpesa_gateway.api.bodies import BODY_TIMEOUT_S, READING, BodyTooSlowError
from mpesa_gateway.api.callbacks.inbox import Inbox
from mpesa_gateway.api.callbacks.resource import (
    ACCEPTED,
    REASONS,
    Headers,
    kept_headers,
    rejected,
    sender,
)
from mpesa_gateway.api.errors import FAILED, PROBLEM_JSON, problem_of
from mpesa_gateway.api.requestlog import REQUEST_ID, RequestLog
from mpesa_gateway.domain.ids import CallbackToken, find_callback_token
from mpesa_gateway.domain.merchant import Network
from mpesa_gateway.errors import GatewayError, UnavailableError
from mpesa_gateway.store.inbox import Verdict
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)

# Where the server's state has it, for each connection to find.
FAST_PATH = "callback_fast_path"
# A larger body goes the slow path, which can slow its sender down.
MAX_BODY = 64 * 1024
ROUTE = "/callback/{token}"

_URL = re.compile(rb"/callback/([0-9a-fA-F]{64})/?\Z")
_LENGTH = re.compile(rb"[0-9]{1,9}\Z")
_JSON = b"application/json"
# What these would ask for is the slow path's to give.
_UNUSUAL = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
# Nobody waits for a message of such a request; the base class's users set it all the same.
_NOBODY = asyncio.Event()


class Call(RequestResponseCycle):
    """One callback on the fast path. To uvicorn's protocol it is a request like any other."""

    def __init__(  # not the base class's, which makes much that nobody would read
        self,
        fast_path: FastPath,
        token: CallbackToken,
        *,
        headers: list[tuple[bytes, bytes]],
        client: tuple[str, int] | None,
        default_headers: list[tuple[bytes, bytes]],
        transport: asyncio.Transport,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        self.token = token
        self.headers = headers
        self.client = client
        self.default_headers = default_headers
        self.transport = transport
        self.keep_alive = keep_alive
        self.on_response = on_response
        self.started = time.monotonic()
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.message_event = _NOBODY
        self._fast_path = fast_path
        self._asked_at = 0.0
        self._held = READING.hold()

    def hold(self) -> None:
        """More of the body is to come: what is here counts until it is complete."""
        try:
            self._held.grow(len(self.body))
        except UnavailableError as error:
            self.let_go()
            self.keep_alive = False
            self._refuse_unavailable(error)

    def let_go(self) -> None:
        """Nothing more is to come."""
        self._held.release()

    def begin(self) -> None:
        """The body is here: hand it to the inbox."""
        self.more_body = False
        self.let_go()
        try:
            self._asked_at = time.monotonic()
            self._fast_path.offer(self).add_done_callback(self._end)
        except UnavailableError as error:
            self._refuse_unavailable(error)
        except Exception as error:  # noqa: BLE001 - the parser would call it a bad request
            self._fail(error)

    def too_slow(self) -> None:
        """The body did not come in time."""
        self.let_go()
        self.keep_alive = False
        message = f"the body did not arrive within {BODY_TIMEOUT_S:g} s"
        self._refuse(BodyTooSlowError(message))

    def _end(self, future: asyncio.Future[Verdict]) -> None:
        try:
            verdict = future.result()
        except UnavailableError as error:
            self._refuse_unavailable(error)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it must be answered
            self._fail(error)
        else:
            if not verdict.is_stored:
                self._refuse(rejected(REASONS[verdict]))
                return
            self._answer(200, _JSON, _ACCEPTED, about=str(self.token.transaction))
            self._fast_path.acknowledged(time.monotonic() - self._asked_at)

    def _refuse_unavailable(self, error: UnavailableError) -> None:
        metrics.callbacks_rejected_total.labels("unavailable").inc()
        self._answer(503, _PROBLEM_JSON, *_unavailable(str(error)))

    def _refuse(self, error: GatewayError) -> None:
        document = problem_of(error)
        self._answer(document["status"], _PROBLEM_JSON, json.dumps(document).encode())

    def _fail(self, error: BaseException) -> None:
        LOGGER.error("request failed", route=ROUTE, exc_info=error)
        self._answer(500, _PROBLEM_JSON, _FAILED)

    def _answer(
        self, status: int, kind: bytes, body: bytes, extra: bytes = b"", about: str | None = None
    ) -> None:
        request_id = _request_id(self.headers)
        if not self.disconnected and not self.transport.is_closing():
            self._write(status, kind, body, extra, request_id)
        named = {} if request_id is None else {"request_id": request_id}
        if about is not None:
            named["transaction_id"] = about
        self._fast_path.answered(status, time.monotonic() - self.started, named)

    def _write(
        self, status: int, kind: bytes, body: bytes, extra: bytes, request_id: str | None
    ) -> None:
        head = [STATUS_LINE[status], *[b"%b: %b\r\n" % it for it in self.default_headers]]
        head.append(b"content-type: %b\r\ncontent-length: %d\r\n%b" % (kind, len(body), extra))
        if request_id is not None:
            head.append(b"x-request-id: %b\r\n" % request_id.encode())
        if not self.keep_alive:
            head.append(b"connection: close\r\n")
        self.response_started = self.response_complete = True
        self.transport.write(b"".join([*head, b"\r\n", body]))
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class FastPath:
    """Knows which requests may come this way, and brings them to the inbox."""

    def __init__(self, inbox: Inbox, requests: RequestLog, *, trusted: tuple[Network, ...]) -> None:
        self._inbox = inbox
        self._requests = requests
        self._trusted = trusted
        self.acknowledged = metrics.callback_ack_seconds.observe

    def offer(self, call: Call) -> asyncio.Future[Verdict]:
        """Its future answer. Raises UnavailableError."""
        address = sender(call.headers, call.client, self._trusted)
        return self._inbox.offer(call.token, bytes(call.body), kept_headers(call.headers), address)

    def answered(self, status: int, took_s: float, about: dict[str, str]) -> None:
        """Count it, and say so."""
        self._requests.note(method="POST", route=ROUTE, status=status, took_s=took_s, about=about)


def find_token(url: bytes, headers: Headers) -> CallbackToken | None:
    """The token of a POST that may come this way by its URL and its headers."""
    match = _URL.match(url)
    if match is None:
        return None
    length = None
    for name, value in headers:
        if name in _UNUSUAL:
            return None
        if name == b"content-length":
            length = value
    if length is None or not _LENGTH.match(length) or int(length) > MAX_BODY:
        return None
    return find_callback_token(match[1].decode())


def _request_id(headers: Headers) -> str | None:
    named = [value for name, value in headers if name == b"x-request-id"]
    if len(named) != 1:
        return None
    text = named[0].decode("latin-1")
    return text if REQUEST_ID.fullmatch(text) else None


# The sentences are few, and asked for thousands of times a second when they are asked for.
@lru_cache(maxsize=64)
def _unavailable(sentence: str) -> tuple[bytes, bytes]:
    """The problem document, and the header that goes with it."""
    document = problem_of(UnavailableError(sentence))
    return json.dumps(document).encode(), b"retry-after: %d\r\n" % document["retry_after"]


_ACCEPTED = ACCEPTED.encode()
_PROBLEM_JSON = PROBLEM_JSON.encode()
_FAILED = json.dumps(FAILED).encode()
