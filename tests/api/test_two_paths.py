"""The fast path of a callback and the slow one: the same rows, answers, counts and lines."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from daraja_simulator.server import RunningSimulator
from harness.callbacks import kept, paid_silently
from harness.counters import Since
from harness.gateway import Gateway, Gateways, open_gateway
from harness.receiver import Receiver
from harness.waiting import wait_for
from harness.wire import Reply, Wire, request_bytes
from mpesa_devkit.embedded import EmbeddedPostgres
from mpesa_gateway.api.callbacks.fast_path import MAX_BODY, find_token

Phones = Callable[[str], str]
INSIDE, OUTSIDE = "X-Forwarded-For: 196.201.214.206", "X-Forwarded-For: 203.0.113.9"
# It changes nothing, and such a URL goes the slow path.
QUERY = "?long=way"
CHANGING = ("date", "content-length")


@pytest.fixture(scope="module")
def walled(gateways: Gateways) -> Iterator[Gateway]:
    with gateways.start(
        safaricom_ips="196.201.214.0/24", trusted_proxies="127.0.0.1/32"
    ) as gateway:
        yield gateway


def goes_short(data: bytes) -> bool:
    """By its own bytes, read here as simply as the parser would."""
    head = data.partition(b"\r\n\r\n")[0].split(b"\r\n")
    fields = [line.partition(b":")[::2] for line in head[1:]]
    headers = [(name.lower(), value.strip()) for name, value in fields]
    return find_token(head[0].split()[1], headers) is not None


@dataclass
class Seen:
    """What one request left behind."""

    reply: Reply
    is_open: bool
    counts: dict[str, Any]
    lines: list[dict[str, Any]]

    def comparable(self) -> dict[str, Any]:
        headers = {k: v for k, v in self.reply.headers.items() if k not in CHANGING}
        lines = [
            {k: v for k, v in line.items() if k not in ("ms", "timestamp")} for line in self.lines
        ]
        return {
            "status": self.reply.status,
            "headers": headers,
            "body": self.reply.body,
            "is_open": self.is_open,
            "counts": self.counts,
            "lines": lines,
        }


def see(gateway: Gateway, data: bytes, caplog: pytest.LogCaptureFixture) -> Seen:
    caplog.clear()
    since = Since()
    with Wire(gateway.url) as wire:
        wire.send(data)
        reply = wire.read()
        try:
            wire.send(request_bytes("GET", "/livez"))
            is_open = wire.read().status == 200
        except (EOFError, ConnectionError):
            is_open = False
    wait_for(lambda: request_lines(caplog), what="its line")
    counts: dict[str, Any] = {"rejected": since.by("mpesa_callbacks_rejected_total", "reason")}
    counts["requests"] = since.of(
        "mpesa_http_requests_total", route="/callback/{token}", status=str(reply.status)
    )
    counts["seconds"] = since.of("mpesa_http_request_seconds_count", route="/callback/{token}")
    counts["acks"] = since.of("mpesa_callback_ack_seconds_count")
    return Seen(reply, is_open, counts, request_lines(caplog))


def request_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    events = [it.msg for it in caplog.records if isinstance(it.msg, dict)]
    return [
        {k: v for k, v in it.items() if not k.startswith("_")}
        for it in events
        if it["event"] == "request"
    ]


@pytest.mark.parametrize(
    ("status", "headers", "token"),
    [
        (200, [INSIDE], None),
        (200, [INSIDE, "X-Request-ID: order-7"], None),
        (200, [INSIDE, "X-Request-ID: not a name"], None),
        (200, [INSIDE, "X-Request-ID: one", "X-Request-ID: two"], None),
        (200, [INSIDE, "Connection: close"], None),
        (200, [INSIDE, "User-Agent: okhttp/4.9.0", "BusinessShortCode: 174379"], None),
        (403, [OUTSIDE], None),
        (403, [], None),
        (404, [INSIDE], "0" * 64),
        (404, [INSIDE, "X-Request-ID: order-8", "Connection: close"], "0" * 64),
    ],
    ids=lambda it: str(it)[:60],
)
def test_both_ways_keep_answer_count_and_say_the_same(
    walled: Gateway,
    new_phone: Phones,
    caplog: pytest.LogCaptureFixture,
    status: int,
    headers: list[str],
    token: str | None,
) -> None:
    caplog.set_level(logging.INFO)
    transaction_id, path = paid_silently(walled, new_phone("4042"))
    path = f"/callback/{token}" if token else path
    short = request_bytes("POST", path, *headers, body=b'{"way": 1}')
    long = request_bytes("POST", path + QUERY, *headers, body=b'{"way": 2}')
    assert (goes_short(short), goes_short(long)) == (True, False)

    first, second = (see(walled, data, caplog) for data in (short, long))

    assert first.reply.status == status
    assert first.comparable() == second.comparable()
    rows = [
        {k: row[k] for k in ("by_token", "headers", "source", "copies", "state")}
        for row in kept(walled, transaction_id)
    ]
    assert len(rows) == (2 if status == 200 else 0)
    assert rows[:1] == rows[1:]


@pytest.mark.parametrize(("status", "header"), [(200, INSIDE), (403, OUTSIDE)])
def test_both_ways_treat_a_token_of_ours_without_a_payment_the_same(
    walled: Gateway, caplog: pytest.LogCaptureFixture, status: int, header: str
) -> None:
    caplog.set_level(logging.INFO)
    missing = uuid.uuid4()
    path = f"/callback/{walled.services.config.token_keys.make(missing, bytes(16)).text}"
    short = request_bytes("POST", path, header, body=b'{"way": 1}')
    long = request_bytes("POST", path + QUERY, header, body=b'{"way": 2}')
    assert (goes_short(short), goes_short(long)) == (True, False)

    first, second = (see(walled, data, caplog) for data in (short, long))

    assert first.reply.status == status
    assert first.comparable() == second.comparable()
    rows = walled.rows("SELECT * FROM callbacks WHERE orphan_of = %s", missing)
    assert len(rows) == (2 if status == 200 else 0)


def test_a_refusal_for_want_of_postgres_is_the_same_on_both_ways(
    own_postgres: EmbeddedPostgres,
    own_database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    new_phone: Phones,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with open_gateway(own_database_url, redis_url, simulator, receiver) as gateway:
        wait_for(lambda: gateway.get("/health").ok, what="the pool")
        _, path = paid_silently(gateway, new_phone("4042"))
        own_postgres.stop()
        requests = [request_bytes("POST", path + query, body=b"{}") for query in ("", QUERY)]
        first, second = (see(gateway, data, caplog) for data in requests)

    assert first.reply.status == 503
    assert json.loads(first.reply.body)["retry_after"] == int(first.reply.headers["retry-after"])
    assert first.counts["rejected"] == {"unavailable": 1.0}
    shown = [it.comparable() for it in (first, second)]
    for it in shown:
        # Why Postgres could not be reached may differ from one moment to the next.
        it["body"] = json.loads(it["body"]) | {"detail": ""}
    assert shown[0] == shown[1]


TOKEN = b"0192f3a47b1c7d2e8f90254712345678" + b"9f" * 16
SMALL = [(b"content-length", b"10")]


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        (b"/callback", SMALL),
        (b"/callback/", SMALL),
        (b"/callback/" + TOKEN + b"//", SMALL),
        (b"/callback/" + TOKEN[:-1], SMALL),
        (b"/callback/" + TOKEN + b"\n", SMALL),
        (b"/callback/%30" + TOKEN[1:], SMALL),
        (b"http://gateway/callback/" + TOKEN, SMALL),
        (b"/callback/" + TOKEN, []),
        (b"/callback/" + TOKEN, [(b"content-length", b"%d" % (MAX_BODY + 1))]),
        (b"/callback/" + TOKEN, [(b"content-length", b"+10")]),
        (b"/callback/" + TOKEN, [(b"transfer-encoding", b"chunked")]),
        (b"/callback/" + TOKEN, [*SMALL, (b"expect", b"100-continue")]),
        (b"/callback/" + TOKEN, [*SMALL, (b"upgrade", b"h2c")]),
    ],
)
def test_what_is_unusual_goes_the_long_way(url: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    assert find_token(url, headers) is None
    assert find_token(b"/callback/" + TOKEN, SMALL) is not None


@pytest.mark.parametrize("change", [str, str.upper, "{}/".format, "{}/?".format])
def test_case_and_a_final_slash_make_no_difference_on_either_way(
    walled: Gateway, new_phone: Phones, change: Callable[[str], str]
) -> None:
    transaction_id, path = paid_silently(walled, new_phone("4042"))
    token = path.removeprefix("/callback/")
    with Wire(walled.url) as wire:
        for number, query in enumerate(("", QUERY)):
            where = f"/callback/{change(token)}".removesuffix("?") + query
            wire.send(request_bytes("POST", where, INSIDE, body=b"%d" % number))
            assert wire.read().status == 200

    rows = kept(walled, transaction_id)
    assert [(bytes(it["body"]), it["by_token"]) for it in rows] == [(b"0", True), (b"1", True)]


def test_a_callback_behind_another_request_waits_for_its_turn(
    walled: Gateway, new_phone: Phones
) -> None:
    """Pipelined, the fast path must not overtake the slow one, nor the other way round."""
    transaction_id, path = paid_silently(walled, new_phone("4042"))
    data = b""
    for number in range(30):
        query = QUERY if number % 3 else ""
        data += request_bytes("POST", path + query, INSIDE, body=b"%d" % number)
        data += request_bytes("GET", "/livez") if number % 2 else b""
    with Wire(walled.url) as wire:
        wire.send(data)
        bodies = [wire.read().body for _ in range(45)]

    lives = [number for number, body in enumerate(bodies) if b"status" in body]
    assert lives == [3 * it + 2 for it in range(15)]
    assert {bytes(it["body"]) for it in kept(walled, transaction_id)} == {
        b"%d" % it for it in range(30)
    }


def test_a_body_that_comes_in_pieces_goes_the_short_way_too(
    walled: Gateway, new_phone: Phones
) -> None:
    transaction_id, path = paid_silently(walled, new_phone("4042"))
    data = request_bytes("POST", path, INSIDE, body=b"0123456789" * 5000)
    assert goes_short(data)
    with Wire(walled.url) as wire:
        for at in range(0, len(data), 7001):
            wire.send(data[at : at + 7001])
        assert wire.read().status == 200

    (row,) = kept(walled, transaction_id)
    assert bytes(row["body"]) == b"0123456789" * 5000
