"""Watches Secrets, their metadata only: it learns that one has changed, never what is in it.

Its right to do so is optional (`operator.secretWatch.enabled`), and may be taken away at any time.
Whoever listens polls where nothing is watched.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

import httpx2

from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)
KIND = "g=meta.k8s.io;v=v1"
METADATA = f"application/json;as=PartialObjectMetadata;{KIND}"
METADATA_LIST = f"application/json;as=PartialObjectMetadataList;{KIND}"
# The server ends a watch after so long. Bookmarks come every minute, so a longer silence is a
# connection that is dead; the next one goes on where it was.
SERVER_TIMEOUT_S = 300
SILENCE_S = 150.0
TIMEOUT = httpx2.Timeout(15.0, read=SILENCE_S)
RECONNECT_S = 0.5
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0


class Listener(Protocol):
    """Who wants to know."""

    def secret_seen(self, namespace: str, name: str) -> None:
        """A Secret was made, changed or deleted."""

    def secrets_watched(self, namespace: str) -> None:
        """From now on every change is seen. What happened before may have been missed."""

    def secrets_unwatched(self, namespace: str) -> None:
        """From now on no change is seen."""


class LostError(Exception):
    """The watch cannot go on; the message says why, and has nothing that a Secret holds."""


class SecretWatch:
    """Watches the Secrets of one namespace, or of all with `*`."""

    def __init__(
        self,
        new_client: Callable[[httpx2.Timeout], httpx2.AsyncClient],
        listener: Listener,
        namespace: str,
    ) -> None:
        self._new_client = new_client
        self._listener = listener
        self._namespace = namespace
        inner = "" if namespace == "*" else f"/namespaces/{namespace}"
        self._url = f"/api/v1{inner}/secrets"
        self._live = False
        self._failures = 0

    async def loop(self) -> None:
        """Watch, for ever; what fails is tried again, later each time."""
        async with self._new_client(TIMEOUT) as client:
            while True:
                try:
                    await self._watch(client)
                except (httpx2.HTTPError, LostError) as error:
                    self._down(error)
                await asyncio.sleep(self._wait_s())

    async def _watch(self, client: httpx2.AsyncClient) -> None:
        """Watch from now on, through every stream that ends as streams do."""
        version = await self._now(client)
        anew = True
        while True:
            version = await self._stream(client, version, anew=anew)
            anew = False
            await asyncio.sleep(RECONNECT_S)

    async def _now(self, client: httpx2.AsyncClient) -> str:
        """The version of the collection. One Secret is asked for, since none cannot be."""
        answer = await client.get(
            self._url, params={"limit": "1"}, headers={"Accept": METADATA_LIST}
        )
        answer.raise_for_status()
        meta = _document(answer.text).get("metadata") or {}
        version: str = meta.get("resourceVersion") or ""
        if not version:
            raise LostError("the answer has no version")
        return version

    async def _stream(self, client: httpx2.AsyncClient, version: str, *, anew: bool) -> str:
        """Read one stream to its end; the version from which the next one goes on."""
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(SERVER_TIMEOUT_S),
        }
        headers = {"Accept": METADATA}
        async with client.stream("GET", self._url, params=params, headers=headers) as answer:
            answer.raise_for_status()
            if anew:
                self._up()
            try:
                async for line in answer.aiter_lines():
                    version = self._event(_document(line)) or version
                    self._failures = 0
            except httpx2.TransportError:
                # Cut off, or silent for too long: nothing is missed by going on from here.
                LOGGER.debug("a watch of Secrets was cut off", namespace=self._namespace)
        return version

    def _event(self, event: dict[str, Any]) -> str | None:
        """Pass on one event; the version it brings."""
        kind, found = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            raise LostError(f"HTTP {found.get('code', 0)}")
        meta = found.get("metadata") or {}
        if kind != "BOOKMARK":
            self._listener.secret_seen(meta.get("namespace", ""), meta.get("name", ""))
        version: str | None = meta.get("resourceVersion")
        return version

    def _up(self) -> None:
        if not self._live:
            LOGGER.info("Secrets are watched", namespace=self._namespace)
        self._live = True
        self._listener.secrets_watched(self._namespace)

    def _down(self, error: Exception) -> None:
        if isinstance(error, httpx2.HTTPStatusError):
            error = LostError(f"HTTP {error.response.status_code}")
        problem = str(error) if isinstance(error, LostError) else type(error).__name__
        if problem == f"HTTP {HTTPStatus.GONE.value}":
            # What was missed is read at once when the next stream begins, as at the first.
            LOGGER.info("a watch of Secrets begins anew", namespace=self._namespace)
        else:
            LOGGER.warning(
                "Secrets cannot be watched, so they are polled",
                namespace=self._namespace,
                problem=problem,
            )
        self._live = False
        self._listener.secrets_unwatched(self._namespace)

    def _wait_s(self) -> float:
        wait_s = min(FIRST_RETRY_S * 2.0**self._failures, LONGEST_RETRY_S)
        self._failures += 1
        return float(wait_s)


def _document(text: str) -> dict[str, Any]:
    """JSON of the API server's; anything else ends the watch, and is not repeated."""
    try:
        document = json.loads(text)
    except ValueError:
        raise LostError("the answer is no JSON") from None
    if not isinstance(document, dict):
        raise LostError("the answer is no object")
    return document
