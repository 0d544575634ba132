"""The MerchantConfigs that are known: from the watch, and from a full listing now and then."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from mpesa_operator.conditions import read_time
from mpesa_operator.plan import Merchant
from mpesa_operator.platform import FINALIZER
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


class Objects:
    """The latest version of each object. Older versions that come late are ignored."""

    def __init__(self) -> None:
        self._merchants: dict[str, Merchant] = {}
        self._versions: dict[str, int] = {}
        self._by_short_code: dict[str, set[str]] = defaultdict(set)
        self._by_secret: dict[str, set[str]] = defaultdict(set)
        self._gone: dict[str, None] = {}
        self.invalid: set[str] = set()
        # Namespaces that may not be listed now: what is in them is unknown, not gone.
        self.blind: set[str] = set()

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
        self._by_short_code[merchant.spec.short_code].add(key)
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
        return self.same_short_code(merchant)

    def _remember_gone(self, uid: str) -> None:
        """A listing that was under way when the object went must not bring it back."""
        self._gone[uid] = None
        if len(self._gone) > REMEMBERED_GONE:
            del self._gone[next(iter(self._gone))]

    def _unindex(self, merchant: Merchant | None) -> None:
        if merchant is None:
            return
        _drop(self._by_short_code, merchant.spec.short_code, merchant.key)
        for name in secret_names(merchant.spec):
            _drop(self._by_secret, f"{merchant.namespace}/{name}", merchant.key)

    def same_short_code(self, merchant: Merchant) -> set[str]:
        """The other objects with that short code."""
        return self._by_short_code.get(merchant.spec.short_code, set()) - {merchant.key}

    def users_of_secret(self, namespace: str, name: str) -> set[str]:
        """The objects that read a Secret."""
        return set(self._by_secret.get(f"{namespace}/{name}", ()))

    def rival(self, merchant: Merchant, is_published: Callable[[str], bool]) -> str | None:
        """The object that has the short code, when it is not this one: the oldest.

        Times have whole seconds; between two of one second, who is published already stays.
        """
        others = (self._merchants[key] for key in self.same_short_code(merchant))
        claims = [it for it in others if it.spec.environment == merchant.spec.environment]
        first = min(
            [merchant, *claims], key=lambda it: (it.created_at, not is_published(it.key), it.key)
        )
        return None if first is merchant else first.key


def secret_names(spec: MerchantSpec) -> set[str]:
    """The Secrets that a merchant reads, in its own namespace."""
    names = {spec.credentials_secret_ref.name}
    if spec.webhook.signing_secret_ref is not None:
        names.add(spec.webhook.signing_secret_ref.name)
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
