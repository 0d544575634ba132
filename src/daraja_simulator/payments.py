"""The payments that were accepted, and which phones have a prompt open."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from daraja_simulator.outcomes import Outcome
from daraja_simulator.replies import PaymentIds
from daraja_simulator.validation import PushRequest


@dataclass(slots=True)
class Payment:
    """An accepted push. `callback_copies` is the outcome's number with chance applied."""

    push: PushRequest
    ids: PaymentIds
    outcome: Outcome
    callback_copies: int
    prompt_open: bool = True


class Payments:
    """Finds payments by CheckoutRequestID; the oldest are forgotten beyond `max_records`."""

    def __init__(self, max_records: int) -> None:
        self._max_records = max_records
        self._by_id: dict[str, Payment] = {}
        self._open_prompts: Counter[tuple[str, str]] = Counter()

    def __contains__(self, checkout_request_id: object) -> bool:
        return checkout_request_id in self._by_id

    def find(self, checkout_request_id: str, short_code: str) -> Payment | None:
        """The short code's own payment with that id."""
        payment = self._by_id.get(checkout_request_id)
        return payment if payment and payment.push.short_code == short_code else None

    def has_open_prompt(self, push: PushRequest) -> bool:
        """Whether that phone still shows a prompt of that short code."""
        return (push.phone, push.short_code) in self._open_prompts

    def list_open(self, push: PushRequest) -> list[Payment]:
        """The payments whose prompts that phone still shows, of that short code."""
        if not self.has_open_prompt(push):
            return []
        key = (push.phone, push.short_code)
        return [
            it
            for it in self._by_id.values()
            if it.prompt_open and (it.push.phone, it.push.short_code) == key
        ]

    def open_prompt(self, payment: Payment) -> None:
        """Keep a new payment, whose prompt now shows."""
        while len(self._by_id) >= self._max_records:
            del self._by_id[next(iter(self._by_id))]
        self._by_id[payment.ids.checkout_request_id] = payment
        self._open_prompts[payment.push.phone, payment.push.short_code] += 1

    def close_prompt(self, payment: Payment) -> None:
        """The customer has answered the prompt, or it has run out."""
        payment.prompt_open = False
        key = (payment.push.phone, payment.push.short_code)
        self._open_prompts[key] -= 1
        if not self._open_prompts[key]:
            del self._open_prompts[key]

    def forget(self, payment: Payment) -> None:
        """Take back a payment that cannot go on."""
        self.close_prompt(payment)
        self._by_id.pop(payment.ids.checkout_request_id, None)

    def clear(self) -> None:
        """Forget every payment."""
        self._by_id.clear()
        self._open_prompts.clear()
