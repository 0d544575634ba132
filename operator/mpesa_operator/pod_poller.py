"""Asks the pods what they have loaded: often while a merchant waits for it, else now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import aiohttp

from mpesa_gateway.telemetry.log import get_logger
from mpesa_operator.answers import IDENTITY, read_body
from mpesa_operator.cluster import Cluster, ClusterError
from mpesa_operator.pods import PodAddress, PodView, Report, Snapshot, read_report
from mpesa_operator.publication import Publication
from mpesa_operator.settings import Settings

LOGGER = get_logger(__name__)
HURRY_S = 0.2
WAITING_S = 2.0
IDLE_S = 10.0
# After so long a merchant that still waits is no reason to hurry any more.
HURRY_FOR_S = 30.0
BUMP_AGAIN_AFTER_S = 3.0
ANSWER_TIMEOUT_S = 2.0
LARGEST_ANSWER = 8 * 1024 * 1024


class PodWatch:
    """The latest snapshot of the pods, and the merchants that wait for them."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        publication: Publication,
        session: aiohttp.ClientSession,
        on_snapshot: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._publication = publication
        self._session = session
        self._on_snapshot = on_snapshot
        self._waiting: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._bumped_at: dict[str, float] = {}
        self.snapshot = Snapshot()

    def view(self, key: str, file: str) -> tuple[PodView, ...]:
        """What each ready pod says about a merchant."""
        return self.snapshot.view(key, file)

    def wait_for(self, key: str, *, anew: bool) -> None:
        """Look often until all pods have the merchant's file. `anew` when it has just changed."""
        if anew or key not in self._waiting:
            self._waiting[key] = self._now()
            self._wake.set()

    def stop_waiting(self, key: str) -> float | None:
        """All pods have it. Returns how long that took, None when nobody waited."""
        since = self._waiting.pop(key, None)
        return None if since is None else self._now() - since

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def loop(self) -> None:
        """Look, for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s()):
                    await self._wake.wait()
                    # At least this long between two looks, however many merchants come.
                    await asyncio.sleep(HURRY_S / 2)
            self._wake.clear()
            try:
                await self.look()
            except ClusterError as error:
                LOGGER.warning("pods cannot be listed", problem=str(error))
                await asyncio.sleep(WAITING_S)

    def _interval_s(self) -> float:
        if not self._waiting:
            return IDLE_S
        newest = max(self._waiting.values())
        return HURRY_S if self._now() - newest < HURRY_FOR_S else WAITING_S

    async def look(self) -> None:
        """Ask every ready pod once. Raises ClusterError."""
        pods = await self._cluster.ready_pods(
            self._settings.namespace,
            self._settings.release_labels,
            self._settings.metrics_port,
        )
        reports = await asyncio.gather(*(self._ask(pod) for pod in pods))
        self.snapshot = Snapshot(tuple(zip(pods, reports, strict=True)))
        self._on_snapshot()
        await self._bump_laggards()

    async def _ask(self, pod: PodAddress) -> Report | None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        try:
            async with self._session.get(
                pod.url, headers=IDENTITY, timeout=timeout, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    return None
                return read_report(await read_body(answer, LARGEST_ANSWER))
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        except Exception as error:
            # The last resort: no answer may end the operator.
            LOGGER.exception("pod's report failed unexpectedly", problem=type(error).__name__)
            return None

    async def _bump_laggards(self) -> None:
        """Refresh the volume of pods that should have a merchant by now."""
        now = self._now()
        late = [key for key, at in self._waiting.items() if now - at > BUMP_AGAIN_AFTER_S]
        if not late:
            self._bumped_at.clear()
            return
        behind = [
            pod.name
            for pod, report in self.snapshot.pods
            if report is not None
            and self._is_behind(report, late)
            and now - self._bumped_at.get(pod.name, 0) > BUMP_AGAIN_AFTER_S
        ]
        self._bumped_at.update(dict.fromkeys(behind, now))
        await self._publication.bump_again(behind)

    def _is_behind(self, report: Report, keys: list[str]) -> bool:
        return any(report.digests.get(key) != self._publication.digest(key) for key in keys)
