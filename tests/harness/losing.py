"""A payment that the database loses, as a restore or a lagging replica does it."""

from __future__ import annotations

from typing import Any

from harness.gateway import Gateway


def lose(gateway: Gateway, transaction_id: str) -> dict[str, Any]:
    """Take the payment out, and whatever hangs on it. Its row as it was."""
    (row,) = gateway.rows(
        "SELECT * FROM transactions WHERE internal_transaction_id = %s", transaction_id
    )
    triggers = {"transaction_events": "append_only", "webhook_attempts": "guard_attempt"}
    for table, trigger in triggers.items():
        gateway.execute(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}")
    # In the order of the foreign keys.
    for table in ("transaction_events", "webhook_attempts", "callbacks", "deliveries"):
        gateway.execute(f"DELETE FROM {table} WHERE transaction_id = %s", row["id"])
    for table, trigger in triggers.items():
        gateway.execute(f"ALTER TABLE {table} ENABLE TRIGGER {trigger}")
    gateway.execute("ALTER TABLE transactions DISABLE TRIGGER refuse_to_forget")
    gateway.execute("DELETE FROM transactions WHERE id = %s", row["id"])
    gateway.execute("ALTER TABLE transactions ENABLE TRIGGER refuse_to_forget")
    return row


def bring_back(gateway: Gateway, row: dict[str, Any]) -> None:
    """The payment appears again, as another row."""
    names = [name for name in row if name != "id"]
    columns, marks = ", ".join(names), ", ".join(["%s"] * len(names))
    gateway.execute(
        f"INSERT INTO transactions ({columns}) VALUES ({marks})", *[row[name] for name in names]
    )
