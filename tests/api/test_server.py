"""The server as a real process: limits of a request's head, pipelining, callers that hang up."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import requests

from api.conftest import ApiProcess
from harness.callbacks import ACCEPTED
from harness.initiate import SILENT
from harness.settings import API_KEY
from harness.waiting import wait_for
from harness.wire import Reply, Wire, exchange, request_bytes
from mpesa_gateway.api.protocol import MAX_FRAMING_BYTES, MAX_HEADER_BYTES

pytestmark = pytest.mark.e2e

# What a head that is just small enough leaves for the rest of it.
ROOM = 1024
PIECE = 64 * 1024
CHUNKED = "Transfer-Encoding: chunked"
Phones = Callable[[str], str]


def in_one_header(size: int) -> bytes:
    return request_bytes("GET", "/livez", f"X-Long: {'a' * size}")


def in_many_headers(size: int) -> bytes:
    return request_bytes("GET", "/livez", *(f"X-{n:05}: {'a' * 12}" for n in range(size // 19)))


def in_the_path(size: int) -> bytes:
    return request_bytes("GET", f"/livez?{'a' * size}")


HEADS = [in_one_header, in_many_headers, in_the_path]


@pytest.mark.parametrize("head", HEADS)
def test_a_head_within_the_limit_is_read(api_process: ApiProcess, head: Any) -> None:
    assert exchange(api_process.url, head(MAX_HEADER_BYTES - ROOM)).status == 200


@pytest.mark.parametrize("head", HEADS)
def test_a_head_above_the_limit_is_refused(api_process: ApiProcess, head: Any) -> None:
    with Wire(api_process.url) as wire:
        wire.send(head(MAX_HEADER_BYTES + ROOM))

        assert wire.read().status == 431
        assert wire.is_cut()


@pytest.mark.parametrize("begin", [b"GET /livez HTTP/1.1\r\nX-Long: ", b"GET /livez?"])
def test_a_head_that_does_not_end_is_refused_at_the_limit(
    api_process: ApiProcess, begin: bytes
) -> None:
    with Wire(api_process.url) as wire:
        for piece in (begin, b"a" * (MAX_HEADER_BYTES // 2), b"a" * (MAX_HEADER_BYTES // 2)):
            wire.send(piece)

        assert wire.read().status == 431
        assert wire.is_cut()


def test_a_refusal_is_never_taken_for_the_answer_to_an_earlier_request(
    api_process: ApiProcess, new_phone: Phones
) -> None:
    """It would say that nothing was read of a payment that is on its way."""
    api_process.simulator.change(push_delay=1.0)
    try:
        with Wire(api_process.url) as wire:
            wire.send(initiate_bytes(payment(phone := new_phone(SILENT))))
            wait_for(lambda: push_state(api_process, phone), what="the intent")
            wire.send(in_one_header(MAX_HEADER_BYTES + ROOM))
            with contextlib.suppress(EOFError, ConnectionError):
                assert wire.read().status == 201
        wait_for(lambda: push_state(api_process, phone) == "ACCEPTED", what="the end of the push")
    finally:
        api_process.simulator.change(push_delay=0.0)


def test_the_limit_is_of_each_head_and_not_of_a_connection(api_process: ApiProcess) -> None:
    with Wire(api_process.url) as wire:
        for _ in range(5):
            wire.send(in_one_header(MAX_HEADER_BYTES - ROOM))
            assert wire.read().status == 200


@pytest.mark.parametrize("begin", [b"0\r\nX-Long: ", b"5;"], ids=["trailer", "chunk extension"])
def test_what_is_neither_head_nor_body_is_not_read_without_end(
    api_process: ApiProcess, begin: bytes
) -> None:
    """The rest of a chunked body's framing would be kept in memory, as much as came in 10 s."""
    with Wire(api_process.url) as wire:
        wire.send(request_bytes("POST", "/callback", CHUNKED) + begin)
        sent = sent_until_cut(wire, b"a" * PIECE, most=64 * 1024 * 1024)

        assert requests.get(f"{api_process.url}/livez", timeout=15).status_code == 200
    # The sockets' own buffers take a few megabytes before a sender learns anything.
    assert sent < 16 * 1024 * 1024


