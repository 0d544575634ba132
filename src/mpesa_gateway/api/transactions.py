"""GET /transactions, GET /transactions/{id} and its deliveries, POST …/redeliver."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from falcon.asgi import Request, Response

from mpesa_gateway.api.auth import authenticate
from mpesa_gateway.api.bodies import INITIATE_LIMIT, read_body
from mpesa_gateway.api.threads import Threads
from mpesa_gateway.domain.ids import parse_uuid
from mpesa_gateway.domain.order import parse_order_id
from mpesa_gateway.domain.phone import parse_phone
from mpesa_gateway.domain.transaction import Status
from mpesa_gateway.domain.work import Work
from mpesa_gateway.errors import FieldProblem, InvalidInputError, NotFoundError
from mpesa_gateway.merchants.directory import MerchantDirectory
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.store.transaction_listing import Filter
from mpesa_gateway.usecases import reading

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
PARAMETERS = (
    "status",
    "phone",
    "order_id",
    "created_after",
    "created_before",
    "limit",
    "cursor",
)
# Stricter than `fromisoformat`, which takes week dates and much else.
_RFC_3339 = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ](?P<minute>[0-9]{2}:[0-9]{2}):(?P<second>[0-9]{2})"
    r"(?P<fraction>\.[0-9]+)?(?P<offset>[Zz]|[-+ ][0-9]{2}:[0-5][0-9])\Z",
    re.ASCII,
)
Value = TypeVar("Value")


def parse_status(text: str) -> Status:
    """A status. Raises InvalidInputError."""
    try:
        return Status(text)
    except ValueError:
        raise InvalidInputError.of("status", "must be PENDING, COMPLETED or FAILED") from None


def parse_time(text: str, name: str) -> datetime:
    """An RFC 3339 date and time, in UTC. Raises InvalidInputError."""
    try:
        return _read_rfc_3339(text)
    except ValueError:
        message = "must be an RFC 3339 time with offset, such as 2026-01-31T12:00:00Z"
        raise InvalidInputError.of(name, message) from None


def _read_rfc_3339(text: str) -> datetime:
    """Raises ValueError."""
    match = _RFC_3339.match(text)
    if match is None:
        raise ValueError(text)
    # In a query string, the plus of an offset arrives as a space.
    offset = match["offset"].upper().replace(" ", "+")
    leap = match["second"] == "60"
    second = "59" if leap else match["second"]
    fraction = (match["fraction"] or "")[: len(".123456")]
    parsed = datetime.fromisoformat(f"{match['date']}T{match['minute']}:{second}{fraction}{offset}")
    try:
        return parsed.astimezone(UTC) + timedelta(seconds=int(leap))
    except OverflowError:
        # Beyond the calendar's first or last day, where no transaction is.
        return parsed.replace(tzinfo=UTC)


def parse_limit(text: str) -> int:
    """How many items a page has. Raises InvalidInputError."""
    match = re.fullmatch(r"0*([1-9][0-9]{0,2})", text, re.ASCII)
    if match is None or int(match[1]) > MAX_LIMIT:
        raise InvalidInputError.of("limit", f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(match[1])


def parse_filter(params: Mapping[str, Any], merchant: str) -> tuple[Filter, uuid.UUID | None]:
    """What to list, and behind which transaction. Raises InvalidInputError with every problem."""
    problems: list[FieldProblem] = []

    def read(name: str, parse: Callable[[str], Value], default: Value) -> Value:
        raw = params.get(name)
        if raw is None:
            return default
        try:
            if not isinstance(raw, str):
                raise InvalidInputError.of(name, "must be given once")
            return parse(raw)
        except InvalidInputError as error:
            problems.extend(error.problems)
            return default

    problems += [
        FieldProblem(name[:64], "is not a parameter of this request")
        for name in params
        if name not in PARAMETERS
    ]
    wanted = Filter(
        merchant=merchant,
        status=read("status", parse_status, None),
        phone=read("phone", parse_phone, None),
        order_id=read("order_id", parse_order_id, None),
        created_after=read("created_after", lambda it: parse_time(it, "created_after"), None),
        created_before=read("created_before", lambda it: parse_time(it, "created_before"), None),
        limit=read("limit", parse_limit, DEFAULT_LIMIT),
    )
    before: uuid.UUID | None = read("cursor", reading.parse_cursor, None)
    if problems:
        raise InvalidInputError(problems)
    return wanted, before


class _Resource:
    """What the four have in common: who asks, and where to look."""

    def __init__(self, pool: Pool, merchants: MerchantDirectory, threads: Threads) -> None:
        self._pool = pool
        self._merchants = merchants
        self._threads = threads

    def _merchant(self, req: Request) -> str:
        return authenticate(req, self._merchants.current()).name


class TransactionsResource(_Resource):
    """GET /transactions."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """A page of the merchant's transactions, newest first."""
        wanted, before = parse_filter(req.params, self._merchant(req))
        assert wanted.merchant is not None
        resp.media = await self._threads.run(
            wanted.merchant, lambda: reading.list_transactions(self._pool, wanted, before)
        )


class TransactionResource(_Resource):
    """GET /transactions/{id}, and GET /transactions/{id}/deliveries."""

    async def on_get(self, req: Request, resp: Response, transaction_id: str) -> None:
        """One transaction, as it is."""
        merchant, public_id = self._merchant(req), parse_transaction_id(transaction_id)
        resp.media = await self._threads.run(
            merchant, lambda: reading.read_transaction(self._pool, merchant, public_id)
        )

    async def on_get_deliveries(self, req: Request, resp: Response, transaction_id: str) -> None:
        """Its webhooks and every attempt of them."""
        merchant, public_id = self._merchant(req), parse_transaction_id(transaction_id)
        resp.media = await self._threads.run(
            merchant, lambda: reading.read_deliveries(self._pool, merchant, public_id)
        )


class RedeliverResource(_Resource):
    """POST /transactions/{id}/redeliver."""

    def __init__(
        self,
        pool: Pool,
        merchants: MerchantDirectory,
        threads: Threads,
        *,
        clock: Callable[[], datetime],
        notify: Callable[[list[Work]], None],
    ) -> None:
        super().__init__(pool, merchants, threads)
        self._clock = clock
        self._notify = notify

    async def on_post(self, req: Request, resp: Response, transaction_id: str) -> None:
        """202: every webhook of the transaction is sent again, from the start of its schedule."""
        merchant, public_id = self._merchant(req), parse_transaction_id(transaction_id)
        await read_body(req, INITIATE_LIMIT)
        resp.media = await self._threads.run(merchant, lambda: self._redeliver(merchant, public_id))
        resp.status = 202

    def _redeliver(self, merchant: str, public_id: uuid.UUID) -> dict[str, Any]:
        view, work = reading.redeliver(self._pool, merchant, public_id, self._clock())
        self._notify(work)
        return view


def parse_transaction_id(text: str) -> uuid.UUID:
    """The id in a path. What is no UUID names nothing: raises NotFoundError."""
    try:
        return parse_uuid(text, "transaction_id")
    except InvalidInputError:
        raise NotFoundError("there is no such transaction") from None
