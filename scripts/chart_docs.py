#!/usr/bin/env python
"""Write the chart's README table and values.schema.json from values.yaml and its comments.

Run it after a change: `.venv/bin/python scripts/chart_docs.py`. A test compares them;
`--print` writes both to standard output instead.

`# -- text` above a value is its description. `# @schema {…}` adds to its JSON schema, whose type
comes from the default; `"duration"` and `"envVar"` are short for what DEFINITIONS has.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mpesa_gateway.config.settings import PREFIX, SETTINGS

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "mpesa-gateway"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"

# Kubernetes' own objects: what stands in them is not ours to list.
FREE = {
    "affinity",
    "annotations",
    "commonLabels",
    "deploymentAnnotations",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "containerSecurityContext",
    "labels",
    "nodeSelector",
    "podAnnotations",
    "podLabels",
    "podSecurityContext",
    "resources",
}
# What the same key means in every component, where values.yaml does not say it.
MEANINGS = {
    "affinity": "Affinity of its pods",
    "annotations": "Annotations of the object",
    "className": "Ingress class; the cluster's default when empty",
    "create": "Make the service account",
    "enabled": "Make it",
    "existingSecretKey": "The key with the URL",
    "extraContainers": "Further containers of its pods",
    "extraInitContainers": "Further init containers, after the wait for the schema",
    "extraVolumeMounts": "Further mounts of the main container",
    "extraVolumes": "Further volumes of its pods",
    "format": "`json` or `console`",
    "hostnames": "Host names of the route",
    "hosts": "Hosts of the Ingress",
    "image": "Image, as one string",
    "interval": "How often Prometheus asks",
    "labels": "Further labels of the object",
    "level": "Least level",
    "readinessProbe": "Merged into the chart's own probe",
    "startupProbe": "Merged into the chart's own probe",
    "maxReplicas": "Most pods",
    "minReplicas": "Fewest pods",
    "nodeSelector": "Node selector of its pods",
    "podAnnotations": "Annotations of its pods",
    "podLabels": "Labels of its pods",
    "port": "Port of the Service",
    "priorityClassName": "Priority class of its pods",
    "pullPolicy": "When the image is pulled",
    "resources": "Requests, and limits if you want them",
    "size": "Size of the volume",
    "targetCPUUtilizationPercentage": "Share of the requested CPU that it aims at",
    "terminationGracePeriodSeconds": "Longer than the drain and the requests that are still open",
    "tolerations": "Tolerations of its pods",
    "type": "Type of the Service",
}
DEFINITIONS = {
    "duration": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
    "envVar": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "value": {"type": "string"},
            "valueFrom": {"type": "object"},
        },
        "required": ["name"],
        "additionalProperties": False,
    },
}
TYPES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


@dataclass
class Value:
    """What the comments above a value say."""

    description: str = ""
    schema: Any = field(default_factory=dict)


def read_comments(text: str) -> dict[tuple[str, ...], Value]:
    """The comments of each value, by its path."""
    found: dict[tuple[str, ...], Value] = {}
    path: list[str] = []
    waiting = Value()
    for line in text.splitlines():
        if comment := re.match(r"\s*# (--|@schema) (.*)", line):
            if comment[1] == "--":
                waiting.description = comment[2]
            else:
                waiting.schema = json.loads(comment[2])
        elif key := re.match(r"((?:  )*)([A-Za-z_0-9]+):", line):
            path = [*path[: len(key[1]) // 2], key[2]]
            found[tuple(path)] = waiting
            waiting = Value()
    return found


def schema_of(path: tuple[str, ...], default: Any, comments: dict[tuple[str, ...], Value]) -> Any:
    """The JSON schema of a value."""
    value = comments.get(path, Value())
    schema: dict[str, Any] = {} if default is None else {"type": TYPES[type(default)]}
    if value.description:
        schema["description"] = value.description
    if value.schema == {"settings": True}:
        return schema | settings_schema()
    if isinstance(value.schema, str):
        return schema | {"$ref": f"#/definitions/{value.schema}"}
    if isinstance(value.schema.get("items"), str):
        return schema | {"items": {"$ref": f"#/definitions/{value.schema['items']}"}}
    if isinstance(default, dict) and path[-1] not in FREE:
        schema["properties"] = {
            key: schema_of((*path, key), child, comments) for key, child in default.items()
        }
        schema["additionalProperties"] = False
    return schema | value.schema


def settings_schema() -> dict[str, Any]:
    """Variables that the chart does not set itself: a misspelt one is refused."""
    own = set(re.findall(rf"{PREFIX}[A-Z_]+", (CHART / "templates/_env.tpl").read_text("utf-8")))
    # Crash tests run elsewhere: nobody arms failpoints in a cluster.
    # A spool needs a volume: `api.spool`.
    own |= {f"{PREFIX}FAILPOINTS", f"{PREFIX}SPOOL_DIR"}
    free = sorted({PREFIX + setting.name for setting in SETTINGS if not setting.secret} - own)
    return {
        "propertyNames": {"enum": free},
        "additionalProperties": {"type": ["string", "integer", "boolean"]},
    }


def others_may_add(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of `global`, which Helm hands to every chart of an umbrella."""
    return {**schema, "additionalProperties": True}


def full_schema(values: dict[str, Any], comments: dict[tuple[str, ...], Value]) -> str:
    """values.schema.json."""
    properties = {key: schema_of((key,), default, comments) for key, default in values.items()}
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart mpesa-gateway",
        "type": "object",
        "properties": {**properties, "global": others_may_add(properties["global"])},
        "additionalProperties": False,
        "definitions": DEFINITIONS,
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def rows(path: tuple[str, ...], default: Any, comments: dict[tuple[str, ...], Value]) -> list[str]:
    """A line of the table for each value that can be set on its own."""
    if isinstance(default, dict) and default and path[-1] not in FREE:
        return [
            row for key, child in default.items() for row in rows((*path, key), child, comments)
        ]
    description = comments.get(path, Value()).description
    parent = comments.get(path[:-1], Value()).description
    if not description and path[-1] == "enabled":
        description = parent
    description = description or MEANINGS.get(path[-1], "")
    shown = json.dumps(default, ensure_ascii=False).replace("|", "\\|")
    return [f"| `{'.'.join(path)}` | `{shown}` | {description} |"]


def table(values: dict[str, Any], comments: dict[tuple[str, ...], Value]) -> str:
    """The whole table."""
    lines = [row for key, default in values.items() for row in rows((key,), default, comments)]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *lines])


def main() -> None:
    """Write the page, or print it with --print."""
    text = (CHART / "values.yaml").read_text("utf-8")
    values, comments = yaml.safe_load(text), read_comments(text)
    readme = (CHART / "README.md").read_text("utf-8")
    new = re.sub(
        f"{BEGIN}.*{END}",
        lambda _: f"{BEGIN}\n{table(values, comments)}\n{END}",
        readme,
        flags=re.DOTALL,
    )
    made = {"README.md": new, "values.schema.json": full_schema(values, comments)}
    for name, content in made.items():
        if "--print" in sys.argv[1:]:
            print(content)
        else:
            (CHART / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
