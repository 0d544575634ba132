"""Secrets are compared in constant time: shown in the syntax tree, and by what is called."""

from __future__ import annotations

import ast
import hashlib
import hmac
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.merchants import write_merchant
from harness.settings import API_KEY, environment
from mpesa_gateway.config import Config
from mpesa_gateway.domain.ids import CallbackToken, find_callback_token
from mpesa_gateway.merchants.directory import MerchantDirectory

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "operator").rglob("*.py")])
_SECRET = re.compile(
    r"secret|passkey|password|token|api_?key|signature|digest|sha256|hmac", re.IGNORECASE
)
# Comparisons whose words look like secrets, by file, and why nobody learns one by their timing.
NO_SECRETS = {
    # SHA-256 of files that the operator itself published, or of credentials it read itself.
    "operator/mpesa_operator/daraja.py",
    "operator/mpesa_operator/keys.py",
    "operator/mpesa_operator/pods.py",
    "operator/mpesa_operator/reconcile.py",
    "operator/mpesa_operator/status.py",
    "operator/mpesa_operator/pod_poller.py",
    # The stand-in for Safaricom, whose credentials are made up.
    "src/daraja_simulator/tokens.py",
    "src/daraja_simulator/validation.py",
    # Two tokens that Safaricom gave us; no caller brings one.
    "src/mpesa_gateway/clients/token.py",
    # Error codes about tokens.
    "src/mpesa_gateway/domain/push.py",
    # Whether one of our own secrets is in a log line.
    "src/mpesa_gateway/telemetry/masking.py",
    # The digest of a body, for the caller whose key was accepted before.
    "src/mpesa_gateway/usecases/payments.py",
}


def comparisons(path: Path, root: Path = ROOT) -> Iterator[str]:
    """Each `==`, `!=` or `in` one of whose sides is called like a secret."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Compare):
            continue
        if not all(isinstance(it, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for it in node.ops):
            continue
        sides = [node.left, *node.comparators]
        if any(_is_secret(side) for side in sides):
            yield f"{path.relative_to(root)}: {ast.unparse(node)}"


def _is_secret(side: ast.expr) -> bool:
    """A name, an attribute or a call of one; a text in the source is no secret."""
    match side:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return bool(_SECRET.search(name))
        case ast.Call(func=inner) | ast.Subscript(value=inner) | ast.Await(value=inner):
            return _is_secret(inner)
    return False


def test_nothing_that_is_called_like_a_secret_is_compared_with_an_operator() -> None:
    found = {path.relative_to(ROOT).as_posix(): list(comparisons(path)) for path in SOURCES}

    assert {file for file, expressions in found.items() if expressions} == NO_SECRETS


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.py"
    hostile.write_text(
        "ok = given == self.api_key or token() != x or key_sha256 in known\nn == 1\n"
    )

    assert len(list(comparisons(hostile, tmp_path))) == 3


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """What `hmac.compare_digest` was asked."""
    seen: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare_digest(left: bytes, right: bytes) -> bool:
        seen.append((left, right))
        return real(left, right)

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    return seen


def test_an_api_key_is_compared_with_each_of_its_merchants_digests(
    compared: list[tuple[bytes, bytes]], tmp_path: Path
) -> None:
    """And with the first one too when the second fits: no comparison is left out."""
    keys = [hashlib.sha256(key.encode()) for key in ("older-key", "newer-key")]
    write_merchant(tmp_path, apiKeySHA256=[key.hexdigest() for key in keys])
    known = tuple(key.digest() for key in keys)
    merchants = directory(tmp_path)

    for text in ("older-key", "newer-key"):
        compared.clear()
        assert merchants.current().find_by_key(text) is not None
        assert compared == [(hashlib.sha256(text.encode()).digest(), it) for it in known]
    assert merchants.current().find_by_key("unknown") is None


def test_a_merchant_is_looked_up_by_digest_only(tmp_path: Path) -> None:
    """A dictionary of the keys themselves would compare them byte by byte."""
    write_merchant(tmp_path)
    snapshot = directory(tmp_path).current()

    assert len(snapshot.by_key) == 2
    assert all(len(it) == 32 for it in snapshot.by_key)
    assert API_KEY.encode() not in snapshot.by_key


def test_a_callback_token_is_compared_by_the_digest_of_its_secret(
    compared: list[tuple[bytes, bytes]],
) -> None:
    token = CallbackToken(uuid.UUID(int=7), bytes(range(16)))
    found = find_callback_token(token.text)
    assert found is not None

    assert found.matches(token.secret_sha256)
    assert not found.matches(bytes(32))
    assert compared == [(token.secret_sha256,) * 2, (token.secret_sha256, bytes(32))]


def directory(path: Path) -> MerchantDirectory:
    """The merchants of that directory, and `default`."""
    config = Config.from_env(
        environment(
            database_url="postgresql://nobody@127.0.0.1:1/none",
            redis_url="redis://127.0.0.1:1/0",
            base_url="http://127.0.0.1:1",
            callback_url="http://127.0.0.1:1/callback",
            merchants_dir=str(path),
        )
    )
    merchants = MerchantDirectory(config)
    merchants.refresh()
    return merchants
