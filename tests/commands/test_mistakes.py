"""What people get wrong, and that they are told what happened, what it means and what to do.

Each row is one mistake of a newcomer, made for real. `says` are the words that make the message
one; a traceback is never an answer. Numbers are those of the list that the project was judged by.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from harness.gateway import Gateway, open_gateway
from harness.serving import bound_socket, serve
from harness.settings import environment
from mpesa_devkit.processes import clean_env
from mpesa_gateway.config import Config
from mpesa_gateway.services import open_services
from mpesa_gateway.telemetry.log import configure_logging

NOWHERE = "postgresql://postgres@127.0.0.1:1/x"
NO_REDIS = "redis://127.0.0.1:1/0"


@dataclass
class World:
    """A gateway that works, to be spoilt."""

    gateway: Gateway
    empty_database_url: str
    logged: pytest.LogCaptureFixture

    def env(self, **changed: str) -> dict[str, str]:
        values: dict[str, str] = {
            "database_url": self.gateway.database_url,
            "redis_url": self.gateway.services.config.redis_url,
            "base_url": self.gateway.simulator.url,
            "callback_url": f"{self.gateway.url}/callback",
        }
        values |= changed
        return environment(**values)

    def command(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        """What a person sees who types it: both streams, and the exit status."""
        given = self.env() if env is None else env
        done = subprocess.run(
            [sys.executable, "-m", "mpesa_gateway", *arguments],
            env=clean_env({"COLUMNS": "300", **given}),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return f"{done.stdout}{done.stderr}exit={done.returncode}"

    def check(self, **changed: str) -> str:
        return self.command("check", env=self.env(**changed))

    def initiate(self, **fields: Any) -> str:
        """The answer to a payment request, as curl shows it with its headers."""
        answer = self.gateway.initiate(**fields)
        return f"{answer.status_code} {dict(answer.headers)} {answer.text}"

    def initiate_guarded(self, webhook_url: str) -> str:
        """The same on a gateway that reaches public endpoints only."""
        with open_gateway(
            self.gateway.database_url, self.gateway.services.config.redis_url,
            self.gateway.simulator, self.gateway.receiver, webhook_allow_private="false",
        ) as guarded:  # fmt: skip
            answer = guarded.initiate(webhook_url=webhook_url)
        return f"{answer.status_code} {answer.text}"

    def with_wrong_keys(self) -> World:
        self.gateway.simulator.change(credentials={"another": "app"})
        return self

    def with_wrong_passkey(self) -> World:
        self.gateway.simulator.change(passkeys={"174379": "another passkey"})
        return self


def port_in_use(world: World) -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        return world.command("api", env=world.env(server_port=port))


def without_schema(world: World) -> str:
    """The API on a database without our tables: its log, /health, and an answer."""
    env = world.env(database_url=world.empty_database_url)
    url = f"http://127.0.0.1:{(sock := bound_socket()).getsockname()[1]}"
    with open_services(Config.from_env(env)) as services, serve(services, lambda _: None, sock):
        health = requests.get(f"{url}/health", timeout=10)
        body = world.gateway.body()
        key = {"X-Internal-Secret": env["MPESA_INTERNAL_SECRET"]}
        answer = requests.post(f"{url}/initiate", json=body, headers=key, timeout=10)
    return f"{health.status_code} {health.text} {answer.status_code} {answer.text}"


def refused_in_the_log(world: World) -> str:
    """What the log has of refused credentials and of a refused passkey."""
    world.with_wrong_passkey()
    world.initiate(phone="254712340001")
    world.with_wrong_keys()
    world.gateway.services.tokens._local.clear()
    world.gateway.services.redis.flushall()
    world.initiate(phone="254712340002")
    lines = [
        json.dumps(it.msg) if isinstance(it.msg, dict) else it.getMessage()
        for it in world.logged.records
        if it.levelname == "WARNING"
    ]
    return "\n".join(lines)


def busy(world: World) -> str:
    """A key used for another payment, and a phone with an open prompt."""
    key = str(uuid.uuid4())
    silent = "254712344042"
    first = world.initiate(phone=silent, idempotency_key=key)
    return "\n".join(
        [first, world.initiate(phone=silent, idempotency_key=key, amount="11"),
         world.initiate(phone=silent)]
    )  # fmt: skip


def unknown_path(world: World) -> str:
    url = world.gateway.url
    asked = [
        requests.get(f"{url}/payments", timeout=10),
        requests.get(f"{url}/initiate", timeout=10),
    ]
    return "\n".join(f"{it.status_code} {it.text}" for it in asked)


class Mistake(NamedTuple):
    """Rows of the list, what is done, and what must be in what a person sees."""

    rows: tuple[int, ...]
    what: str
    act: Callable[[World], str]
    says: tuple[str, ...]


EIGHT = {
    "server_port": "99999", "environment": "prod", "log_level": "loud", "lease": "soon",
    "worker_concurrency": "many", "safaricom_short_code": "abc", "database_url": "mysql://x",
    "sweep_interval": "5",
}  # fmt: skip
UNSAFE = {
    "environment": "production",
    "safaricom_base_url": "https://api.safaricom.co.ke",
}
LIVE = {"allowedCIDRs": ["196.201.214.0/24"], "callbackUrl": "https://pay.mpesa.example.com/x"}

MISTAKES = [
    Mistake((1,), "nothing is configured", lambda it: it.command("check", env={}),
            ("MPESA_DATABASE_URL is required and not set: Postgres", "such as postgresql://",
             "MPESA_SAFARICOM_PASSKEY is required and not set: Passkey of the short code",
             "exit=1")),
    Mistake((2,), "eight bad values", lambda it: it.command("check", env=it.env(**EIGHT)),
            ("'99999' is not a whole number from 1 to 65535",
             "'prod' is none of sandbox, production", "MPESA_LOG_LEVEL", "MPESA_LEASE",
             "MPESA_WORKER_CONCURRENCY", "MPESA_SAFARICOM_SHORT_CODE",
             "MPESA_DATABASE_URL must begin with postgres://", "MPESA_SWEEP_INTERVAL")),
    Mistake((3,), "a misspelt variable", lambda it: it.check(webhook_retry_scedule="1m"),
            ("MPESA_WEBHOOK_RETRY_SCEDULE is not a variable of mpesa-gateway and has no effect",
             "MPESA_WEBHOOK_RETRY_SCHEDULE was probably meant")),
    Mistake((4,), "a Redis URL of http", lambda it: it.check(redis_url="http://127.0.0.1:1"),
            ("MPESA_REDIS_URL is not one of the forms redis://", "exit=1")),
    Mistake((5,), "Redis is away", lambda it: it.check(redis_url=NO_REDIS),
            ("MPESA_REDIS_URL: the connection is refused: it is not running, or not there",)),
    Mistake((7,), "Postgres refuses", lambda it: it.check(database_url=NOWHERE),
            ("127.0.0.1:1: the connection is refused: it is not running, or not there",
             "is MPESA_DATABASE_URL right?")),
    Mistake((7,), "nobody knows Postgres' host",
            lambda it: it.check(database_url="postgresql://postgres@no-such-host.invalid/x"),
            ("nobody knows that host name", "is MPESA_DATABASE_URL right?")),
    Mistake((7,), "no such database",
            lambda it: it.check(database_url=f"{it.gateway.database_url}_missing"),
            ("it has no such database or user", "is MPESA_DATABASE_URL right?")),
    Mistake((8,), "no schema, check", lambda it: it.check(database_url=it.empty_database_url),
            ("schema version 0", "is needed; run `mpesa-gateway migrate`")),
    Mistake((9,), "no schema, a command",
            lambda it: it.command("transactions", "list",
                                  env=it.env(database_url=it.empty_database_url)),
            ("Error: ", "run `mpesa-gateway migrate`", "exit=1")),
    Mistake((10,), "no schema, the API", without_schema,
            ('503 {"status": "unavailable", "database": "up", "schema": "behind"}',
             "run `mpesa-gateway migrate`")),
    Mistake((11,), "the API's port is taken", port_in_use,
            ("MPESA_SERVER_PORT", "cannot be used (Address already in use)",
             "choose another port", "exit=2")),
    Mistake((12,), "a wrong consumer secret, check",
            lambda it: it.with_wrong_keys().check(),
            ("the credentials are refused", "Compare the consumer key and the consumer secret",
             "MPESA_SAFARICOM_", "exit=1")),
    Mistake((13,), "a wrong consumer secret, a payment",
            lambda it: it.with_wrong_keys().initiate(),
            ("502", "The business is not set up to receive this payment.", "Safaricom said: OAuth",
             "Compare the consumer key and the consumer secret")),
    Mistake((14,), "a wrong passkey, check", lambda it: it.with_wrong_passkey().check(),
            ("passkey of default", "Wrong credentials", "Compare the passkey and the short code",
             "exit=1")),
    Mistake((15,), "a wrong passkey, a payment", lambda it: it.with_wrong_passkey().initiate(),
            ("502", "Wrong credentials", "Compare the passkey and the short code")),
    Mistake((16,), "the same two in the log", refused_in_the_log,
            ("Safaricom refused a payment request", '"merchant": "default"', "refused_merchant",
             "500.001.1001", "credentials_refused", "Compare the passkey",
             "Compare the consumer key")),
    Mistake((17,), "a phone that begins with 07", lambda it: it.initiate(phone="0712345678"),
            ("400", "must be 254 followed by nine digits: write 254 in place of the leading 0")),
    Mistake((17,), "a phone with a plus", lambda it: it.initiate(phone="+254712345678"),
            ("400", "leave out the +")),
    Mistake((18,), "six bad fields and an unknown one",
            lambda it: it.initiate(phone=7, amount="ten", webhook_url="x", idempotency_key="1",
                                   account_reference="x" * 13, description="y" * 14, color="red"),
            ("400", *(f'"field": "{name}"' for name in
                      ("phone", "amount", "webhook_url", "idempotency_key", "account_reference",
                       "description", "color")))),
    Mistake((20,), "a wrong key", lambda it: it.initiate(key="not-the-key"),
            ("401", "no API key that is known here",
             "MPESA_INTERNAL_SECRET")),
    Mistake((20,), "no key", lambda it: it.initiate(key=""),
            ("401", "send the merchant's key in X-Internal-Secret or as a bearer token")),
    Mistake((21,), "bad parameters of a read",
            lambda it: it.gateway.get("/transactions", status="done", page="2").text,
            ("Some parameters are not valid", '"field": "status"', '"field": "page"')),
    Mistake((22,), "a path and a method that are not there", unknown_path,
            ("404", "There is no such path. GET /docs shows every path",
             "405", "GET is not served on this path; it serves POST")),
    Mistake((23,), "a key reused, a prompt open", busy,
            ("422", "the idempotency key was used for another payment; make a new one",
             "409", "another payment is waiting for its PIN on this phone", "retry_after")),
    Mistake((24,), "unsafe in production", lambda it: it.check(**UNSAFE),
            ("MPESA_SAFARICOM_CALLBACK_URL is not https", "MPESA_WEBHOOK_ALLOW_PRIVATE",
             "MPESA_SAFARICOM_IPS", "exit=1")),
    Mistake((26,), "an operator without its variables",
            lambda it: it.command("operator", env={}),
            ("The operator's configuration cannot be used:",
             "MPESA_OPERATOR_NAMESPACE is required and not set: the namespace of",
             "The Helm chart sets these variables", "exit=2")),
    Mistake((27,), "a misspelt command", lambda it: it.command("transactions", "lsit"),
            ("Did you mean 'list'?", "exit=2")),
    *(Mistake((19,), f"a webhook to {url}",
              lambda it, url=url: it.initiate_guarded(url),  # type: ignore[misc]
              ("400", words, "MPESA_WEBHOOK_ALLOW_PRIVATE=true allows it"))
      for url, words in (("http://shop.example/hook", "must begin with https://"),
                         ("https://localhost/hook", "the host is a local name, not a public one"),
                         ("https://192.168.1.7/hook", "the host is not a public address"))),
]  # fmt: skip
# Those that need more than a gateway have tests of their own, named here.
ELSEWHERE = {
    6: (
        "integration/test_redis_kinds.py",
        "test_a_redis_that_is_away_is_one_line_and_no_traceback",
    ),
    25: ("chart/test_refusals.py", "test_the_chart_refuses_a_callback_url_as_the_gateway_does"),
}


@pytest.fixture
def world(gateway: Gateway, empty_database_url: str, caplog: pytest.LogCaptureFixture) -> World:
    configure_logging("json", "info")
    return World(gateway, empty_database_url, caplog)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda it: f"{it.rows[0]}-{it.what}")
def test_a_mistake_is_answered_in_words(mistake: Mistake, world: World) -> None:
    seen = mistake.act(world)

    assert "Traceback" not in seen
    assert [it for it in mistake.says if it not in seen] == [], seen


def test_every_row_of_the_list_is_walked() -> None:
    walked = {row for it in MISTAKES for row in it.rows} | set(ELSEWHERE)

    assert walked == set(range(1, 28))
    tests = Path(__file__).resolve().parents[1]
    for file, test in ELSEWHERE.values():
        assert f"def {test}(" in (tests / file).read_text("utf-8")
