"""A network of its own for the guard: every address in it is this machine, and one server sees all.

`OwnNetwork` starts this module in new mount and network namespaces of Linux, where it puts its
own resolv.conf in the place of the machine's, serves names (harness/names.py), and listens on port
443 of every address there is. What connects, wherever it believes to connect to, is written down
by the listener with the address that was dialled.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Self

import trustme

from harness.names import NameServer, Zone
from mpesa_gateway.clients.egress import Guard, new_session
from mpesa_gateway.clients.webhooks import WebhookClient

NAME_SERVER = "127.0.0.53"
PORT = 443
# As in a pod of Kubernetes: a name with fewer than five dots is tried with these first.
RESOLV_CONF = f"""\
nameserver {NAME_SERVER}
search default.svc.cluster.local svc.cluster.local cluster.local
options ndots:5 timeout:2 attempts:2
"""
NSSWITCH_CONF = "hosts: dns\n"
# Whatever is dialled comes back to this machine.
EVERYTHING_IS_HERE = (
    ("ip", "link", "set", "lo", "up"),
    ("ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo"),
    ("ip", "-6", "route", "add", "local", "::/0", "dev", "lo"),
)
READY = "ready"
DEADLINE_S = 5.0
REPLY = b"HTTP/1.1 %d It\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def namespaces() -> list[str]:
    """The command that runs another one in namespaces of its own."""
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *as_root, "--mount", "--net", "--kill-child", "--fork"]


@cache
def why_not() -> str:
    """Why this machine has no such networks; empty when it has."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    missing = [it for it in ("unshare", "nsenter", "ip", "mount") if shutil.which(it) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    steps = [" ".join(it) for it in EVERYTHING_IS_HERE]
    steps.append("mount --bind /dev/null /etc/resolv.conf")
    tried = subprocess.run(
        [*namespaces(), "sh", "-c", " && ".join(steps)], check=False, capture_output=True, text=True
    )
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


class OwnNetwork:
    """The network, from outside of it."""

    def __init__(self, directory: Path) -> None:
        self.ca_file = directory / "ca.pem"
        self._popen = subprocess.Popen(
            [*namespaces(), sys.executable, "-m", "harness.own_network", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": python_path()},
        )

    def __enter__(self) -> Self:
        assert self._read() == READY
        return self

    def __exit__(self, *_: object) -> None:
        """Everything in it ends with the first process of it."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.close()
        self._popen.wait(10)
        self._popen.stdout.close()

    def serve(self, zone: Zone, *, certificate: str = "", status: int = 200) -> None:
        """From now on these names, a certificate for one of them, and that answer to requests.

        What was seen before is forgotten.
        """
        self._ask(do="serve", zone=zone, certificate=certificate, status=status)

    def send(self, url: str, *, allow_private: bool = False) -> dict[str, Any]:
        """POST a webhook as a worker does, from a process in there; the attempt."""
        attempt: dict[str, Any] = self._ask(do="send", url=url, allow_private=allow_private)
        return attempt

    def seen(self) -> list[str]:
        """The addresses that were dialled, in order, as the listening socket saw them."""
        seen: list[str] = self._ask(do="seen")
        return seen

    def asked(self) -> list[str]:
        """The questions that the name server was asked."""
        asked: list[str] = self._ask(do="asked")
        return asked

    def inside(self, command: list[str]) -> list[str]:
        """The command that runs another one in this network."""
        as_root = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        inner = self._ask(do="pid")
        return ["nsenter", f"--target={inner}", *as_root, "--mount", "--net", "--", *command]

    def _ask(self, **order: Any) -> Any:
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(order) + "\n")
        self._popen.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line, f"the process in the network ended with {self._popen.wait(5)}"
        return json.loads(line)


def python_path() -> str:
    """Where the child finds this module, and before that what this process was told."""
    told, here = os.environ.get("PYTHONPATH"), str(Path(__file__).parent.parent)
    return os.pathsep.join([told, here] if told else [here])


class Listener:
    """Answers on a port of every address, with TLS, and writes down which one was dialled."""

    def __init__(self, authority: trustme.CA) -> None:
        self.seen: list[str] = []
        self.status = 200
        self._authority = authority
        self._tls: ssl.SSLContext | None = None
        self._socket = socket.create_server(
            ("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64
        )
        threading.Thread(target=self._run, name="listener", daemon=True).start()

    def certify(self, name: str) -> None:
        """Have a certificate for that name."""
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(name).configure_cert(self._tls)

    def _run(self) -> None:
        while True:
            sock, _ = self._socket.accept()
            dialled = ipaddress.IPv6Address(sock.getsockname()[0])
            self.seen.append(str(dialled.ipv4_mapped or dialled))
            threading.Thread(target=self._answer, args=[sock], daemon=True).start()

    def _answer(self, plain: socket.socket) -> None:
        assert self._tls is not None
        try:
            with self._tls.wrap_socket(plain, server_side=True) as sock:
                while not sock.recv(65536).endswith(b"}"):
                    pass  # head and body come in records of their own
                sock.sendall(REPLY % self.status)
        except OSError:
            plain.close()


def main(directory: Path) -> None:
    """Inside the namespaces: one order a line, until there are no more."""
    for name, text in (("resolv.conf", RESOLV_CONF), ("nsswitch.conf", NSSWITCH_CONF)):
        (directory / name).write_text(text)
        run("mount", "--bind", str(directory / name), f"/etc/{name}")
    for step in EVERYTHING_IS_HERE:
        run(*step)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    listener = Listener(authority)
    with NameServer(NAME_SERVER) as names:
        say(READY)
        for line in sys.stdin:
            say(obey(json.loads(line), names, listener, directory))


def obey(order: dict[str, Any], names: NameServer, listener: Listener, directory: Path) -> Any:
    """The answer to one order."""
    match order["do"]:
        case "serve":
            names.serve(order["zone"])
            listener.certify(order["certificate"] or next(iter(order["zone"])))
            listener.status = order["status"]
            listener.seen.clear()
            return None
        case "send":
            return send(order["url"], directory, allow_private=order["allow_private"])
        case "seen":
            return listener.seen
        case "asked":
            return names.asked
        case _:
            return os.getpid()


def send(url: str, directory: Path, *, allow_private: bool) -> dict[str, Any]:
    """One try, with the product's own resolver, guard, session and client."""
    guard = Guard(allow_private=allow_private)
    with new_session(guard, user_agent="test", extra_ca=str(directory / "ca.pem")) as session:
        client = WebhookClient(session, deadline_s=DEADLINE_S)
        return asdict(client.post(url, b"{}", {}, datetime.now(UTC)))


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer, default=str) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