def sent_until_cut(wire: Wire, piece: bytes, *, most: int) -> int:
    """How much went out before the peer closed the connection; `most` when it never did."""
    sent = 0
    while sent < most:
        try:
            sent += wire.sock.send(piece)
        except ConnectionError:
            break
    return sent


def test_an_endless_trailer_is_answered_and_cut(api_process: ApiProcess) -> None:
    begin = b"0\r\nX-Long: "
    with Wire(api_process.url) as wire:
        wire.send(request_bytes("POST", "/callback", CHUNKED, "Expect: 100-continue"))
        assert wire.read().status == 100
        wire.send(begin + b"a" * (MAX_FRAMING_BYTES + 1 - len(begin)))

        assert wire.read().status == 431
        assert wire.is_cut()


def test_a_body_in_chunks_of_one_byte_is_taken_whole(api_process: ApiProcess) -> None:
    """The framing is five times the data, and far more than the limit of a trailer."""
    body = json.dumps({"chunks": "a" * 2 * MAX_FRAMING_BYTES}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\nX-Trailer: a\r\n\r\n"
    with Wire(api_process.url) as wire:
        wire.send(request_bytes("POST", "/callback", CHUNKED) + chunks)

        assert wire.read().body.decode() == ACCEPTED
    assert api_process.rows("SELECT FROM callbacks WHERE body = %s", body)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"G" * 9,
        request_bytes(
            "POST", "/callback", "Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n"
        ),
        request_bytes("POST", "/callback", "Content-Length: 9", body=b"{}"),
        request_bytes("POST", "/callback", "Content-Length: -2"),
        request_bytes("POST", "/callback", "Transfer-Encoding: chunked") + b"x\r\n{}\r\n0\r\n\r\n",
    ],
    ids=[
        "TLS",
        "words",
        "a method without end",
        "two kinds of length",
        "two lengths",
        "negative length",
        "bad chunk",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(api_process: ApiProcess, data: bytes) -> None:
    with Wire(api_process.url) as wire:
        wire.send(data)

        assert wire.read().status == 400
        assert wire.is_cut()


def test_http_1_0_is_answered_and_closed(api_process: ApiProcess) -> None:
    with Wire(api_process.url) as wire:
        wire.send(b"GET /livez HTTP/1.0\r\n\r\n")

        assert wire.read().status == 200
        assert wire.is_cut()


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_an_offer_of_another_protocol_is_passed_over(
    api_process: ApiProcess, protocol: str
) -> None:
    """Java's HttpClient offers HTTP/2 with every request to a plain http URL."""
    headers = ["Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AA"]
    with Wire(api_process.url) as wire:
        for method, path, body in [("POST", "/callback", b"{}"), ("GET", "/livez", b"")] * 2:
            wire.send(request_bytes(method, path, *headers, body=body))
            assert wire.read().status == 200


def test_the_body_behind_an_offer_of_another_protocol_is_stored(api_process: ApiProcess) -> None:
    """In one piece with its head, byte by byte, chunked, and many in one piece."""
    headers = ["Connection: keep-alive, Upgrade", "Upgrade: h2c"]
    bodies = [f'{{"offer": {number}}}'.encode() for number in range(60)]
    whole = [request_bytes("POST", "/callback", *headers, body=body) for body in bodies[:58]]
    chunked = (
        b"POST /callback HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        + f"{len(bodies[58]):x}\r\n".encode() + bodies[58] + b"\r\n0\r\n\r\n"
    )  # fmt: skip
    slow = request_bytes("POST", "/callback", *headers, body=bodies[59])
    with Wire(api_process.url) as wire:
        wire.send(b"".join(whole) + chunked)
        assert {wire.read().status for _ in bodies[:59]} == {200}
        for at in range(len(slow)):
            wire.send(slow[at : at + 1])
        assert wire.read().status == 200

    kept = api_process.rows("SELECT body FROM callbacks WHERE body LIKE %s", b'{"offer": %')
    assert sorted(bytes(row["body"]) for row in kept) == sorted(bodies)


def test_a_connect_is_refused_and_closed(api_process: ApiProcess) -> None:
    with Wire(api_process.url) as wire:
        wire.send(b"CONNECT pay.example:443 HTTP/1.1\r\nHost: pay.example\r\n\r\nGET /livez")
        assert wire.read().status >= 400
        assert wire.is_cut()


def test_pipelined_requests_are_answered_in_their_order(api_process: ApiProcess) -> None:
    unknown = f"/callback/{'0' * 64}"
    asked = [
        (request_bytes("GET", "/health"), 200),
        (request_bytes("POST", unknown, body=b"{}"), 404),
        (request_bytes("GET", "/livez"), 200),
        (request_bytes("GET", "/transactions"), 401),
        (request_bytes("POST", "/callback", body=b'{"pipelined": 1}'), 200),
        (request_bytes("DELETE", "/livez"), 405),
    ]
    with Wire(api_process.url) as wire:
        wire.send(b"".join(data for data, _ in asked) * 20)
        replies = [wire.read() for _ in asked * 20]

    assert [reply.status for reply in replies] == [status for _, status in asked] * 20
    kept = [reply.body.decode() for reply in replies[4::6]]
    assert kept == [ACCEPTED] * 20
    (row,) = api_process.rows(
        "SELECT sum(copies) AS copies FROM callbacks WHERE body = %s", b'{"pipelined": 1}'
    )
    assert row["copies"] == 20


def initiate_bytes(body: dict[str, Any]) -> bytes:
    headers = [f"X-Internal-Secret: {API_KEY}", "Content-Type: application/json"]
    return request_bytes("POST", "/initiate", *headers, body=json.dumps(body).encode())


def payment(phone: str) -> dict[str, Any]:
    return {
        "amount": "10",
        "phone": phone,
        "webhook_url": "http://127.0.0.1:9999/hook",
        "idempotency_key": str(uuid.uuid4()),
    }


def push_state(api: ApiProcess, phone: str) -> str | None:
    found = api.rows("SELECT push_state FROM transactions WHERE phone = %s", phone)
    return found[0]["push_state"] if found else None


def pushes(api: ApiProcess, phone: str) -> int:
    return len(api.simulator.ledger(phone=phone)["pushes"])


def test_a_payment_that_is_pipelined_twice_is_one_push(
    api_process: ApiProcess, new_phone: Phones
) -> None:
    body = payment(phone := new_phone(SILENT))
    with Wire(api_process.url) as wire:
        wire.send(initiate_bytes(body) * 3)
        first, *others = [wire.read() for _ in range(3)]

    assert first.status == 201
    for other in others:
        assert_replay(other, first.status, first.body)
    assert pushes(api_process, phone) == 1


def assert_replay(reply: Reply, status: int, body: bytes) -> None:
    assert (reply.status, reply.body) == (status, body)
    assert reply.headers["idempotent-replayed"] == "true"


def leave(wire: Wire) -> None:
    wire.close()


def stop_sending(wire: Wire) -> None:
    wire.sock.shutdown(socket.SHUT_WR)


def reset(wire: Wire) -> None:
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


@pytest.mark.parametrize("hang_up", [leave, stop_sending, reset])
def test_a_push_runs_to_its_end_although_the_caller_hangs_up(
    api_process: ApiProcess, new_phone: Phones, hang_up: Callable[[Wire], None]
) -> None:
    phone = new_phone(SILENT)
    body = payment(phone)

    def state() -> str | None:
        return push_state(api_process, phone)

    api_process.simulator.change(push_delay=1.0)
    try:
        with Wire(api_process.url) as wire:
            wire.send(initiate_bytes(body))
            wait_for(state, what="the intent")
            hang_up(wire)
            assert state() != "ACCEPTED", "the caller hung up too late for this test"
            wait_for(lambda: state() == "ACCEPTED", what="the end of the push")
    finally:
        api_process.simulator.change(push_delay=0.0)

    (row,) = api_process.rows(
        "SELECT internal_transaction_id AS id FROM transactions WHERE phone = %s", phone
    )
    reply = exchange(api_process.url, initiate_bytes(body))
    assert reply.json() == {"transaction_id": str(row["id"]), "status": "PENDING"}
    assert_replay(reply, 201, reply.body)
    assert pushes(api_process, phone) == 1
