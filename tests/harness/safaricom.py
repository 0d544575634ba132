"""A Safaricom that is told each answer, for what the simulator would never say or time so."""

from __future__ import annotations

import json
import uuid
from typing import Any

from harness.receiver import Answer, Receiver

PUSH_PATH = "/mpesa/stkpush/v1/processrequest"
HTML = "<html><body>Service Unavailable</body></html>"
ACCEPTED = {"MerchantRequestID": "1", "CheckoutRequestID": "ws_CO_1", "ResponseCode": "0"}


class FakeSafaricom(Receiver):
    """Answers tokens in their order, and pushes by hand."""

    def token(self, token: str = "a-token") -> None:  # noqa: S107 - made up
        content = {"access_token": token, "expires_in": "3599"}
        self.answers.append(Answer(body=json.dumps(content).encode()))

    def push(self, status: int, body: object) -> None:
        self.answers.append(Answer(status, body=json.dumps(body).encode()))

    @property
    def pushed(self) -> list[str]:
        """The tokens of the pushes that came."""
        return [
            request.headers["authorization"].removeprefix("Bearer ")
            for request in self.requests
            if request.path == PUSH_PATH
        ]


def error(code: str, message: str = "No.") -> dict[str, str]:
    """A refusal in the form of most of Daraja."""
    return {"requestId": "1-2-3", "errorCode": code, "errorMessage": message}


def accepted() -> dict[str, Any]:
    """An accepting answer with an id of its own."""
    return {**ACCEPTED, "CheckoutRequestID": f"ws_CO_{uuid.uuid4().hex}"}
