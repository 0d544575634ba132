"""What a real server says of its durability."""

from __future__ import annotations

from dataclasses import replace

from mpesa_gateway.domain.durability import Durability
from mpesa_gateway.store.durability import find_refused_engine, read_durability
from mpesa_gateway.store.pool import Pool

TESTS_OWN = Durability(
    fsync=False,
    full_page_writes=False,
    synchronous_commit="on",
    synchronous_standby_names="",
    replicas=0,
    read_only=False,
)


def test_a_server_says_how_durable_it_is(pool: Pool) -> None:
    """The tests' own Postgres trades durability for speed."""
    with pool.connection("test") as conn:
        assert find_refused_engine(conn) is None
        found = read_durability(conn)
        assert found == replace(TESTS_OWN, full_page_writes=found.full_page_writes)
        conn.execute("SET default_transaction_read_only = on")
        assert read_durability(conn).read_only
        conn.execute("RESET default_transaction_read_only")
