"""The merchants: `default` from the environment, others from files that may change at any time.

`MerchantDirectory.current()` is one immutable snapshot. A watcher thread swaps it when the
directory changes; a broken file keeps the last good version of that merchant.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from mpesa_gateway import metrics
from mpesa_gateway.config import Config
from mpesa_gateway.domain.bundle import bundle_sha256, file_digest
from mpesa_gateway.domain.duration import parse_schedule
from mpesa_gateway.domain.endpoint import parse_endpoint
from mpesa_gateway.domain.merchant import (
    DEFAULT_MERCHANT,
    DEFAULT_RETRY_SCHEDULE,
    Credentials,
    Merchant,
    TransactionType,
    parse_networks,
)
from mpesa_gateway.domain.signature import signing_key
from mpesa_gateway.errors import InvalidInputError
from mpesa_gateway.log import get_logger

LOGGER = get_logger(__name__)
POLL_INTERVAL_S = 1.0
MAX_FILES = 5000
MAX_FILE_BYTES = 64 * 1024
_URL = TypeAdapter(AnyHttpUrl)

Text = Annotated[str, Field(min_length=1, max_length=512)]
Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=320
    ),
]


def _http_url(value: str) -> str:
    _URL.validate_python(value)
    return value.rstrip("/")


def _secret(value: str) -> str:
    signing_key(value)
    return value


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Credentials(_Model):
    consumer_key: Text = Field(alias="consumerKey")
    consumer_secret: Text = Field(alias="consumerSecret")
    passkey: Text


class _Callback(_Model):
    allowed_cidrs: list[Text] = Field(default=[], alias="allowedCIDRs", max_length=256)


class _Webhook(_Model):
    url: Text | None = None
    allowed_hosts: list[Text] = Field(default=[], alias="allowedHosts", max_length=64)
    secrets: list[Annotated[Text, AfterValidator(_secret)]] = Field(min_length=1, max_length=8)
    retry_schedule: list[Text] | None = Field(default=None, alias="retrySchedule", max_length=32)


class _Limits(_Model):
    min_amount: int | None = Field(default=None, alias="minAmount", ge=1)
    max_amount: int | None = Field(default=None, alias="maxAmount", ge=1)
    initiate_per_minute: int | None = Field(default=None, alias="initiatePerMinute", ge=0)


class MerchantFile(_Model):
    """One merchant file, version 1: MerchantConfig's words with the secrets resolved."""

    version: Literal[1]
    name: Name
    environment: Literal["sandbox", "production"]
    base_url: Annotated[str, AfterValidator(_http_url)] | None = Field(
        default=None, alias="baseUrl"
    )
    short_code: str = Field(alias="shortCode", pattern=r"^[0-9]{5,7}$")
    transaction_type: TransactionType = Field(alias="transactionType")
    till_number: str | None = Field(default=None, alias="tillNumber", pattern=r"^[0-9]{5,8}$")
    credentials: _Credentials
    api_key_sha256: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        alias="apiKeySHA256", min_length=1, max_length=8
    )
    callback: _Callback = _Callback()
    webhook: _Webhook
    limits: _Limits = _Limits()
    suspended: bool = False
    draining: bool = False

    @model_validator(mode="after")
    def _till_exactly_for_buy_goods(self) -> MerchantFile:
        buys_goods = self.transaction_type == "CustomerBuyGoodsOnline"
        if buys_goods != (self.till_number is not None):
            raise ValueError("tillNumber is needed for CustomerBuyGoodsOnline, and only then")
        low, high = self.limits.min_amount, self.limits.max_amount
        if low is not None and high is not None and low > high:
            raise ValueError("limits.minAmount is above limits.maxAmount")
        return self

    def to_merchant(self, config: Config) -> Merchant:
        """The merchant. Raises ValueError with what the file has wrong."""
        limits = self.limits
        try:
            if self.webhook.url is not None:
                parse_endpoint(self.webhook.url, allow_private=config.webhook_allow_private)
        except InvalidInputError as error:
            raise ValueError(f"webhook.url: {error.problems[0].message}") from error
        return Merchant(
            name=self.name,
            base_url=self.base_url or config.base_url_for(self.environment),
            short_code=self.short_code,
            transaction_type=self.transaction_type,
            till_number=self.till_number,
            credentials=Credentials(
                self.credentials.consumer_key,
                self.credentials.consumer_secret,
                self.credentials.passkey,
            ),
            api_key_sha256=tuple(bytes.fromhex(text) for text in self.api_key_sha256),
            allowed_networks=parse_networks(self.callback.allowed_cidrs),
            webhook_url=self.webhook.url,
            allowed_hosts=tuple(host.lower().rstrip(".") for host in self.webhook.allowed_hosts),
            webhook_secrets=tuple(self.webhook.secrets),
            retry_schedule=_schedule(self.webhook.retry_schedule),
            **{
                name: value
                for name, value in {
                    "min_amount": None if limits.min_amount is None else Decimal(limits.min_amount),
                    "max_amount": None if limits.max_amount is None else Decimal(limits.max_amount),
                    "initiate_per_minute": limits.initiate_per_minute,
                }.items()
                if value is not None
            },  # type: ignore[arg-type]
            suspended=self.suspended,
            draining=self.draining,
        )


def _schedule(texts: list[str] | None) -> tuple[timedelta, ...]:
    return DEFAULT_RETRY_SCHEDULE if texts is None else parse_schedule(texts)


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

    def find(self, name: str) -> Merchant | None:
        """The merchant of that name."""
        return self.by_name.get(name)

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

    def __init__(self, config: Config) -> None:
        self._config = config
        self._snapshot = Snapshot()
        self._good: dict[str, _Loaded] = {}
        self._seen: object = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.loaded = False

    def current(self) -> Snapshot:
        """The merchants now."""
        return self._snapshot

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
        if self.loaded and seen == self._seen:
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
        self._snapshot = _snapshot(default, good, errors, sha256)
        self.loaded = True
        self._report()

    def _parse(self, content: bytes) -> Merchant:
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"longer than {MAX_FILE_BYTES} bytes")
        return MerchantFile.model_validate_json(content).to_merchant(self._config)

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
    """Names and keys must be unique: the first file keeps them, a later one is an error."""
    by_name: dict[str, Merchant] = {}
    by_key: dict[bytes, Merchant] = {}
    candidates = [(DEFAULT_MERCHANT, default)] if default is not None else []
    candidates += [(file, loaded.merchant) for file, loaded in files.items()]
    digests: dict[str, str] = {}
    for loaded in files.values():
        digests.setdefault(loaded.merchant.name, loaded.digest)
    for file, merchant in candidates:
        if merchant.name in by_name:
            errors[file] = f"another file describes {merchant.name} already"
            continue
        taken = [key for key in merchant.api_key_sha256 if key in by_key]
        if taken:
            errors[file] = f"an API key of {merchant.name} belongs to another merchant already"
            merchant = replace(  # noqa: PLW2901 - without the keys it does not own
                merchant,
                api_key_sha256=tuple(k for k in merchant.api_key_sha256 if k not in by_key),
            )
        by_name[merchant.name] = merchant
        by_key.update(dict.fromkeys(merchant.api_key_sha256, merchant))
    names = {loaded.merchant.name: file for file, loaded in reversed(list(files.items()))}
    return Snapshot(by_name, by_key, errors, digests, sha256, names)


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
