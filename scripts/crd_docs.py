#!/usr/bin/env python3
"""Writes docs/merchantconfig-reference.md from the CRD.

Run it after the CRD has changed: `.venv/bin/python scripts/crd_docs.py`. A test compares them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CRD = ROOT / "charts" / "mpesa-gateway" / "files" / "crds" / "merchantconfigs.yaml"
PAGE = ROOT / "docs" / "merchantconfig-reference.md"

HEAD = """# MerchantConfig reference

`{group}/{version}`, kind `{kind}`, short name `{short}`, category `{category}`, namespaced. Generated from the CRD by
`scripts/crd_docs.py`; how to use it: [merchants](merchants.md).

Every Secret that is named is one of the MerchantConfig's own namespace. There is no base URL: where credentials are sent
is the platform's decision.
"""  # noqa: E501

REASONS = """## Conditions and reasons

Each condition has `observedGeneration`, and `lastTransitionTime` moves only when its status does.

| condition | True | False | Unknown |
|---|---|---|---|
| `CredentialsResolved` | every Secret and key was found | `SecretNotFound`, `KeyMissing`, `EmptyValue`, `InvalidValue`, `WeakApiKey` | `Deleting` |
| `CredentialsValid` | `TokenIssued`: Daraja gave a token | `Rejected`: Daraja answered 400 or 401 | `Checking`, `NotChecked`, `DarajaUnreachable` (the merchant is served all the same) |
| `Published` | the file is in the bundle | `ShortCodeConflict`, `ApiKeyConflict`, `EnvironmentMismatch`, `SecretNotOwned`, `AllowlistOutsidePlatform`, `WebhookRefused`, `CredentialsNotResolved`, `BundleTooLarge`, `FileTooLarge`, `TooManyMerchants`, `NamespaceNotSelected`, `WriteFailed`, `Deleting` | `Publishing` |
| `Loaded` | every ready API and worker pod reports this very file | `Propagating` (names the pods), `FileRefused` | `PodsUnreachable`, `NotPublished` |
| `WebhookHealthy` | deliveries succeed | `Failing` | `NoDeliveries`; it never changes `Ready` |
| `Ready` | payments can start | the first reason above that fails, or `Suspended` | `Checking`: the first check of new credentials, two seconds at most |
"""  # noqa: E501


def rows(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every field below an object: its path, its schema, whether it is required."""
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, field, name in schema.get("required", [])
        if field["type"] == "object":
            yield from rows(field, here)
        elif field["type"] == "array" and field["items"]["type"] == "object":
            yield from rows(field["items"], f"{here}[]")


def form(field: dict[str, Any]) -> str:
    """The type with its bounds, in a few words."""
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        least, most = field.get("minItems"), field.get("maxItems")
        bounds = f"{least} to {most}" if least else f"at most {most}"
        return f"list, {bounds}; each {form(field['items'])}" if most else "list"
    if field["type"] == "integer" and "maximum" in field:
        return f"integer, {field['minimum']} to {field['maximum']}"
    words = [field.get("format") if field.get("format") != "int64" else None]
    if "pattern" in field:
        words.append(f"`{field['pattern']}`".replace("|", "\\|"))
    elif "maxLength" in field:
        words.append(f"at most {field['maxLength']} characters")
    return ", ".join([field["type"], *(word for word in words if word)])


def rules(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Every CEL rule's sentence, with where it stands."""
    for rule in schema.get("x-kubernetes-validations", []):
        yield path, rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from rules(field, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from rules(schema["items"], f"{path}[]")


def table(schema: dict[str, Any]) -> str:
    """Every field as a row."""
    lines = ["| field | form | meaning |", "|---|---|---|"]
    for path, field, required in rows(schema):
        default = field.get("default")
        notes = " Required." if required else ""
        if default not in (None, {}):
            notes = f" Default `{str(default).lower() if isinstance(default, bool) else default}`."
        meaning = " ".join(field.get("description", "").split())
        lines.append(f"| `{path}` | {form(field)} | {meaning}{notes} |")
    return "\n".join(lines)


def render() -> str:
    """The page."""
    crd = yaml.safe_load(CRD.read_text(encoding="utf-8"))
    names, version = crd["spec"]["names"], crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    head = HEAD.format(
        group=crd["spec"]["group"],
        version=version["name"],
        kind=names["kind"],
        short=names["shortNames"][0],
        category=names["categories"][0],
    )
    sentences = "\n".join(
        f"- {f'`{path}`' if path else 'the object'}: {text}" for path, text in rules(schema, "")
    )
    spec, status = schema["properties"]["spec"], schema["properties"]["status"]
    return "\n".join(
        [
            head,
            f"## Spec\n\n{table(spec)}\n",
            f"## Rules\n\nBeside types and bounds the API server checks:\n\n{sentences}\n",
            f"## Status\n\n{table(status)}\n",
            REASONS,
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
