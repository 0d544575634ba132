"""Just enough of an API server, in memory, that the real operator runs without a cluster.

It keeps objects, merges patches and streams changes. It checks nothing: no schema, no rights, no
conflicts. What the operator may and must do is tested on a real one (tests/apiserver).
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml

from mpesa_devkit.http_server import QuietServer

Json = dict[str, Any]
GROUP, VERSION, PLURAL = "mpesa-gateway.dev", "v1alpha1", "merchantconfigs"
_KINDS = {
    "/api/v1": {"secrets": "Secret", "configmaps": "ConfigMap", "pods": "Pod", "events": "Event"},
    f"/apis/{GROUP}/{VERSION}": {PLURAL: "MerchantConfig"},
}
_PATH = re.compile(
    r"(?P<api>/api/v1|/apis/[^/]+/[^/]+)(/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)"
    r"(/(?P<name>[^/]+))?(/(?P<sub>status))?"
)
# A watch looks for changes this often, and ends after so long; kopf begins the next.
WATCH_EVERY_S, WATCH_FOR_S = 0.05, 300.0


class KubernetesStub:
    """Objects by path. `on_change` hears of every object that was written."""

    def __init__(self, on_change: Callable[[str, Json], None] = lambda _path, _body: None) -> None:
        self._objects: dict[str, Json] = {}
        self._changes: list[tuple[int, str, str, Json]] = []
        self._versions = itertools.count(1)
        self._lock = threading.RLock()
        self._on_change = on_change
        self._stopping = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, path: Path) -> Path:
        """For a client of this server."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stub",
            "clusters": [{"name": "stub", "cluster": {"server": self.url}}],
            "users": [{"name": "stub", "user": {"token": "of-no-use-anywhere"}}],
            "contexts": [
                {"name": "stub", "context": {"cluster": "stub", "user": "stub", "namespace": "x"}}
            ],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    # --- objects -------------------------------------------------------------------------------

    def find(self, path: str) -> Json | None:
        with self._lock:
            return copy.deepcopy(self._objects.get(path))

    def write(self, path: str, body: Json) -> Json:
        """Create, or merge into what is there. Metadata that a server sets is set."""
        with self._lock:
            before = self._objects.get(path)
            after = merge(before or {}, body)
            meta = after.setdefault("metadata", {})
            match = _PATH.fullmatch(path)
            assert match is not None, path
            after.setdefault("kind", _KINDS[match["api"]][match["plural"]])
            after.setdefault(
                "apiVersion", match["api"].removeprefix("/apis/").removeprefix("/api/")
            )
            meta.update(name=match["name"], namespace=match["namespace"])
            meta.setdefault("uid", str(uuid.uuid4()))
            meta.setdefault("creationTimestamp", datetime.now(UTC).isoformat(timespec="seconds"))
            if before is None or before.get("spec") != after.get("spec"):
                meta["generation"] = meta.get("generation", 0) + 1
            version = next(self._versions)
            meta["resourceVersion"] = str(version)
            _take_string_data(after)
            self._objects[path] = after
            kind = "ADDED" if before is None else "MODIFIED"
            if meta.get("deletionTimestamp") and not meta.get("finalizers"):
                del self._objects[path]
                kind = "DELETED"
            self._changes.append((version, kind, path, copy.deepcopy(after)))
        self._on_change(path, after)
        return copy.deepcopy(after)

    def delete(self, path: str) -> Json | None:
        """Delete, or begin to where finalizers hold the object; None when there is none."""
        if self.find(path) is None:
            return None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return self.write(path, {"metadata": {"deletionTimestamp": now}})

    def items(self, pattern: re.Match[str]) -> Json:
        """The list that a collection's path asks for."""
        with self._lock:
            found = [it for path, it in self._objects.items() if _is_in(path, pattern)]
            version = str(self._changes[-1][0] if self._changes else 0)
            kind = _KINDS[pattern["api"]][pattern["plural"]]
            return {
                "kind": f"{kind}List",
                "apiVersion": pattern["api"].removeprefix("/apis/").removeprefix("/api/"),
                "metadata": {"resourceVersion": version},
                "items": copy.deepcopy(found),
            }

    def changes_after(self, version: int, pattern: re.Match[str]) -> list[tuple[int, Json]]:
        with self._lock:
            return [
                (number, {"type": kind, "object": body})
                for number, kind, path, body in self._changes
                if number > version and _is_in(path, pattern)
            ]

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()


