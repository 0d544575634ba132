"""Tokens: how they are asked for, and what kills them."""

from __future__ import annotations

import base64

import pytest

from daraja_simulator import tokens
from daraja_simulator.replies import RefusedError
from daraja_simulator.tokens import Tokens

PATH = "/oauth/v1/generate?grant_type=client_credentials"


def test_a_token_has_28_characters_and_lives_for_a_text_of_seconds(caller):
    body = caller.new_token()
    assert len(body["access_token"]) == 28
    assert body["access_token"].isalnum()
    assert body["expires_in"] == "3599"


def test_the_lifetime_may_be_a_number(simulate):
    assert simulate(expires_in_number=True, token_lifetime=60).new_token()["expires_in"] == 60


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer abc",
        "Basic ***",
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
    ],
)
def test_another_authentication_is_an_error(caller, authorization):
    headers = {"Authorization": authorization} if authorization else {}
    answer = caller.send("GET", PATH, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["errorCode"] == "400.008.01"


@pytest.mark.parametrize("query", ["", "?grant_type=password", "?grant_type=client_credentials%20"])
def test_another_grant_type_is_an_error(caller, query):
    answer = caller.send("GET", "/oauth/v1/generate" + query, auth=("key", "secret"))
    assert answer.status_code == 400
    assert answer.json()["errorCode"] == "400.008.02"


@pytest.mark.parametrize("auth", [("", "secret"), ("key", ""), ("other", "secret"), ("key", "x")])
def test_wrong_credentials_have_an_empty_body(simulate, auth):
    answer = simulate(credentials={"key": "secret"}).send("GET", PATH, auth=auth)
    assert (answer.status_code, answer.content) == (400, b"")


def test_the_right_credentials_are_accepted(simulate):
    caller = simulate(credentials={"key": "secret"})
    caller.new_token()
    assert caller.push().status_code == 200


def test_a_new_token_kills_the_previous_one_of_its_app(caller):
    first = caller.token
    caller.new_token("other-app")
    assert caller.push("254700000010", token=first).status_code == 200
    caller.new_token()
    answer = caller.push("254700000011", token=first)
    assert answer.status_code == 404
    assert answer.json()["errorCode"] == "404.001.03"
    assert answer.json()["errorMessage"] == "Invalid Access Token"
    assert caller.push("254700000012").status_code == 200


def test_a_new_token_may_leave_the_previous_one(simulate):
    caller = simulate(token_invalidation=False)
    first = caller.token
    caller.new_token()
    assert caller.push(token=first).status_code == 200


def test_a_token_expires(simulate):
    caller = simulate(token_lifetime=0)
    assert caller.push().json()["errorCode"] == "404.001.03"
    assert caller.query("ws_CO_1").json()["errorCode"] == "404.001.03"


def test_every_token_can_be_expired_by_hand(caller):
    assert caller.send("POST", "/expire-tokens").json() == {"expired": 1}
    assert caller.push().json()["errorCode"] == "404.001.03"
    caller.new_token()
    assert caller.push().status_code == 200


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic abc"])
def test_a_push_needs_a_bearer_token(caller, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    path = "/mpesa/stkpush/v1/processrequest"
    answer = caller.send("POST", path, json=caller.push_body(), headers=headers)
    assert answer.status_code == 404
    assert answer.json()["errorCode"] == "404.001.04"


def test_tokens_are_in_the_ledger_without_their_text(caller):
    caller.new_token("other-app")
    given = caller.simulator.ledger()["tokens"]
    assert [each["consumer_key"] for each in given] == ["key", "other-app"]
    assert caller.token not in str(given)


def test_the_oldest_tokens_are_forgotten(monkeypatch):
    monkeypatch.setattr(tokens, "MAX_TOKENS", 2)
    store = Tokens()
    issued = [store.issue(key, 10, invalidate=False) for key in ("a", "a", "b", "c")]
    for token in issued[:2]:
        with pytest.raises(RefusedError):
            store.get_owner(f"Bearer {token}", 0)
    assert [store.get_owner(f"Bearer {each}", 0) for each in issued[2:]] == ["b", "c"]
