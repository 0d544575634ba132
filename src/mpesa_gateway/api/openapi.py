"""The OpenAPI document, generated from the models; a test holds it against the running API."""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from mpesa_gateway import __version__
from mpesa_gateway.api.models import MODELS
from mpesa_gateway.api.operations import Json, merchant_webhooks, paths

_REF = "#/components/schemas/{model}"


class OpenApiResource:
    """GET /openapi.json."""

    def __init__(self) -> None:
        self._document = document()

    async def on_get(self, _req: Request, resp: Response) -> None:
        """The document, OpenAPI 3.1."""
        resp.media = self._document


def document() -> Json:
    """Return the whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mpesa-gateway",
            "version": __version__,
            "description": "A payment gateway for M-Pesa STK Push. It never charges twice, never"
            " loses a callback that it acknowledged, and always tells the merchant what happened.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "contact": {
                "name": "The mpesa-gateway maintainers",
                "url": "https://mpesa-gateway.dev",
            },
        },
        "servers": [
            {"url": "/", "description": "The gateway that serves this document."},
        ],
        "security": [{"internalSecret": []}, {"bearer": []}],
        "tags": [
            {"name": "payments", "description": "For merchants."},
            {"name": "callbacks", "description": "For Safaricom."},
            {"name": "operations", "description": "For the platform."},
        ],
        "paths": paths(),
        "webhooks": merchant_webhooks(),
        "components": {
            "securitySchemes": {
                "internalSecret": {"type": "apiKey", "in": "header", "name": "X-Internal-Secret"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "schemas": schemas(),
        },
    }


class _Plain(GenerateJsonSchema):
    """Without the titles that pydantic makes of names, and the defaults that only mark absence."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the base class's
        return False

    def default_schema(self, schema: Any) -> Json:
        """Of a member that may be absent, what it is when it is there."""
        inner = self.generate_inner(schema["schema"])
        if schema.get("default", ...) in (None, []):
            return inner
        return super().default_schema(schema)


def schemas() -> Json:
    """Return every named schema: the models, and the models and enums that they are made of."""
    mode: JsonSchemaMode = "validation"
    _, generated = models_json_schema(
        [(model, mode) for model in MODELS], ref_template=_REF, schema_generator=_Plain
    )
    found: Json = generated["$defs"]
    for schema in found.values():
        schema.pop("title", None)
    return dict(sorted(found.items()))
