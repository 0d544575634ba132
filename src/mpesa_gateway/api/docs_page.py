"""GET /docs: the OpenAPI document as a page that loads nothing else and runs no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape

from falcon.asgi import Request, Response

from mpesa_gateway.api.openapi import document
from mpesa_gateway.api.operations import Json

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem;color:#1b1f24}
h2{border-bottom:1px solid #d0d7de;margin-top:2.5rem;padding-bottom:.3rem}
code{font:14px/1.5 ui-monospace,monospace;background:#f3f5f7;border-radius:4px;padding:.1em .3em}
table{border-collapse:collapse;width:100%}td,th{border-top:1px solid #d0d7de;padding:.35rem .5rem;
text-align:left;vertical-align:top}.m{font-weight:700;color:#0a6b3d}nav a{margin-right:1rem}
@media(prefers-color-scheme:dark){body{background:#111417;color:#e3e6ea}code{background:#22272e}
a{color:#6cb6ff}.m{color:#57c98b}}
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
_METHODS = ("get", "post")


class DocsResource:
    """GET /docs."""

    def __init__(self) -> None:
        self._page = page(document())

    async def on_get(self, _req: Request, resp: Response) -> None:
        """The page."""
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("Content-Security-Policy", POLICY)
        resp.text = self._page


def page(spec: Json) -> str:
    """Return the document as HTML."""
    return "".join(_page(spec))


def _page(spec: Json) -> Iterator[str]:
    info = spec["info"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
    yield f"<p>{escape(info['description'])} "
    yield 'For tools: <a href="/openapi.json">openapi.json</a>.</p><nav>'
    for title in ("Operations", "Webhooks", "Schemas"):
        yield f'<a href="#{title.lower()}">{title}</a>'
    yield '</nav><h2 id="operations">Operations</h2>'
    for path, item in spec["paths"].items():
        yield from _item(path, item)
    yield '<h2 id="webhooks">Webhooks</h2>'
    for kind, item in spec["webhooks"].items():
        yield from _item(kind, item)
    yield '<h2 id="schemas">Schemas</h2>'
    for name, schema in spec["components"]["schemas"].items():
        yield from _schema(name, schema)
    yield "</body></html>"


def _item(path: str, item: Json) -> Iterator[str]:
    for method in _METHODS:
        if method in item:
            yield from _operation(path, method, item[method], item.get("parameters", []))


def _operation(path: str, method: str, operation: Json, shared: list[Json]) -> Iterator[str]:
    yield f'<h3 id="{escape(operation["operationId"])}">'
    yield f'<span class="m">{method.upper()}</span> <code>{escape(path)}</code></h3>'
    yield f"<p><b>{escape(operation['summary'])}.</b> {escape(operation['description'])}</p>"
    parameters = [*shared, *operation.get("parameters", [])]
    if parameters:
        rows = ((it["name"], _type(it["schema"]), it.get("description", "")) for it in parameters)
        yield from _table(("parameter", "type", ""), rows)
    if content := operation.get("requestBody", {}).get("content"):
        yield f"<p>Body: {_body(content)}</p>"
    answers = (
        (status, _body(it.get("content", {})), it["description"])
        for status, it in operation["responses"].items()
    )
    yield from _table(("status", "body", ""), answers)


def _schema(name: str, schema: Json) -> Iterator[str]:
    yield f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3>'
    yield f"<p>{escape(schema.get('description', ''))}</p>"
    if "enum" in schema:
        yield f"<p>{_type(schema)}</p>"
    required = schema.get("required", [])
    members = (
        (
            member + ("" if member in required else " (optional)"),
            _type(it),
            it.get("description", ""),
        )
        for member, it in schema.get("properties", {}).items()
    )
    if "properties" in schema:
        yield from _table(("member", "type", ""), members)


def _table(head: tuple[str, str, str], rows: Iterator[tuple[str, str, str]]) -> Iterator[str]:
    """The first and third cells are text, the second is HTML."""
    yield "<table><tr>" + "".join(f"<th>{escape(it)}</th>" for it in head) + "</tr>"
    for first, html, text in rows:
        cells = (f"<code>{escape(first)}</code>", html, escape(text))
        yield "<tr>" + "".join(f"<td>{it}</td>" for it in cells) + "</tr>"
    yield "</table>"


def _body(content: Json) -> str:
    return ", ".join(_type(it["schema"]) for it in content.values())


def _type(schema: Json) -> str:
    """A type in words, with a link to what has a name."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[1])
        return f'<a href="#{name}">{name}</a>'
    for several in ("anyOf", "allOf"):
        if several in schema:
            return " or ".join(_type(it) for it in schema[several])
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(it))}</code>" for it in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    words = [schema.get("type", "anything"), schema.get("format"), schema.get("pattern")]
    return " ".join(f"<code>{escape(it)}</code>" if it else "" for it in words).strip()