def merge(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def _take_string_data(body: Json) -> None:
    """As the server does: texts become data."""
    texts = body.pop("stringData", None) or {}
    encoded = {name: b64encode(text.encode()).decode() for name, text in texts.items()}
    if encoded:
        body["data"] = {**body.get("data", {}), **encoded}


def _is_in(path: str, pattern: re.Match[str]) -> bool:
    match = _PATH.fullmatch(path)
    assert match is not None, path
    return (
        match["api"] == pattern["api"]
        and match["plural"] == pattern["plural"]
        and pattern["namespace"] in (None, match["namespace"])
    )


class _Server(QuietServer):
    def __init__(self, stub: KubernetesStub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stub = stub


def discovery(path: str) -> Json | None:
    """What kopf asks before it watches."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        version = {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
        group = {"name": GROUP, "versions": [version], "preferredVersion": version}
        return {"kind": "APIGroupList", "groups": [group]}
    if path == "/version":
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
    if path in _KINDS:
        verbs = ["get", "list", "watch", "create", "patch", "delete"]
        resources = [
            {"name": plural, "kind": kind, "namespaced": True, "verbs": verbs, "singularName": ""}
            for plural, kind in _KINDS[path].items()
        ]
        return {"kind": "APIResourceList", "resources": resources}
    return None


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        found = discovery(url.path)
        if found is not None:
            self._answer(200, found)
            return
        match = _PATH.fullmatch(url.path)
        if match is None:
            self._fail(404)
        elif match["name"] is not None:
            body = self.server.stub.find(url.path)
            self._answer(200, body) if body is not None else self._fail(404)
        elif "watch" in (query := parse_qs(url.query)):
            self._watch(match, int(query.get("resourceVersion", ["0"])[0]))
        else:
            self._answer(200, self.server.stub.items(match))

    def do_POST(self) -> None:
        body = self._body()
        meta = body.get("metadata", {})
        name = meta.get("name") or f"{meta.get('generateName', '')}{uuid.uuid4().hex[:5]}"
        path = f"{urlsplit(self.path).path}/{name}"
        if self.server.stub.find(path) is not None:
            self._fail(409)
            return
        self._answer(201, self.server.stub.write(path, body))

    def do_PATCH(self) -> None:
        path = urlsplit(self.path).path.removesuffix("/status")
        applied = "apply-patch" in self.headers["Content-Type"]
        if self.server.stub.find(path) is None and not applied:
            self._fail(404)
            return
        body = self._body()
        if applied:
            before = (self.server.stub.find(path) or {}).get("data", {})
            body["data"] = {**dict.fromkeys(before), **body.get("data", {})}
        self._answer(200, self.server.stub.write(path, body))

    def do_DELETE(self) -> None:
        gone = self.server.stub.delete(urlsplit(self.path).path)
        self._answer(200, gone) if gone is not None else self._fail(404)

    def _body(self) -> Json:
        text = self.rfile.read(int(self.headers["Content-Length"]))
        document: Json = yaml.safe_load(text)
        document.get("metadata", {}).pop("resourceVersion", None)
        return document

    def _watch(self, match: re.Match[str], version: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        end = time.monotonic() + WATCH_FOR_S
        while not self.server.stub.is_stopping and time.monotonic() < end:
            for number, change in self.server.stub.changes_after(version, match):
                version = number
                line = json.dumps(change).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
            time.sleep(WATCH_EVERY_S)
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: int, document: Json) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int) -> None:
        reason = {404: "NotFound", 409: "AlreadyExists"}[status]
        failure = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
        self._answer(status, {**failure, "reason": reason, "code": status, "message": reason})

    def log_message(self, *_: object) -> None:
        pass
