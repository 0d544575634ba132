"""The metrics port under clients that do not behave, beside a probe that must be answered."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import ExitStack

import pytest
import requests

from harness.waiting import wait_for
from mpesa_gateway.config.ports import bind_port
from mpesa_gateway.errors import ConfigError
from mpesa_gateway.exporters.http_server import (
    DEADLINE_S,
    MAX_CONNECTIONS,
    RENDER_THREADS,
    bind_metrics_port,
    serve_metrics,
)


@pytest.fixture(scope="module")
def port() -> int:
    sock = bind_port("METRICS_PORT", "127.0.0.1", 0, backlog=128)
    serve_metrics(sock, lambda: True, lambda: {"merchants": {}})
    return int(sock.getsockname()[1])


def probe(port: int, path: str = "/livez", **headers: str) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=DEADLINE_S)


def test_it_says_what_prometheus_a_probe_and_the_operator_ask_for(port: int) -> None:
    assert probe(port).text == "ok\n"
    assert probe(port, "/merchants").json() == {"merchants": {}}
    plain = probe(port, "/metrics")
    assert "mpesa_stk_push_total" in plain.text
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert plain.headers["Content-Encoding"] == "gzip"
    modern = probe(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert modern.headers["Content-Type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")
    only = probe(port, "/metrics?name[]=mpesa_stk_push_total")
    assert "mpesa_stk_push_total" in only.text
    assert "mpesa_callbacks_total" not in only.text
    assert probe(port, "/other").status_code == 404
    assert requests.post(f"http://127.0.0.1:{port}/metrics", timeout=5).status_code == 405
    head = requests.head(f"http://127.0.0.1:{port}/livez", timeout=5)
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", "3")


def test_four_hundred_slow_clients_take_no_thread_and_keep_no_probe_out(
    port: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.WARNING)
    before = threading.active_count()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            for _ in range(400)
        ]
        for number, client in enumerate(clients):
            try:
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" if number % 2 else b"G")
            except OSError:
                # One that gave way already.
                continue
        answers = [probe(port).status_code for _ in range(5)]
        threads = threading.active_count() - before
        wait_for(
            lambda: sum(is_open(client) for client in clients) <= MAX_CONNECTIONS,
            what="the oldest to give way",
        )

    assert answers == [200] * 5
    assert threads <= RENDER_THREADS
    assert caplog.records == []
    assert capfd.readouterr().err == ""


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@pytest.mark.parametrize(
    "data",
    [b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n", b"\x16\x03\r\n\r\n", b"a" * 9000],
)
def test_what_is_no_request_is_refused(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as client:
        client.sendall(data)
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_fault_of_ours_is_a_log_line_and_the_next_scrape_is_answered(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken() -> dict[str, object]:
        raise RuntimeError("a report that fails")

    sock = bind_port("METRICS_PORT", "127.0.0.1", 0, backlog=128)
    serve_metrics(sock, lambda: True, broken)
    own = sock.getsockname()[1]
    with pytest.raises(requests.ConnectionError):
        probe(own, "/merchants")

    assert probe(own).status_code == 200
    wait_for(lambda: [it for it in caplog.records if it.levelname == "ERROR"], what="the line")
    assert "Traceback" not in capfd.readouterr().err


def test_an_empty_host_is_every_address_of_both_families() -> None:
    sock = bind_port("SERVER_PORT", "", 0, backlog=8)
    with sock:
        port = sock.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        if sock.family == socket.AF_INET6:
            socket.create_connection(("::1", port), timeout=5).close()


@pytest.mark.parametrize("host", ["", "127.0.0.1", "0.0.0.0"])  # noqa: S104
def test_a_port_in_use_is_a_sentence_that_names_its_variable(host: str) -> None:
    with bind_port("SERVER_PORT", host, 0, backlog=8) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"MPESA_SERVER_PORT {port} cannot be used") as error:
            bind_port("SERVER_PORT", host, port, backlog=8)
        with pytest.raises(ConfigError, match=f"MPESA_METRICS_PORT {port} cannot be used"):
            bind_metrics_port(host, port)
    assert "another process has it" in error.value.problems[0]


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("203.0.113.1", "no interface has the address that MPESA_SERVER_HOST names"),
        ("host.invalid", "MPESA_SERVER_HOST host.invalid cannot be resolved"),
    ],
)
def test_a_host_that_is_not_ours_names_its_variable(host: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        bind_port("SERVER_PORT", host, 0, backlog=8)
    assert bind_metrics_port(host, 0) is None
