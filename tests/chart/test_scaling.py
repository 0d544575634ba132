"""Autoscalers, disruption budgets, spreading."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from harness.helm import of, only, pod_templates, render

KEDA = {"worker": {"keda": {"enabled": True, "rowsPerReplica": 2, "maxReplicas": 3}}}
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", ["api", "worker"])
def test_an_autoscaled_deployment_has_no_replicas(name: str) -> None:
    objects = render({name: {"autoscaling": {"enabled": True, "minReplicas": 3}}})
    assert "replicas" not in only(objects, "Deployment", name)["spec"]
    scaler = only(objects, "HorizontalPodAutoscaler", name)
    assert scaler["spec"]["scaleTargetRef"]["name"] == f"g-mpesa-gateway-{name}"
    assert scaler["spec"]["minReplicas"] == 3
    # A share of nothing could not be computed.
    container = pod_templates(objects)[name]["spec"]["containers"][0]
    assert container["resources"]["requests"]["cpu"]


def test_without_an_autoscaler_the_replicas_are_the_values() -> None:
    objects = render({"api": {"replicaCount": 4}, "worker": {"replicaCount": 0}})
    assert only(objects, "Deployment", "api")["spec"]["replicas"] == 4
    assert only(objects, "Deployment", "worker")["spec"]["replicas"] == 0
    assert not of(objects, "HorizontalPodAutoscaler")
    assert not of(objects, "ScaledObject")


def test_keda_owns_the_workers_replicas() -> None:
    objects = render(KEDA)
    assert "replicas" not in only(objects, "Deployment", "worker")["spec"]
    scaled = only(objects, "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"] == {"name": "g-mpesa-gateway-worker"}
    trigger = scaled["triggers"][0]
    assert trigger["metadata"]["targetQueryValue"] == "2"
    authentication = only(objects, "TriggerAuthentication")
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    assert authentication["spec"]["secretTargetRef"] == [
        {"parameter": "connection", "name": "g-mpesa-gateway-postgresql", "key": "uri"}
    ]


def due_rows(conn: psycopg.Connection[Any]) -> int:
    """What KEDA would be told."""
    query = only(render(KEDA), "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    row = conn.execute(query).fetchone()
    assert row is not None
    count: int = row[0]
    return count


def add_callbacks(conn: psycopg.Connection[Any], count: int, due: datetime) -> None:
    conn.execute(
        "INSERT INTO callbacks (by_token, body, body_sha256, received_at, last_received_at,"
        " next_attempt_at) SELECT false, '{}', sha256('{}'), %(at)s, %(at)s, %(due)s"
        " FROM generate_series(1, %(count)s)",
        {"at": NOON, "due": due, "count": count},
    )


def add_transaction(conn: psycopg.Connection[Any], **columns: Any) -> int:
    """A pending transaction with these columns; its row number."""
    values = {
        "internal_transaction_id": "gen_random_uuid()",
        "merchant": "'default'",
        "idempotency_key": "gen_random_uuid()",
        "request_sha256": "sha256('')",
        "amount": "1",
        "phone": "'254712345678'",
        "short_code": "'174379'",
        "webhook_url": "'https://shop.example'",
        "account_reference": "'a'",
        "description": "'d'",
        "push_state": "'ACCEPTED'",
        "prompt_until": "now()",
        "callback_secret_sha256": "sha256('')",
        "created_at": "now()",
        "updated_at": "now()",
        **columns,
    }
    row = conn.execute(
        f"INSERT INTO transactions ({', '.join(values)}) VALUES ({', '.join(values.values())})"
        " RETURNING id"
    ).fetchone()
    assert row is not None
    number: int = row[0]
    return number


def add_delivery(conn: psycopg.Connection[Any], transaction: int, due: str) -> None:
    conn.execute(
        "INSERT INTO deliveries (webhook_id, transaction_id, merchant, type, url, origin, body,"
        " next_attempt_at, created_at) VALUES (gen_random_uuid(), %s, 'default',"
        f" 'transaction.completed', 'https://s.example', 'https://s.example', 'b', {due}, now())",
        [transaction],
    )


def test_due_rows_are_what_a_worker_could_do_now(database_url: str) -> None:
    """On the real schema: a query that it no longer fits would scale nothing."""
    later = datetime.now(UTC) + timedelta(hours=1)
    with psycopg.connect(database_url, autocommit=True) as conn:
        assert due_rows(conn) == 0
        add_callbacks(conn, 1, NOON)
        add_callbacks(conn, 4, later)
        assert due_rows(conn) == 1
        done = add_transaction(conn)
        add_delivery(conn, done, "now() - interval '1 s'")
        assert due_rows(conn) == 2
        waiting = add_transaction(conn, next_query_at="now() + interval '1 h'")
        add_delivery(conn, waiting, "now() + interval '1 h'")
        assert due_rows(conn) == 2
        add_transaction(conn, next_query_at="now() - interval '1 s'")
        assert due_rows(conn) == 3
        add_transaction(conn, push_lease_until="now() - interval '1 s'")
        assert due_rows(conn) == 4


def test_the_count_stops_where_the_most_pods_are_reached(database_url: str) -> None:
    """A backlog of a million rows costs the database no more than one of six."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        add_callbacks(conn, 50, NOON)
        assert due_rows(conn) == 6


@pytest.mark.parametrize(
    ("budget", "wanted"),
    [
        ({}, {"maxUnavailable": 1}),
        ({"minAvailable": 0}, {"minAvailable": 0}),
        ({"minAvailable": "50%"}, {"minAvailable": "50%"}),
        ({"maxUnavailable": 2}, {"maxUnavailable": 2}),
    ],
)
def test_disruption_budgets(budget: dict[str, Any], wanted: dict[str, Any]) -> None:
    objects = render({"api": {"podDisruptionBudget": budget}})
    spec = only(objects, "PodDisruptionBudget", "api")["spec"]
    found = {key: spec[key] for key in ("minAvailable", "maxUnavailable") if key in spec}
    assert found == wanted
    assert spec["selector"]["matchLabels"]["app.kubernetes.io/component"] == "api"


def test_the_operator_never_blocks_a_drain() -> None:
    assert not of(render({}), "PodDisruptionBudget", "operator")


def test_spreading_fills_in_the_selector() -> None:
    own = {"labelSelector": {"matchLabels": {"mine": "yes"}}}
    constraint = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    given = [constraint, {**constraint, **own}]
    objects = render({"api": {"topologySpreadConstraints": given}})
    implied, kept = pod_templates(objects)["api"]["spec"]["topologySpreadConstraints"]
    selector = only(objects, "Deployment", "api")["spec"]["selector"]["matchLabels"]
    assert implied["labelSelector"]["matchLabels"] == selector
    assert kept["labelSelector"]["matchLabels"]["mine"] == "yes"
