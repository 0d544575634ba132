"""Request lines and heads that are not HTTP/1.0 or 1.1, or that name no one host."""

from __future__ import annotations

import pytest

from harness.gateway import Gateway
from harness.settings import API_KEY
from harness.wire import Wire


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /livez\r\n\r\n", 400),
        (b"GET /livez HTTP/0.9\r\nHost: gateway\r\n\r\n", 400),
        (b"GET /livez HTTP/2.0\r\nHost: gateway\r\n\r\n", 505),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT gateway:443 HTTP/1.1\r\n\r\n", 400),
        (b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET livez HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST /callback/" + b"0" * 64 + b" HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 400),
    ],
)
def test_what_is_not_http_1_is_refused_without_a_traceback(
    shared: Gateway, caplog: pytest.LogCaptureFixture, data: bytes, status: int
) -> None:
    with Wire(shared.url) as wire:
        wire.send(data)
        assert wire.read().status in {status, 505 if status == 505 else 400}
        assert wire.is_cut()

    assert [it for it in caplog.records if it.levelname == "ERROR"] == []


def test_http_1_0_needs_no_host(shared: Gateway) -> None:
    with Wire(shared.url) as wire:
        wire.send(b"GET /livez HTTP/1.0\r\n\r\n")
        assert wire.read().status == 200


def test_ten_thousand_unknown_fields_are_not_all_named(shared: Gateway) -> None:
    body = {**shared.body(), **{f"f{number}": 1 for number in range(5000)}}
    response = shared.session.post(
        f"{shared.url}/initiate", json=body, headers={"X-Internal-Secret": API_KEY}, timeout=30
    )

    assert response.status_code == 400
    assert len(response.json()["errors"]) == 20


@pytest.mark.parametrize("path", ["/transactions", "/transactions/x", "/transactions/x/deliveries"])
def test_what_may_hold_a_phone_is_kept_by_no_cache(shared: Gateway, path: str) -> None:
    for key in (API_KEY, "unknown"):
        assert shared.get(path, key=key).headers["Cache-Control"] == "no-store"
    assert "Cache-Control" not in shared.get("/livez").headers
