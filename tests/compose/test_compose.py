"""`make up` for real: what a person has on their machine a minute after cloning."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator

import psycopg
import pytest
import redis
import requests

from harness import docker
from harness.needs import need_image
from harness.neighbour import PROGRAM, Neighbour
from harness.tree import Tree, copy_tree
from harness.waiting import wait_for

API = "http://127.0.0.1:8081"
PORTS = {"api": 8081, "postgres": 5433, "redis": 6380, "metrics": 9091, "worker": 9092}
PORTS["simulator"] = 8090
CONTAINERS = {"mpesa_api", "mpesa_worker", "mpesa_postgres", "mpesa_redis", "mpesa_simulator"}
NETWORK = "mpesa-gateway_default"
# No underscore: it is a host name of the gateway's webhooks too.
SHOP = "mpesa-test-shop"
VOLUMES = {"mpesa-gateway_postgres", "mpesa-gateway_redis"}


def is_taken(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(2)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def listed(*arguments: str) -> set[str]:
    return set(docker.docker(*arguments).splitlines())


def made_by_compose() -> set[str]:
    """Everything of the project that Docker still has."""
    mine = ("--filter", "label=com.docker.compose.project=mpesa-gateway", "--format")
    return {
        *listed("ps", "--all", *mine, "{{.Names}}"),
        *listed("network", "ls", *mine, "{{.Name}}"),
        *listed("volume", "ls", *mine, "{{.Name}}"),
    }


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """`make setup && make up SIMULATOR=1` in a copy of the project; nothing is left of it."""
    need_image(docker.gateway_image())
    there = made_by_compose()
    assert not there, f"a gateway of someone else is up, end it first: {sorted(there)}"
    taken = [port for port in PORTS.values() if is_taken(port)]
    assert not taken, f"ports that the gateway needs are taken: {taken}"
    tree = copy_tree(tmp_path_factory.mktemp("tree"))
    try:
        assert tree.make("setup").returncode == 0
        done = tree.make("up", "SIMULATOR=1", env=with_image())
        assert done.returncode == 0, done.stdout + done.stderr
        yield tree
    finally:
        tree.make("down", "VOLUMES=1")


def with_image() -> dict[str, str]:
    """The image that the suite tests, so that `make up` does not build another."""
    return {"GATEWAY_IMAGE": docker.gateway_image()}


@pytest.fixture(scope="module")
def neighbour(up: Tree) -> Iterator[Neighbour]:
    """A merchant's endpoint in a container of the same network."""
    assert up.settings()
    with docker.container(
        f"--network={NETWORK}",
        f"--name={SHOP}",
        "--publish=127.0.0.1::8000",
        f"--volume={PROGRAM}:/traffic.py:ro",
        "--entrypoint=python",
        command=("/traffic.py",),
    ) as identifier:
        address = docker.docker("port", identifier, "8000").splitlines()[0]
        shop = Neighbour(f"http://{address}", f"http://{SHOP}:8000/hook")
        wait_for(shop.is_up, what="the merchant's endpoint")
        yield shop


def pay(tree: Tree, shop: Neighbour, phone: str = "254712340000") -> str:
    """The id of a payment that the API accepted."""
    response = requests.post(
        f"{API}/initiate",
        json={
            "amount": "25",
            "phone": phone,
            "webhook_url": shop.hook,
            "idempotency_key": str(uuid.uuid4()),
        },
        headers={"X-Internal-Secret": tree.settings()["MPESA_INTERNAL_SECRET"]},
        timeout=30,
    )
    assert response.status_code == 201, response.text
    return str(response.json()["transaction_id"])


def status(tree: Tree, transaction_id: str) -> str:
    view = requests.get(
        f"{API}/transactions/{transaction_id}",
        headers={"X-Internal-Secret": tree.settings()["MPESA_INTERNAL_SECRET"]},
        timeout=30,
    ).json()
    return str(view["status"])


@pytest.mark.usefixtures("up")
def test_the_api_answers_on_8081() -> None:
    response = requests.get(f"{API}/health", timeout=10)

    assert response.status_code == 200
    assert response.json() == {"status": "ok", "database": "up"}
    assert requests.get(f"{API}/readyz", timeout=10).status_code == 200


@pytest.mark.usefixtures("up")
def test_every_container_is_healthy_and_has_its_name() -> None:
    states = {
        name: docker.inspect("container", "inspect", name)["State"]["Health"]["Status"]
        for name in CONTAINERS
    }

    assert states == dict.fromkeys(CONTAINERS, "healthy")
    migrate = docker.inspect("container", "inspect", "mpesa_migrate")["State"]
    assert (migrate["Status"], migrate["ExitCode"]) == ("exited", 0)


def test_postgres_and_redis_answer_at_the_addresses_of_env(up: Tree) -> None:
    settings = up.settings()

    with psycopg.connect(settings["MPESA_DATABASE_URL"], connect_timeout=5) as conn:
        row = conn.execute("SELECT count(*) FROM schema_migrations").fetchone()
    assert row is not None
    assert row[0] >= 1
    with redis.Redis.from_url(settings["MPESA_REDIS_URL"]) as client:
        assert client.ping()


@pytest.mark.usefixtures("up")
def test_redis_asks_for_its_password() -> None:
    with redis.Redis(port=6380) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


