"""Every bounded resource of the API and the worker is shared by merchant, or says why not.

The code is read for what makes threads, queues, pools and pages. A new one that is not in the
tables below fails the test: decide whether one merchant could take all of it (docs/decisions/0020).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from harness.collecting import every_case

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src/mpesa_gateway"
# Not part of the API or the worker.
ELSEWHERE = ("commands/", "demo/")
MAKERS = {
    "BoundedSemaphore",
    "ConnectionPool",
    "EndpointLimiter",
    "LifoQueue",
    "Lookups",
    "Pool",
    "PriorityQueue",
    "Queue",
    "Room",
    "Semaphore",
    "SharedPools",
    "SimpleQueue",
    "ThreadPoolExecutor",
    "Threads",
    "_Line",
    "create_consumer",
}

# The resource, and the test in which one merchant wants all of it.
SHARED = {
    "api/app.py Threads push": (
        "tests/api/test_shares.py::test_open_pushes_of_hostile_merchants_leave_room_for_another_s"
    ),
    "api/app.py Threads read": (
        "tests/unit/test_threads.py::test_the_queue_is_shared_and_served_by_merchant_in_turn"
    ),
    "clients/egress.py Lookups webhook": (
        "tests/integration/test_lookups.py::"
        "test_a_merchant_s_hung_look_ups_leave_threads_to_another"
    ),
    "clients/egress.py SharedPools": (
        "tests/integration/test_lookups.py::"
        "test_a_merchant_with_many_endpoints_pushes_out_its_own_connections_only"
    ),
    "services.py Lookups daraja": (
        "tests/integration/test_lookups.py::test_webhook_names_that_hang_keep_nobody_from_daraja"
    ),
    "services.py EndpointLimiter": (
        "tests/unit/usecases/test_endpoint_limiter.py::"
        "test_a_merchant_with_200_black_holes_leaves_slots_to_the_others"
    ),
    "services.py Room": (
        "tests/integration/test_hostile_base_url.py::"
        "test_queries_of_one_merchant_that_hang_leave_room_for_another_s"
    ),
    "worker/sweeper.py page deliveries.list_due": (
        "tests/integration/test_sweeper.py::"
        "test_a_backlog_of_one_merchant_hides_no_other_s_webhooks_and_queries"
    ),
    "worker/sweeper.py page status_queries.list_due": (
        "tests/integration/test_sweeper.py::"
        "test_a_backlog_of_one_merchant_hides_no_other_s_webhooks_and_queries"
    ),
}
_IN_TURN = "the fair part of a page: it is what shares"
_CARRIES = "carries what its owner has shared already"
EXEMPT = {
    "api/app.py Threads health": "probes belong to no merchant",
    "api/app.py Threads look-up": "callbacks: only Safaricom's addresses, and limits by address",
    "api/callbacks/inbox.py _Line": "only Safaricom's addresses; each costs a row of one insert",
    "api/threads.py ThreadPoolExecutor": _CARRIES,
    "clients/lookups.py ThreadPoolExecutor": _CARRIES,
    "clients/redis_pool.py ConnectionPool": "a command takes a millisecond and has a deadline",
    "exporters/http_server.py ThreadPoolExecutor metrics-render": "scrapes belong to no merchant",
    "services.py Pool work": "a statement has a deadline and no call out happens inside",
    "services.py Pool inbox": "for callbacks, health and leases: no merchant's request is in it",
    "store/pool.py ConnectionPool": "the pool behind both of services.py",
    "worker/sweeper.py ThreadPoolExecutor sweep": "work that waits for Postgres only",
    "worker/sweeper.py ThreadPoolExecutor sweep-query": "as many threads as queries have room",
    "worker/sweeper.py ThreadPoolExecutor sweep-webhook": "more threads than the limiter has slots",
    "worker/sweeper.py page callbacks.list_due": "Safaricom's; applied by one transaction each",
    "worker/sweeper.py page callbacks.release_orphans": "Safaricom's; one statement",
    "worker/sweeper.py page pages.list_deliveries": _IN_TURN,
    "worker/sweeper.py page pages.list_queries": _IN_TURN,
    "worker/sweeper.py page status_queries.list_expired_pushes": "ended by one transaction each",
    "worker/sweeper.py page redeliveries.list_due": "written by operators",
    "work_queue.py SimpleQueue": "wake-ups; what finds no room is found by the sweeper",
    "worker/process.py create_consumer": "more threads than the limiter has slots",
}


def resources() -> Iterator[str]:
    """File, kind and name of each thing in the code that has an end."""
    for path in sorted(SOURCES.rglob("*.py")):
        file = path.relative_to(SOURCES).as_posix()
        if file.startswith(ELSEWHERE):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield from _resource(file, node)


def _resource(file: str, call: ast.Call) -> Iterator[str]:
    called = ast.unparse(call.func)
    kind = called.rpartition(".")[2]
    words = [
        it.value
        for it in [*call.args, *(it.value for it in call.keywords)]
        if isinstance(it, ast.Constant) and isinstance(it.value, str) and kind != "create_consumer"
    ]
    if kind in MAKERS:
        yield " ".join([file, kind, *words[:1]])
    if any(isinstance(it, ast.Name) and it.id == "PAGE" for it in _values(call)) and "." in called:
        yield f"{file} page {called}"


def _values(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(it.value for it in call.keywords)]


def test_every_bounded_resource_is_shared_or_exempt() -> None:
    found = set(resources())

    assert found - SHARED.keys() - EXEMPT.keys() == set(), "decide, and write it down here"
    assert (SHARED.keys() | EXEMPT.keys()) - found == set(), "is no more"


@every_case("resource", SHARED)
def test_a_shared_resource_has_an_attack_that_is_tested(resource: str) -> None:
    file, _, name = SHARED[resource].partition("::")
    functions = {
        node.name
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert name in functions


def test_pushes_and_reads_know_whose_they_are() -> None:
    """A pool of threads without `tenancy` gives one merchant all of them."""
    source = (SOURCES / "api/app.py").read_text(encoding="utf-8")
    made = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Threads"
    ]
    shared = [it for it in made if "tenancy=merchants.tenancy" in it]

    assert len(shared) == sum(it.startswith("api/app.py Threads") for it in SHARED)
