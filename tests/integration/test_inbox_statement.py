"""The inbox's statement: its arrays are what they were made of, its plan suits a growing table."""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone

import psycopg
import pytest

from harness.inbox import InboxHarness
from mpesa_gateway.domain.ids import CallbackToken
from mpesa_gateway.store import binary_arrays, inbox
from mpesa_gateway.store.inbox import NewCallback, Verdict
from mpesa_gateway.store.pool import Connection, Pool

SOME_ID = uuid.UUID("019c0000-0000-7000-8000-0123456789ab")
NAIROBI = timezone(timedelta(hours=3))


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    opened = Pool(database_url, size=1, name="test", plans_once=True)
    opened.open()
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("make", "kind", "values"),
    [
        (binary_arrays.bool_array, "bool", [True, False]),
        (binary_arrays.bytea_array, "bytea", [b"", b"\x00\xff{}", None, b"x" * 100_000]),
        (binary_arrays.int4_array, "int4", [0, -1, None, 2**31 - 1, -(2**31)]),
        (
            binary_arrays.text_array,
            "text",
            ["", "Café, \"{}\" \\ 'NULL'", None, "NULL", "\U0001f4b8"],
        ),
        (
            binary_arrays.timestamptz_array,
            "timestamptz",
            [
                datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
                datetime(2026, 11, 28, 21, 30, 0, 1, tzinfo=NAIROBI),
            ],
        ),
        (binary_arrays.uuid_array, "uuid", [SOME_ID, None, uuid.UUID(int=0)]),
        (binary_arrays.text_array, "text", [None]),
        (binary_arrays.text_array, "text", []),
    ],
)
def test_postgres_reads_what_was_written(
    database_url: str, make: Callable[[list[object]], bytes], kind: str, values: list[object]
) -> None:
    with psycopg.connect(database_url) as conn:
        query = f"SELECT %b::{kind}[], pg_typeof(%b)::text"
        row = conn.execute(query.encode(), [make(values), make(values)]).fetchone()

    assert row is not None
    # psycopg knows each of these types by the array's own number: nothing is cast on the way.
    assert row == (values, NAMES[kind])


NAMES = {
    "bool": "boolean[]",
    "bytea": "bytea[]",
    "int4": "integer[]",
    "text": "text[]",
    "timestamptz": "timestamp with time zone[]",
    "uuid": "uuid[]",
}


def test_documents_are_read_as_documents(database_url: str) -> None:
    documents = ['["a/b", "c"]', "{}"]
    with psycopg.connect(database_url) as conn:
        row = conn.execute("SELECT %b::jsonb[]", [binary_arrays.jsonb_array(documents)]).fetchone()

    assert row == ([["a/b", "c"], {}],)


def test_an_integer_beyond_its_type_is_an_error_here() -> None:
    with pytest.raises(struct.error):
        binary_arrays.int4_array([2**31])


def test_a_plan_made_for_a_small_table_never_reads_all_of_it(pool: Pool) -> None:
    """Postgres plans once for this connection, while there are three payments, and knows that."""
    harness = InboxHarness(pool)
    tokens = [harness.new_token(number) for number in range(3)]
    with psycopg.connect(harness.url, autocommit=True) as other:
        other.execute("ANALYZE transactions")
    with pool.connection("test") as conn:
        taken = inbox.keep(conn, [new_callback(token) for token in tokens])
        plan = plan_of(conn, "WITH asked AS %")

    assert taken.verdicts == [Verdict.KEPT] * 3
    assert "Index Scan using transactions_internal_transaction_id_key" in plan
    assert "Seq Scan" not in plan


def new_callback(token: CallbackToken) -> NewCallback:
    digest = hashlib.sha256(b"{}").digest()
    return NewCallback(token, b"{}", digest, {}, "::1", datetime.now(UTC))


def plan_of(conn: Connection, statement: str) -> str:
    """As prepared in this connection, for any values."""
    found = conn.execute(
        "SELECT name, cardinality(parameter_types), generic_plans, custom_plans"
        " FROM pg_prepared_statements WHERE statement LIKE %s",
        [statement],
    ).fetchone()
    assert found is not None
    name, parameters, generic, custom = found
    assert (generic, custom) == (1, 0)
    nulls = ", ".join(["NULL"] * parameters)
    return "\n".join(it[0] for it in conn.execute(f'EXPLAIN EXECUTE "{name}"({nulls})'.encode()))