@pytest.mark.usefixtures("up")
def test_metrics_of_api_and_worker_are_within_reach() -> None:
    for name in ("metrics", "worker"):
        text = requests.get(f"http://127.0.0.1:{PORTS[name]}/metrics", timeout=10).text
        assert "mpesa_callbacks_total" in text, name


@pytest.mark.usefixtures("up")
def test_nothing_listens_beyond_this_machine() -> None:
    for name in CONTAINERS:
        ports = docker.inspect("container", "inspect", name)["NetworkSettings"]["Ports"]
        for bindings in filter(None, ports.values()):
            assert {it["HostIp"] for it in bindings} == {"127.0.0.1"}, name


@pytest.mark.usefixtures("up")
def test_our_containers_have_no_rights() -> None:
    for name in ("mpesa_api", "mpesa_worker", "mpesa_simulator"):
        found = docker.inspect("container", "inspect", name)
        assert found["Config"]["User"] == "10001:10001", name
        assert found["HostConfig"]["ReadonlyRootfs"], name
        assert found["HostConfig"]["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in found["HostConfig"]["SecurityOpt"], name


def test_no_command_line_and_no_log_shows_a_secret(up: Tree) -> None:
    settings = up.settings()
    secrets = [settings[name] for name in settings if "PASSWORD" in name or "SECRET" in name]
    seen = docker.docker("ps", "--all", "--no-trunc", "--format", "{{.Command}}")
    for name in CONTAINERS:
        seen += docker.docker("top", name, "-eo", "pid,args") + docker.docker("logs", name)

    assert len(secrets) >= 5
    assert not [secret for secret in secrets if secret in seen]


def test_a_payment_through_the_simulator_ends_completed_and_is_told_signed(
    up: Tree, neighbour: Neighbour
) -> None:
    transaction_id = pay(up, neighbour)

    wait_for(lambda: status(up, transaction_id) == "COMPLETED", what="COMPLETED")
    (webhook,) = wait_for(lambda: neighbour.webhooks(transaction_id), what="the webhook")
    body = webhook.verify(up.settings()["MPESA_WEBHOOK_SECRET"])
    assert (body["type"], body["status"]) == ("transaction.completed", "COMPLETED")
    assert body["amount"] == "25"
    assert body["metadata"]["MpesaReceiptNumber"]


def test_the_shells_are_inside(up: Tree, neighbour: Neighbour) -> None:
    transaction_id = pay(up, neighbour, "254712350000")
    database = up.make("shell-db", stdin="SELECT internal_transaction_id FROM transactions;\n")
    api = up.make("shell-api", stdin="id -u; mpesa-gateway transactions list --json\n")

    assert transaction_id in database.stdout
    assert api.stdout.startswith("10001")
    assert transaction_id in api.stdout


def test_ps_shows_what_runs(up: Tree) -> None:
    done = up.make("ps")

    assert not [name for name in CONTAINERS if name not in done.stdout]


def test_setup_and_up_again_change_nothing(up: Tree) -> None:
    before = {name: docker.inspect("container", "inspect", name)["Id"] for name in CONTAINERS}
    env = (up.path / ".env").read_bytes()
    assert up.make("setup").returncode == 0
    done = up.make("up", "SIMULATOR=1", env=with_image())

    assert done.returncode == 0, done.stderr
    assert (up.path / ".env").read_bytes() == env
    assert before == {
        name: docker.inspect("container", "inspect", name)["Id"] for name in CONTAINERS
    }


def test_restart_reads_env_again(up: Tree) -> None:
    with (up.path / ".env").open("a", encoding="utf-8") as file:
        file.write("MPESA_WORKER_CONCURRENCY=3\n")
    done = up.make("restart", "SIMULATOR=1", env=with_image())

    assert done.returncode == 0, done.stderr
    started = [json.loads(line) for line in docker.docker("logs", "mpesa_worker").splitlines()]
    assert [it["threads"] for it in started if it["event"] == "worker started"] == [3]
    assert requests.get(f"{API}/health", timeout=10).status_code == 200


def test_down_keeps_the_payments_and_up_works_without_the_simulator(
    up: Tree, neighbour: Neighbour
) -> None:
    """The last but one of this module: it ends what the others use."""
    transaction_id = pay(up, neighbour, "254712360000")
    wait_for(lambda: status(up, transaction_id) == "COMPLETED")
    docker.docker("network", "disconnect", "--force", NETWORK, SHOP)
    down = up.make("down")

    assert down.returncode == 0, down.stderr
    assert made_by_compose() == VOLUMES
    again = up.make("up", env=with_image())
    assert again.returncode == 0, again.stderr
    assert "Safaricom will refuse it" in again.stdout
    assert status(up, transaction_id) == "COMPLETED"
    assert "mpesa_simulator" not in made_by_compose()
    env = docker.inspect("container", "inspect", "mpesa_api")["Config"]["Env"]
    assert not [it for it in env if "simulator" in it]


def test_down_removes_everything_it_made(up: Tree) -> None:
    done = up.make("down", "VOLUMES=1")

    assert done.returncode == 0, done.stderr
    assert made_by_compose() == set()
    assert not [port for port in PORTS.values() if is_taken(port)]
