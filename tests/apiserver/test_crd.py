"""Every rule of the CRD, on a real API server: what is accepted, and the sentence of a refusal."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from harness.apiserver import CRD, GROUP_PATH, ApiServer, Json, RefusedError
from harness.merchantconfigs import merchant_config

_NUMBERS = itertools.count(1)
TILL = {"transactionType": "CustomerBuyGoodsOnline", "tillNumber": "5123456"}


@pytest.fixture(scope="module")
def namespace(server: ApiServer) -> str:
    return server.admin.namespace("crd")


def create(server: ApiServer, namespace: str, name: str = "", **spec: Any) -> Json:
    body = merchant_config(name or f"m{next(_NUMBERS)}", namespace, **spec)
    return server.admin.create(f"{GROUP_PATH}/namespaces/{namespace}/merchantconfigs", body)


ACCEPTED = {
    "a paybill": {},
    "a till": TILL,
    "the shortest and the longest short code": {"shortCode": "12345"},
    "production without a list": {"environment": "production"},
    "production, /16": {
        "environment": "production",
        "callback": {"allowedCIDRs": ["196.201.0.0/16"]},
    },
    "production, IPv6 /32": {
        "environment": "production",
        "callback": {"allowedCIDRs": ["2c0f:fe38::/32"]},
    },
    "sandbox, everyone": {"callback": {"allowedCIDRs": ["0.0.0.0/0", "::/0"]}},
    "a single address as a network": {"callback": {"allowedCIDRs": ["196.201.214.200/32"]}},
    "an https webhook": {"webhook": {"url": "https://shop.example/hooks?a=b"}},
    "its host among the hosts": {
        "webhook": {
            "url": "https://shop.example:8443/",
            "allowedHosts": ["a.example", "shop.example"],
        }
    },
    "a schedule": {"webhook": {"retrySchedule": ["500ms", "5s", "1m", "12h"]}},
    "one try only": {"webhook": {"retrySchedule": []}},
    "equal limits": {"limits": {"minAmount": 10, "maxAmount": 10}},
    "one limit": {"limits": {"maxAmount": 500000}},
    "no limit a minute": {"limits": {"initiatePerMinute": 0}},
    "other keys": {
        "credentialsSecretRef": {"name": "daraja", "keys": {"consumerKey": "key", "passkey": "p"}}
    },
    "its own signing secret": {"webhook": {"signingSecretRef": {"name": "hooks", "key": "secret"}}},
    "rotation": {"rotation": {"apiKey": "2026-09-01", "webhookSecret": "again"}},
    "suspended": {"suspended": True},
    "a Secret's name with dots": {"credentialsSecretRef": {"name": "daraja.v2-live"}},
    "another gateway": {"gateway": "live"},
}

REFUSED: dict[str, tuple[Json, str]] = {
    "a till without number": (
        {"transactionType": "CustomerBuyGoodsOnline"},
        "tillNumber is needed for CustomerBuyGoodsOnline, and only then",
    ),
    "a paybill with a till number": (
        {"tillNumber": "5123456"},
        "tillNumber is needed for CustomerBuyGoodsOnline, and only then",
    ),
    "a till number of letters": ({**TILL, "tillNumber": "abcdef"}, "spec.tillNumber"),
    "no environment": ({"environment": ...}, "spec.environment: Required value"),
    "another environment": ({"environment": "test"}, "Unsupported value"),
    "no short code": ({"shortCode": ...}, "spec.shortCode: Required value"),
    "a short code of four": ({"shortCode": "1234"}, "spec.shortCode"),
    "a short code of eight": ({"shortCode": "12345678"}, "spec.shortCode"),
    "a number as short code": ({"shortCode": 174379}, "must be of type string"),
    "no transaction type": ({"transactionType": ...}, "spec.transactionType: Required value"),
    "another transaction type": ({"transactionType": "PayBill"}, "Unsupported value"),
    "two API keys": (
        {"apiKey": {"secretRef": {"name": "keys", "key": "k"}, "sha256": "0" * 64}},
        "apiKey must have exactly one of secretRef and sha256",
    ),
    "no API key": ({"apiKey": {}}, "apiKey must have exactly one of secretRef and sha256"),
    "a digest that is none": ({"apiKey": {"sha256": "0" * 63}}, "spec.apiKey.sha256"),
    "a digest in capitals": ({"apiKey": {"sha256": "A" * 64}}, "spec.apiKey.sha256"),
    "no credentials": ({"credentialsSecretRef": ...}, "credentialsSecretRef: Required value"),
    "credentials without a name": ({"credentialsSecretRef": {}}, "name: Required value"),
    "production, /15": (
        {"environment": "production", "callback": {"allowedCIDRs": ["196.200.0.0/15"]}},
        "in production a CIDR of callback.allowedCIDRs must be /16 or narrower",
    ),
    "production, IPv6 /31": (
        {"environment": "production", "callback": {"allowedCIDRs": ["2c0e::/31"]}},
        "in production a CIDR of callback.allowedCIDRs must be /16 or narrower",
    ),
    "an address": (
        {"callback": {"allowedCIDRs": ["196.201.214.200"]}},
        "must be a network in CIDR form without host bits",
    ),
    "host bits": (
        {"callback": {"allowedCIDRs": ["196.201.214.1/24"]}},
        "must be a network in CIDR form without host bits",
    ),
    "an empty list": ({"callback": {"allowedCIDRs": []}}, "should have at least 1 items"),
    "a network twice": (
        {"callback": {"allowedCIDRs": ["10.0.0.0/8", "10.0.0.0/8"]}},
        "Duplicate value",
    ),
    "65 networks": (
        {"callback": {"allowedCIDRs": [f"10.{number}.0.0/16" for number in range(65)]}},
        "must have at most 64 items",
    ),
    "plain http": ({"webhook": {"url": "http://shop.example/"}}, "must be an https URL"),
    "no URL": ({"webhook": {"url": "shop.example"}}, "must be an https URL"),
    "a host that is not listed": (
        {"webhook": {"url": "https://other.example/", "allowedHosts": ["shop.example"]}},
        "the host of webhook.url must be one of webhook.allowedHosts, in lower case",
    ),
    "no hosts": ({"webhook": {"allowedHosts": []}}, "should have at least 1 items"),
    "a host in capitals": ({"webhook": {"allowedHosts": ["Shop.example"]}}, "should match"),
    "a host with a port": ({"webhook": {"allowedHosts": ["shop.example:443"]}}, "should match"),
    "a wait without a unit": ({"webhook": {"retrySchedule": ["5"]}}, "should match"),
    "a wait of nothing": ({"webhook": {"retrySchedule": ["0s"]}}, "should match"),
    "limits crossed": (
        {"limits": {"minAmount": 11, "maxAmount": 10}},
        "limits.minAmount must not be above limits.maxAmount",
    ),
    "a least amount of nothing": ({"limits": {"minAmount": 0}}, "greater than or equal to 1"),
    "fewer than none a minute": (
        {"limits": {"initiatePerMinute": -1}},
        "greater than or equal to 0",
    ),
    "a Secret's name with a slash": (
        {"credentialsSecretRef": {"name": "shops/daraja"}},
        "credentialsSecretRef.name",
    ),
    "a Secret's name that climbs": (
        {"webhook": {"signingSecretRef": {"name": "..", "key": "k"}}},
        "signingSecretRef.name",
    ),
    "a Secret's name in capitals": (
        {"apiKey": {"secretRef": {"name": "Keys", "key": "k"}}},
        "secretRef.name",
    ),
    "a gateway with a dot": ({"gateway": "a.b"}, "spec.gateway"),
    "an empty rotation": ({"rotation": {"apiKey": ""}}, "should be at least 1 chars long"),
}


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(server: ApiServer, namespace: str, spec: Json) -> None:
    create(server, namespace, **spec)


@pytest.mark.parametrize(("spec", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(server: ApiServer, namespace: str, spec: Json, sentence: str) -> None:
    with pytest.raises(RefusedError, match="422") as refusal:
        create(server, namespace, **spec)
    assert sentence in str(refusal.value)


def test_names_have_at_most_63_characters(server: ApiServer, namespace: str) -> None:
    create(server, namespace, "n" * 63)
    with pytest.raises(RefusedError, match="the name must have at most 63 characters"):
        create(server, namespace, "n" * 64)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            {"credentialsSecretRef": {"name": "own-mpesa-gateway"}},
            "credentialsSecretRef must not name the Secret that the operator generates",
        ),
        (
            {"webhook": {"signingSecretRef": {"name": "own-mpesa-gateway", "key": "k"}}},
            "webhook.signingSecretRef must not name the Secret that the operator generates",
        ),
    ],
)
def test_the_generated_secret_is_no_source(
    server: ApiServer, namespace: str, spec: Json, sentence: str
) -> None:
    with pytest.raises(RefusedError, match="422") as refusal:
        create(server, namespace, "own", **spec)
    assert sentence in str(refusal.value)
    create(server, namespace, **spec)  # That of another merchant is only a strange name.


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shortCode": "600100"}, "shortCode cannot be changed"),
        ({"environment": "production"}, "environment cannot be changed"),
    ],
)
def test_what_payments_refer_to_cannot_be_changed(
    server: ApiServer, namespace: str, change: Json, sentence: str
) -> None:
    path = f"{GROUP_PATH}/namespaces/{namespace}/merchantconfigs/"
    path += create(server, namespace)["metadata"]["name"]
    with pytest.raises(RefusedError, match=sentence):
        server.admin.patch(path, {"spec": change})
    server.admin.patch(path, {"spec": {**TILL, "suspended": True}})


def test_defaults_are_filled_in_and_unknown_fields_dropped(
    server: ApiServer, namespace: str
) -> None:
    spec = create(server, namespace, baseUrl="https://evil.example")["spec"]
    assert spec["credentialsSecretRef"]["keys"] == {
        "consumerKey": "consumerKey",
        "consumerSecret": "consumerSecret",
        "passkey": "passkey",
    }
    assert spec["suspended"] is False
    assert spec["gateway"] == "default"
    assert "baseUrl" not in spec


def test_the_kind_has_its_short_names_and_columns(server: ApiServer, namespace: str) -> None:
    groups = server.admin.get(GROUP_PATH)["resources"]
    kind = next(item for item in groups if item["name"] == "merchantconfigs")
    assert (kind["shortNames"], kind["categories"]) == (["merchant", "merchants"], ["mpesa"])
    create(server, namespace)
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    path = f"{GROUP_PATH}/namespaces/{namespace}/merchantconfigs?limit=1"
    columns = server.admin.call("GET", path, Accept=accept)["columnDefinitions"]
    names = {column["name"]: column["priority"] for column in columns}
    assert names == {
        **dict.fromkeys(["Name", "Environment", "ShortCode", "Ready", "Reason"], 0),
        **dict.fromkeys(["Suspended", "Age"], 0),
        **dict.fromkeys(["Message", "Gateway", "Callback URL", "Last token check"], 1),
    }


def test_objects_are_found_by_gateway_and_short_code(server: ApiServer, namespace: str) -> None:
    create(server, namespace, "found", shortCode="654321", gateway="elsewhere")
    path = f"{GROUP_PATH}/namespaces/{namespace}/merchantconfigs"
    for selector in ("spec.shortCode=654321", "spec.gateway=elsewhere"):
        items = server.admin.get(f"{path}?fieldSelector={selector}")["items"]
        assert [it["metadata"]["name"] for it in items] == ["found"], selector


def test_every_rule_of_the_crd_has_a_refused_object() -> None:
    sentences = [sentence for _, sentence in REFUSED.values()]
    sentences += ["the name must have at most 63", "must not name the Secret", "cannot be changed"]
    rules = [
        line.split("message:", 1)[1].strip()
        for line in CRD.read_text().splitlines()
        if line.strip().startswith("message:") and "Why, in" not in line
    ]
    rules = [rule for rule in rules if rule]
    untested = [rule for rule in rules if not any(text in rule for text in sentences)]
    assert len(rules) == 14
    assert untested == []
