"""Carries out the plan for one MerchantConfig: observe, plan, act, plan again, tell.

Safe to repeat at any moment, and never two at once for one object.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from mpesa_gateway.domain.bundle import file_name
from mpesa_gateway.domain.merchant import Credentials
from mpesa_gateway.telemetry.log import get_logger
from mpesa_operator import daraja, metrics
from mpesa_operator.cache import Objects, gateway_of, secret_names
from mpesa_operator.claims import WARNINGS, Standing, account, claims_of, first_claim
from mpesa_operator.cluster import Cluster, ClusterError
from mpesa_operator.conditions import READY, by_type
from mpesa_operator.credentials import Problem, SecretData
from mpesa_operator.daraja import Check
from mpesa_operator.keys import fresh_keys
from mpesa_operator.namespaces import Namespaces
from mpesa_operator.orphans import RETRY, Orphans
from mpesa_operator.plan import Generated, Merchant, Observed, Plan, make_plan
from mpesa_operator.platform_settings import CHECK_PATIENCE, generated_name
from mpesa_operator.pod_poller import PodWatch
from mpesa_operator.publication import Publication
from mpesa_operator.seal import SEAL_KEY, Seal, read_seal
from mpesa_operator.settings import Settings
from mpesa_operator.status import (
    check_from_status,
    is_accepted,
    is_same,
    render_status,
    waits_for_pods,
)
from mpesa_operator.workqueue import Queue

LOGGER = get_logger(__name__)
CHECKS_AT_ONCE = 8
# Part of the resync that is random, so that merchants created together drift apart.
JITTER = 0.2
# Secrets that are watched are read again after so many resyncs only.
WATCHED_READ_EVERY = 10
CONFLICT = 409
# Transitions that follow from a moment's delay are not worth an event.
UNEVENTFUL = ("Propagating", "Publishing", "Checking", "NotPublished")
# One claimant must not fill the events of whom it claims from.
WARN_AGAIN, WARNINGS_REMEMBERED = timedelta(hours=1), 4096


@dataclass
class _Memory:
    """What is known of a merchant between two turns. The Secrets are those of the last reading."""

    uid: str
    check: Check
    secrets: Mapping[str, SecretData | None] = field(default_factory=dict, repr=False)
    generated: Generated | None = field(default=None, repr=False)
    read: bool = False
    view: object = None
    digest: str | None = None
    resolved: bool = False
    standing: Standing | None = None


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
        self._seal = Seal(b"")
        self._closed: set[str] = set()
        self._orphans = Orphans(publication, settings.platform.drain)
        self._namespaces = Namespaces(
            cluster,
            settings.namespace_selector,
            settings.platform.resync.total_seconds(),
            time.monotonic,
        )
        self._memories: dict[str, _Memory] = {}
        self._checks: set[asyncio.Task[None]] = set()
        self._check_slots = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._warned: dict[tuple[str, str, str], datetime] = {}
        self.pods = PodWatch(cluster, settings, publication, session, self._on_snapshot)

    async def load_seal(self) -> None:
        """Read the operator's own secret, or make it. Raises ClusterError."""
        namespace, name = self._settings.namespace, self._settings.seal_name
        data = await self._cluster.find_secret(namespace, name)
        if data is None:
            data = await self._cluster.make_seal(namespace, name, self._settings.labels)
        seal = read_seal(data.get(SEAL_KEY))
        if seal is None:
            raise ClusterError(
                "the operator's secret cannot be used", 0, f"Secret {name} is broken"
            )
        self._seal = seal

    # --- one turn ------------------------------------------------------------------------------

    async def reconcile(self, key: str, *, fresh: bool) -> None:
        """Make it so, and ask for the next turn. Raises ClusterError."""
        merchant = self._objects.find(key)
        if merchant is None:
            await self._forget(key)
            return
        self._closed.discard(key)
        self._orphans.discard(key)
        if not await self._namespaces.is_open(merchant.namespace):
            self._closed.add(key)
            if not merchant.has_finalizer and self._publication.digest(key) is None:
                # Somebody else's, or nobody's: not even a status is written.
                self._queue.add(key, delay_s=self._platform.resync.total_seconds())
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
        await self._warn_holder(latest, observed.refused or plan.problem)
        self._rouse_rivals(latest, memory, plan)
        self._ask_again(key, plan, observed)

    def _memory(self, merchant: Merchant) -> _Memory:
        memory = self._memories.get(merchant.key)
        if memory is None or memory.uid != merchant.uid:
            memory = _Memory(merchant.uid, check_from_status(merchant, self._seal))
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
        api_key = spec.api_key.secret_ref if spec.api_key else None
        memory.view = self.pods.view(merchant.key, file)
        rival = self._rival(merchant)
        return Observed(
            fresh=fresh_keys(self._seal, merchant.key),
            seal=self._seal,
            credentials=memory.secrets.get(spec.credentials_secret_ref.name),
            signing=memory.secrets.get(signing.name) if signing else None,
            api_key=memory.secrets.get(api_key.name) if api_key else None,
            generated=memory.generated,
            published=self._publication.current(file),
            rival=rival,
            selected=merchant.key not in self._closed,
            displaced=rival is not None and self._has_published_claim(merchant),
            holders=self._publication.holders(merchant.namespace),
            check=memory.check,
            pods=self.pods.view(merchant.key, file),
            shard=self._publication.shard(file),
        )

    # --- who has the short code ----------------------------------------------------------------

    def _rival(self, merchant: Merchant) -> str | None:
        """The object that has the short code and till, when it is not this one."""
        others = (self._objects.find(key) for key in self._objects.same_account(merchant))
        candidates = [merchant, *(it for it in others if it is not None)]
        first = first_claim(self._standing(it) for it in candidates)
        return None if first.key == merchant.key else first.key

    def _standing(self, merchant: Merchant) -> Standing:
        memory = self._memories.get(merchant.key)
        if memory is None or memory.uid != merchant.uid:
            memory = _Memory(merchant.uid, check_from_status(merchant, self._seal))
            memory.digest = memory.check.digest
        known = memory.check.digest is not None and memory.check.digest == memory.digest
        return Standing(
            key=merchant.key,
            created_at=merchant.created_at,
            published=self._has_published_claim(merchant),
            accepted=is_accepted(merchant, self._seal),
            outcome=memory.check.outcome if known else None,
            resolved=memory.resolved and merchant.deleted_at is None,
        )

    def _has_published_claim(self, merchant: Merchant) -> bool:
        content = self._publication.current(file_name(merchant.namespace, merchant.name))
        return content is not None and account(merchant.spec) in claims_of(content)

    def _rouse_rivals(self, merchant: Merchant, memory: _Memory, plan: Plan) -> None:
        """Another turn for who claims the same, when this claim has become weaker or stronger."""
        memory.digest = plan.digest or memory.digest
        memory.resolved = plan.resolved.status == "True"
        standing = self._standing(merchant)
        if memory.standing == standing:
            return
        memory.standing = standing
        rivals = self._objects.same_account(merchant)
        for key in (*rivals, merchant.key) if rivals else ():
            self._queue.add(key, fresh=False)

    async def _warn_holder(self, merchant: Merchant, problem: Problem | None) -> None:
        """An event for who has what was claimed, once an hour and claimant."""
        holder = self._objects.find(problem.holder or "") if problem else None
        if problem is None or holder is None or problem.reason not in WARNINGS:
            return
        name, now = (merchant.uid, holder.uid, problem.reason), self._now()
        self._warned = {it: at for it, at in self._warned.items() if now - at < WARN_AGAIN}
        if name in self._warned or len(self._warned) >= WARNINGS_REMEMBERED:
            return
        self._warned[name] = now
        LOGGER.warning("a claim was refused", merchant=holder.key, reason=problem.reason)
        try:
            await self._cluster.post_event(
                holder, warning=True, reason=problem.reason, text=WARNINGS[problem.reason]
            )
        except ClusterError as error:
            LOGGER.warning("an event cannot be posted", problem=str(error))

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
        body = await self._cluster.set_finalizer(
            merchant.namespace, merchant.name, merchant.uid, present=present
        )
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
            if self._objects.hears_of_secrets(key.partition("/")[0]):
                # The rest is looked at as ever; Secrets only in case that a change was not told.
                self._queue.add(key, delay_s=wait_s, fresh=False)
                wait_s *= WATCHED_READ_EVERY
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
        self._closed.discard(key)
        self.pods.stop_waiting(key)
        file = file_name(namespace, name)
        seen = self._settings.watches(namespace) and namespace not in self._objects.blind
        content = self._publication.current(file)
        if not seen or content is None:
            self._orphans.discard(key)
            return
        body = await self._cluster.find_merchant(namespace, name)
        if body is not None and gateway_of(body) == self._settings.gateway:
            # Another operator was faster than our watch.
            self._objects.put(body)
            self._queue.add(key, delay_s=RETRY.total_seconds())
            return
        wait = await self._orphans.drain(key, file, content, self._now())
        if wait is not None:
            self._queue.add(key, delay_s=wait.total_seconds())

    def _on_snapshot(self) -> None:
        """Another turn for each merchant about which the pods say something new."""
        for key, memory in self._memories.items():
            namespace, _, name = key.partition("/")
            if memory.view != self.pods.view(key, file_name(namespace, name)):
                self._queue.add(key, fresh=False)

    @staticmethod
    def _now() -> datetime:
        return datetime.now(UTC)
