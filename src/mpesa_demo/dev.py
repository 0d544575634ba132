"""`mpesa-gateway dev`: the whole system for a developer's day, on fixed ports, with data kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mpesa_demo.ending import EndedError, Ending
from mpesa_demo.feed import Feed
from mpesa_demo.receiver import Receiver
from mpesa_demo.show import RIGHT, open_console
from mpesa_demo.stack import HOST, Keys, Ports, Stack, StackError
from mpesa_gateway.clock import utc_now
from mpesa_gateway.commands.trigger import DEV_API_KEY
from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.store.pool import Pool
from mpesa_gateway.telemetry.log import configure_logging

# As fixed as the key: what a developer has configured goes on working after a restart.
KEYS = Keys(
    api_key=DEV_API_KEY,
    webhook_secret="whsec_ZGV2LXNlY3JldC1mb3ItdGhpcy1tYWNoaW5lLW9ubHk=",  # noqa: S106 - of this machine
    consumer_key="dev-consumer-key",
    consumer_secret="dev-consumer-secret",  # noqa: S106 - the simulator's
    passkey="dev-passkey",
)
LOOK_EVERY_S = 0.3
SIGNALLED = 128


@dataclass(frozen=True)
class Options:
    """What a developer may choose."""

    port: int
    simulator_port: int
    directory: Path
    forward_to: str | None = None


def run_dev(options: Options) -> int:
    """Run until a signal; 0 after Ctrl-C. Raises StackError."""
    configure_logging("console", "error")
    console = open_console()
    with Ending() as ending:
        try:
            _run(console, options, ending)
        except EndedError as ended:
            return 0 if ended.number == signal.SIGINT else SIGNALLED + ended.number
    return 0


def _run(console: Console, options: Options, ending: Ending) -> None:
    _refuse_used("--port", options.port, "the API")
    _refuse_used("--simulator-port", options.simulator_port, "the simulator")
    directory = place(options.directory.absolute())
    say = _say(console)
    with contextlib.ExitStack() as opened:
        receiver = opened.enter_context(Receiver(KEYS.webhook_secret))
        stack = Stack(
            KEYS,
            say,
            ending,
            ports=Ports.free(api=options.port, simulator=options.simulator_port),
            directory=directory,
            settings={"WEBHOOK_URL": receiver.url},
        )
        opened.callback(stack.stop)
        stack.start()
        pool = Pool(stack.database_url, size=1, name="dev")
        opened.callback(pool.close)
        pool.open()
        feed = Feed(pool, KEYS.webhook_secret, options.forward_to, say)
        feed.start()
        _print_addresses(console, stack, options)
        while True:
            stack.check()
            # A look that Postgres does not answer is not the end of the day.
            with contextlib.suppress(UnavailableError):
                feed.look(utc_now())
            time.sleep(LOOK_EVERY_S)


def place(directory: Path) -> Path:
    """Make the directory; where Postgres's own user cannot reach it, another that it can.

    Postgres refuses to run as root. Root's work is handed to a user without rights, who cannot
    enter a home directory of root's.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return directory
    if all(parent.stat().st_mode & 0o001 for parent in directory.parents):
        return directory
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:12]
    elsewhere = Path("/var/tmp") / f"mpesa-gateway-dev-{name}"  # noqa: S108 - it is kept, by name
    elsewhere.mkdir(mode=0o755, exist_ok=True)
    return elsewhere


def _refuse_used(option: str, port: int, who: str) -> None:
    """Raise StackError when something listens on the port already."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError as error:
            raise StackError(
                f"Port {port} of {HOST} is in use, and {who} needs it. Stop what uses it (is"
                f" `mpesa-gateway dev` running already?), or choose another with {option}."
            ) from error


def _say(console: Console) -> Callable[[str, str], None]:
    def say(what: str, detail: str) -> None:
        line = Text.assemble(f"{utc_now():%H:%M:%S} ", RIGHT, f" {what:<44} ", (detail, "dim"))
        console.print(line, soft_wrap=True)

    return say


def _print_addresses(console: Console, stack: Stack, options: Options) -> None:
    rows = {
        "API": stack.api_url,
        "API key": KEYS.api_key,
        "webhook secret": KEYS.webhook_secret,
        "API as a page": f"{stack.api_url}/docs",
        "simulator": f"{stack.simulator_url}/",
        "webhooks go to": options.forward_to or "this terminal; --forward-to URL sends them on",
        "data": f"{stack.directory} (delete it to begin anew)",
        "Postgres": stack.database_url,
    }
    console.print()
    for name, value in rows.items():
        console.print(f"  {name:<16}{value}", markup=False, soft_wrap=True)
    console.print("\nAnother terminal makes a payment:  mpesa-gateway trigger paid", markup=False)
    console.print("Ctrl-C stops everything and keeps the data.\n", markup=False)
