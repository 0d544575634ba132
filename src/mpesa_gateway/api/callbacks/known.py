"""What the database knows of a callback before it is stored: its push, and who may speak of it.

Few callbacks need it: those on the plain path, and those with a large body. Of all others the
inbox's one statement is the judge.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from mpesa_gateway.api.callbacks.batch_writer import AllowlistCache
from mpesa_gateway.api.threads import Threads
from mpesa_gateway.domain.callback import CallbackUnreadableError, parse_stk_callback
from mpesa_gateway.domain.ids import CallbackToken, TokenKeys
from mpesa_gateway.domain.merchant import Address, Network
from mpesa_gateway.merchants.directory import Snapshot
from mpesa_gateway.store import inbox, transactions
from mpesa_gateway.store.inbox import Verdict
from mpesa_gateway.store.pool import Pool

# Together with the commit it must stay within the 2 s of a callback's answer.
LOOK_UP_TIMEOUT_S = 0.4


class KnownPushes:
    """Looks pushes up. Everything raises UnavailableError when Postgres does not say in time."""

    def __init__(
        self,
        pool: Pool,
        threads: Threads,
        merchants: Callable[[], Snapshot],
        *,
        platform: tuple[Network, ...],
        token_keys: TokenKeys,
    ) -> None:
        self._pool = pool
        self._threads = threads
        self._denials = AllowlistCache(merchants, platform)
        self._token_keys = token_keys

    async def names_a_push(self, body: bytes, content_encoding: str = "") -> bool:
        """Whether Safaricom's id in a callback is the one of a push of ours."""
        return await self._threads.run("", lambda: self._find_push(body, content_encoding))

    def _find_push(self, body: bytes, content_encoding: str) -> bool:
        try:
            named = parse_stk_callback(body, content_encoding).checkout_request_id
        except CallbackUnreadableError:
            return False
        with self._pool.connection("callback.find_push", LOOK_UP_TIMEOUT_S) as conn:
            return transactions.find_row_by_checkout_request_id(conn, named) is not None

    async def find_refusal(self, token: CallbackToken, address: Address) -> Verdict | None:
        """Why a callback with that token is refused from that address; None when it is not."""
        denial = self._denials.of(address)
        is_ours = self._token_keys.is_ours(token)
        if is_ours and denial.everybody:
            return Verdict.NOT_ALLOWED
        if is_ours and denial.merchants is None:
            return None
        merchant = await self._threads.run("", lambda: self._find_merchant(token))
        if merchant is None and not is_ours:
            return Verdict.UNKNOWN_TOKEN
        denied = denial.everybody or merchant in json.loads(denial.merchants or "[]")
        return Verdict.NOT_ALLOWED if denied else None

    def _find_merchant(self, token: CallbackToken) -> str | None:
        with self._pool.connection("callback.find_merchant", LOOK_UP_TIMEOUT_S) as conn:
            return inbox.find_merchant(conn, token)
