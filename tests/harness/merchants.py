"""Merchant files, as the operator writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from harness.settings import PASSKEY


def sha256_hex(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def merchant_file(name: str = "shops/duka", *, key: str = "key-of-duka", **changes: Any) -> Any:
    """The content of a good file. A field that is `...` is left out."""
    content = {
        "version": 1,
        "name": name,
        "environment": "sandbox",
        "shortCode": "600100",
        "transactionType": "CustomerPayBillOnline",
        "credentials": {
            "consumerKey": "duka-consumer-key",
            "consumerSecret": "duka-consumer-secret",
            "passkey": PASSKEY,
        },
        "apiKeySHA256": [sha256_hex(key)],
        "webhook": {"secrets": ["duka-webhook-secret"]},
        **changes,
    }
    return {field: value for field, value in content.items() if value is not ...}


def write_merchant(directory: Path, file: str = "duka.json", **changes: Any) -> Path:
    """A good file in that directory; `changes` as in `merchant_file`."""
    return write_file(directory / file, json.dumps(merchant_file(**changes)))


def write_file(path: Path, content: str | bytes) -> Path:
    """Write or replace it in one step."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    return new.rename(path)
