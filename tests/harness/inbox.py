"""A callback inbox by itself, over a real Postgres."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable
from datetime import UTC, datetime

from harness.factories import make_merchant, make_request
from harness.gateway import CollectingNotifier
from mpesa_gateway.api.callbacks.inbox import Inbox
from mpesa_gateway.domain.ids import CallbackToken
from mpesa_gateway.domain.merchant import Merchant, Network
from mpesa_gateway.domain.phone import parse_phone
from mpesa_gateway.merchants.directory import Snapshot
from mpesa_gateway.store.inbox import Verdict
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.store.transactions import Intent, insert_intent
from mpesa_gateway.usecases.finalize import new_id

ADDRESS = ipaddress.ip_address("196.201.214.200")


class InboxHarness:
    """An inbox, its notifier, and transactions with tokens to call back."""

    def __init__(
        self,
        pool: Pool,
        *,
        merchant: Merchant | None = None,
        platform: tuple[Network, ...] = (),
    ) -> None:
        self.pool = pool
        self.platform = platform
        self.url = str(pool._pool.conninfo)
        self.notifier = CollectingNotifier()
        self.merchant = merchant or make_merchant(name="default")
        self.merchants: Callable[[], Snapshot] = self.snapshot
        self.inbox = self.new_inbox()

    def snapshot(self) -> Snapshot:
        return Snapshot({self.merchant.name: self.merchant})

    def new_inbox(self) -> Inbox:
        return Inbox(
            self.pool,
            merchants=self.merchants,
            platform=self.platform,
            clock=lambda: datetime.now(UTC),
            notify=self.notifier.notify,
        )

    def new_token(self, number: int = 0) -> CallbackToken:
        now = datetime.now(UTC)
        token = CallbackToken(new_id(now), secrets.token_bytes(16))
        intent = Intent(
            id=token.transaction,
            merchant=self.merchant.name,
            request=make_request(phone=parse_phone(f"25471{number:07d}")),
            short_code="174379",
            webhook_url="https://shop.example/",
            callback_secret_sha256=token.secret_sha256,
            push_lease_until=now,
            prompt_until=now,
        )
        with self.pool.transaction("test") as conn:
            assert insert_intent(conn, intent, now) is not None
        return token

    async def put(self, token: CallbackToken | None, body: bytes) -> Verdict:
        return await self.inbox.put(token, body, {}, ADDRESS)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with self.pool.connection("test") as conn:
            return conn.execute(query.encode()).fetchall()
