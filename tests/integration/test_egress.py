"""Outgoing HTTP: the guard at the dial, one deadline for a whole try, TLS, hostile replies."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme

from harness.collecting import every_case
from harness.receiver import Answer, Receiver
from harness.waiting import PROMPTLY_S
from mpesa_gateway.clients.deadline import current_exchange, exchange
from mpesa_gateway.clients.egress import Guard, new_session, resolve_name
from mpesa_gateway.clients.webhooks import REPLY_LIMIT, WebhookClient
from mpesa_gateway.domain.delivery import Attempt
from mpesa_gateway.domain.merchant import Address, parse_networks

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
LOOPBACK = ipaddress.ip_address("127.0.0.1")
PUBLIC = ipaddress.ip_address("93.184.215.14")


def names(**table: list[str]) -> Callable[[str, int], list[Address]]:
    """A name server: `shop="93.184.215.14"` answers for shop.example."""
    known = {f"{name}.example": [ipaddress.ip_address(it) for it in table[name]] for name in table}

    def resolve(host: str, _port: int) -> list[Address]:
        found = known.get(host.rstrip("."))
        if found is None:
            raise socket.gaierror("no such name")
        return found

    return resolve


def send(
    url: str, guard: Guard, *, deadline_s: float = 5.0, extra_ca: str | None = None
) -> Attempt:
    with new_session(guard, user_agent="test", extra_ca=extra_ca) as session:
        return WebhookClient(session, deadline_s=deadline_s).post(url, b"{}", {}, NOW)


@every_case(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.7"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:7f00:1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::1"],
        ["fd00:ec2::254"],
        ["93.184.215.14", "10.0.0.7"],
        ["10.0.0.7", "93.184.215.14"],
        ["93.184.215.14", "64:ff9b::a00:7"],
    ],
)
def test_a_name_with_any_address_that_is_not_public_is_not_dialled(addresses: list[str]) -> None:
    attempt = send("https://shop.example/hook", Guard(resolve=names(shop=addresses)))

    assert attempt.outcome == "refused"
    assert attempt.reason == "refused_by_guard"
    assert attempt.error_message is not None
    assert not any(address in attempt.error_message for address in addresses)


def test_a_literal_address_is_vetted_too(receiver: Receiver) -> None:
    attempt = send(receiver.url, Guard())

    assert attempt.outcome == "refused"
    assert receiver.requests == []


def test_what_was_vetted_is_what_is_dialled(receiver: Receiver) -> None:
    """A rebinding name server: the first answer is harmless, the second one is loopback."""
    answers = [[PUBLIC], [LOOPBACK]]
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> list[Address]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    url = receiver.url.replace("127.0.0.1", "shop.example")
    guard = Guard(resolve=rebinding)
    first = send(url, guard, deadline_s=0.3)
    second = send(url, guard)

    assert asked == ["shop.example.", "shop.example."]
    assert first.outcome == "failed"  # the public address: dialled, and not there
    assert second.outcome == "refused"
    assert receiver.requests == []


def test_more_networks_can_be_denied() -> None:
    guard = Guard(denied=parse_networks(["93.184.215.0/24"]), resolve=names(shop=["93.184.215.14"]))

    assert send("https://shop.example/", guard).outcome == "refused"


def test_denied_networks_hold_where_private_ones_are_allowed(receiver: Receiver) -> None:
    guard = Guard(allow_private=True, denied=parse_networks(["127.0.0.0/8"]))

    assert send(receiver.url, guard).outcome == "refused"


def test_a_proxy_variable_does_not_lead_around_the_guard(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", receiver.url)
    monkeypatch.setenv("http_proxy", receiver.url)
    attempt = send("http://shop.example/", Guard(resolve=names(shop=["10.0.0.7"])))

    assert attempt.outcome == "refused"
    assert receiver.requests == []


def test_a_name_without_an_address_and_an_internal_one_look_the_same_to_their_merchant() -> None:
    """Otherwise he could find out which internal names there are."""
    unknown = send("https://shop.example/", Guard(resolve=names()))
    internal = send("https://shop.example/", Guard(resolve=names(shop=["10.0.0.7"])))

    assert (unknown.outcome, unknown.error_message) == (internal.outcome, internal.error_message)
    assert (unknown.reason, internal.reason) == ("dns", "refused_by_guard")


def test_a_closed_port_is_a_failure_in_words() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    attempt = send(f"http://127.0.0.1:{port}/", Guard(allow_private=True))

    assert (attempt.outcome, attempt.reason) == ("failed", "connection_refused")


def test_the_next_address_is_tried_when_one_does_not_answer(receiver: Receiver) -> None:
    guard = Guard(allow_private=True, resolve=names(shop=["::1", "127.0.0.1"]))

    assert send(receiver.url.replace("127.0.0.1", "shop.example"), guard).success


def test_a_name_look_up_that_hangs_ends_with_the_deadline() -> None:
    release = threading.Event()

    def hang(_host: str, _port: int) -> list[Address]:
        release.wait(10)
        return [PUBLIC]

    started = time.monotonic()
    attempt = send("https://shop.example/", Guard(resolve=hang), deadline_s=0.3)
    release.set()

    assert attempt.reason == "timeout"
    assert time.monotonic() - started < PROMPTLY_S


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte at a time, for ever: each read succeeds, the whole never ends."""
    with hung_up():
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        for _ in range(600):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.02)


