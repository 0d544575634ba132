"""The bundle: the merchant files that the operator publishes and the pods read.

Both sides compute these digests, so that the operator can tell from a pod's report whether the
pod has loaded what was published.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

DIGEST_LENGTH = 16
SUFFIX = ".json"


def file_name(namespace: str, name: str) -> str:
    """The merchant's file. A namespace has no dots, so the name is unique."""
    return f"{namespace}.{name}{SUFFIX}"


def file_digest(content: bytes) -> str:
    """Tells two versions of a merchant file apart: 16 hexadecimal characters.

    A file holds secrets of high entropy; what is left of its SHA-256 tells nothing about them.
    """
    return hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]


def bundle_sha256(files: Mapping[str, bytes]) -> str:
    """One digest of all files by name and content, whatever their order."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    return total.hexdigest()
