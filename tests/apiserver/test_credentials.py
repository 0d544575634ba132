"""Credentials: found or not, good or not, changed, away for a moment."""

from __future__ import annotations

import socket
import time

import pytest

from apiserver.conftest import Starter
from harness.merchantconfigs import DARAJA, GATEWAY, Operator, Shops, condition, secret
from harness.waiting import wait_for


@pytest.mark.usefixtures("operator")
def test_a_secret_that_is_not_there_yet(shops: Shops) -> None:
    shops.add(credentialsSecretRef={"name": "later"})
    body = shops.wait("CredentialsResolved", "False", "SecretNotFound")
    assert condition(body, "Ready")["reason"] == "SecretNotFound"
    assert "later" in condition(body, "Ready")["message"]
    assert shops.file() is None
    assert shops.kube.find(shops.secret_path("duka-mpesa-gateway")) is None
    shops.add_secret("later")
    shops.wait("Ready", "True")


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"passkey": ""}, "EmptyValue"), ({"passkey": " \n"}, "EmptyValue"), ({}, "KeyMissing")],
)
@pytest.mark.usefixtures("operator")
def test_a_secret_that_is_not_complete(shops: Shops, values: dict[str, str], reason: str) -> None:
    content = {**{key: DARAJA[key] for key in ("consumerKey", "consumerSecret")}, **values}
    path = f"/api/v1/namespaces/{shops.namespace}/secrets"
    shops.kube.create(path, secret("half", shops.namespace, content))
    shops.add(credentialsSecretRef={"name": "half"})
    body = shops.wait("Ready", "False", reason)
    assert "passkey" in condition(body, "Ready")["message"]


@pytest.mark.usefixtures("operator")
def test_a_secret_of_another_namespace_is_not_looked_at(shops: Shops) -> None:
    path = f"/api/v1/namespaces/{GATEWAY}/secrets"
    shops.kube.create(path, secret(f"other-{shops.namespace}", GATEWAY, DARAJA))
    shops.add(credentialsSecretRef={"name": f"other-{shops.namespace}"})
    shops.wait("CredentialsResolved", "False", "SecretNotFound")


@pytest.mark.usefixtures("operator")
def test_values_lose_the_line_end_that_files_have(shops: Shops) -> None:
    shops.change_secret(passkey=DARAJA["passkey"] + "\n")
    shops.add()
    shops.wait("Ready", "True")
    file = shops.file()
    assert file is not None
    assert file["credentials"] == DARAJA


@pytest.mark.usefixtures("operator")
def test_credentials_that_daraja_refuses(shops: Shops) -> None:
    shops.change_secret(consumerSecret="canary-of-a-wrong-secret")
    shops.add()
    body = shops.wait("Ready", "False", "Rejected")
    assert condition(body, "CredentialsValid")["status"] == "False"
    assert condition(body, "Published")["status"] == "True"
    shops.change_secret(consumerSecret=DARAJA["consumerSecret"])
    shops.wait("Ready", "True", timeout_s=10)


def test_an_outage_of_daraja_makes_nobody_unready(start_operator: Starter, shops: Shops) -> None:
    start_operator(shops.namespace, MPESA_SAFARICOM_BASE_URL="http://127.0.0.1:9")
    shops.add()
    body = shops.wait("Ready", "True", timeout_s=6)
    assert condition(body, "CredentialsValid")["reason"] == "DarajaUnreachable"


def test_daraja_that_hangs_holds_nobody_up(start_operator: Starter, shops: Shops) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start_operator(shops.namespace, MPESA_SAFARICOM_BASE_URL=url)
        begun = time.monotonic()
        shops.add()
        body = shops.wait("Ready", "True", timeout_s=6)
        assert condition(body, "CredentialsValid")["reason"] == "NotChecked"
        assert time.monotonic() - begun < 5


@pytest.mark.usefixtures("daraja")
def test_daraja_is_asked_once_for_a_consumer_key_and_not_again_after_a_restart(
    operator: Operator,
    shops: Shops,
) -> None:
    shops.add()
    shops.wait("Ready", "True")
    shops.change_secret(passkey="canary-passkey-two")
    wait_for(lambda: passkey(shops) == "canary-passkey-two", what="the new passkey")
    operator.stop()
    operator.start()
    shops.change(limits={"minAmount": 2})
    shops.wait("Ready", "True")
    assert 'mpesa_operator_token_checks_total{outcome="valid"}' not in operator.metrics()


def passkey(shops: Shops) -> str | None:
    file = shops.file()
    return None if file is None else file["credentials"]["passkey"]


@pytest.mark.usefixtures("operator")
def test_a_new_passkey_is_published_at_the_next_resync(shops: Shops) -> None:
    shops.add()
    shops.wait("Ready", "True")
    shops.change_secret(passkey="canary-passkey-two")
    # The tests' resync is 3 s where it is 60 s in production.
    wait_for(lambda: passkey(shops) == "canary-passkey-two", timeout_s=5, what="the new passkey")
    shops.wait("Ready", "True")


def test_with_the_watch_a_new_passkey_is_published_at_once(
    start_operator: Starter, shops: Shops
) -> None:
    start_operator(shops.namespace, secret_watch=True, MPESA_OPERATOR_RESYNC="1h")
    shops.add()
    shops.wait("Ready", "True")
    shops.change_secret(passkey="canary-passkey-two")
    wait_for(lambda: passkey(shops) == "canary-passkey-two", timeout_s=5, what="the new passkey")


def test_a_secret_that_vanishes_takes_nobody_out_of_service(
    operator: Operator, shops: Shops
) -> None:
    shops.add()
    shops.wait("Ready", "True")
    before = shops.file()
    shops.kube.delete(shops.secret_path("daraja"))
    body = shops.wait("CredentialsResolved", "False", "SecretNotFound")
    assert condition(body, "Published")["status"] == "True"
    assert shops.file() == before
    # What needs no credentials goes on: a suspension above all.
    shops.change(suspended=True)
    wait_for(lambda: (shops.file() or {}).get("suspended"), timeout_s=3, what="the suspension")
    operator.stop()
    operator.start()
    shops.wait("CredentialsResolved", "False", "SecretNotFound")
    assert (shops.file() or {})["credentials"] == DARAJA
    shops.add_secret("daraja")
    shops.change(suspended=False)
    shops.wait("Ready", "True")


@pytest.mark.usefixtures("operator")
def test_a_merchants_own_signing_secret(shops: Shops) -> None:
    path = f"/api/v1/namespaces/{shops.namespace}/secrets"
    shops.kube.create(path, secret("hooks", shops.namespace, {"key": "canary-own-secret-one"}))
    shops.add(webhook={"signingSecretRef": {"name": "hooks", "key": "key"}})
    shops.wait("Ready", "True")
    assert (shops.file() or {})["webhook"]["secrets"] == ["canary-own-secret-one"]
    assert "webhook-signing-secret" not in shops.generated()
    shops.change_secret("hooks", key="canary-own-secret-two")
    secrets = ["canary-own-secret-two", "canary-own-secret-one"]
    wait_for(lambda: (shops.file() or {})["webhook"]["secrets"] == secrets, what="both secrets")
