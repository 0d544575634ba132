"""Whose history a payment belongs to: the object of a name, not the name.

A merchant's rows stand under its ledger. The first object of a name has the plain name for it; one
that comes later under the same name has `name#uid`, and so sees nothing of the one before.
"""

from __future__ import annotations

# No name of a merchant has it.
OWNER_MARK = "#"


def ledger_of(name: str, uid: str | None, first_uid: str | None) -> str:
    """Return the ledger of the object `uid` of that name, whose first object was `first_uid`."""
    if uid is None or first_uid is None or uid == first_uid:
        return name
    return f"{name}{OWNER_MARK}{uid}"


def split_ledger(ledger: str) -> tuple[str, str | None]:
    """Return the merchant's name, and the uid where a later object of that name is meant."""
    name, _, uid = ledger.partition(OWNER_MARK)
    return name, uid or None


def public_name(ledger: str) -> str:
    """Return the name that the merchant itself knows."""
    return split_ledger(ledger)[0]
