"""A Safaricom that is told each answer, for what the simulator would never say or time so."""

from __future__ import annotations

import json

from harness.receiver import Answer, Receiver

PUSH_PATH = "/mpesa/stkpush/v1/processrequest"


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
