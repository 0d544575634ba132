"""Whose API key a request carries."""

from __future__ import annotations

from falcon.asgi import Request

from mpesa_gateway.api.errors import UnauthorizedError
from mpesa_gateway.domain.merchant import Merchant
from mpesa_gateway.merchants.directory import Snapshot

MAX_KEY_LENGTH = 512
NO_KNOWN_KEY = (
    "the request carries no API key that is known here: send the merchant's key in"
    " X-Internal-Secret or as a bearer token, and compare it with MPESA_INTERNAL_SECRET or with the"
    " Secret of the MerchantConfig"
)


def authenticate(req: Request, merchants: Snapshot) -> Merchant:
    """The merchant whose key is in `X-Internal-Secret` or behind `Authorization: Bearer`.

    Raises UnauthorizedError, with one sentence for every reason.
    """
    # The HTTP parser leaves white space behind a value, which is no part of it (RFC 9110, 5.5).
    key = (req.get_header("X-Internal-Secret") or "").strip(" \t")
    key = key or _bearer(req.get_header("Authorization"))
    merchant = merchants.find_by_key(key) if key and len(key) <= MAX_KEY_LENGTH else None
    if merchant is None:
        raise UnauthorizedError(NO_KNOWN_KEY)
    return merchant


def _bearer(header: str | None) -> str:
    scheme, _, credentials = (header or "").partition(" ")
    return credentials.strip(" \t") if scheme.lower() == "bearer" else ""