def drip_body(handler: BaseHTTPRequestHandler) -> None:
    with hung_up():
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n")
        for _ in range(600):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.02)


def hang(handler: BaseHTTPRequestHandler) -> None:
    handler.rfile.read(1)


def hung_up() -> contextlib.suppress:
    """The gateway may close the connection at any time."""
    return contextlib.suppress(OSError)


@pytest.mark.parametrize("act", [drip, drip_body, hang], ids=["head", "body", "hang"])
def test_an_endpoint_that_never_finishes_costs_one_deadline(
    receiver: Receiver, act: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    receiver.default = Answer(act=act)
    started = time.monotonic()
    attempt = send(receiver.url, Guard(allow_private=True), deadline_s=0.4)

    assert (attempt.outcome, attempt.reason) == ("failed", "timeout")
    assert time.monotonic() - started < PROMPTLY_S
    assert attempt.response_time_ms is not None
    assert attempt.response_time_ms >= 400


def test_an_endless_reply_is_read_to_its_limit_only(receiver: Receiver) -> None:
    sent: list[int] = []

    def flood(handler: BaseHTTPRequestHandler) -> None:
        with hung_up():
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while sum(sent) < 1_000_000_000:
                sent.append(handler.wfile.write(b"x" * 65536))

    receiver.default = Answer(act=flood)
    attempt = send(receiver.url, Guard(allow_private=True))

    assert attempt.success
    assert sum(sent) < REPLY_LIMIT + 50_000_000  # the kernel's buffers, not ours


def test_a_head_without_end_is_a_failure(receiver: Receiver) -> None:
    def flood(handler: BaseHTTPRequestHandler) -> None:
        with hung_up():
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(100_000):
                handler.wfile.write(b"X-%d: y\r\n" % number)

    receiver.default = Answer(act=flood)

    assert send(receiver.url, Guard(allow_private=True)).outcome == "failed"


def test_no_cookie_goes_from_one_try_to_the_next(receiver: Receiver) -> None:
    receiver.default = Answer(headers={"Set-Cookie": "session=1; Path=/"})
    with new_session(Guard(allow_private=True), user_agent="test") as session:
        client = WebhookClient(session)
        client.post(receiver.url, b"{}", {}, NOW)
        client.post(receiver.url, b"{}", {}, NOW)

    assert all("cookie" not in request.headers for request in receiver.requests)


def test_a_kept_connection_that_the_server_closed_is_not_used_again(receiver: Receiver) -> None:
    receiver.default = Answer(headers={"Connection": "close"})
    with new_session(Guard(allow_private=True), user_agent="test") as session:
        client = WebhookClient(session)
        attempts = [client.post(receiver.url, b"{}", {}, NOW) for _ in range(5)]

    assert all(attempt.success for attempt in attempts)


@contextmanager
def tls_server(context: ssl.SSLContext) -> Iterator[int]:
    """Answers one line of HTTP over TLS; the port."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.05)
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            try:
                plain, _ = server.accept()
            except TimeoutError:
                continue
            with hung_up(), context.wrap_socket(plain, server_side=True) as sock:
                while not sock.recv(65536).endswith(b"{}"):
                    pass  # head and body come in records of their own
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        stopping.set()
        thread.join()
        server.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_a_certificate_of_a_known_authority_is_accepted(
    authority: trustme.CA, ca_file: str
) -> None:
    guard = Guard(allow_private=True, resolve=names(shop=["127.0.0.1"]))
    with tls_server(server_context(authority, "shop.example")) as port:
        attempt = send(f"https://shop.example:{port}/", guard, extra_ca=ca_file)

    assert attempt.success


@pytest.mark.parametrize("known", [False, True], ids=["unknown authority", "another name"])
def test_any_other_certificate_is_refused(authority: trustme.CA, ca_file: str, known: bool) -> None:
    guard = Guard(allow_private=True, resolve=names(shop=["127.0.0.1"]))
    name = "elsewhere.example" if known else "shop.example"
    with tls_server(server_context(authority, name)) as port:
        attempt = send(f"https://shop.example:{port}/", guard, extra_ca=ca_file if known else None)

    assert (attempt.outcome, attempt.reason) == ("failed", "tls")


def test_tls_below_1_2_is_refused(authority: trustme.CA, ca_file: str) -> None:
    context = server_context(authority, "shop.example")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    guard = Guard(allow_private=True, resolve=names(shop=["127.0.0.1"]))
    with tls_server(context) as port:
        attempt = send(f"https://shop.example:{port}/", guard, extra_ca=ca_file)

    assert (attempt.outcome, attempt.reason) == ("failed", "tls")


def test_a_handshake_that_hangs_ends_with_the_deadline(ca_file: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        guard = Guard(allow_private=True, resolve=names(shop=["127.0.0.1"]))
        port = server.getsockname()[1]
        started = time.monotonic()
        attempt = send(f"https://shop.example:{port}/", guard, deadline_s=0.3, extra_ca=ca_file)

    assert attempt.reason == "timeout"
    assert time.monotonic() - started < PROMPTLY_S


def test_an_exchange_knows_whether_a_byte_of_the_request_left(
    authority: trustme.CA, ca_file: str, receiver: Receiver
) -> None:
    """A TLS handshake is no part of the request: what fails there was certainly not sent."""
    with new_session(Guard(allow_private=True), user_agent="test", extra_ca=ca_file) as session:
        with exchange(5) as plain:
            session.get(receiver.url, timeout=5, stream=True).close()
        with (
            tls_server(server_context(authority, "elsewhere.example")) as port,
            exchange(5) as tls,
            pytest.raises(OSError, match="certificate"),
        ):
            session.get(f"https://127.0.0.1:{port}/", timeout=5)

    assert plain.sent is True
    assert tls.sent is False


def test_a_new_connection_reads_no_roots_again(
    authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them takes 50 ms of CPU: a worker would do twenty webhooks a second."""
    guard = Guard(allow_private=True, resolve=names(shop=["127.0.0.1"]))
    with tls_server(server_context(authority, "shop.example")) as port:
        url = f"https://shop.example:{port}/"
        assert send(url, guard, extra_ca=ca_file).success
        monkeypatch.delattr(ssl.SSLContext, "load_default_certs")
        monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", None, raising=False)
        assert send(url, guard, extra_ca=ca_file).success


def test_no_socket_works_outside_of_an_exchange() -> None:
    with pytest.raises(AssertionError):
        current_exchange()


def test_the_machines_own_resolver_is_asked() -> None:
    assert LOOPBACK in resolve_name("localhost", 80)
