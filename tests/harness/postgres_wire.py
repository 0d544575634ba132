"""As much of Postgres's wire protocol as it takes to see what commits, and the answer to it."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

# Outside a transaction each of these commits by itself; inside one only COMMIT does.
_ALONE = re.compile(rb"\s*(INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)
_COMMIT = re.compile(rb"\s*COMMIT\b", re.IGNORECASE)
_IDLE = b"I"


@dataclass
class Messages:
    """Cuts a stream into messages: one byte for its type, four for its length, the body."""

    with_startup: bool = False
    _rest: bytes = b""

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The messages that are complete now. A client's first one has no type: it gets b''."""
        found = []
        rest = self._rest + data
        while True:
            head = 0 if self.with_startup else 1
            if len(rest) < head + 4:
                break
            end = head + struct.unpack_from("!I", rest, head)[0]
            if len(rest) < end:
                break
            found.append((rest[:head], rest[head + 4 : end]))
            rest = rest[end:]
            self.with_startup = False
        self._rest = rest
        return found


@dataclass
class Session:
    """What one connection is doing, seen from between the two ends of it."""

    client: Messages = field(default_factory=lambda: Messages(with_startup=True))
    server: Messages = field(default_factory=Messages)
    idle: bool = False
    _statements: dict[bytes, bytes] = field(default_factory=dict)

    def commits(self, data: bytes) -> bool:
        """Whether what the client sends asks for a commit."""
        # All of them: what is prepared here is executed by name later.
        committing = [self._commits(kind, body) for kind, body in self.client.feed(data)]
        return any(committing)

    def _commits(self, kind: bytes, body: bytes) -> bool:
        if kind == b"Q":
            return self._is_commit(body)
        if kind == b"P":
            name, text, *_ = body.split(b"\0", 2)
            self._statements[name] = text
        elif kind == b"B":
            _, name, *_ = body.split(b"\0", 2)
            return self._is_commit(self._statements.get(name, b""))
        return False

    def _is_commit(self, text: bytes) -> bool:
        return bool(_COMMIT.match(text) or (self.idle and _ALONE.match(text)))

    def is_done(self, data: bytes) -> bool:
        """Whether the server has said that it is ready for the next statement."""
        done = False
        for kind, body in self.server.feed(data):
            if kind == b"Z":
                done, self.idle = True, body == _IDLE
        return done
