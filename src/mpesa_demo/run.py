"""`mpesa-gateway demo`: start the system, make the payments, judge them, stop the system."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException

from rich.console import Console
from rich.text import Text

from mpesa_demo.books import read_books
from mpesa_demo.client import Merchant
from mpesa_demo.ending import EndedError, Ending
from mpesa_demo.keep import keep_running, print_addresses
from mpesa_demo.payments import Payments
from mpesa_demo.receiver import Receiver
from mpesa_demo.scenarios import DEADLINE_S, SCENARIOS
from mpesa_demo.show import RIGHT, Screen, open_console, open_screen
from mpesa_demo.stack import Keys, Stack, StackError
from mpesa_demo.summary import print_next, print_summary
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry.log import configure_logging

LOOK_EVERY_S = 0.2
CONNECTIONS = 2
# An exit status above this says which signal ended the process.
SIGNALLED = 128
TITLE = """
[bold]mpesa-gateway demo[/]: the whole system on this machine, Safaricom simulated.
No real money, and nothing stays behind.
"""
# What a look raises when somebody does not answer just now.
NO_ANSWER = (OSError, HTTPException, UnavailableError)


def run_demo(*, keep: bool) -> int:
    """The exit status: 0 when every payment ended as it must. Raises StackError."""
    configure_logging("console", "error")
    console = open_console()
    with Ending() as ending:
        try:
            return _run(console, ending, keep=keep)
        except EndedError as ended:
            console.print(f"  Ended early, by {signal.Signals(ended.number).name}.")
            return SIGNALLED + ended.number


def _run(console: Console, ending: Ending, *, keep: bool) -> int:
    keys, say = Keys.random(), _say(console)
    with contextlib.ExitStack() as opened:
        stack = Stack(keys, say, ending)
        opened.callback(_stop, console, stack)
        console.print(TITLE)
        with console.status("starting"):
            stack.start()
        receiver = opened.enter_context(Receiver(keys.webhook_secret))
        say("webhook receiver", f"{receiver.url}, the merchant")
        merchant = Merchant(stack.api_url, keys.api_key, receiver.url)
        pool = opened.enter_context(_open_pool(stack.database_url))
        payments = Payments(SCENARIOS, merchant, receiver, stack.simulator_url, pool)
        fine = _pay(console, stack, payments, receiver)
        if keep:
            print_addresses(console, stack, merchant, payments)
            with contextlib.suppress(EndedError):
                keep_running(console, stack, receiver)
    if not keep:
        print_next(console)
    return 0 if fine else 1


def _say(console: Console) -> Callable[[str, str], None]:
    """Says what is up, and how long after now."""
    started_at = time.monotonic()

    def say(name: str, detail: str) -> None:
        elapsed_s = time.monotonic() - started_at
        line = Text.assemble("  ", RIGHT, f" {name:<18}", (f"{elapsed_s:4.1f} s  {detail}", "dim"))
        console.print(line, soft_wrap=True)

    return say


def _stop(console: Console, stack: Stack) -> None:
    with console.status("stopping"):
        stack.stop()
    if stack.is_gone():
        console.print("  [dim]Everything is stopped, and its files are removed.[/]\n")
    else:
        console.print("  [red]Something still listens on a port that the demo used.[/]\n")


@contextlib.contextmanager
def _open_pool(url: str) -> Iterator[Pool]:
    pool = Pool(url, size=CONNECTIONS, name="demo")
    pool.open()
    try:
        yield pool
    finally:
        pool.close()


def _pay(console: Console, stack: Stack, payments: Payments, receiver: Receiver) -> bool:
    """Make the payments and show them; whether each ended as it must."""
    console.print(
        f"\n  {len(payments.all)} payments: the last four digits of a phone choose what happens"
        " to it.\n"
    )
    started_at = time.monotonic()
    with open_screen(console) as screen:
        payments.start()
        _watch(stack, payments, screen)
    try:
        payments.look(thoroughly=True)
    except NO_ANSWER as error:
        raise StackError(f"the system stopped answering: {error}") from error
    took_s = time.monotonic() - started_at
    books = read_books(payments.snapshot, receiver.all())
    return print_summary(console, payments.all, books, took_s=took_s)


def _watch(stack: Stack, payments: Payments, screen: Screen) -> None:
    """Look until all are over, or their time is. Raises StackError, EndedError."""
    give_up = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up:
        stack.check()
        with contextlib.suppress(*NO_ANSWER):
            payments.look()
            screen.show(payments.all)
            if payments.are_over():
                return
        time.sleep(LOOK_EVERY_S)
