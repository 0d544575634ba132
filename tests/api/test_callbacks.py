"""POST /callback and /callback/{token}: 200 means that it is in Postgres, byte for byte."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from daraja_simulator.server import RunningSimulator
from daraja_simulator.settings import Settings
from harness.bodies import callback_body
from harness.gateway import Gateway, open_gateway
from harness.hanging import hung
from harness.merchants import write_merchant
from harness.problems import assert_problem
from harness.receiver import Receiver
from harness.serving import bound_socket, serve
from harness.settings import API_KEY, environment
from harness.waiting import wait_for
from harness.wire import Wire, request_bytes
from mpesa_gateway.config import Config
from mpesa_gateway.demo.embedded import EmbeddedPostgres, EmbeddedRedis
from mpesa_gateway.demo.processes import free_port
from mpesa_gateway.services import open_services
from mpesa_gateway.tasks import Bell, WorkQueue

Phones = Callable[[str], str]
MIB = 1024 * 1024
ACCEPTED = '{"ResultCode": 0, "ResultDesc": "Accepted"}'
# Within this time Postgres's absence must show.
PROMPTLY_S = 2.0
NARROW_KEY = "key-of-the-merchant-with-a-list"
WIDE_KEY = "key-of-the-merchant-with-a-wider-list"


def token_of(gateway: Gateway, phone: str) -> str:
    """What the URL carries that Safaricom was given for the push to that phone."""
    (push,) = gateway.simulator.ledger(phone=phone)["pushes"]
    url: str = push["callback_url"]
    return url.rpartition("/")[2]


def paid_silently(gateway: Gateway, phone: str, **fields: Any) -> tuple[str, str]:
    """A payment that Safaricom does not call back about: its id and its callback's path."""
    transaction_id = gateway.pay(phone, **fields)
    return transaction_id, f"/callback/{token_of(gateway, phone)}"


def post(
    gateway: Gateway, path: str, body: Any = b"{}", *, source: str | None = None, **headers: str
) -> requests.Response:
    """Without a session, so that threads may use it. `source` as a trusted proxy says it."""
    if source is not None:
        headers["X-Forwarded-For"] = source
    return requests.post(gateway.url + path, data=body, headers=headers, timeout=30)


def assert_accepted(response: requests.Response) -> None:
    assert response.status_code == 200, response.text
    assert response.text == ACCEPTED
    assert response.headers["Content-Type"] == "application/json"


def kept(gateway: Gateway, transaction_id: str) -> list[dict[str, Any]]:
    return gateway.rows(
        "SELECT c.* FROM callbacks c JOIN transactions t ON t.id = c.transaction_id"
        " WHERE t.internal_transaction_id = %s ORDER BY c.id",
        transaction_id,
    )


def count_kept(gateway: Gateway) -> int:
    count: int = gateway.rows("SELECT coalesce(sum(copies), 0) AS n FROM callbacks")[0]["n"]
    return count


BODIES = [
    b"",
    b" ",
    b"\x00",
    b"\r\n\r\n",
    b"\xff\xfe\xfd",
    b"not json",
    b"null",
    b"{",
    b"[]",
    b'{"Body": null}',
    b'{"Body": {"stkCallback": []}}',
    b'{"Body": {"stkCallback": {"ResultCode": "\\u0000"}}}',
    b"[" * 100_000,
    b'{"amount": 1e99999999999999999999}',
    "\u00e9\u4e2d\U0001f600".encode(),
    "\u00e9\u4e2d".encode("utf-16"),
    b"<xml/>",
    b"Body=%7B%7D",
    callback_body("ws_CO_of_nobody"),
    callback_body("x" * 5000),
    bytes(range(256)) * 400,
    bytes(reversed(range(256))) * 4096,
    b"0" * MIB,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda it: f"{len(it)} {it[:16]!r}")
def test_whatever_the_body_says_it_is_kept_byte_for_byte_before_the_answer(
    shared: Gateway, new_phone: Phones, body: bytes
) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))

    assert_accepted(post(shared, path, body))

    (row,) = kept(shared, transaction_id)
    assert bytes(row["body"]) == body
    assert (row["by_token"], row["state"], row["copies"]) == (True, "RECEIVED", 1)

    before = shared.rows("SELECT coalesce(max(id), 0) AS id FROM callbacks")[0]["id"]
    assert_accepted(post(shared, "/callback", body))
    (row,) = shared.rows("SELECT * FROM callbacks WHERE id > %s", before)
    assert bytes(row["body"]) == body
    assert not row["by_token"]


