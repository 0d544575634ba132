"""`skaffold.yaml` against skaffold's own schema, and against the chart that it sets values of."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest
import yaml

from harness.docker import ROOT
from harness.needs import need

SCHEMA = ROOT.parent / "shared" / "cluster" / "skaffold-v4beta13.schema.json"
PROFILES = ("kind", "prod-like", "no-operator")


@pytest.fixture
def skaffold() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "skaffold.yaml").read_text(encoding="utf-8"))
    return loaded


def check(config: dict[str, Any]) -> None:
    """Raises ValidationError."""
    need(SCHEMA.exists(), "the schema of skaffold v4beta13 is not here")
    jsonschema.validate(config, json.loads(SCHEMA.read_text(encoding="utf-8")))


def with_profile(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The configuration that `skaffold -p name` uses."""
    patched = copy.deepcopy(config)
    (profile,) = [it for it in patched.pop("profiles") if it["name"] == name]
    for patch in profile.get("patches", []):
        *parents, last = patch["path"].strip("/").split("/")
        place: Any = patched
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        key = int(last) if isinstance(place, list) else last
        if patch["op"] in ("replace", "remove"):
            del place[key]
        if patch["op"] in ("replace", "add"):
            place[key] = patch["value"]
    return patched


def release(config: dict[str, Any]) -> dict[str, Any]:
    (found,) = config["deploy"]["helm"]["releases"]
    assert isinstance(found, dict)
    return found


def find_value(path: str) -> Any:
    """What the chart's values.yaml says; KeyError when it knows no such value."""
    values = yaml.safe_load((ROOT / release_chart() / "values.yaml").read_text(encoding="utf-8"))
    for part in path.split("."):
        values = values[part]
    return values


def release_chart() -> str:
    return "charts/mpesa-gateway"


def test_it_is_valid(skaffold: dict[str, Any]) -> None:
    check(skaffold)


def test_the_schema_refuses_what_is_wrong(skaffold: dict[str, Any]) -> None:
    skaffold["deploy"]["helm"]["releases"][0]["chart"] = "no such field"

    with pytest.raises(jsonschema.ValidationError):
        check(skaffold)


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_is_valid_and_sets_values_that_exist(
    skaffold: dict[str, Any], profile: str
) -> None:
    config = with_profile(skaffold, profile)

    check(config)
    assert release(config)["chartPath"] == release_chart()
    given = release(config)["setValues"]
    for name in [*given, *release(config)["setValueTemplates"]]:
        default = find_value(name)
        if name in given and default is not None:
            assert type(given[name]) is type(default), name


def test_the_profiles_do_what_their_names_say(skaffold: dict[str, Any]) -> None:
    kind, prod_like, no_operator = (
        release(with_profile(skaffold, name))["setValues"] for name in PROFILES
    )

    assert kind["simulator.enabled"] is True
    assert "simulator.enabled" not in prod_like
    assert prod_like["postgresql.enabled"] is prod_like["redis.enabled"] is False
    assert prod_like["externalDatabase.existingSecret"]
    assert no_operator["operator.enabled"] is no_operator["crds.enabled"] is False
    assert no_operator["simulator.enabled"] is True
