"""What happens to payments, line by line, and every webhook forwarded to a developer's server."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mpesa_gateway.domain.signature import webhook_headers
from mpesa_gateway.store.pool import Pool

FORWARD_TIMEOUT_S = 10.0
# Rows commit out of the order of their ids: this many of the last ones are looked at again.
LOOK_BACK = 1000
PAGE = 200


@dataclass
class _Seen:
    """Row ids that were shown. `last` is the newest row of before the first look."""

    last: int = 0
    _shown: deque[int] = field(default_factory=lambda: deque(maxlen=2 * (PAGE + LOOK_BACK)))

    @property
    def after(self) -> int:
        """Where to begin the next look: some way back, for rows that committed late."""
        return max(self.last, max(self._shown, default=0) - LOOK_BACK)

    def is_new(self, row: int) -> bool:
        """True once for each row."""
        if row in self._shown:
            return False
        self._shown.append(row)
        return True


@dataclass
class Feed:
    """New events and webhooks since the last look. What was there at the first look is not new."""

    pool: Pool
    secret: str = field(repr=False)
    forward_to: str | None
    say: Callable[[str, str], None]
    _events: _Seen = field(default_factory=_Seen)
    _webhooks: _Seen = field(default_factory=_Seen)

    def start(self) -> None:
        """Take what is there as seen."""
        with self.pool.connection("dev.feed") as conn:
            for table, seen in (
                ("transaction_events", self._events),
                ("deliveries", self._webhooks),
            ):
                row = conn.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()  # noqa: S608
                assert row is not None
                seen.last = row[0]

    def look(self, now: datetime) -> None:
        """Say what is new, and forward the webhooks that are. Raises UnavailableError."""
        with self.pool.connection("dev.feed") as conn:
            events = conn.execute(
                """
                SELECT e.id, e.at, e.source, e.kind, e.detail, t.internal_transaction_id::text
                  FROM transaction_events e
                  JOIN transactions t ON t.id = e.transaction_id
                 WHERE e.id > %(after)s
                 ORDER BY e.id LIMIT %(page)s
                """,
                {"after": self._events.after, "page": PAGE + LOOK_BACK},
            ).fetchall()
            webhooks = conn.execute(
                """
                SELECT d.id, d.webhook_id, d.type, d.body, t.internal_transaction_id::text
                  FROM deliveries d
                  JOIN transactions t ON t.id = d.transaction_id
                 WHERE d.id > %(after)s
                 ORDER BY d.id LIMIT %(page)s
                """,
                {"after": self._webhooks.after, "page": PAGE + LOOK_BACK},
            ).fetchall()
        for row, _, source, kind, detail, payment in events:
            if self._events.is_new(row):
                self.say(f"…{payment[-8:]}  {source} {kind}", _words(detail))
        for row, webhook_id, kind, body, payment in webhooks:
            if self._webhooks.is_new(row):
                self._webhook(webhook_id, kind, bytes(body), payment, now)

    def _webhook(
        self, webhook_id: str, kind: str, body: bytes, payment: str, now: datetime
    ) -> None:
        if self.forward_to is None:
            self.say(f"…{payment[-8:]}  webhook {kind}", "")
            return
        headers = webhook_headers(webhook_id, [self.secret], body, now)
        answer = forward(self.forward_to, body, headers)
        self.say(f"…{payment[-8:]}  webhook {kind}", f"{self.forward_to} {answer}")


def forward(url: str, body: bytes, headers: dict[str, str]) -> str:
    """POST a webhook to a developer's server; what it answered, in words. Never raises."""
    request = urllib.request.Request(  # noqa: S310 - a developer's own URL, http or https
        url, body, {**headers, "Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=FORWARD_TIMEOUT_S) as response:  # noqa: S310
            return f"answered {response.status}"
    except urllib.error.HTTPError as error:
        return f"answered {error.code}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"did not answer ({reason}); the merchant's retries go on without it"


def _words(detail: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in detail.items())