def test_a_body_sent_in_chunks_is_kept_whole(shared: Gateway, new_phone: Phones) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    body = os.urandom(200_000)

    assert_accepted(post(shared, path, iter([body[:7], body[7:150_000], body[150_000:]])))

    (row,) = kept(shared, transaction_id)
    assert bytes(row["body"]) == body


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/json;charset=UTF-8", "x" * 600, "\xe9/\xff"]
)
def test_the_content_type_does_not_matter_and_is_kept_in_bounds(
    shared: Gateway, new_phone: Phones, content_type: str
) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    head = [f"Content-Type: {content_type}", "User-Agent: saf", "Authorization: Bearer private"]
    with Wire(shared.url) as wire:
        wire.send(request_bytes("POST", path, *head, "Businessshortcode: 174379", body=b"{}"))
        reply = wire.read()

    assert (reply.status, reply.body.decode()) == (200, ACCEPTED)
    (row,) = kept(shared, transaction_id)
    assert row["headers"] == {
        "content-type": content_type[:512],
        "user-agent": "saf",
        "businessshortcode": "174379",
    }
    assert str(row["source"]) == "127.0.0.1"


@pytest.mark.parametrize("size", [MIB + 1, 2 * MIB, 6 * MIB])
def test_a_body_above_a_mebibyte_is_refused_and_not_kept(
    shared: Gateway, new_phone: Phones, size: int
) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    before = count_kept(shared)

    for where in (path, "/callback", "/callback/unknown"):
        assert_problem(post(shared, where, b"0" * size), 413, "body-too-large")
        assert_problem(post(shared, where, iter([b"0" * size])), 413, "body-too-large")

    assert kept(shared, transaction_id) == []
    assert count_kept(shared) == before


def unknown_tokens(good: str) -> dict[str, str]:
    return {
        "empty": "",
        "a word": "callback",
        "too short": good[:-1],
        "too long": good + "0",
        "upper case": good.upper() if good.upper() != good else "A" * 64,
        "no hexadecimal": "g" * 64,
        "other digits": "%D9%A1" * 64,
        "right id, wrong secret": good[:32] + "0" * 32,
        "right id, one bit off": good[:-1] + f"{int(good[-1], 16) ^ 1:x}",
        "unknown id": "0" * 32 + good[32:],
        "unknown id and secret": uuid.uuid4().hex + uuid.uuid4().hex,
        "swapped": good[32:] + good[:32],
        "id only": good[:32],
        "with hyphens": str(uuid.UUID(good[:32])) + good[32:],
        "trailing slash": f"{good}/",
        "path below": f"{good}/x",
        "null byte": f"{good}%00",
        "newline": f"{good}%0A",
        "semicolon": f"{good};x=1",
        "space": f"%20{good}",
    }


@pytest.mark.parametrize("kind", list(unknown_tokens("0" * 64)))
def test_an_unknown_token_is_not_found_and_nothing_is_kept(
    shared: Gateway, new_phone: Phones, kind: str
) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    token = unknown_tokens(path.removeprefix("/callback/"))[kind]
    before = count_kept(shared)

    response = post(shared, f"/callback/{token}", callback_body("ws_CO_1"))

    assert_problem(response, 404, "not-found")
    assert kept(shared, transaction_id) == []
    assert count_kept(shared) == before


def test_a_query_string_changes_nothing(shared: Gateway, new_phone: Phones) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))

    assert_accepted(post(shared, f"{path}?order=7&x=%00&&=", b"1"))

    assert len(kept(shared, transaction_id)) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD"])
@pytest.mark.parametrize("path", ["/callback", f"/callback/{'0' * 64}"])
def test_another_method_is_not_allowed(shared: Gateway, method: str, path: str) -> None:
    response = shared.session.request(method, shared.url + path, data=b"{}", timeout=10)

    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]
    if method != "HEAD":
        assert_problem(response, 405, "method-not-allowed")


def test_equal_bodies_are_one_row_that_counts_them(shared: Gateway, new_phone: Phones) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    body = callback_body("ws_CO_1")
    for _ in range(5):
        assert_accepted(post(shared, path, body))
    with ThreadPoolExecutor(20) as threads:
        for response in threads.map(lambda _: post(shared, path, body), range(20)):
            assert_accepted(response)
    assert_accepted(post(shared, path, body + b" "))

    first, second = kept(shared, transaction_id)

    assert (first["copies"], second["copies"]) == (25, 1)
    assert first["last_received_at"] > first["received_at"]


