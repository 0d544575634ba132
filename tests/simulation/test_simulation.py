"""Layer B: any order of events that Hypothesis can think of, in virtual time, on real SQL.

`make test` runs a few examples, always the same. `make test-simulation` looks for new ones:
EXAMPLES says how many, SEED repeats a run. Hypothesis prints the steps of what it finds.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from mpesa_devkit.embedded import EmbeddedPostgres, EmbeddedRedis
from simulation.machine import Database, GatewayMachine

TEMPLATE = "template_gateway"
FEW, STEPS = 8, 30
EXAMPLES = int(os.environ.get("EXAMPLES", str(FEW)))
SEED = os.environ.get("SEED") or None
SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS if EXAMPLES == FEW else 2 * STEPS,
    deadline=None,
    derandomize=EXAMPLES == FEW and SEED is None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
_NUMBERS = itertools.count(1)


@pytest.fixture
def database(postgres: EmbeddedPostgres, redis_server: EmbeddedRedis) -> Database:
    """Makes an empty, migrated database for each example."""

    def make() -> tuple[str, str, Callable[[], None]]:
        name = f"simulation_{next(_NUMBERS)}"
        url = postgres.create_database(name, TEMPLATE)
        return url, redis_server.url(), lambda: postgres.drop_database(name)

    return make


@pytest.mark.timeout(0)
def test_no_order_of_events_loses_or_doubles_anything(database: Database) -> None:
    class Machine(GatewayMachine):
        pass

    Machine.database = staticmethod(database)
    run = run_state_machine_as_test
    if SEED is not None:
        run = seed(int(SEED))(run)
    run(Machine, settings=SETTINGS)
