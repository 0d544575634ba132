"""The merchants: `default` from the environment, others from files that may change at any time.

`MerchantDirectory.current()` is one immutable snapshot. A watcher thread swaps it when the
directory changes; a broken file keeps the last good version of that merchant.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mpesa_gateway.config import Config
from mpesa_gateway.config.merchant_file import MerchantFile
from mpesa_gateway.config.production import check_merchant
from mpesa_gateway.domain.bundle import bundle_sha256, file_digest
from mpesa_gateway.domain.merchant import DEFAULT_MERCHANT, Merchant
from mpesa_gateway.domain.ownership import public_name, split_ledger
from mpesa_gateway.domain.shares import Tenancy, namespace_of
from mpesa_gateway.telemetry import metrics
from mpesa_gateway.telemetry.log import get_logger

LOGGER = get_logger(__name__)
POLL_INTERVAL_S = 1.0
MAX_FILES = 5000
MAX_FILE_BYTES = 64 * 1024
OWNERS_EVERY_S = 5.0
# The ledger of each name and uid; a name is missing while that cannot be known.
FindLedgers = Callable[[Mapping[str, str]], Mapping[str, str]]


@dataclass(frozen=True)
class Snapshot:
    """All merchants at one moment.

    `digests` says of each merchant which version of its file is loaded, `sha256` of the directory
    which version was seen: the operator compares both with what it published.
    """

    by_name: Mapping[str, Merchant] = field(default_factory=dict)
    by_key: Mapping[bytes, Merchant] = field(default_factory=dict, repr=False)
    errors: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    # Which file each merchant is from; `default` of the environment is from none.
    files: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def tenancy(self) -> Tenancy:
        """Who is served, as far as sharing is concerned."""
        if len(self.by_name) <= 1:
            return Tenancy.ONE_MERCHANT
        namespaces = {namespace_of(it) for it in self.by_name}
        return Tenancy.ONE_NAMESPACE if len(namespaces) == 1 else Tenancy.MANY

    def find(self, name: str) -> Merchant | None:
        """The merchant with that ledger, or with the one that it had before it adopted another."""
        found = self.by_name.get(name)
        plain, uid = split_ledger(name)
        if found is None and uid is not None and plain in self.by_name:
            adopter = self.by_name[plain]
            return adopter if adopter.uid == uid else None
        return found

    def find_by_key(self, api_key: str) -> Merchant | None:
        """Whose key this is. The look-up is by digest and the comparison constant in time."""
        digest = hashlib.sha256(api_key.encode("utf-8", "surrogateescape")).digest()
        merchant = self.by_key.get(digest)
        if merchant is None:
            return None
        matches = [hmac.compare_digest(digest, known) for known in merchant.api_key_sha256]
        return merchant if any(matches) else None


@dataclass(frozen=True)
class _Loaded:
    merchant: Merchant
    digest: str


class MerchantDirectory:
    """Holds the current snapshot, and reads the files again when they change."""

    def __init__(self, config: Config, ledgers: FindLedgers | None = None) -> None:
        self._config = config
        self._find_ledgers = ledgers
        self._ledgers: Mapping[str, str] = {}
        self._ask_owners_at = float("inf")
        self._snapshot = Snapshot()
        self._good: dict[str, _Loaded] = {}
        self._seen: object = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.loaded = False

    def current(self) -> Snapshot:
        """The merchants now."""
        return self._snapshot

    def tenancy(self) -> Tenancy:
        """Return who is served, so that no room is left for a merchant that does not exist."""
        return self._snapshot.tenancy

    def start(self) -> None:
        """Read once, now; then watch in the background."""
        self._try_refresh()
        if self._config.merchants_dir is not None:
            self._thread = threading.Thread(target=self._watch, name="merchants", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the watcher."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        while not self._stop.wait(POLL_INTERVAL_S):
            self._try_refresh()

    def _try_refresh(self) -> None:
        try:
            self.refresh()
        except OSError as error:
            # A file went while it was read, or the volume is away: what is known stays in use.
            metrics.config_last_reload_successful.set(0)
            LOGGER.warning("merchant files cannot be read", problem=type(error).__name__)

    def refresh(self) -> None:
        """Read the files if they changed, and swap the snapshot. Raises OSError."""
        files = self._files()
        seen = [(path.name, stamp) for path, stamp in files]
        if self.loaded and seen == self._seen and not self._has_other_ledgers():
            self._looked()
            return
        self._publish([path for path, _ in files])
        self._seen = seen
        self._looked()

    def _looked(self) -> None:
        """Once more without a fault of the volume; what the files themselves have wrong stays."""
        metrics.config_last_reload_successful.set(0 if self._snapshot.errors else 1)
        if self._config.merchants_dir is not None:
            metrics.config_last_look.set_to_current_time()

    def _files(self) -> list[tuple[Path, object]]:
        """The files and what changes when they do. Kubernetes keeps its own under `..data`."""
        directory = self._config.merchants_dir
        if directory is None:
            return []
        if not directory.is_dir():
            raise NotADirectoryError(directory)
        # Resolved once, so that all files are read from one generation of a Secret volume.
        data = directory / "..data"
        base = data.resolve() if data.exists() else directory
        files: list[tuple[Path, object]] = []
        for path in sorted(base.glob("*.json"))[:MAX_FILES]:
            if not path.name.startswith("."):
                stat = path.stat()
                files.append((path, (stat.st_mtime_ns, stat.st_size, stat.st_ino)))
        return files

    def _publish(self, paths: Iterable[Path]) -> None:
        good: dict[str, _Loaded] = {}
        errors: dict[str, str] = {}
        contents = {path.name: path.read_bytes() for path in paths}
        for name, content in contents.items():
            try:
                good[name] = _Loaded(self._parse(content), file_digest(content))
            except ValueError as error:
                errors[name] = _sentence(error)
                if name in self._good:
                    good[name] = self._good[name]
        self._good = good
        default, sha256 = self._config.default_merchant, bundle_sha256(contents)
        self._look_up_ledgers(good)
        self._snapshot = _snapshot(default, self._owned(good, errors), errors, sha256)
        self.loaded = True
        self._report()

    def _look_up_ledgers(self, good: Mapping[str, _Loaded]) -> None:
        uids = {it.merchant.name: it.merchant.uid for it in good.values() if it.merchant.uid}
        if self._find_ledgers is None or not uids:
            return
        self._ledgers = self._find_ledgers(uids)
        # The first object of a name stays that until the platform hands its history over.
        later = any(self._ledgers.get(name) != name for name in uids)
        self._ask_owners_at = time.monotonic() + OWNERS_EVERY_S if later else float("inf")

    def _has_other_ledgers(self) -> bool:
        """Ask again, now and then, where that can change something."""
        if time.monotonic() < self._ask_owners_at:
            return False
        before = self._ledgers
        self._look_up_ledgers(self._good)
        return self._ledgers != before

    def _owned(self, good: Mapping[str, _Loaded], errors: dict[str, str]) -> Mapping[str, _Loaded]:
        """The merchants under the names of their histories."""
        owned: dict[str, _Loaded] = {}
        for file, loaded in good.items():
            merchant = loaded.merchant
            ledger: str | None = merchant.name
            if self._find_ledgers is not None and merchant.uid is not None:
                ledger = self._ledgers.get(merchant.name)
            if ledger is None:
                errors[file] = "whose history the name has is not known: Postgres did not answer"
            else:
                owned[file] = replace(loaded, merchant=replace(merchant, name=ledger))
        return owned

    def _parse(self, content: bytes) -> Merchant:
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"longer than {MAX_FILE_BYTES} bytes")
        merchant = MerchantFile.model_validate_json(content).to_merchant(self._config)
        check_merchant(merchant, self._config.environment)
        return merchant

    def _report(self) -> None:
        snapshot = self._snapshot
        metrics.merchant_config_errors.set(len(snapshot.errors))
        # Twelve hexadecimal digits: a float holds them exactly.
        metrics.config_hash.set(int(snapshot.sha256[:12] or "0", 16))
        for name, problem in snapshot.errors.items():
            LOGGER.error("merchant file cannot be used", file=name, problem=problem)
        LOGGER.info("merchants loaded", merchants=len(snapshot.by_name))


def _snapshot(
    default: Merchant | None, files: Mapping[str, _Loaded], errors: dict[str, str], sha256: str
) -> Snapshot:
    """Names must be unique: the first file keeps one, a later one is an error.

    A key in two files opens neither: which of them it was made for cannot be told here. What the
    environment says of `default` is the platform's own word, so `default` keeps its key.
    """
    by_name: dict[str, Merchant] = {}
    by_key: dict[bytes, Merchant] = {}
    candidates = [(DEFAULT_MERCHANT, default)] if default is not None else []
    candidates += [(file, loaded.merchant) for file, loaded in files.items()]
    contested = _contested_keys(merchant for _, merchant in candidates)
    digests: dict[str, str] = {}
    for loaded in files.values():
        digests.setdefault(public_name(loaded.merchant.name), loaded.digest)
    for file, merchant in candidates:
        if merchant.name in by_name:
            errors[file] = f"another file describes {merchant.name} already"
            continue
        if merchant is not default and not contested.isdisjoint(merchant.api_key_sha256):
            errors[file] = f"an API key of {merchant.name} is another merchant's too: it opens none"
            own = tuple(key for key in merchant.api_key_sha256 if key not in contested)
            merchant = replace(merchant, api_key_sha256=own)  # noqa: PLW2901
        by_name[merchant.name] = merchant
        by_key.update(dict.fromkeys(merchant.api_key_sha256, merchant))
    names = {loaded.merchant.name: file for file, loaded in reversed(list(files.items()))}
    return Snapshot(by_name, by_key, errors, digests, sha256, names)


def _contested_keys(merchants: Iterable[Merchant]) -> frozenset[bytes]:
    """The API keys that more than one merchant has."""
    names: dict[bytes, set[str]] = {}
    for merchant in merchants:
        for key in merchant.api_key_sha256:
            names.setdefault(key, set()).add(merchant.name)
    return frozenset(key for key, owners in names.items() if len(owners) > 1)


def _sentence(error: ValueError) -> str:
    """What is wrong, without any value of the file."""
    if not isinstance(error, ValidationError):
        return str(error)
    problems: list[dict[str, Any]] = [
        dict(problem) for problem in error.errors(include_input=False)
    ]
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'file'}: {problem['msg']}"
        for problem in problems
    )