def test_the_same_body_about_two_payments_is_two_rows(shared: Gateway, new_phone: Phones) -> None:
    (one, path_of_one), (two, path_of_two) = (
        paid_silently(shared, new_phone("4042")) for _ in range(2)
    )
    with ThreadPoolExecutor(8) as threads:
        paths = [path_of_one, path_of_two] * 4
        for response in threads.map(lambda path: post(shared, path, b"same"), paths):
            assert_accepted(response)

    assert [row["copies"] for row in kept(shared, one)] == [4]
    assert [row["copies"] for row in kept(shared, two)] == [4]


def test_many_callbacks_at_once_are_all_kept(shared: Gateway, new_phone: Phones) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    bodies = [b"body %d" % number for number in range(200)]
    with ThreadPoolExecutor(40) as threads:
        for response in threads.map(lambda body: post(shared, path, body), bodies):
            assert_accepted(response)

    assert {bytes(row["body"]) for row in kept(shared, transaction_id)} == set(bodies)


def test_bad_neighbours_in_a_batch_harm_nobody_else(shared: Gateway, new_phone: Phones) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    jobs = [(path, b"good %d" % n) for n in range(30)]
    jobs += [(f"/callback/{uuid.uuid4().hex}{uuid.uuid4().hex}", b"unknown") for _ in range(30)]
    jobs += [(path, b"0" * (MIB + 1)) for _ in range(3)]
    with ThreadPoolExecutor(21) as threads:
        answers = list(threads.map(lambda job: post(shared, *job).status_code, jobs))

    assert answers == [200] * 30 + [404] * 30 + [413] * 3
    assert len(kept(shared, transaction_id)) == 30


def test_neither_token_nor_id_is_logged(
    shared: Gateway, new_phone: Phones, caplog: pytest.LogCaptureFixture
) -> None:
    phone = new_phone("4042")
    transaction_id, path = paid_silently(shared, phone)
    checkout_request_id = shared.transaction(transaction_id)["checkout_request_id"]
    post(shared, path, callback_body(checkout_request_id))
    post(shared, f"{path}0", callback_body(checkout_request_id))
    shared.work()

    assert "callback applied" in caplog.text
    assert path.removeprefix("/callback/") not in caplog.text
    assert checkout_request_id not in caplog.text
    assert phone not in caplog.text


def test_a_sender_that_hangs_up_half_way_stops_nobody(shared: Gateway, new_phone: Phones) -> None:
    transaction_id, path = paid_silently(shared, new_phone("4042"))
    for _ in range(20):
        with Wire(shared.url) as wire:
            wire.send(request_bytes("POST", path, body=b"half", length=1000))
        with Wire(shared.url) as wire:
            wire.send(request_bytes("POST", path, body=b"whole, answer not awaited"))

    assert_accepted(post(shared, path, b"next"))

    def bodies() -> set[bytes]:
        return {bytes(row["body"]) for row in kept(shared, transaction_id)}

    wait_for(lambda: {b"whole, answer not awaited", b"next"} <= bodies(), what="the callbacks")


