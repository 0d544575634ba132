"""The bundle as the operator knows it: files in shards, each shard one Secret."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mpesa_gateway.domain.bundle import SUFFIX
from mpesa_operator import claims
from mpesa_operator.credentials import Problem
from mpesa_operator.merchant_file import security_edits

# Kubernetes takes 1 MiB of data in a Secret; names and bookkeeping need some room beside it.
LARGEST_SHARD = 1_000_000
# What one merchant may take of it: its file has about 1 KiB, with every list full far more.
LARGEST_ENTRY = 8 * 1024
# Seven replaced keys and seven replaced secrets of ours take 840 bytes. Every published file has
# this room to grow, so that a key that leaked can be replaced however full the shard is.
ROTATION_ROOM = 1024

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


def apply_changes(
    files: Files,
    changes: Mapping[str, bytes | None],
    *,
    elsewhere: Files | None = None,
    retired: Mapping[str, str] | None = None,
    namespace_max: int = 0,
) -> Applied:
    """The shard after the changes, in the order in which they came. None removes a file.

    What claims another's key or short code, or would not fit, is refused by itself: the others go
    on, and what was there stays, but for its keys and flags. `elsewhere` are the other shards,
    `retired` says whose an API key was that is in no file any more, `namespace_max` how many
    merchants a namespace may have; 0 is no limit.
    """
    result = dict(files)
    refused: dict[str, Problem] = {}
    for name in [it for it, content in changes.items() if content is None]:
        result.pop(name, None)
    taken = _taken(files, result, elsewhere or {}, retired or {})
    for name, content in changes.items():
        if content is None:
            continue
        before = result.get(name)
        problem = _crowded(name, namespace_max, result, elsewhere or {})
        problem = problem or _refusal(name, content, result, taken)
        after = content if problem is None else _safe_edit(name, content, result, taken)
        if problem is not None:
            refused[name] = problem
        if after is not None:
            result[name] = after
            claims.hand_over(taken, name, before, after)
    return Applied(result, refused)


def _taken(
    before: Files, after: Files, elsewhere: Files, retired: Mapping[str, str]
) -> dict[str, str]:
    """Which file has which claim. A key that goes stays with its namespace (`namespace.`)."""
    gone = {name: content for name, content in before.items() if name not in after}
    keys = {claim: name for claim, name in claims.holders(gone).items() if claims.is_key(claim)}
    kept = {claim: name.partition(".")[0] + "." for claim, name in keys.items()}
    own = {claim: key.partition("/")[0] + "." for claim, key in retired.items()}
    return {**own, **kept, **claims.holders({**elsewhere, **after})}


def _crowded(name: str, namespace_max: int, *shards: Files) -> Problem | None:
    """Why a namespace cannot have one more merchant. Those that it has stay."""
    if not namespace_max or any(name in files for files in shards):
        return None
    prefix = name.partition(".")[0] + "."
    if sum(it.startswith(prefix) for files in shards for it in files) < namespace_max:
        return None
    return Problem(
        "TooManyMerchants",
        f"The namespace has {namespace_max} merchants already, and may not have more; the platform"
        " team sets operator.maxMerchantsPerNamespace.",
    )


def _refusal(name: str, content: bytes, files: Files, taken: Mapping[str, str]) -> Problem | None:
    claim = claims.taken_claim(name, content, files.get(name), taken)
    if claim is not None:
        return claims.conflict(
            claim, holder=merchant_key(taken[claim]), claimant=merchant_key(name)
        )
    return None if _has_room(name, content, files) else _too_large()


def _has_room(name: str, content: bytes, files: Files) -> bool:
    """Whether the file fits, and leaves to every other what a rotation of its keys needs."""
    if _size_with(name, content, files) > LARGEST_SHARD:
        return False
    before = files.get(name)
    if before is not None and len(content) <= len(before):
        return True
    reserved = ROTATION_ROOM * len({*files, name})
    return _size_with(name, content, files) + reserved <= LARGEST_SHARD


def _size_with(name: str, content: bytes, files: Files) -> int:
    before = shard_bytes({name: files[name]}) if name in files else 0
    return shard_bytes(files) - before + shard_bytes({name: content})


def _safe_edit(name: str, content: bytes, files: Files, taken: Mapping[str, str]) -> bytes | None:
    """The published file with the new keys and flags, which a refusal must not hold up."""
    before = files.get(name)
    if before is None:
        return None
    for edit in security_edits(before, content):
        is_taken = claims.taken_claim(name, edit, before, taken) is not None
        if not is_taken and _size_with(name, edit, files) <= LARGEST_SHARD:
            return edit
    return before


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
