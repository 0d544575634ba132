"""Safaricom as the machine plays it: each push has a fate, and a truth that it alone moves."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from harness.receiver import Answer, Receiver
from harness.safaricom import HTML, PUSH_PATH

QUERY_PATH = "/mpesa/stkpushquery/v1/query"


class Fate(StrEnum):
    """What becomes of the next push."""

    ACCEPTED = "accepted"
    # Accepted, and the answer says nothing that can be used: the outcome is unknown.
    ACCEPTED_UNHEARD = "accepted, unheard"
    # Accepted, and the connection ends before the answer.
    ACCEPTED_CUT = "accepted, cut"
    REFUSED = "refused"
    BUSY = "busy"


class Truth(StrEnum):
    """What really happened on the customer's phone."""

    OPEN = "open"
    PAID = "paid"
    CANCELLED = "cancelled"


@dataclass
class Prompt:
    """One push that Safaricom accepted."""

    phone: str
    amount: int
    checkout_request_id: str
    callback_path: str
    receipt: str
    truth: Truth = Truth.OPEN


@dataclass
class Books:
    """Safaricom's own, which the gateway cannot touch."""

    prompts: list[Prompt] = field(default_factory=list)
    queries: int = 0


class ScriptedSafaricom(Receiver):
    """Answers by `fate` and by the truth; never calls back by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.books = Books()
        self.fate = Fate.ACCEPTED
        # The next answer to a query is about another payment, and says that it was paid.
        self.is_mistaken = False
        self._mutex = threading.Lock()
        self.default = Answer(act=self._act)

    def _act(self, handler: BaseHTTPRequestHandler) -> None:
        request = self.requests[-1] if handler.path.startswith("/oauth") else self._of(handler)
        if handler.path == PUSH_PATH:
            status, body = self._push(json.loads(request.body))
        elif handler.path == QUERY_PATH:
            status, body = self._query(json.loads(request.body))
        else:
            status, body = 200, {"access_token": "a-token", "expires_in": "3599"}
        if status == 0:
            handler.close_connection = True
            return
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _of(self, handler: BaseHTTPRequestHandler) -> Any:
        """The machine does one thing at a time: the last request there is this one."""
        return [it for it in self.requests if it.path == handler.path][-1]

    def _push(self, asked: dict[str, Any]) -> tuple[int, object]:
        with self._mutex:
            if self.fate is Fate.REFUSED:
                return 400, error("400.002.02", "Bad Request - Invalid PhoneNumber")
            if self.fate is Fate.BUSY:
                return 500, error("500.003.02", "System is busy. Please try again.")
            number = len(self.books.prompts)
            prompt = Prompt(
                phone=str(asked["PhoneNumber"]),
                amount=int(asked["Amount"]),
                checkout_request_id=f"ws_CO_{number:020}",
                callback_path=urlsplit(asked["CallBackURL"]).path,
                receipt=f"SIM{number:07}",
            )
            self.books.prompts.append(prompt)
        if self.fate is Fate.ACCEPTED_UNHEARD:
            return 200, HTML
        if self.fate is Fate.ACCEPTED_CUT:
            return 0, ""
        return 200, {
            "MerchantRequestID": "1",
            "CheckoutRequestID": prompt.checkout_request_id,
            "ResponseCode": "0",
        }

    def _query(self, asked: dict[str, Any]) -> tuple[int, object]:
        self.books.queries += 1
        known = {it.checkout_request_id: it for it in self.books.prompts}
        prompt = known[asked["CheckoutRequestID"]]
        if self.is_mistaken:
            self.is_mistaken = False
            return 200, {"ResponseCode": "0", "CheckoutRequestID": "ws_CO_none", "ResultCode": "0"}
        if prompt.truth is Truth.OPEN:
            return 500, error("500.001.1001", "The transaction is being processed")
        code = "0" if prompt.truth is Truth.PAID else "1032"
        return 200, {"ResponseCode": "0", "ResultCode": code, "ResultDesc": "said by a query"}

    def prompt_of(self, phone: str) -> Prompt | None:
        """The push to that phone; the machine uses a phone once."""
        return next((it for it in self.books.prompts if it.phone == phone), None)


def error(code: str, message: str) -> dict[str, str]:
    """A refusal in the form of most of Daraja."""
    return {"requestId": "1-2-3", "errorCode": code, "errorMessage": message}
