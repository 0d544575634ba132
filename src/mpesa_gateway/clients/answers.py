"""An answer of a peer that may be hostile: read up to a limit, never decoded, never trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import urllib3
from requests import Response


@dataclass(frozen=True)
class Answer:
    """A status, headers, and as much of the body as was asked for.

    `problem` says why the body is not whole; None when it is.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    problem: Exception | None = None

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def timed_out(self) -> bool:
        """Whether the deadline came before the body's end."""
        return isinstance(self.problem, TimeoutError | urllib3.exceptions.TimeoutError)

    @property
    def readable_body(self) -> bytes | None:
        """The body, or None when it is not whole, or is in an encoding that nobody asked for."""
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        return self.body if self.problem is None and encoding in ("", "identity") else None


class BodyTooLongError(Exception):
    """The body goes on behind the limit."""


def read_answer(response: Response, limit: int) -> Answer:
    """The answer with the first bytes of its body. The connection is given back, or dropped.

    A body that breaks off, is badly framed or does not end is a `problem`, not an exception: the
    status has been told by then.
    """
    body = b""
    problem: Exception | None = None
    try:
        # After a 101 comes no body, and nothing that is HTTP.
        while response.status_code >= HTTPStatus.OK and len(body) < limit:
            chunk: bytes = response.raw.read1(limit - len(body), False)
            if not chunk:
                response.raw.release_conn()
                return Answer(response.status_code, response.headers, body)
            body += chunk
        problem = BodyTooLongError(f"{limit} bytes or more")
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        problem = error
    response.close()
    return Answer(response.status_code, response.headers, body, problem)
