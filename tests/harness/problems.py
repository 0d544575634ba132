"""What every error answer must look like (RFC 9457)."""

from __future__ import annotations

from typing import Any, Protocol

from harness.wire import Reply

# Written out: callers compare with these words, so a test must notice when one changes.
TYPE_PREFIX = "https://mpesa-gateway.dev/problems/"


class _Response(Protocol):
    status_code: int

    @property
    def headers(self) -> Any: ...
    def json(self) -> Any: ...


def assert_problem(
    response: _Response | Reply, status: int, slug: str, *fields: str
) -> dict[str, Any]:
    """The problem document, once it is well-formed. `fields`: exactly these are named as bad."""
    found = response.status if isinstance(response, Reply) else response.status_code
    document: dict[str, Any] = response.json()
    assert found == status, document
    assert response.headers["content-type"] == "application/problem+json"
    assert document["type"] == TYPE_PREFIX + slug, document
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    if fields:
        assert sorted(error["field"] for error in document["errors"]) == sorted(fields), document
        assert all(error["message"] for error in document["errors"])
    if "retry_after" in document:
        assert response.headers["retry-after"] == str(document["retry_after"])
        assert document["retry_after"] >= 1
    return document
