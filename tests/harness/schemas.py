"""JSON schemas for kubeconform, made from the OpenAPI document of a real API server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LOCATION = "{{.Group}}_{{.ResourceAPIVersion}}_{{.ResourceKind}}.json"
_GVK = "x-kubernetes-group-version-kind"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING = {"oneOf": [{"type": "integer"}, {"type": "string"}]}


def write_schemas(openapi: str, directory: Path) -> None:
    """A file for each kind, in the place where `LOCATION` looks for it."""
    definitions = {name: _strict(it) for name, it in json.loads(openapi)["definitions"].items()}
    definitions[_QUANTITY] = {"oneOf": [{"type": "number"}, {"type": "string"}]}
    for name, definition in definitions.items():
        for kind in definition.get(_GVK, []):
            # kubeconform takes what stands before the slash: the core group has none.
            group = kind["group"] or kind["version"]
            file = f"{group}_{kind['version']}_{kind['kind'].lower()}.json"
            used = _reachable(name, definitions)
            schema = {"$ref": f"#/definitions/{name}", "definitions": used}
            (directory / file).write_text(json.dumps(schema), encoding="utf-8")


def _strict(schema: Any) -> Any:
    """Refuse what is not described; and what OpenAPI 2 cannot say, in JSON schema."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return _INT_OR_STRING
    strict = dict(schema)
    for key in ("items", "additionalProperties"):
        if key in schema:
            strict[key] = _strict(schema[key])
    if "properties" in schema:
        strict["properties"] = {name: _strict(it) for name, it in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            strict.setdefault("additionalProperties", False)
    return strict


def _reachable(name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The definition and all that it refers to."""
    found: dict[str, Any] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found[current] = definitions[current]
            waiting += _references(definitions[current])
    return found


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for it in schema for name in _references(it)]
    if not isinstance(schema, dict):
        return []
    own = schema.get("$ref")
    names = [own.rpartition("/")[2]] if isinstance(own, str) else []
    return names + [name for it in schema.values() for name in _references(it)]
