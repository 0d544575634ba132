"""Problem details (RFC 9457): every error that the API answers, and that a transaction keeps."""

from __future__ import annotations

from typing import Any

TYPE_PREFIX = "https://mpesa-gateway.dev/problems/"

# Slug -> title. The slugs are stable; docs/api.md explains each.
TITLES = {
    "invalid-input": "The request is not valid",
    "unauthorized": "No valid API key",
    "forbidden": "Not allowed",
    "merchant-suspended": "The merchant is suspended",
    "merchant-removed": "The merchant is being removed",
    "not-found": "Not found",
    "method-not-allowed": "Method not allowed",
    "request-timeout": "The request came too slowly",
    "key-in-flight": "The first request with this key has not ended",
    "key-reused": "The idempotency key was used for another payment",
    "prompt-open": "A payment prompt may still be open on this phone",
    "order-paid": "The order is paid",
    "order-open": "An attempt of the order may still be paid",
    "nothing-to-deliver": "There is no webhook to send again",
    "body-too-large": "The body is too large",
    "rate-limited": "Too many payments in a minute",
    "refused-by-safaricom": "Safaricom refused the payment request",
    "not-sent": "The payment request was not sent",
    "unavailable": "The gateway cannot take the request now",
    "recovery": "The database has lost payments",
    "internal-error": "The gateway failed",
}


def problem(slug: str, status: int, detail: str, **extensions: Any) -> dict[str, Any]:
    """A problem document. Extensions that are None are left out."""
    return {
        "type": TYPE_PREFIX + slug,
        "title": TITLES[slug],
        "status": status,
        "detail": detail,
        **{name: value for name, value in extensions.items() if value is not None},
    }
