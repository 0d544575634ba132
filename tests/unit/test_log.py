"""Lines: JSON with file and line, masked, bounded in length and in number; a form for people."""

from __future__ import annotations

import contextvars
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from harness.collecting import every_case
from harness.logs import logging_restored
from harness.settings import environment
from mpesa_gateway.config import Config
from mpesa_gateway.config.config import _passwords
from mpesa_gateway.telemetry import log, masking
from mpesa_gateway.telemetry.log import (
    MAX_LINE_LENGTH,
    REPEATS,
    SUPPRESSED,
    UNWRITABLE,
    WINDOW_S,
    Repeats,
    begin,
    quick_line,
    write_quickly,
)

SECRET = "c4nary-secret-value"
PHONE = "254712345678"
CHECKOUT_REQUEST_ID = "ws_CO_191220191020363925"
TOKEN = "0192f3a47b1c7d2e8f90254712345678" + "9f" * 16
CANARIES = (SECRET, PHONE, CHECKOUT_REQUEST_ID, TOKEN)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    with logging_restored():
        yield


Output = pytest.CaptureFixture[str]


def parsed(written: Output) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.readouterr().out.splitlines()]


def fail() -> None:
    raise ValueError(f"{SECRET} {PHONE} {CHECKOUT_REQUEST_ID} /callback/{TOKEN}")


def test_a_line_is_json_with_file_line_and_what_the_work_is_about(capsys: Output) -> None:
    log.configure_logging("json", "info")

    def work() -> None:
        begin(transaction_id="abc")
        log.get_logger("ours").info("it happened", count=2)
        logging.getLogger("theirs").info("%s happened", "this")

    contextvars.copy_context().run(work)
    log.get_logger("ours").info("after")
    ours, theirs, after = parsed(capsys)

    assert (ours["event"], ours["level"], ours["count"]) == ("it happened", "info", 2)
    assert theirs["event"] == "this happened"
    assert {ours["filename"], theirs["filename"]} == {"test_log.py"}
    assert theirs["lineno"] == ours["lineno"] + 1
    assert ours["transaction_id"] == theirs["transaction_id"] == "abc"
    assert "transaction_id" not in after


def test_work_that_begins_forgets_the_work_before() -> None:
    def work() -> dict[str, Any]:
        begin(transaction_id="abc", request_id="1")
        begin(request_id="2")
        return structlog.contextvars.get_merged_contextvars(structlog.get_logger())

    assert contextvars.copy_context().run(work) == {"request_id": "2"}


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_canary_is_in_a_line_its_exception_or_its_traceback(capsys: Output, form: str) -> None:
    log.configure_logging(form, "debug")
    masking.hide(SECRET)
    ours, theirs = log.get_logger("ours"), logging.getLogger("theirs")
    try:
        fail()
    except ValueError as error:
        ours.exception("it failed")
        theirs.exception("it failed: %s", error)
        ours.error("it failed", exc_info=error, problem=error, body=str(error).encode())
    for canary in CANARIES:
        ours.info(canary, value=canary, nested={"a": [{canary: canary}]}, password="zq-" + canary)
        theirs.info("about %s", canary)
        theirs.info(f"about {canary}")
        theirs.warning({"event": canary})
    text = capsys.readouterr().out

    assert text.count("Traceback") == 3
    assert "zq-" not in text
    assert [canary for canary in CANARIES if canary in text] == []


def test_a_form_for_people(capsys: Output) -> None:
    log.configure_logging("console", "info")

    log.get_logger("ours").info("it happened", count=2)
    line = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)

    assert re.match(r"\d{4}-\d\d-\d\dT\S+ \[info\s*\] it happened\s", line), line
    assert "count=2" in line
    assert "filename=test_log.py" in line


@every_case(
    "values",
    [
        {"one": "long " * 100_000},
        {f"name{number}": "long " * 1000 for number in range(60)},
        {"control": "\x00" * 100_000},
        {"nested": {f"name{number}": ["\x01" * 4000] * 12 for number in range(12)}},
        {"\x02" * 5000 + str(number): "\x03" * 5000 for number in range(60)},
    ],
    ids=["value", "many", "escaped", "nested", "names"],
)
@every_case("form", ["json", "console"])
def test_a_line_is_bounded_and_keeps_its_head(
    capsys: Output, form: str, values: dict[str, Any]
) -> None:
    log.configure_logging(form, "info")

    log.get_logger("ours").error("it happened", **values)
    text = capsys.readouterr().out

    assert len(text) <= MAX_LINE_LENGTH + 1
    assert "it happened" in text
    assert "test_log.py" in text
    if form == "json":
        assert json.loads(text)["level"] == "error"


