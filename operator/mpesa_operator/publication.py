"""Writes merchant files into the bundle Secrets, and makes the kubelets look.

One task writes. It takes all changes that wait, so two hundred merchants at once are a few writes.
It starts from what is in the Secrets, and so never drops a merchant because it was restarted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mpesa_gateway.domain.bundle import bundle_sha256, file_digest, file_name
from mpesa_gateway.domain.merchant import Network
from mpesa_gateway.telemetry.log import get_logger
from mpesa_operator import metrics
from mpesa_operator.allowlist import parse_cidrs, readable_copy
from mpesa_operator.bundle import (
    LARGEST_SHARD,
    Applied,
    Files,
    all_files,
    apply_changes,
    is_merchant_file,
    merchant_key,
    settle_shards,
    shard_bytes,
    shard_of,
)
from mpesa_operator.claims import holders
from mpesa_operator.cluster import Cluster, ClusterError
from mpesa_operator.credentials import Problem
from mpesa_operator.merchant_file import allowed_cidrs, read_entry
from mpesa_operator.retired import RETIRED_KEYS, Retired, read_retired, retire, write_retired
from mpesa_operator.settings import Settings

LOGGER = get_logger(__name__)
SHA_ANNOTATION = "mpesa-gateway.dev/merchants-sha256"
AGAIN_ANNOTATION = "mpesa-gateway.dev/merchants-bumped-at"
# Changes that come within this time share a write.
GATHER_S = 0.05
RETRY_S = 5.0
# Writes of one shard, when another operator writes it too.
ATTEMPTS = 8


@dataclass
class _Wish:
    """A file to write, or None to remove it, and who waits for it."""

    content: bytes | None = field(repr=False)
    done: asyncio.Future[Problem | None]


class Publication:
    """The bundle. What `current` returns has been written."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._shards: dict[int, Files] = {}
        # The version of each Secret that `_shards` knows; empty when there was none.
        self._versions: dict[int, str] = {}
        self._wishes: dict[str, list[_Wish]] = {}
        self._holders: dict[str, str] = {}
        self._retired: Retired = {}
        self._wished = asyncio.Event()
        self._bump = asyncio.Event()
        self._allowlist: dict[str, str] | None = None
        # A verification that began before a write must not undo it.
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Start from what is published. Raises ClusterError."""
        own = await self._cluster.find_secret(self._settings.namespace, self._settings.seal_name)
        self._retired = read_retired((own or {}).get(RETIRED_KEYS))
        loaded = {shard: await self._load(shard) for shard in range(self._settings.platform.shards)}
        self._shards = dict(loaded)
        wanted, changed = settle_shards(loaded, self._settings.platform.shards)
        for shard in changed:
            await self._write(shard, wanted[shard])
        self._know_holders()
        self._measure()
        # The pods may have missed the last bump of an operator that was killed.
        self._bump.set()

    async def _load(self, shard: int) -> Files:
        files, self._versions[shard] = await self._read(shard)
        return files

    async def _read(self, shard: int) -> tuple[Files, str]:
        name = self._settings.secret_name(shard)
        data, version = await self._cluster.find_bundle(self._settings.namespace, name)
        return {file: it for file, it in data.items() if is_merchant_file(file)}, version

    def files(self) -> dict[str, bytes]:
        """Every published file."""
        return all_files(self._shards.values())

    def current(self, file: str) -> bytes | None:
        """The file as it was last written; None when it is not published."""
        return self._shards.get(self.shard(file), {}).get(file)

    def holders(self, namespace: str) -> Mapping[str, str]:
        """Which merchant has which claim, as a merchant of the namespace must respect it."""
        others = {
            claim: owner
            for claim, owner in self._retired.items()
            if owner.partition("/")[0] != namespace
        }
        return {**others, **self._holders}

    def _know_holders(self) -> None:
        found = holders(self.files())
        self._holders = {claim: merchant_key(file) for claim, file in found.items()}

    def digest(self, key: str) -> str | None:
        """How pods report the published file of a merchant; None when it is not published."""
        namespace, _, name = key.partition("/")
        content = self.current(file_name(namespace, name))
        return None if content is None else file_digest(content)

    def shard(self, file: str) -> int:
        """The shard of a file."""
        return shard_of(file, self._settings.platform.shards)

    async def publish(self, file: str, content: bytes | None) -> Problem | None:
        """Write the file, or remove it; returns when that is done, with why it is not."""
        wish = _Wish(content, asyncio.get_running_loop().create_future())
        self._wishes.setdefault(file, []).append(wish)
        self._wished.set()
        return await wish.done

    async def write_loop(self) -> None:
        """Write what is wished, for ever."""
        while True:
            await self._wished.wait()
            await asyncio.sleep(GATHER_S)
            self._wished.clear()
            wishes, self._wishes = self._wishes, {}
            shards = {self.shard(file) for file in wishes}
            for shard in sorted(shards):
                mine = {file: it for file, it in wishes.items() if self.shard(file) == shard}
                async with self._writing:
                    await self._grant(shard, mine)

    async def _grant(self, shard: int, wishes: Mapping[str, list[_Wish]]) -> None:
        """Write one shard. A later wish for the same file beats an earlier one."""
        changes = {file: its[-1].content for file, its in wishes.items()}
        for _ in range(ATTEMPTS):
            applied = self._applied(shard, changes)
            problem: Problem | None = None
            if dict(applied.files) != dict(self._shards.get(shard, {})):
                problem = await self._try_write(shard, applied.files)
            if problem is None or not await self._is_overtaken(shard):
                break
        for file, its in wishes.items():
            for wish in its:
                if not wish.done.cancelled():
                    wish.done.set_result(problem or applied.refused.get(file))

    def _applied(self, shard: int, changes: Mapping[str, bytes | None]) -> Applied:
        return apply_changes(
            self._shards.get(shard, {}),
            changes,
            elsewhere=all_files(files for other, files in self._shards.items() if other != shard),
            retired=self._retired,
            namespace_max=self._settings.platform.max_merchants_per_namespace,
        )

    async def _is_overtaken(self, shard: int) -> bool:
        """Whether another operator wrote the shard since; then what it wrote is known now.

        There are two for a moment when a pod is evicted, or its node is lost.
        """
        try:
            files, version = await self._read(shard)
        except ClusterError:
            return False
        if version == self._versions.get(shard):
            return False
        LOGGER.warning("a bundle Secret was changed by somebody else", shard=shard)
        self._shards[shard], self._versions[shard] = files, version
        return True

    async def _try_write(self, shard: int, files: Files) -> Problem | None:
        try:
            await self._retire(shard, files)
            await self._write(shard, files)
        except ClusterError as error:
            LOGGER.warning("the bundle cannot be written", problem=str(error), shard=shard)
            return Problem("WriteFailed", f"The bundle Secret cannot be written ({error.status}).")
        self._know_holders()
        self._measure()
        self._bump.set()
        return None

    async def _retire(self, shard: int, files: Files) -> None:
        """Write down whose the keys are that go, before they go. Raises ClusterError."""
        elsewhere = all_files(its for other, its in self._shards.items() if other != shard)
        retired = retire(self._retired, self._shards.get(shard, {}), files, elsewhere)
        if retired == self._retired:
            return
        settings, name = self._settings, self._settings.seal_name
        own = await self._cluster.find_secret(settings.namespace, name)
        self._retired = {**read_retired((own or {}).get(RETIRED_KEYS)), **retired}
        if own is not None:  # Without the key of the seals it would be a broken Secret.
            data = {**own, RETIRED_KEYS: write_retired(self._retired)}
            await self._cluster.apply_secret(settings.namespace, name, data, settings.labels)

    async def _write(self, shard: int, files: Files) -> None:
        settings = self._settings
        self._versions[shard] = await self._cluster.write_bundle(
            settings.namespace,
            settings.secret_name(shard),
            files,
            settings.labels,
            version=self._versions.get(shard, ""),
        )
        self._shards[shard] = files

    def _measure(self) -> None:
        metrics.bundle_limit_bytes.set(LARGEST_SHARD)
        for shard, files in self._shards.items():
            metrics.bundle_bytes.labels(str(shard)).set(shard_bytes(files))
            metrics.bundle_entries.labels(str(shard)).set(len(files))

    async def verify(self) -> None:
        """Write a shard again that somebody else changed or deleted. Raises ClusterError.

        Files that are not known stay: another operator may have a reason. Without an object they
        are orphans, and go as such.
        """
        for shard in tuple(self._shards):
            async with self._writing:
                found, self._versions[shard] = await self._read(shard)
                wanted = {**found, **self._shards[shard]}
                if dict(found) != wanted:
                    LOGGER.warning("a bundle Secret was changed by somebody else", shard=shard)
                    await self._write(shard, wanted)
                    self._bump.set()
                self._shards[shard] = wanted
        self._know_holders()

    # --- what follows a write ------------------------------------------------------------------

    async def bump_loop(self) -> None:
        """After each write: make the kubelets refresh, then bring the readable copy up to date."""
        while True:
            await self._bump.wait()
            self._bump.clear()
            try:
                await self._bump_pods()
                await self._write_allowlist()
            except ClusterError as error:
                LOGGER.warning("pods cannot be told of new merchants", problem=str(error))
                self._bump.set()
                await asyncio.sleep(RETRY_S)

    async def _bump_pods(self) -> None:
        settings = self._settings
        annotations = {SHA_ANNOTATION: bundle_sha256(self.files())}
        await self._cluster.annotate_pods(settings.namespace, settings.release_labels, annotations)

    async def bump_again(self, pods: list[str]) -> None:
        """For pods that are behind: their kubelet may have looked before it knew the new Secret."""
        again = {AGAIN_ANNOTATION: datetime.now(UTC).isoformat(timespec="seconds")}
        for pod in pods:
            await self._cluster.annotate_pod(self._settings.namespace, pod, again)

    async def _write_allowlist(self) -> None:
        data = readable_copy(self._settings.platform.networks, self._networks())
        if data == self._allowlist:
            return
        settings = self._settings
        await self._cluster.apply_configmap(
            settings.namespace, settings.allowlist_name, data, settings.labels
        )
        self._allowlist = data

    def _networks(self) -> dict[str, tuple[Network, ...]]:
        return {
            merchant_key(file): parse_cidrs(allowed_cidrs(content))
            for file, content in self.files().items()
            if read_entry(content) is not None
        }
