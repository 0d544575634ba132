"""Every error of ours, as a tree. `api/errors.py` gives each an HTTP status.

GatewayError
├── ConfigError               a setting is wrong; lists every problem
├── InvalidInputError         a caller's value is wrong; names the field
├── TransitionError           a final transaction would change
├── UnavailableError          Postgres (or the work queue) cannot take it now
│   ├── SchemaBehindError     what this release needs is not there, or not ours to use
│   └── UnknownServerError    a server that this process has not examined yet
├── RecoveryError             the database has lost payments, and nobody has accepted that yet
├── NotFoundError             no such transaction for this merchant
├── RequestRefusedError       a rule of the gateway refuses the payment
│   ├── KeyInFlightError      the first request with this key has not ended
│   ├── KeyReusedError        the key was used for another payment
│   ├── PromptOpenError       a prompt may still be open on that phone
│   ├── OrderPaidError        the order has a payment that was paid
│   ├── OrderOpenError        the order has a payment that may still be paid
│   ├── RateLimitedError      more than the merchant's initiatePerMinute
│   ├── MerchantSuspendedError
│   ├── MerchantDrainingError
│   └── NothingToDeliverError no webhook exists for the transaction yet
├── ResolutionRefusedError    a person's word cannot be applied to the transaction
├── EgressRefusedError        the guard does not dial that endpoint
└── SchemaError               the database's schema is not the one of this release
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass


class GatewayError(Exception):
    """Base of the errors that the gateway raises on purpose."""


class ConfigError(GatewayError):
    """One or more settings are wrong; `problems` has a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class FieldProblem:
    """One bad field of a request: its name and a sentence for the caller."""

    field: str
    message: str


class InvalidInputError(GatewayError):
    """The caller's input is wrong; `problems` lists every bad field at once."""

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__("; ".join(f"{p.field}: {p.message}" for p in problems))
        self.problems = problems

    @classmethod
    def of(cls, field: str, message: str) -> InvalidInputError:
        """One bad field."""
        return cls([FieldProblem(field, message)])


class TransitionError(GatewayError):
    """A transaction that is final already would be changed."""


class UnavailableError(GatewayError):
    """Postgres, or a bounded queue in front of it, cannot take the work now."""


class SchemaBehindError(UnavailableError):
    """The database lacks what this release needs, or its role may not use it; says what to do."""


class UnknownServerError(UnavailableError):
    """The connection leads to a database server that this process has not examined."""


class RecoveryError(GatewayError):
    """The database has lost what it acknowledged, and no operator has accepted it yet."""


class NotFoundError(GatewayError):
    """The merchant has no such transaction."""


class RequestRefusedError(GatewayError):
    """A rule refuses the request. `retry_after_s` says when to ask again, None when never."""

    retry_after_s: int | None = None

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class KeyInFlightError(RequestRefusedError):
    """The first request with this idempotency key has not ended yet."""

    retry_after_s = 1


class KeyReusedError(RequestRefusedError):
    """The idempotency key was used before, with another body."""


class PromptOpenError(RequestRefusedError):
    """A prompt may still be open on that phone; a second one would kill the first."""


class OrderPaidError(RequestRefusedError):
    """The order was paid; `transaction_id` and `receipt` are that payment's."""

    def __init__(self, message: str, *, transaction_id: uuid.UUID, receipt: str | None) -> None:
        super().__init__(message)
        self.transaction_id = transaction_id
        self.receipt = receipt


class OrderOpenError(RequestRefusedError):
    """An attempt of the order may still be paid: a second one might charge twice.

    `transaction_id` is that payment's; None when it ended at this moment.
    """

    def __init__(
        self, message: str, *, retry_after_s: int, transaction_id: uuid.UUID | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.transaction_id = transaction_id


class RateLimitedError(RequestRefusedError):
    """The merchant asked for more payments in a minute than its limit."""


class MerchantSuspendedError(RequestRefusedError):
    """The merchant may not start payments."""


class MerchantDrainingError(RequestRefusedError):
    """The merchant is being removed."""


class NothingToDeliverError(RequestRefusedError):
    """The transaction has not ended, so there is no webhook to send again."""


class ResolutionRefusedError(GatewayError):
    """What a person wants to do with a transaction is not allowed; the message says why."""


class RemovalRefusedError(GatewayError):
    """A month of payments may not be removed; the message says what of it is open."""


class EgressRefusedError(GatewayError):
    """The egress guard does not dial that endpoint. The message names no inner address."""


class SchemaError(GatewayError):
    """The database's schema is not the one this release needs."""
