"""The line of a request: as the whole chain writes it, masked all the same, bounded in a flood."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from harness.collecting import every_case
from harness.counters import Since
from harness.logs import logging_restored
from mpesa_gateway.api import requestlog
from mpesa_gateway.api.requestlog import REFUSALS, WINDOW_S, RequestLog
from mpesa_gateway.telemetry import log, masking
from mpesa_gateway.telemetry.log import SUPPRESSED

TRANSACTION = "0192f3a4-7b1c-7d2e-8f90-254712345678"
Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    requestlog._beginning.cache_clear()
    with logging_restored():
        yield
    requestlog._beginning.cache_clear()


def lines_of(capsys: Output, *notes: dict[str, Any], requests: RequestLog | None = None) -> str:
    written = requests or RequestLog()

    async def main() -> None:
        for note in notes:
            written.note(**{"method": "POST", "took_s": 0.0123, "about": {}, **note})
        await asyncio.sleep(0)

    asyncio.run(main())
    return capsys.readouterr().out


def through_the_chain(capsys: Output, note: dict[str, Any]) -> str:
    """The same line by the ordinary logger."""
    logger = structlog.stdlib.get_logger("mpesa_gateway.api.requestlog")
    with structlog.contextvars.bound_contextvars(**note.get("about", {})):
        logger.info("request", method="POST", route=note["route"], status=note["status"], ms=12.3)
    return capsys.readouterr().out


@every_case(
    "note",
    [
        {"route": "/callback/{token}", "status": 200},
        {"route": "/callback/{token}", "status": 200, "about": {"transaction_id": TRANSACTION}},
        {"route": None, "status": 404},
        {"route": "/initiate", "status": 201, "about": {"request_id": "order-7", "trace_id": "a"}},
        {"route": "/initiate", "status": 201, "about": {"request_id": "254712345678"}},
        {"route": "/initiate", "status": 201, "about": {"request_id": "ws_CO_191220191020363925"}},
        {"route": "/initiate", "status": 201, "about": {"request_id": "9f" * 32}},
        {"route": "/initiate", "status": 201, "about": {"request_id": 'q"\\\u00e9\n'}},
    ],
    ids=str,
)
def test_the_quick_line_says_what_the_chain_says(capsys: Output, note: dict[str, Any]) -> None:
    log.configure_logging("json", "info")

    quick, chained = (
        json.loads(line) for line in (lines_of(capsys, note), through_the_chain(capsys, note))
    )

    assert quick.keys() == chained.keys()
    changing = {"timestamp", "lineno", "filename"}
    assert {k: v for k, v in quick.items() if k not in changing} == {
        k: v for k, v in chained.items() if k not in changing
    }
    assert quick["filename"] == "requestlog.py"
    assert quick["lineno"] > 1
    assert len(quick["timestamp"]) == len("2026-11-25T08:50:02.722438Z")


@pytest.mark.parametrize("secret", ["callback", "254712345678", "requestlog", "order-7"])
def test_a_secret_of_the_process_is_in_no_line(capsys: Output, secret: str) -> None:
    log.configure_logging("json", "info")
    masking.hide(secret)
    about = {"transaction_id": TRANSACTION, "request_id": "order-7"}

    text = lines_of(capsys, {"route": "/callback/{token}", "status": 200, "about": about})

    assert secret not in text
    assert json.loads(text)["status"] == 200


@pytest.mark.parametrize(("form", "level", "lines"), [("console", "info", 1), ("json", "error", 0)])
def test_another_form_or_level_holds_for_requests_too(
    capsys: Output, form: str, level: str, lines: int
) -> None:
    log.configure_logging(form, level)

    text = lines_of(capsys, {"route": "/initiate", "status": 201})

    assert len(text.splitlines()) == lines
    assert not text.startswith("{")


def test_somebody_elses_handler_hears_of_requests(
    capsys: Output, caplog: pytest.LogCaptureFixture
) -> None:
    log.configure_logging("json", "info")
    logging.getLogger().addHandler(caplog.handler)

    text = lines_of(capsys, {"route": "/initiate", "status": 201})

    assert len(text.splitlines()) == len(caplog.records) == 1


@pytest.mark.parametrize("route", ["/livez", "/readyz", "/health"])
def test_probes_are_counted_and_not_told(capsys: Output, route: str) -> None:
    log.configure_logging("json", "info")
    since = Since()

    assert lines_of(capsys, {"route": route, "status": 200}) == ""
    assert since.of("mpesa_http_requests_total", route=route, status="200") == 1


def test_a_flood_of_refusals_is_counted_and_not_told_in_full(capsys: Output) -> None:
    log.configure_logging("json", "info")
    now, since = [100.0], Since()
    requests = RequestLog(lambda: now[0])
    refused = {"route": "/callback/{token}", "status": 503}
    taken = {"route": "/callback/{token}", "status": 200}
    flood = [refused] * (REFUSALS + 25) + [taken] * (REFUSALS + 7)
    flood += [{"route": "/initiate", "status": 503}]

    first = [json.loads(it) for it in lines_of(capsys, *flood, requests=requests).splitlines()]
    now[0] += WINDOW_S
    later = lines_of(capsys, taken, refused, requests=requests)
    told, *rest = [json.loads(it) for it in later.splitlines()]

    assert sum(it["status"] == 503 and it["route"] != "/initiate" for it in first) == REFUSALS
    assert sum(it["status"] == 200 for it in first) == REFUSALS + 7
    assert sum(it["route"] == "/initiate" for it in first) == 1
    assert (told["event"], told["sentence"], told["lines"]) == (SUPPRESSED, "request", 25)
    assert (told["route"], told["status"]) == ("/callback/{token}", 503)
    assert [it["status"] for it in rest] == [200, 503]
    assert since.of("mpesa_http_requests_total", status="503", route="/callback/{token}") == (
        REFUSALS + 26
    )
