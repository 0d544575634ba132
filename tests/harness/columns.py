"""The same payments and the same faults for two gateways, and what came of them, from outside.

Witnesses are the simulator's ledger and the merchants' endpoint. Of the gateway's database only
what every gateway has is read: a payment's id at Safaricom and its status.
"""

from __future__ import annotations

import collections
import json
import random
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from harness.crash import LONG_PIN_TIME_S, PIN_TIME_S, Asked, CrashStack
from harness.receiver import Received
from harness.scenarios import Scenario, once
from harness.waiting import wait_for

# Where both gateways have a failpoint of the same name; FLUSHALL has none.
FLUSHALL = "FLUSHALL"
FAULTS = ("work.callback.begin", "webhook.post.before", "daraja.push.after", FLUSHALL)
OF_THE_API = ("daraja.push.after",)
STORIES = (
    Scenario("paid", "0000", once),
    Scenario("cancelled", "1032", once),
    Scenario("callback five times", "2003", once),
    Scenario("endpoint 500 then 200", "0000", once, flaky=True, webhooks=2),
)
PAYMENTS = 40
FAULTS_EACH = 3
CLIENTS = 4
DEATH_WAIT_S = 20.0
# Both try again after at most two seconds: who has done nothing for this long will do nothing.
STANDSTILL_S = 10.0
LONGEST_S = 60.0
ENDED = ("COMPLETED", "FAILED")
# What a merchant can know a repeat by.
Form = tuple[str | None, bytes]


@dataclass(frozen=True)
class Step:
    """One payment, and the fault that comes with it."""

    scenario: Scenario
    fault: str | None


def plan(seed: int, faults_each: int = FAULTS_EACH) -> list[Step]:
    """The same for every gateway."""
    chance = random.Random(seed)  # noqa: S311 - a plan that can be repeated
    faults: list[str | None] = [*(FAULTS * faults_each)]
    faults += [None] * (PAYMENTS - len(faults))
    chance.shuffle(faults)
    return [Step(chance.choice(STORIES), fault) for fault in faults]


@dataclass(frozen=True)
class Counts:
    """What one gateway made of one plan."""

    gateway: str
    seed: int
    payments: int
    kills: int
    flushes: int
    callbacks: int
    lost: int
    double_charged: int
    never_told: int
    told_again: int
    told_again_without_id: int

    @property
    def harm(self) -> int:
        """What costs somebody money or an answer."""
        return self.lost + self.double_charged + self.never_told + self.told_again_without_id


def run_plan(stack: CrashStack, gateway: str, seed: int, faults_each: int = FAULTS_EACH) -> Counts:
    """Make the payments, four at a time, with their faults; wait; count."""
    steps = plan(seed, faults_each)
    asked: list[Asked] = []
    with ThreadPoolExecutor(CLIENTS) as clients:
        waiting: list[Future[None]] = []
        for number, it in enumerate(steps, start=1):
            payment = it.scenario.begin(it.scenario.name, number)
            asked.append(payment)
            waiting.append(start(stack, clients, it, payment))
        for each in waiting:
            each.result()
    wait_for_standstill(stack)
    return count(stack, gateway, seed, steps, asked)


def start(stack: CrashStack, clients: ThreadPoolExecutor, it: Step, payment: Asked) -> Future[None]:
    """Ask for the payment, and let its fault happen."""
    deadly = it.fault is not None and it.fault != FLUSHALL
    early = it.fault in OF_THE_API
    stack.simulator.change(callback_delay=LONG_PIN_TIME_S if early else PIN_TIME_S)
    if deadly:
        assert it.fault is not None
        stack.arm(it.fault)
    asking = clients.submit(it.scenario.tell, stack, payment)
    if deadly:
        wait_for(stack.has_died, timeout_s=DEATH_WAIT_S, what=f"a death at {it.fault}")
        # No fault meets a gateway that has not come back from the one before.
        stack.wait_until_answering()
        stack.wait_for_workers()
    elif it.fault == FLUSHALL:
        wait_for(lambda: heard(stack, payment), timeout_s=DEATH_WAIT_S, what="its callback's 200")
        stack.empty_redis()
    return asking


def heard(stack: CrashStack, payment: Asked) -> bool:
    """Whether a callback of it was answered 200."""
    callbacks = stack.simulator.ledger(phone=payment.phone)["callbacks"]
    return any(it["status"] == 200 for it in callbacks)


def wait_for_standstill(stack: CrashStack) -> None:
    """Until nothing has happened for a while."""
    stack.simulator.wait_until_idle()
    give_up = time.monotonic() + LONGEST_S
    seen, since = state(stack), time.monotonic()
    while time.monotonic() - since < STANDSTILL_S and time.monotonic() < give_up:
        time.sleep(0.2)
        now = state(stack)
        if now != seen:
            seen, since = now, time.monotonic()


def state(stack: CrashStack) -> tuple[int, int, int]:
    """What changes while somebody still works."""
    (row,) = stack.rows("SELECT count(*) FROM transactions WHERE status <> 'PENDING'")
    return (
        row["count"],
        len(stack.receiver.requests),
        len(stack.simulator.ledger()["callbacks"]),
    )


def count(
    stack: CrashStack, gateway: str, seed: int, steps: list[Step], asked: list[Asked]
) -> Counts:
    """Only what the witnesses saw, against the statuses."""
    ledger = stack.simulator.ledger()
    answered = [it for it in ledger["callbacks"] if it["status"] == 200]
    said = {it["checkout_request_id"] for it in answered}
    rows = stack.rows("SELECT checkout_request_id, status FROM transactions")
    ended = {it["checkout_request_id"] for it in rows if it["status"] in ENDED}
    debits = collections.Counter(it["phone"] for it in ledger["debits"])
    phones = {it["phone"] for it in answered}
    allowed = {
        payment.path: step.scenario.webhooks for step, payment in zip(steps, asked, strict=True)
    }
    wanted = {it.path: allowed[it.path] for it in asked if it.phone in phones}
    told = collections.Counter(it.path for it in list(stack.receiver.requests))
    forms = forms_told(stack.receiver.requests)
    again = [each for (path, _), each in forms.items() if len(each) > allowed[path]]
    return Counts(
        gateway=gateway,
        seed=seed,
        payments=len(asked),
        kills=sum(it.fault not in (None, FLUSHALL) for it in steps),
        flushes=sum(it.fault == FLUSHALL for it in steps),
        callbacks=len(answered),
        lost=len(said - ended),
        double_charged=sum(number > 1 for number in debits.values()),
        never_told=sum(told[path] < webhooks for path, webhooks in wanted.items()),
        told_again=len(again),
        told_again_without_id=sum(len(set(it)) > 1 or it[0][0] is None for it in again),
    )


def forms_told(requests: list[Received]) -> dict[tuple[str, str | None], list[Form]]:
    """Id and bytes of each telling of one event: `transaction.updated` repeats nothing."""
    forms = collections.defaultdict(list)
    for it in list(requests):
        kind = json.loads(it.body).get("type")
        forms[it.path, kind].append((it.headers.get("webhook-id"), it.body))
    return forms