def test_a_sentence_that_repeats_is_counted_not_written(capsys: Output) -> None:
    log.configure_logging("json", "info")
    (handler,) = logging.getLogger().handlers
    now = [1000.0]
    handler.filters[:] = [Repeats(lambda: now[0])]
    ours = log.get_logger("ours")
    for number in range(REPEATS + 25):
        ours.warning("Redis is away", number=number)
        logging.getLogger("theirs").error("failed %s", number)
        ours.info("request")
    ours.warning("another sentence")
    first = [line["event"] for line in parsed(capsys)]
    now[0] += WINDOW_S
    ours.info("request")
    ours.warning("Redis is away")
    second = parsed(capsys)

    assert first.count("Redis is away") == REPEATS
    assert sum(event.startswith("failed ") for event in first) == REPEATS
    assert first.count("request") == REPEATS + 25
    assert first.count("another sentence") == 1
    assert [(it["event"], it.get("sentence"), it.get("lines")) for it in second] == [
        (SUPPRESSED, "Redis is away", 25),
        (SUPPRESSED, "failed %s", 25),
        ("request", None, None),
        ("Redis is away", None, None),
    ]


def test_sentences_without_end_are_bounded_too(capsys: Output) -> None:
    log.configure_logging("json", "info")
    for sentence in (f"sentence {number}" for number in range(log.MAX_SENTENCES + 1000)):
        logging.getLogger("theirs").warning(sentence)

    assert len(parsed(capsys)) == log.MAX_SENTENCES + REPEATS


def test_the_secrets_of_the_environment_are_known_by_value() -> None:
    env = environment(
        database_url="postgresql://mpesa:db-p%40ss-word@127.0.0.1/x",
        redis_url="redis://:redis-pass-word@127.0.0.1/0",
        base_url="https://sandbox.safaricom.co.ke",
        callback_url="https://pay.example.com/callback",
        webhook_secret="webhook-canary-0123456789",
    )

    masking.hide(*Config.from_env(env).secrets())

    for name in ("SAFARICOM_CONSUMER_KEY", "SAFARICOM_CONSUMER_SECRET", "SAFARICOM_PASSKEY"):
        assert masking.mask(f"it said {env['MPESA_' + name]} to us") == "it said *** to us"
    for canary in (
        "webhook-canary-0123456789",
        "db-p@ss-word",
        "db-p%40ss-word",
        "redis-pass-word",
    ):
        assert masking.mask(f"<{canary}>") == "<***>"


@pytest.mark.parametrize("url", ["postgresql://u:p[ss@h/x", "postgresql:///x?host=/tmp", ""])
def test_a_url_without_a_password_that_can_be_read_is_no_error(url: str) -> None:
    assert _passwords(url) == []


# What ends a line for some reader, or hides it on a terminal, or cannot be written at all.
HOSTILE_TEXTS = [
    *("\ud800", "\udcff half a pair", "\x85", "\u2028", "\u2029", "\x9b2J", "\x1b[2J", "\x7f"),
    *("\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x00"),
]
FORGED = '{"event": "forged", "level": "error"}'


@every_case("text", HOSTILE_TEXTS, ids=repr)
def test_a_value_neither_forges_a_line_nor_loses_one(text: str, capsys: Output) -> None:
    log.configure_logging("json", "info")
    capsys.readouterr()
    value = f"{text}{FORGED}{text}"
    log.get_logger("ours").info("it happened", value=value)
    logging.getLogger("theirs").info("theirs %s", value)
    quick = quick_line(logging.getLogger("ours"), '{"event": "quick"', {"v": value}, ("f.py", 1))
    assert quick is not None
    write_quickly(['{"event": "before"}', quick, '{"event": "after"}'])
    written = capsys.readouterr()

    assert len(written.out.splitlines()) == 5
    assert written.out.isascii()
    lines = [json.loads(line) for line in written.out.splitlines()]
    assert lines[0]["value"] == lines[3]["v"] == value
    assert lines[1]["event"] == f"theirs {value}"
    assert written.err == ""


class Unspeakable:
    """A value that fails when it is told."""

    def __str__(self) -> str:
        raise RuntimeError(SECRET)

    __repr__ = __str__


def test_a_line_that_cannot_be_rendered_is_told_without_its_values(capsys: Output) -> None:
    log.configure_logging("json", "info")
    log.get_logger("ours").info("it happened", phone=PHONE, value=Unspeakable())
    logging.getLogger("theirs").info("it happened %d", PHONE + SECRET)
    written = capsys.readouterr()

    lines = [json.loads(line) for line in written.out.splitlines()]
    assert [(it["event"], it["logger"]) for it in lines] == [
        (UNWRITABLE, "ours"),
        (UNWRITABLE, "theirs"),
    ]
    assert not any(it in written.out + written.err for it in (SECRET, PHONE, "Traceback"))