@pytest.fixture(scope="module")
def walled(
    postgres: EmbeddedPostgres,
    redis_server: EmbeddedRedis,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A gateway behind a trusted proxy, with the platform's list and merchants' own lists."""
    merchants = tmp_path_factory.mktemp("merchants")
    write_merchant(
        merchants,
        "narrow.json",
        name="shops/narrow",
        key=NARROW_KEY,
        shortCode="600300",
        callback={"allowedCIDRs": ["196.201.214.200/31", "2001:db8:7::/48"]},
    )
    write_merchant(
        merchants,
        "wide.json",
        name="shops/wide",
        key=WIDE_KEY,
        shortCode="600400",
        callback={"allowedCIDRs": ["0.0.0.0/0", "::/0"]},
    )
    url = postgres.create_database("walled", "template_gateway")
    with (
        RunningSimulator(Settings(callback_delay=0.0)) as simulator,
        Receiver() as receiver,
        open_gateway(
            url,
            redis_server.url(),
            simulator,
            receiver,
            merchants_dir=str(merchants),
            safaricom_ips="196.201.214.0/24, 196.201.212.69, 2001:db8::/32",
            trusted_proxies="127.0.0.1/32",
        ) as gateway,
    ):
        yield gateway
    postgres.drop_database("walled")


INSIDE, OUTSIDE = "196.201.214.206", "196.201.215.1"
IN_NARROW = "196.201.214.201"


@pytest.mark.parametrize(
    ("key", "source", "status"),
    [
        (API_KEY, INSIDE, 200),
        (API_KEY, "196.201.212.69", 200),
        (API_KEY, "2001:db8:9::1", 200),
        (API_KEY, f"::ffff:{INSIDE}", 200),
        (API_KEY, f"{INSIDE}:443", 200),
        (API_KEY, OUTSIDE, 403),
        (API_KEY, "2001:db9::1", 403),
        (API_KEY, f"::{INSIDE}", 403),
        (API_KEY, "unknown", 403),
        (API_KEY, "", 403),
        (API_KEY, None, 403),
        # A merchant's list narrows the platform's.
        (NARROW_KEY, IN_NARROW, 200),
        (NARROW_KEY, "2001:db8:7::1", 200),
        (NARROW_KEY, INSIDE, 403),
        (NARROW_KEY, "2001:db8:9::1", 403),
        (NARROW_KEY, OUTSIDE, 403),
        # It cannot widen it.
        (WIDE_KEY, INSIDE, 200),
        (WIDE_KEY, OUTSIDE, 403),
    ],
)
def test_both_lists_judge_the_callback_of_a_token(
    walled: Gateway, new_phone: Phones, key: str, source: str | None, status: int
) -> None:
    transaction_id, path = paid_silently(walled, new_phone("4042"), key=key)

    response = post(walled, path, b"{}", source=source)

    if status == 200:
        assert_accepted(response)
        assert len(kept(walled, transaction_id)) == 1
    else:
        assert_problem(response, 403, "forbidden")
        assert kept(walled, transaction_id) == []


@pytest.mark.parametrize(("source", "status"), [(INSIDE, 200), (OUTSIDE, 403), (None, 403)])
def test_the_platforms_list_judges_the_plain_path(
    walled: Gateway, source: str | None, status: int
) -> None:
    before = count_kept(walled)

    response = post(walled, "/callback", b"{}", source=source)

    assert response.status_code == status
    assert count_kept(walled) == before + (status == 200)
    if status == 200:
        assert_accepted(response)
    else:
        assert_problem(response, 403, "forbidden")


def test_size_is_judged_before_the_token_and_the_token_before_the_address(
    walled: Gateway, new_phone: Phones
) -> None:
    _, path = paid_silently(walled, new_phone("4042"))
    wrong_secret = path[:-32] + "0" * 32
    for where in (path, wrong_secret, "/callback/x", "/callback"):
        response = post(walled, where, b"0" * (MIB + 1), source=OUTSIDE)
        assert_problem(response, 413, "body-too-large")
    for where in (wrong_secret, "/callback/x", f"/callback/{'0' * 64}"):
        assert_problem(post(walled, where, b"{}", source=OUTSIDE), 404, "not-found")
    for where in (path, "/callback"):
        assert_problem(post(walled, where, b"{}", source=OUTSIDE), 403, "forbidden")


def test_an_answer_tells_no_address_and_no_token(walled: Gateway, new_phone: Phones) -> None:
    _, path = paid_silently(walled, new_phone("4042"))
    for where, source in [(path, OUTSIDE), (f"{path}0", INSIDE)]:
        text = post(walled, where, b"{}", source=source).text
        assert "196.201" not in text
        assert path[-32:] not in text


def test_a_plain_callback_from_outside_the_merchants_list_is_put_aside(
    walled: Gateway, new_phone: Phones
) -> None:
    transaction_id, _ = paid_silently(walled, new_phone("4042"), key=NARROW_KEY)
    view = walled.get(f"/transactions/{transaction_id}", key=NARROW_KEY).json()
    body = callback_body(view["checkout_request_id"], receipt="UJ22T8IYO1")

    assert_accepted(post(walled, "/callback", body, source=INSIDE))
    walled.work()

    (row,) = kept(walled, transaction_id)
    assert (row["state"], row["outcome"]) == ("QUARANTINED", "source_not_allowed")
    again = walled.get(f"/transactions/{transaction_id}", key=NARROW_KEY).json()
    assert again["status"] == "PENDING"

    assert_accepted(post(walled, "/callback", body, source=IN_NARROW))
    walled.work()
    again = walled.get(f"/transactions/{transaction_id}", key=NARROW_KEY).json()
    assert again["status"] == "COMPLETED"


@pytest.mark.parametrize(("required", "status"), [("true", "PENDING"), ("false", "COMPLETED")])
def test_the_plain_path_settles_only_where_no_token_is_required(
    database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
    required: str,
    status: str,
) -> None:
    with open_gateway(
        database_url, redis_url, simulator, receiver, callback_token_required=required
    ) as gateway:
        transaction_id, _ = paid_silently(gateway, "254712344042")
        checkout_request_id = gateway.transaction(transaction_id)["checkout_request_id"]

        assert_accepted(post(gateway, "/callback", callback_body(checkout_request_id)))
        gateway.work()

        assert gateway.transaction(transaction_id)["status"] == status
        (row,) = gateway.rows("SELECT * FROM callbacks")
        expected = ("APPLIED", "completed")
        if required == "true":
            expected = ("QUARANTINED", "token_required")
        assert (row["state"], row["outcome"]) == expected


def test_redis_away_changes_nothing(
    database_url: str, simulator: RunningSimulator, receiver: Receiver
) -> None:
    redis_url = f"redis://127.0.0.1:{free_port()}/0"
    sock = bound_socket()
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    config = Config.from_env(
        environment(
            database_url=database_url,
            redis_url=redis_url,
            base_url=simulator.url,
            callback_url=f"{url}/callback",
        )
    )
    bell = Bell(WorkQueue(redis_url))
    bell.start()
    with ExitStack() as stack:
        stack.callback(bell.stop)
        services = stack.enter_context(open_services(config))
        stack.enter_context(serve(services, bell.ring, sock))
        body = {
            "amount": "10",
            "phone": "254712340000",
            "webhook_url": receiver.url,
            "idempotency_key": str(uuid.uuid4()),
        }
        headers = {"X-Internal-Secret": API_KEY}
        started = requests.post(f"{url}/initiate", json=body, headers=headers, timeout=30)
        assert started.status_code == 201, started.text
        simulator.wait_until_idle()
        # The callback that the simulator posted, and one more by hand.
        (callback,) = simulator.ledger()["callbacks"]
        assert callback["status"] == 200
        assert callback["duration_ms"] < 1000
        again = requests.post(callback["callback_url"], data=b"again", timeout=10)
        assert_accepted(again)
        assert again.elapsed.total_seconds() < 1
        assert requests.get(f"{url}/readyz", timeout=10).status_code == 200


@pytest.fixture
def mortal(
    own_postgres: EmbeddedPostgres,
    own_database_url: str,
    redis_url: str,
    simulator: RunningSimulator,
    receiver: Receiver,
) -> Iterator[Gateway]:
    """A gateway whose Postgres may be taken away."""
    assert own_postgres.process.is_running()
    with open_gateway(own_database_url, redis_url, simulator, receiver) as gateway:
        wait_for(lambda: gateway.get("/health").ok, what="the pool")
        yield gateway


def assert_refused_promptly(gateway: Gateway, path: str) -> None:
    """Several at once: each hears 503 within two seconds, and the process is well."""

    def timed(number: int) -> tuple[float, requests.Response]:
        started = time.monotonic()
        response = post(gateway, path, b"%d" % number)
        return time.monotonic() - started, response

    with ThreadPoolExecutor(10) as threads:
        for seconds, response in threads.map(timed, range(10)):
            assert_problem(response, 503, "unavailable")
            assert seconds < PROMPTLY_S
    assert gateway.session.get(f"{gateway.url}/livez", timeout=5).status_code == 200


def test_a_stopped_postgres_means_503_at_once_and_200_when_it_is_back(
    mortal: Gateway, own_postgres: EmbeddedPostgres, new_phone: Phones
) -> None:
    transaction_id, path = paid_silently(mortal, new_phone("4042"))
    assert_accepted(post(mortal, path, b"before"))
    own_postgres.stop()

    assert_refused_promptly(mortal, path)
    assert_refused_promptly(mortal, "/callback")

    own_postgres.start()
    wait_for(lambda: post(mortal, path, b"after").status_code == 200, what="Postgres to be back")
    bodies = {bytes(row["body"]) for row in kept(mortal, transaction_id)}
    assert {b"before", b"after"} <= bodies


def test_a_hung_postgres_means_503_at_once_and_nothing_is_lost_by_that(
    mortal: Gateway, own_postgres: EmbeddedPostgres, new_phone: Phones
) -> None:
    transaction_id, path = paid_silently(mortal, new_phone("4042"))
    assert_accepted(post(mortal, path, b"before"))
    with hung(own_postgres.process.pid):
        assert_refused_promptly(mortal, path)
        assert_refused_promptly(mortal, "/callback")
    # Safaricom does not repeat what was answered 503: it is kept all the same if it can be.
    expected = {b"before", *(b"%d" % number for number in range(10))}

    def bodies() -> set[bytes]:
        return {bytes(row["body"]) for row in kept(mortal, transaction_id)}

    wait_for(lambda: bodies() == expected, what="what was told 503")
    assert_accepted(post(mortal, path, b"after"))


def test_the_answer_is_json_that_safaricom_reads(shared: Gateway) -> None:
    assert json.loads(ACCEPTED) == {"ResultCode": 0, "ResultDesc": "Accepted"}
    assert_accepted(post(shared, "/callback"))
