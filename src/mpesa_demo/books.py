"""The books of both sides at the end: the simulator's ledger against the gateway's database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mpesa_demo.payments import Snapshot
from mpesa_demo.receiver import Received
from mpesa_demo.scenarios import COMPLETED, FAILED, PENDING


@dataclass(frozen=True)
class Books:
    """What was counted. Amounts are shillings; `kept` counts callbacks, `bodies` different ones.

    `explained_elsewhere` are debits of payments that are not COMPLETED, but tell of the money: by
    a conflict, or by asking for a person.
    """

    pushes: int
    accepted: int
    transactions: Counter[str]
    debits: int
    debited: int
    explained_elsewhere: int
    unexplained: int
    charged_twice: int
    callbacks_sent: int
    callbacks_kept: int
    bodies: int
    quarantined: int
    webhooks: int
    unverified: int
    unknown_webhooks: int

    @property
    def created(self) -> int:
        """Transactions in the database."""
        return self.transactions.total()


def read_books(snapshot: Snapshot, webhooks: Sequence[Received]) -> Books:
    """Count. The snapshot must be of a moment when nothing is under way."""
    ledger, views = snapshot.ledger, {view["phone"]: view for view in snapshot.views}
    debits_of = Counter(debit["phone"] for debit in ledger.debits)
    states = [_explains(views.get(debit["phone"])) for debit in ledger.debits]
    ids = {view["transaction_id"] for view in snapshot.views}
    return Books(
        pushes=len(ledger.pushes),
        accepted=sum(push["accepted"] for push in ledger.pushes),
        transactions=Counter(view["status"] for view in snapshot.views),
        debits=len(ledger.debits),
        debited=sum(debit["amount"] for debit in ledger.debits),
        explained_elsewhere=states.count("elsewhere"),
        unexplained=states.count("nowhere"),
        charged_twice=sum(count > 1 for count in debits_of.values()),
        callbacks_sent=len(ledger.callbacks),
        callbacks_kept=sum(row.copies for row in snapshot.callbacks),
        bodies=len(snapshot.callbacks),
        quarantined=sum(row.state == "QUARANTINED" for row in snapshot.callbacks),
        webhooks=len(webhooks),
        unverified=sum(not webhook.verified for webhook in webhooks),
        unknown_webhooks=sum(webhook.transaction_id not in ids for webhook in webhooks),
    )


def _explains(view: dict[str, object] | None) -> str:
    """Where the database says that this phone was charged."""
    if view is None:
        return "nowhere"
    if view["status"] == COMPLETED:
        return "completed"
    told = view["attention"] or view.get("conflicts")
    return "elsewhere" if told else "nowhere"


def find_disagreements(books: Books) -> Iterator[str]:
    """What does not agree between the two sides, in sentences."""
    if books.charged_twice:
        yield f"{books.charged_twice} customers were charged more than once"
    if books.pushes != books.created:
        yield f"{books.pushes} pushes reached Safaricom for {books.created} transactions"
    if books.unexplained:
        yield f"{books.unexplained} debits are not told of anywhere in the database"
    if books.debits != books.transactions[COMPLETED] + books.explained_elsewhere:
        yield f"{books.debits} debits, but {books.transactions[COMPLETED]} transactions COMPLETED"
    if books.callbacks_sent != books.callbacks_kept:
        yield f"{books.callbacks_sent} callbacks were sent, {books.callbacks_kept} are kept"
    if books.unverified:
        yield f"{books.unverified} webhooks came with a signature that does not verify"
    if books.unknown_webhooks:
        yield f"{books.unknown_webhooks} webhooks tell of transactions that do not exist"


def describe_transactions(books: Books) -> str:
    """`16 COMPLETED, 9 FAILED, 3 PENDING`."""
    return ", ".join(f"{books.transactions[it]} {it}" for it in (COMPLETED, FAILED, PENDING))
