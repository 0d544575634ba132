"""The bundle as the operator knows it: files in shards, each shard one Secret."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mpesa_gateway.domain.bundle import SUFFIX
from mpesa_operator.credentials import Problem

# Kubernetes takes 1 MiB of data in a Secret; names and bookkeeping need some room beside it.
LARGEST_SHARD = 1_000_000

Files = Mapping[str, bytes]


def shard_of(file: str, shards: int) -> int:
    """The shard of a file: always the same one while their number is."""
    return int.from_bytes(hashlib.sha256(file.encode()).digest()[:8], "big") % shards


def shard_bytes(files: Files) -> int:
    """What the files take in their Secret."""
    return sum(len(name) + len(content) for name, content in files.items())


def is_merchant_file(name: str) -> bool:
    """Whether a key of a bundle Secret is a merchant's file."""
    return name.endswith(SUFFIX) and "." in name.removesuffix(SUFFIX)


def merchant_key(file: str) -> str:
    """`namespace/name` of a file. A namespace has no dots."""
    namespace, _, name = file.removesuffix(SUFFIX).partition(".")
    return f"{namespace}/{name}"


@dataclass(frozen=True)
class Applied:
    """A shard with the changes that fit into it, and why the others did not."""

    files: Files = field(repr=False)
    refused: Mapping[str, Problem] = field(default_factory=dict)


def apply_changes(files: Files, changes: Mapping[str, bytes | None]) -> Applied:
    """The shard after the changes. None removes a file.

    What would not fit is refused by itself: the other merchants go on, and what was there stays.
    Removals come first, because they make room.
    """
    result = dict(files)
    refused: dict[str, Problem] = {}
    for name in sorted(changes, key=lambda it: (changes[it] is not None, it)):
        content = changes[name]
        if content is None:
            result.pop(name, None)
            continue
        before = shard_bytes({name: result[name]}) if name in result else 0
        size = shard_bytes(result) - before + shard_bytes({name: content})
        if size > LARGEST_SHARD:
            refused[name] = _too_large()
        else:
            result[name] = content
    return Applied(result, refused)


def _too_large() -> Problem:
    return Problem(
        "BundleTooLarge",
        "The bundle Secret is full, so the merchant's file was not written;"
        " the platform team can raise operator.shards.",
    )


def settle_shards(loaded: Mapping[int, Files], shards: int) -> tuple[dict[int, Files], list[int]]:
    """The files in the shards where they belong, and the shards to write, gaining ones first.

    They differ from what was loaded after the number of shards was raised.
    """
    wanted: dict[int, dict[str, bytes]] = {shard: {} for shard in range(shards)}
    for shard, files in loaded.items():
        for name, content in files.items():
            target = shard_of(name, shards)
            if target == shard or name not in loaded.get(target, {}):
                wanted[target][name] = content
    changed = [shard for shard in wanted if wanted[shard] != dict(loaded.get(shard, {}))]
    changed.sort(key=lambda shard: not _gains(wanted[shard], loaded.get(shard, {})))
    return dict(wanted), changed


def _gains(wanted: Files, before: Files) -> bool:
    return any(name not in before for name in wanted)


def all_files(shards: Iterable[Files]) -> dict[str, bytes]:
    """Every file of every shard, as a pod sees them in its directory."""
    return {name: content for files in shards for name, content in files.items()}
