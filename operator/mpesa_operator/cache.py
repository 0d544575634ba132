"""The MerchantConfigs that are known: from the watch, and from a full listing now and then."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from mpesa_operator.claims import account
from mpesa_operator.conditions import read_time
from mpesa_operator.plan import Merchant
from mpesa_operator.platform_settings import DEFAULT_GATEWAY, FINALIZER, GENERATED_SUFFIX
from mpesa_operator.spec import MerchantSpec

Body = Mapping[str, Any]
REMEMBERED_GONE = 4096


def read_merchant(body: Body) -> Merchant:
    """The object as we need it. Raises ValidationError when the spec is not one."""
    meta = body["metadata"]
    return Merchant(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        created_at=datetime.fromisoformat(meta["creationTimestamp"]),
        spec=MerchantSpec.model_validate(body.get("spec") or {}),
        status=body.get("status") or {},
        has_finalizer=FINALIZER in (meta.get("finalizers") or ()),
        deleted_at=read_time(meta.get("deletionTimestamp")),
    )


def body_key(body: Body) -> str:
    """`namespace/name`."""
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"


def gateway_of(body: Body) -> str:
    """The gateway that the object asks for. An older CRD has no such field."""
    gateway: str = (body.get("spec") or {}).get("gateway") or DEFAULT_GATEWAY
    return gateway


class Objects:
    """The latest version of each object of a gateway. Older versions that come late are ignored."""

    def __init__(self, gateway: str = DEFAULT_GATEWAY) -> None:
        self._gateway = gateway
        self._merchants: dict[str, Merchant] = {}
        self._versions: dict[str, int] = {}
        self._by_account: dict[str, set[str]] = defaultdict(set)
        self._by_secret: dict[str, set[str]] = defaultdict(set)
        self._gone: dict[str, None] = {}
        self.invalid: set[str] = set()
        # Namespaces that may not be listed now: what is in them is unknown, not gone.
        self.blind: set[str] = set()
        # Namespaces whose Secrets are watched; `*` is all.
        self.watched: set[str] = set()

    def __len__(self) -> int:
        return len(self._merchants)

    def merchants(self) -> Iterable[Merchant]:
        """Every object, as it is now."""
        return tuple(self._merchants.values())

    def find(self, key: str) -> Merchant | None:
        """The object of that name."""
        return self._merchants.get(key)

    def put(self, body: Body) -> bool:
        """Remember the object. True when something changed that is to be acted upon."""
        key, version = body_key(body), _version(body)
        if gateway_of(body) != self._gateway:
            return False
        if version < self._versions.get(key, -1) or body["metadata"]["uid"] in self._gone:
            return False
        self._versions[key] = version
        try:
            merchant = read_merchant(body)
        except ValidationError:
            # Only a CRD that is newer or older than this operator lets that through.
            self.invalid.add(key)
            return False
        self.invalid.discard(key)
        before = self._merchants.get(key)
        self._unindex(before)
        self._merchants[key] = merchant
        self._by_account[account(merchant.spec)].add(key)
        for name in secret_names(merchant.spec):
            self._by_secret[f"{merchant.namespace}/{name}"].add(key)
        return before is None or _essence(before) != _essence(merchant)

    def remove(self, key: str) -> set[str]:
        """Forget the object; who had the same short code may now have it."""
        merchant = self._merchants.pop(key, None)
        self._versions.pop(key, None)
        self.invalid.discard(key)
        self._unindex(merchant)
        if merchant is None:
            return set()
        self._remember_gone(merchant.uid)
        return self.same_account(merchant)

    def _remember_gone(self, uid: str) -> None:
        """A listing that was under way when the object went must not bring it back."""
        self._gone[uid] = None
        if len(self._gone) > REMEMBERED_GONE:
            del self._gone[next(iter(self._gone))]

    def _unindex(self, merchant: Merchant | None) -> None:
        if merchant is None:
            return
        _drop(self._by_account, account(merchant.spec), merchant.key)
        for name in secret_names(merchant.spec):
            _drop(self._by_secret, f"{merchant.namespace}/{name}", merchant.key)

    def same_account(self, merchant: Merchant) -> set[str]:
        """The other objects that claim the same short code and till."""
        return self._by_account.get(account(merchant.spec), set()) - {merchant.key}

    def users_of_secret(self, namespace: str, name: str) -> set[str]:
        """The objects that read a Secret, or that it was generated for."""
        users = set(self._by_secret.get(f"{namespace}/{name}", ()))
        owner = f"{namespace}/{name.removesuffix(GENERATED_SUFFIX)}"
        if name.endswith(GENERATED_SUFFIX) and owner in self._merchants:
            users.add(owner)
        return users

    def in_namespace(self, namespace: str) -> set[str]:
        """The objects of a namespace, or all with `*`."""
        return {key for key, it in self._merchants.items() if namespace in ("*", it.namespace)}

    def hears_of_secrets(self, namespace: str) -> bool:
        """Whether a change of a Secret there is told, and need not be looked for."""
        return not self.watched.isdisjoint((namespace, "*"))


def secret_names(spec: MerchantSpec) -> set[str]:
    """The Secrets that a merchant reads, in its own namespace."""
    names = {spec.credentials_secret_ref.name}
    if spec.webhook.signing_secret_ref is not None:
        names.add(spec.webhook.signing_secret_ref.name)
    if spec.api_key is not None and spec.api_key.secret_ref is not None:
        names.add(spec.api_key.secret_ref.name)
    return names


def _essence(merchant: Merchant) -> tuple[object, ...]:
    """What a change of is acted upon: not the status, which we write ourselves."""
    return merchant.uid, merchant.generation, merchant.has_finalizer, merchant.deleted_at


def _drop(index: dict[str, set[str]], name: str, key: str) -> None:
    index[name].discard(key)
    if not index[name]:
        del index[name]


def _version(body: Body) -> int:
    """Versions are numbers that grow; what is none is taken as it comes."""
    text = str(body["metadata"].get("resourceVersion") or "")
    return int(text) if text.isascii() and text.isdigit() else 0
