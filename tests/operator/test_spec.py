"""The spec's model and the CRD say the same, and the CRD is as the API server wants it."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from harness.merchantconfigs import PAYBILL
from mpesa_operator.conditions import STALLED, SUSPENDED, TYPES
from mpesa_operator.platform_settings import GROUP, KIND, PLURAL, VERSION
from mpesa_operator.spec import MerchantSpec
from mpesa_operator.status import OPTIONAL

ROOT = Path(__file__).resolve().parents[2]
CRD: dict[str, Any] = yaml.safe_load(
    (ROOT / "charts/mpesa-gateway/files/crds/merchantconfigs.yaml").read_text()
)
SCHEMA: dict[str, Any] = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]


def test_the_crd_is_the_one_that_the_operator_watches() -> None:
    spec = CRD["spec"]
    assert (spec["group"], spec["names"]["kind"], spec["names"]["plural"]) == (GROUP, KIND, PLURAL)
    assert [version["name"] for version in spec["versions"]] == [VERSION]
    assert CRD["metadata"]["name"] == f"{PLURAL}.{GROUP}"


def inner(annotation: Any) -> Any:
    """The type without `| None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        (kept,) = [arg for arg in get_args(annotation) if arg is not type(None)]
        return kept
    return annotation


def schema_of(annotation: Any) -> dict[str, Any]:
    """What of a CRD's schema a Python type fixes."""
    annotation = inner(annotation)
    if get_origin(annotation) is list:
        return {"type": "array", "items": schema_of(get_args(annotation)[0])}
    if get_origin(annotation) is Literal:
        return {"type": "string", "enum": list(get_args(annotation))}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        return {
            "type": "object",
            "properties": {str(field.alias): schema_of(field.annotation) for field in fields},
            "required": sorted(str(field.alias) for field in fields if field.is_required()),
        }
    return {"type": {str: "string", int: "integer", bool: "boolean"}[annotation]}


def essence(schema: dict[str, Any]) -> dict[str, Any]:
    """The same of a CRD's schema."""
    found: dict[str, Any] = {key: schema[key] for key in ("type", "enum") if key in schema}
    if "items" in schema:
        found["items"] = essence(schema["items"])
    if schema["type"] == "object":
        found["properties"] = {name: essence(value) for name, value in schema["properties"].items()}
        found["required"] = sorted(schema.get("required", []))
    return found


def test_the_model_has_the_fields_of_the_crd() -> None:
    assert schema_of(MerchantSpec) == essence(SCHEMA["spec"])


def test_the_models_defaults_are_those_of_the_crd() -> None:
    keys = SCHEMA["spec"]["properties"]["credentialsSecretRef"]["properties"]["keys"]["properties"]
    spec = MerchantSpec.model_validate(PAYBILL)
    assert spec.credentials_secret_ref.keys.model_dump(by_alias=True) == {
        name: value["default"] for name, value in keys.items()
    }
    assert spec.suspended is SCHEMA["spec"]["properties"]["suspended"]["default"]


def test_the_status_has_the_fields_that_are_written() -> None:
    written = {"observedGeneration", "conditions", "merchantKey", *OPTIONAL}
    assert written == set(SCHEMA["status"]["properties"])


def test_the_conditions_are_those_of_the_documentation() -> None:
    said = SCHEMA["status"]["properties"]["conditions"]["description"]
    assert said == ", ".join(TYPES) + f"; {SUSPENDED} and {STALLED} while they are true."


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, value in schema.get("properties", {}).items():
        yield from walk(value, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")


def test_every_field_is_described_and_bounded() -> None:
    for path, schema in walk(SCHEMA["spec"]):
        if not path.endswith("[]"):
            assert schema.get("description"), path
        if schema["type"] == "string" and "enum" not in schema:
            assert "maxLength" in schema, path
        if schema["type"] == "array":
            assert "maxItems" in schema, path
        if schema["type"] == "integer":
            assert {"minimum", "maximum"} <= set(schema), path
        assert "x-kubernetes-preserve-unknown-fields" not in schema, path


def test_no_base_url_can_be_chosen_and_no_other_namespace_named() -> None:
    names = {re.sub(r"\[\]", "", path).rsplit(".", 1)[-1] for path, _ in walk(SCHEMA["spec"])}
    assert not names & {"baseUrl", "baseURL", "namespace"}


def test_unknown_fields_of_a_newer_crd_are_ignored() -> None:
    spec = MerchantSpec.model_validate({**PAYBILL, "colour": "green"})
    assert spec == MerchantSpec.model_validate(PAYBILL)


def test_a_spec_that_is_none_is_refused_without_repeating_it() -> None:
    with pytest.raises(ValidationError) as refusal:
        MerchantSpec.model_validate({**PAYBILL, "shortCode": ["canary"]})
    assert "canary" not in str(refusal.value)
