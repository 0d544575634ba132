"""Carries out the plan for one MerchantConfig: observe, plan, act, plan again, tell.

Safe to repeat at any moment, and never two at once for one object.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from mpesa_gateway.domain.bundle import file_name
from mpesa_gateway.domain.merchant import Credentials
from mpesa_gateway.log import get_logger
from mpesa_operator import daraja, metrics
from mpesa_operator.cluster import Cluster, ClusterError
from mpesa_operator.conditions import READY, by_type
from mpesa_operator.credentials import Problem, SecretData
from mpesa_operator.daraja import Check
from mpesa_operator.keys import fresh_keys
from mpesa_operator.objects import Objects, secret_names
from mpesa_operator.plan import Generated, Merchant, Observed, Plan, make_plan
from mpesa_operator.platform import CHECK_PATIENCE, generated_name
from mpesa_operator.publication import Publication
from mpesa_operator.queue import Queue
from mpesa_operator.settings import Settings
from mpesa_operator.status import check_from_status, is_same, render_status, waits_for_pods
from mpesa_operator.watching import PodWatch

LOGGER = get_logger(__name__)
CHECKS_AT_ONCE = 8
# Part of the resync that is random, so that merchants created together drift apart.
JITTER = 0.2
CONFLICT = 409
# Transitions that follow from a moment's delay are not worth an event.
UNEVENTFUL = ("Propagating", "Publishing", "Checking", "NotPublished")


@dataclass
class _Memory:
    """What is known of a merchant between two turns. The Secrets are those of the last reading."""

    uid: str
    check: Check
    secrets: Mapping[str, SecretData | None] = field(default_factory=dict, repr=False)
    generated: Generated | None = field(default=None, repr=False)
    read: bool = False
    view: object = None


class Reconciler:
    """Looks at one merchant after the other."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        objects: Objects,
        publication: Publication,
        queue: Queue,
        session: aiohttp.ClientSession,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._platform = settings.platform
        self._objects = objects
        self._publication = publication
        self._queue = queue
        self._session = session
        self._memories: dict[str, _Memory] = {}
        self._checks: set[asyncio.Task[None]] = set()
        self._check_slots = asyncio.Semaphore(CHECKS_AT_ONCE)
        self.pods = PodWatch(cluster, settings, publication, session, self._on_snapshot)

    # --- one turn ------------------------------------------------------------------------------

    async def reconcile(self, key: str, *, fresh: bool) -> None:
        """Make it so, and ask for the next turn. Raises ClusterError."""
        merchant = self._objects.find(key)
        if merchant is None:
            await self._forget(key)
            return
        memory = self._memory(merchant)
        if fresh or not memory.read:
            await self._read_secrets(merchant, memory)
        observed = self._observe(merchant, memory)
        plan = make_plan(merchant, observed, self._now(), self._platform)
        observed = await self._act(merchant, memory, plan, observed)
        latest = self._objects.find(key)
        if latest is None or latest.uid != merchant.uid or latest.spec != merchant.spec:
            return  # Edited in the meantime: another turn is due already.
        plan = make_plan(latest, observed, self._now(), self._platform)
        await self._tell(latest, plan, observed)
        self._ask_again(key, plan, observed)

    def _memory(self, merchant: Merchant) -> _Memory:
        memory = self._memories.get(merchant.key)
        if memory is None or memory.uid != merchant.uid:
            memory = _Memory(merchant.uid, check_from_status(merchant.status))
            self._memories[merchant.key] = memory
        return memory

    async def _read_secrets(self, merchant: Merchant, memory: _Memory) -> None:
        names = sorted(secret_names(merchant.spec))
        generated, found = await asyncio.gather(
            self._cluster.find_generated(merchant, generated_name(merchant.name)),
            asyncio.gather(
                *(self._cluster.find_secret(merchant.namespace, name) for name in names)
            ),
        )
        memory.secrets = dict(zip(names, found, strict=True))
        memory.generated = generated
        memory.read = True

    def _observe(self, merchant: Merchant, memory: _Memory) -> Observed:
        spec = merchant.spec
        file = file_name(merchant.namespace, merchant.name)
        signing = spec.webhook.signing_secret_ref
        memory.view = self.pods.view(merchant.key, file)
        return Observed(
            fresh=fresh_keys(),
            credentials=memory.secrets.get(spec.credentials_secret_ref.name),
            signing=memory.secrets.get(signing.name) if signing else None,
            generated=memory.generated,
            published=self._publication.current(file),
            rival=self._objects.rival(merchant, self._is_published),
            check=memory.check,
            pods=self.pods.view(merchant.key, file),
            shard=self._publication.shard(file),
        )

    def _is_published(self, key: str) -> bool:
        return self._publication.digest(key) is not None

    # --- acting --------------------------------------------------------------------------------

    async def _act(
        self, merchant: Merchant, memory: _Memory, plan: Plan, observed: Observed
    ) -> Observed:
        """Carry out the plan. The order matters: no file before its keys and its finalizer."""
        if plan.secret is not None:
            await self._write_generated(merchant, memory, plan.secret)
        if plan.add_finalizer or plan.remove_finalizer:
            await self._set_finalizer(merchant, present=plan.add_finalizer)
        refused = None
        if plan.entry != observed.published:
            refused = await self._publish(merchant, plan.entry)
        if plan.check is not None and plan.digest is not None:
            self._start_check(merchant.key, memory, plan.check, plan.digest)
        after = self._observe(merchant, memory)
        return replace(after, refused=refused, fresh=observed.fresh)

    async def _write_generated(self, merchant: Merchant, memory: _Memory, data: SecretData) -> None:
        name, before = generated_name(merchant.name), memory.generated
        memory.read = False  # Should the write fail, what is there is not what we know.
        if before is None:
            labels = {
                "app.kubernetes.io/name": "mpesa-gateway",
                "app.kubernetes.io/managed-by": "mpesa-operator",
                "mpesa-gateway.dev/merchant": merchant.name,
            }
            made = await self._cluster.create_generated(merchant, name, data, labels)
        else:
            made = await self._cluster.update_generated(merchant, name, before, data)
        memory.generated, memory.read = made, True

    async def _set_finalizer(self, merchant: Merchant, *, present: bool) -> None:
        body = await self._cluster.set_finalizer(merchant, present=present)
        if present and body is None:
            raise ClusterError("the finalizer cannot be written", CONFLICT, "the object has gone")
        if present and body is not None:
            self._objects.put(body)

    async def _publish(self, merchant: Merchant, entry: bytes | None) -> Problem | None:
        file = file_name(merchant.namespace, merchant.name)
        refused = await self._publication.publish(file, entry)
        if refused is None:
            self.pods.wait_for(merchant.key, anew=True)
        return refused

    def _start_check(
        self, key: str, memory: _Memory, credentials: Credentials, digest: str
    ) -> None:
        memory.check = replace(memory.check, pending=digest, pending_since=self._now())
        task = asyncio.create_task(self._check(key, memory, credentials, digest))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    async def _check(
        self, key: str, memory: _Memory, credentials: Credentials, digest: str
    ) -> None:
        async with self._check_slots:
            outcome = await daraja.ask(self._session, self._settings.base_url, credentials)
        metrics.token_checks.labels(outcome).inc()
        if memory.check.pending == digest:
            memory.check = Check(digest=digest, outcome=outcome, at=self._now())
        self._queue.add(key, fresh=False)

    # --- telling -------------------------------------------------------------------------------

    async def _tell(self, merchant: Merchant, plan: Plan, observed: Observed) -> None:
        status = render_status(merchant, plan, observed, self._now(), self._platform)
        if waits_for_pods(status) or merchant.deleted_at is not None:
            self.pods.wait_for(merchant.key, anew=False)
        else:
            took_s = self.pods.stop_waiting(merchant.key)
            if took_s is not None and observed.published is not None:
                metrics.propagation_seconds.observe(took_s)
        if plan.remove_finalizer or is_same(status, merchant.status):
            return
        body = await self._cluster.patch_status(merchant, status)
        if body is not None:
            self._objects.put(body)
            await self._announce(merchant, status)

    async def _announce(self, merchant: Merchant, status: Mapping[str, Any]) -> None:
        """An event, and a line, when Ready has changed for a reason that lasts."""
        before, after = by_type(merchant.status).get(READY, {}), by_type(status)[READY]
        if before.get("reason") == after["reason"] or after["reason"] in UNEVENTFUL:
            return
        ready = after["status"] == "True"
        LOGGER.info("merchant changed", merchant=merchant.key, ready=ready, reason=after["reason"])
        try:
            await self._cluster.post_event(
                merchant, warning=not ready, reason=after["reason"], text=after["message"]
            )
        except ClusterError as error:
            LOGGER.warning("an event cannot be posted", problem=str(error))

    def _ask_again(self, key: str, plan: Plan, observed: Observed) -> None:
        wait_s = plan.requeue_after.total_seconds()
        if plan.requeue_after == self._platform.resync:
            wait_s *= 1 - JITTER * random.random()  # noqa: S311 - spreads load, no secret
        self._queue.add(key, delay_s=wait_s)
        if observed.check.pending_since is not None:
            patience = observed.check.pending_since + CHECK_PATIENCE - self._now()
            if patience > timedelta(0):
                self._queue.add(key, delay_s=patience.total_seconds(), fresh=False)

    # --- what happens around -------------------------------------------------------------------

    async def _forget(self, key: str) -> None:
        """The object is gone: so is its file, unless we cannot see whether it is."""
        namespace, _, name = key.partition("/")
        self._memories.pop(key, None)
        self.pods.stop_waiting(key)
        file = file_name(namespace, name)
        seen = self._settings.watches(namespace) and namespace not in self._objects.blind
        if seen and self._publication.current(file) is not None:
            LOGGER.info("the file of a merchant that is gone is removed", merchant=key)
            refused = await self._publication.publish(file, None)
            if refused is not None:
                self._queue.add(key, delay_s=timedelta(seconds=5).total_seconds())

    def _on_snapshot(self) -> None:
        """Another turn for each merchant about which the pods say something new."""
        for key, memory in self._memories.items():
            namespace, _, name = key.partition("/")
            if memory.view != self.pods.view(key, file_name(namespace, name)):
                self._queue.add(key, fresh=False)

    @staticmethod
    def _now() -> datetime:
        return datetime.now(UTC)
