"""The machine: what clients, customers, Safaricom, endpoints, Redis, time and death may do next.

Hypothesis chooses the order. After each step what must never happen is looked for; at the end all
faults heal, time passes, and what must happen in the end is demanded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from mpesa_gateway import failpoint
from mpesa_gateway.domain.merchant import DEFAULT_MERCHANT
from simulation.checks import at_the_end, never
from simulation.safaricom import Fate, Prompt, Truth
from simulation.world import SHOP, Death, DeathError, Payment, World, open_world

AMOUNTS = st.integers(1, 200)
NUMBERS = st.integers(0, 99)
# A crash that comes later than this in a piece of work comes at its end.
LATEST_DEATH = 25
QUIET_ROUNDS = 60
Database = Callable[[], tuple[str, str, Callable[[], None]]]


class GatewayMachine(RuleBasedStateMachine):
    """See the module. `database` makes an empty database: its URL, Redis' URL, what drops it."""

    database: ClassVar[Database]
    world: World

    @initialize()
    def open(self) -> None:
        self._stack = ExitStack()
        url, redis_url, drop = type(self).database()
        self._stack.callback(drop)
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mpesa-sim-"))
        self.world = open_world(self._stack, url, redis_url, Path(directory))

    # --- clients ---------------------------------------------------------------------------------

    @rule(amount=AMOUNTS, fate=st.sampled_from(Fate), shop=st.booleans())
    def initiate(self, amount: int, fate: Fate, shop: bool) -> None:
        payment = self.world.begin(amount, fate, SHOP if shop else DEFAULT_MERCHANT)
        response = self.world.ask_until_answered(payment)
        assert response.status_code in ANSWERS[fate], (fate, response.status_code, response.text)

    @rule(amount=AMOUNTS, fate=st.sampled_from(Fate), after=st.integers(0, LATEST_DEATH))
    def initiate_and_die(self, amount: int, fate: Fate, after: int) -> None:
        """The API's thread ends somewhere in it; the client asks again with the same key."""
        payment = self.world.begin(amount, fate, DEFAULT_MERCHANT)
        with self._death(after, in_api=True):
            self.world.ask(payment)
        self.world.forget()
        self.world.ask_until_answered(payment)

    @precondition(lambda self: self._answered())
    @rule(number=NUMBERS)
    def retry(self, number: int) -> None:
        payment = self._choose(self._answered(), number)
        assert payment.final is not None
        again = self.world.ask(payment)
        wanted = payment.final
        assert (again.status_code, again.json()) == (wanted.status_code, wanted.json())
        assert again.headers["Idempotent-Replayed"] == "true"

    @precondition(lambda self: self._answered())
    @rule(number=NUMBERS)
    def retry_with_another_body(self, number: int) -> None:
        payment = self._choose(self._answered(), number)
        assert self.world.ask(payment, amount=str(payment.amount + 1)).status_code == 422

    # --- customers and Safaricom -----------------------------------------------------------------

    @precondition(lambda self: self._prompts(Truth.OPEN))
    @rule(number=NUMBERS, truth=st.sampled_from([Truth.PAID, Truth.PAID, Truth.CANCELLED]))
    def customer_decides(self, number: int, truth: Truth) -> None:
        self._choose(self._prompts(Truth.OPEN), number).truth = truth

    @precondition(lambda self: self._decided())
    @rule(number=NUMBERS, copies=st.integers(1, 3), plain=st.booleans())
    def callback(self, number: int, copies: int, plain: bool) -> None:
        prompt = self._choose(self._decided(), number)
        for _ in range(copies):
            assert self.world.call_back(prompt, path="/callback" if plain else None) == 200

    @precondition(lambda self: self._prompts(Truth.PAID))
    @rule(number=NUMBERS)
    def callback_of_another_amount(self, number: int) -> None:
        prompt = self._choose(self._prompts(Truth.PAID), number)
        self.world.call_back(prompt, amount=prompt.amount + 1)

    @precondition(lambda self: self._heard() and len(self._prompts(*Truth)) > 1)
    @rule(number=NUMBERS, other=NUMBERS)
    def mistaken_callback(self, number: int, other: int) -> None:
        """One payment's token with another payment's id: settles neither."""
        prompt = self._choose(self._heard(), number)
        theirs = self._choose([it for it in self._prompts(*Truth) if it is not prompt], other)
        fields = {"checkout_request_id": theirs.checkout_request_id, "receipt": "MISTAKEN01"}
        self.world.call_back(prompt, code=0, **fields)

    @precondition(lambda self: self._prompts(Truth.PAID))
    @rule(number=NUMBERS, code=st.sampled_from(["00000000", 7777, False, 1032, "SFC_IC0003"]))
    def callback_that_contradicts_itself(self, number: int, code: object) -> None:
        """The receipt says paid, the code does not: a query decides."""
        prompt = self._choose(self._prompts(Truth.PAID), number)
        self.world.call_back(prompt, code=0, under_code=code)

    @precondition(lambda self: self._prompts(Truth.OPEN))
    @rule(number=NUMBERS, code=st.sampled_from([5000, "SFC_IC0003"]))
    def failure_that_is_none(self, number: int, code: object) -> None:
        """The customer may still pay: nothing ends before a query was asked."""
        self.world.call_back(self._choose(self._prompts(Truth.OPEN), number), code=code)

    @rule()
    def mistaken_query(self) -> None:
        self.world.safaricom.is_mistaken = True

    @rule()
    def nonsense_callback(self) -> None:
        assert self.world.gateway.post("/callback", b'{"Body": 1}').status_code == 200
        assert self.world.gateway.post(f"/callback/{'0' * 32}", b"{}").status_code == 404
        self.world.hear()

    # --- the worker and its queue ----------------------------------------------------------------

    @precondition(lambda self: self.world.queue)
    @rule(number=NUMBERS)
    def work(self, number: int) -> None:
        """In any order."""
        self.world.work(self.world.queue.pop(number % len(self.world.queue)))

    @precondition(lambda self: self.world.queue)
    @rule(number=NUMBERS)
    def work_twice(self, number: int) -> None:
        work = self.world.queue.pop(number % len(self.world.queue))
        self.world.work(work)
        self.world.work(work)

    @precondition(lambda self: self.world.queue)
    @rule(number=NUMBERS)
    def lose_a_message(self, number: int) -> None:
        self.world.queue.pop(number % len(self.world.queue))

    @precondition(lambda self: self.world.queue)
    @rule(number=NUMBERS, after=st.integers(0, LATEST_DEATH))
    def work_and_die(self, number: int, after: int) -> None:
        work = self.world.queue.pop(number % len(self.world.queue))
        with self._death(after, in_api=False):
            self.world.work(work)
        self.world.forget()

    @rule()
    def sweep(self) -> None:
        self.world.sweep()

    @rule(after=st.integers(0, LATEST_DEATH))
    def sweep_and_die(self, after: int) -> None:
        with self._death(after, in_api=False):
            self.world.sweep()
        self.world.forget()

    # --- Redis, time, merchants ------------------------------------------------------------------

    @rule()
    def wipe_redis(self) -> None:
        self.world.flush_redis()
        self.world.forget()

    @rule(seconds=st.sampled_from([1, 20, 70, 300, 4000]))
    def time_passes(self, seconds: int) -> None:
        self.world.gateway.clock.advance(seconds=seconds)

    @rule(status=st.sampled_from([200, 200, 500, 302, 429]))
    def endpoint_changes(self, status: int) -> None:
        self.world.set_endpoint(status)

    @rule()
    def rotate_secret(self) -> None:
        self.world.rotate_secret()

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def nothing_that_must_never_happen(self) -> None:
        if hasattr(self, "world"):
            assert list(never(self.world)) == []

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self._heal()
            assert list(at_the_end(self.world)) == []
        finally:
            self._stack.close()

    def _heal(self) -> None:
        """Faults end, customers have decided, Safaricom says so once more, and time passes."""
        self.world.set_endpoint(200)
        for prompt in self._prompts(Truth.OPEN):
            prompt.truth = Truth.CANCELLED
        for prompt in self._decided():
            assert self.world.call_back(prompt) == 200
        for _ in range(QUIET_ROUNDS):
            while self.world.queue:
                self.world.work(self.world.queue.pop(0))
            self.world.sweep()
            if not self.world.queue and self.world.is_quiet():
                return
            self.world.gateway.clock.advance(minutes=3)

    # --- choosing --------------------------------------------------------------------------------

    def _answered(self) -> list[Payment]:
        return [it for it in self.world.payments if it.final is not None]

    def _prompts(self, *truths: Truth) -> list[Prompt]:
        return [it for it in self.world.safaricom.books.prompts if it.truth in truths]

    def _heard(self) -> list[Prompt]:
        """Whose id the gateway has learned, so that another one is noticed."""
        known = self.world.known_checkout_request_ids()
        return [it for it in self._prompts(*Truth) if it.checkout_request_id in known]

    def _decided(self) -> list[Prompt]:
        return self._prompts(Truth.PAID, Truth.CANCELLED)

    @staticmethod
    def _choose(values: list[Any], number: int) -> Any:
        return values[number % len(values)]

    @contextmanager
    def _death(self, after: int, *, in_api: bool) -> Iterator[None]:
        failpoint.arm(Death(after, in_api))
        try:
            yield
        except DeathError:
            pass
        finally:
            failpoint.arm(None)


# What a client may be told in the end, for each fate. A crash before the push left is `not_sent`.
ANSWERS: dict[Fate, tuple[int, ...]] = {
    Fate.ACCEPTED: (201,),
    Fate.ACCEPTED_UNHEARD: (201,),
    Fate.ACCEPTED_CUT: (201,),
    Fate.REFUSED: (502,),
    Fate.BUSY: (503,),
}
