"""The operator without kopf: the loops, and what an event of the cluster sets off."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Coroutine
from typing import Any

import aiohttp

from mpesa_gateway.errors import GatewayError
from mpesa_gateway.telemetry.log import get_logger
from mpesa_operator import metrics
from mpesa_operator.bundle import merchant_key
from mpesa_operator.cache import Body, Objects, body_key
from mpesa_operator.cluster import Cluster, ClusterError
from mpesa_operator.publication import Publication
from mpesa_operator.reconcile import Reconciler
from mpesa_operator.secret_watch import SecretWatch
from mpesa_operator.settings import Settings
from mpesa_operator.workqueue import Queue, Turn

LOGGER = get_logger(__name__)
TURNS_AT_ONCE = 16
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0
START_RETRY_S = 2.0
# How long a new role may take to be in force.
START_PATIENCE_S = 10.0
FORBIDDEN = 403
EXIT_STUCK = 70
# The loop must come round this often; a sweep may take as many resyncs.
HEARTBEAT_S = 1.0
LONGEST_SILENCE_S = 60.0
LONGEST_SWEEP_S = 120.0
# How long the watch may take to show what a listing has shown already.
LONGEST_WATCH_LAG_S = 180.0


class WatchError(GatewayError):
    """Something is not watched that should be; only a new process watches anew."""


class App:
    """Knows the objects, and looks at each when there is a reason to."""

    def __init__(
        self, cluster: Cluster, settings: Settings, session: aiohttp.ClientSession
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._objects = Objects(settings.gateway)
        self._queue = Queue(time.monotonic)
        self._publication = Publication(cluster, settings)
        self._reconciler = Reconciler(
            cluster, settings, self._objects, self._publication, self._queue, session
        )
        self._failures: dict[str, int] = {}
        self._unseen: dict[str, tuple[int, float]] = {}
        self._swept_at = time.monotonic()
        self._beat_at = time.monotonic()
        metrics.register(self._conditions)

    # --- start ---------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Learn what is published and what exists, before anything is decided."""
        begun = time.monotonic()
        while True:
            try:
                await self._reconciler.load_seal()
                await self._publication.load()
                await self._list_all(strict=time.monotonic() - begun < START_PATIENCE_S)
                await self._reconciler.pods.look()
            except ClusterError as error:
                LOGGER.warning("waiting for Kubernetes", problem=str(error))
                await asyncio.sleep(START_RETRY_S)
            else:
                break
        self._remove_orphans()
        LOGGER.info("operator started", merchants=len(self._objects))

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """What runs beside kopf, for ever."""
        turns = [self._turn_loop() for _ in range(TURNS_AT_ONCE)]
        return [
            *turns,
            self._publication.write_loop(),
            self._publication.bump_loop(),
            self._reconciler.pods.loop(),
            self._sweep_loop(),
            self._heartbeat_loop(),
            *(watch.loop() for watch in self._secret_watches()),
        ]

    def _secret_watches(self) -> list[SecretWatch]:
        namespaces = self._settings.list_namespaces if self._settings.secret_watch else ()
        return [SecretWatch(self._cluster.new_http_client, self, it) for it in namespaces]

    # --- events --------------------------------------------------------------------------------

    def merchant_seen(self, body: Body) -> None:
        """The watch shows an object, new or changed."""
        key = body_key(body)
        if key in self._unseen and self._unseen[key][0] <= _generation(body):
            del self._unseen[key]
        self._put(body)

    def merchant_gone(self, body: Body) -> None:
        """The watch shows that an object is gone."""
        key = body_key(body)
        self._unseen.pop(key, None)
        known = self._objects.find(key)
        if known is not None and known.uid == body["metadata"]["uid"]:
            self._remove(key)

    def secret_seen(self, namespace: str, name: str) -> None:
        """A Secret changed: who reads it has a turn now."""
        for key in self._objects.users_of_secret(namespace, name):
            self._queue.add(key)

    def secrets_watched(self, namespace: str) -> None:
        """Changes of Secrets are told from now on; those of before are looked for once more."""
        self._objects.watched.add(namespace)
        for key in self._objects.in_namespace(namespace):
            self._queue.add(key)

    def secrets_unwatched(self, namespace: str) -> None:
        """Changes of Secrets must be looked for: within a resync, not all at once."""
        if namespace not in self._objects.watched:
            return
        self._objects.watched.discard(namespace)
        resync_s = self._settings.platform.resync.total_seconds()
        for key in self._objects.in_namespace(namespace):
            self._queue.add(key, delay_s=resync_s * random.random())  # noqa: S311 - spreads load

    def _put(self, body: Body) -> None:
        if self._objects.put(body):
            self._failures.pop(body_key(body), None)
            self._queue.add(body_key(body))

    def _remove(self, key: str) -> None:
        for other in self._objects.remove(key):
            self._queue.add(other, fresh=False)
        self._failures.pop(key, None)
        self._queue.add(key)

    def age_s(self) -> float:
        """Seconds since all MerchantConfigs were last listed."""
        return time.monotonic() - self._swept_at

    # --- loops ---------------------------------------------------------------------------------

    async def _turn_loop(self) -> None:
        while True:
            turn = await self._queue.next()
            try:
                await self._turn(turn)
            finally:
                self._queue.done(turn.key)

    async def _turn(self, turn: Turn) -> None:
        """One turn. What fails is tried again, later each time."""
        begun = time.monotonic()
        outcome = "ok"
        try:
            await self._reconciler.reconcile(turn.key, fresh=turn.fresh)
            self._failures.pop(turn.key, None)
        except ClusterError as error:
            outcome = "refused"
            self._retry(turn.key, str(error))
        except Exception as error:  # noqa: BLE001 - one merchant must not stop the others
            outcome = "error"
            # Neither message nor traceback: a parser's message may quote what it has read.
            frame = _innermost(error)
            self._retry(turn.key, f"{type(error).__name__} at {frame}")
        metrics.reconcile_seconds.labels(outcome).observe(time.monotonic() - begun)

    def _retry(self, key: str, problem: str) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        wait_s = min(FIRST_RETRY_S * 2.0**failures, LONGEST_RETRY_S)
        LOGGER.warning("a merchant is tried again later", merchant=key, problem=problem)
        self._queue.add(key, delay_s=wait_s)

    async def _sweep_loop(self) -> None:
        """List everything now and then: what a watch misses is found, at the latest, here."""
        while True:
            await asyncio.sleep(self._settings.platform.resync.total_seconds())
            self._check_watch()
            try:
                await self._list_all()
                self._remove_orphans()
                await self._publication.verify()
            except ClusterError as error:
                LOGGER.warning("the sweep did not end", problem=str(error))
            self._swept_at = time.monotonic()

    async def _list_all(self, *, strict: bool = False) -> None:
        """List every namespace. `strict` raises where one of several may not be listed."""
        namespaces = self._settings.list_namespaces
        for namespace in namespaces:
            try:
                await self._list(namespace)
            except ClusterError as error:
                # Its role is gone, with the namespace perhaps: the others must not suffer.
                if error.status != FORBIDDEN or strict or len(namespaces) == 1:
                    raise
                self._objects.blind.add(namespace)
                LOGGER.warning("a namespace may not be listed", namespace=namespace)
        metrics.invalid_objects.set(len(self._objects.invalid))
        metrics.last_sweep.set_to_current_time()

    async def _list(self, namespace: str) -> None:
        # Before the listing: what is created while it runs is not in it, and not gone.
        before = {it.key for it in self._objects.merchants() if namespace in ("*", it.namespace)}
        listed = {body_key(it): it for it in await self._cluster.list_merchants(namespace)}
        if namespace in self._objects.blind:
            raise WatchError(f"namespace {namespace} can be seen again, and is not watched")
        for body in listed.values():
            self._note_unseen(body)
            self._put(body)
        for key in before - set(listed):
            self._remove(key)

    def _note_unseen(self, body: Body) -> None:
        """What a listing shows first, the watch must show soon."""
        key, known = body_key(body), self._objects.find(body_key(body))
        if known is not None and known.generation < _generation(body):
            self._unseen.setdefault(key, (_generation(body), time.monotonic()))

    def _remove_orphans(self) -> None:
        """Files whose object is gone: nobody will ask for a turn for them."""
        for file in self._publication.files():
            key = merchant_key(file)
            if self._objects.find(key) is None and key not in self._objects.invalid:
                self._queue.add(key)

    def _check_watch(self) -> None:
        """A watch that is silent although objects change is dead."""
        latest = time.monotonic() - LONGEST_WATCH_LAG_S
        missed = [key for key, (_, since) in self._unseen.items() if since < latest]
        if missed:
            raise WatchError(f"{len(missed)} changes did not come through the watch")

    # --- liveness ------------------------------------------------------------------------------

    async def _heartbeat_loop(self) -> None:
        while True:
            self._beat_at = time.monotonic()
            metrics.heartbeat.set_to_current_time()
            await asyncio.sleep(HEARTBEAT_S)

    def start_watchdog(self) -> None:
        """End the process when its loop stands still: a probe only asks, this acts."""
        threading.Thread(target=self._watchdog, name="watchdog", daemon=True).start()

    def _watchdog(self) -> None:
        longest_sweep_s = 3 * self._settings.platform.resync.total_seconds() + LONGEST_SWEEP_S
        while True:
            time.sleep(HEARTBEAT_S)
            silence_s = time.monotonic() - self._beat_at
            if silence_s > LONGEST_SILENCE_S or self.age_s() > longest_sweep_s:
                LOGGER.error("the operator stands still, so it ends", silence_s=round(silence_s))
                os._exit(EXIT_STUCK)

    def _conditions(self) -> list[dict[str, str]]:
        return [metrics.countable(merchant.status) for merchant in self._objects.merchants()]


def _generation(body: Body) -> int:
    generation: int = body["metadata"].get("generation", 0)
    return generation


def _innermost(error: BaseException) -> str:
    """The line of code that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown line"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"  # noqa: PTH119
