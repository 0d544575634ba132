"""SSRF by name, against a name server that lies to the machine's own resolver.

Nothing is hooked: the process under test asks glibc, glibc asks harness/names.py, and a socket
that listens on every address says what was dialled.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.gateway import Gateway
from harness.given_stores import EMBEDDED_ONLY
from harness.own_network import OwnNetwork, why_not
from harness.settings import environment
from harness.waiting import wait_for
from mpesa_devkit.processes import Process, clean_env

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

PUBLIC, ANOTHER = "93.184.215.14", "151.101.1.69"
PUBLIC_V6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
LOOPBACK, METADATA, POD = "127.0.0.1", "169.254.169.254", "10.42.0.7"
SHOP = "shop.example"
HOOK = f"https://{SHOP}/hook"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnNetwork]:
    with OwnNetwork(tmp_path_factory.mktemp("network")) as running:
        yield running


def test_the_witness_sees_whoever_is_not_stopped(network: OwnNetwork) -> None:
    """Without the guard the same name leads inside: what the other tests do not see is there."""
    network.serve({SHOP: [[PUBLIC], [LOOPBACK], [METADATA], [POD]]})
    attempts = [network.send(HOOK, allow_private=True) for _ in range(4)]

    assert [it["outcome"] for it in attempts] == ["delivered"] * 4
    assert network.seen() == [PUBLIC, LOOPBACK, METADATA, POD]


@pytest.mark.parametrize("inner", [LOOPBACK, METADATA, POD, "::1", "fd00:ec2::254"])
def test_between_the_look_and_the_dial_nothing_is_asked_again(
    network: OwnNetwork, inner: str
) -> None:
    """The second answer is an inner address: whoever asks twice in one try dials that."""
    network.serve({SHOP: [[PUBLIC], [inner]]})
    first, second = network.send(HOOK), network.send(HOOK)

    assert first["outcome"] == "delivered"
    assert second["outcome"] == "refused"
    assert network.seen() == [PUBLIC]
    assert sorted(network.asked()) == [f"A {SHOP}"] * 2 + [f"AAAA {SHOP}"] * 2


@pytest.mark.parametrize(
    "answers",
    [
        [PUBLIC, POD],
        [POD, PUBLIC],
        [PUBLIC, ANOTHER, METADATA],
        [PUBLIC, "::1"],
        [PUBLIC_V6, LOOPBACK],
        [PUBLIC, "::ffff:127.0.0.1"],
        [PUBLIC, "64:ff9b::a9fe:a9fe"],
    ],
)
def test_one_bad_address_among_good_ones_spoils_them_all(
    network: OwnNetwork, answers: list[str]
) -> None:
    network.serve({SHOP: [answers]})

    assert network.send(HOOK)["outcome"] == "refused"
    assert network.seen() == []


@pytest.mark.parametrize(
    "spelling",
    [
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:10.42.0.7",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a2a:7",
        "2002:7f00:1::1",
        "2001:0:7f00:1::",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_inner_address_in_an_ipv6_answer_is_not_dialled(
    network: OwnNetwork, spelling: str
) -> None:
    network.serve({SHOP: [[spelling]]})

    assert network.send(HOOK)["outcome"] == "refused"
    assert network.seen() == []


def test_an_alias_for_an_inner_name_is_not_dialled(network: OwnNetwork) -> None:
    inside = "kubernetes.default.svc.cluster.local"
    network.serve({SHOP: [[f"CNAME {inside}"]], inside: [["10.43.0.1"]]})

    assert network.send(HOOK)["outcome"] == "refused"
    assert network.seen() == []


def test_an_alias_for_a_public_name_is(network: OwnNetwork) -> None:
    edge = "edge.cdn.example"
    network.serve({SHOP: [[f"CNAME {edge}"]], edge: [[PUBLIC, PUBLIC_V6]]})

    assert network.send(HOOK)["outcome"] == "delivered"
    (dialled,) = network.seen()
    assert dialled in (PUBLIC, PUBLIC_V6)


def test_the_search_list_of_a_pod_is_not_asked(network: OwnNetwork) -> None:
    """`ndots:5` would try the cluster's names first, and whoever can make one would be dialled."""
    planted = f"{SHOP}.default.svc.cluster.local"
    network.serve({SHOP: [[PUBLIC]], planted: [[POD]]})

    assert network.send(HOOK)["outcome"] == "delivered"
    assert network.seen() == [PUBLIC]
    assert sorted(network.asked()) == [f"A {SHOP}", f"AAAA {SHOP}"]


@pytest.mark.parametrize("inner", [LOOPBACK, POD])
def test_a_final_dot_changes_nothing(network: OwnNetwork, inner: str) -> None:
    network.serve({SHOP: [[PUBLIC], [inner]]})
    first, second = (network.send(f"https://{SHOP}./hook") for _ in range(2))

    assert first["outcome"] == "delivered"
    assert second["outcome"] == "refused"
    assert network.seen() == [PUBLIC]
    assert set(network.asked()) == {f"A {SHOP}", f"AAAA {SHOP}"}


@EMBEDDED_ONLY
def test_a_worker_is_not_led_inside_from_one_try_to_the_next(
    network: OwnNetwork, gateway: Gateway, server_directory: Path, tmp_path: Path
) -> None:
    """A real worker in that network, which finds the delivery without Redis."""
    network.serve({SHOP: [[PUBLIC], [METADATA], [LOOPBACK], [POD]]}, status=500)
    gateway.pay(webhook_url=HOOK)
    (callback,) = wait_for(lambda: gateway.rows("SELECT id FROM callbacks"), what="the callback")
    gateway.services.callbacks.apply(callback["id"])
    worker = Process(
        "worker",
        network.inside([sys.executable, "-m", "mpesa_gateway", "worker"]),
        log=tmp_path / "worker.log",
        env=worker_environment(gateway, network, socket_directory=server_directory / "postgres"),
    )
    try:
        tried = wait_for(lambda: tries(gateway, 4), timeout_s=60, what="four tries")
    finally:
        worker.stop()

    assert tried == [("failed", 500), ("refused", None), ("refused", None), ("refused", None)]
    assert network.seen() == [PUBLIC]


def tries(gateway: Gateway, count: int) -> list[tuple[str, int | None]]:
    """So many tries that have ended; none while there are fewer."""
    rows = gateway.rows(
        "SELECT outcome, response_status_code FROM webhook_attempts"
        " WHERE outcome <> 'started' ORDER BY attempt_number"
    )
    found = [(row["outcome"], row["response_status_code"]) for row in rows]
    return found if len(found) >= count else []


def worker_environment(
    gateway: Gateway, network: OwnNetwork, *, socket_directory: Path
) -> dict[str, str]:
    """The guard as it is in production; Postgres by a socket that is a file."""
    server = urlsplit(gateway.database_url)
    database_url = f"postgresql://postgres@{server.path}?host={socket_directory}&port={server.port}"
    settings = environment(
        database_url=database_url,
        redis_url="redis://127.0.0.1:1/0",
        base_url=gateway.simulator.url,
        callback_url=gateway.url,
        webhook_allow_private="false",
        webhook_retry_schedule="200ms,200ms,200ms",
    )
    return clean_env({**settings, "SSL_CERT_FILE": str(network.ca_file)})
