"""Binds the ports that the settings name; what is wrong is one sentence with the variable."""

from __future__ import annotations

import errno
import os
import socket

from mpesa_gateway.config.settings import PREFIX
from mpesa_gateway.errors import ConfigError

# What a machine without IPv6 says to one who asks for both families.
_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_WHY = {
    errno.EADDRINUSE: "another process has it; choose another port",
    errno.EACCES: "this user may not listen there; choose a port above 1023",
    errno.EADDRNOTAVAIL: f"no interface has the address that {PREFIX}SERVER_HOST names",
}


def bind_port(variable: str, host: str, port: int, *, backlog: int) -> socket.socket:
    """A listening socket; an empty host is every address of both IP families.

    `variable` names the port's setting. Bound before a process forks or starts its work, so that a
    mistake shows at once. Raises ConfigError.
    """
    try:
        if host in ("", "::"):
            return _bind_both(port, backlog)
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=backlog)
    except socket.gaierror as error:
        problem = f"{PREFIX}SERVER_HOST {host} cannot be resolved ({error.strerror})"
        raise ConfigError([problem]) from error
    except OSError as error:
        why = _WHY.get(error.errno or 0, "choose another one")
        problem = (
            f"{PREFIX}{variable} {port} cannot be used ({os.strerror(error.errno or 0)}): {why}"
        )
        raise ConfigError([problem]) from error


def _bind_both(port: int, backlog: int) -> socket.socket:
    """One socket for both families, or of IPv4 alone where there is no IPv6."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog
            )
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
    return socket.create_server(("0.0.0.0", port), backlog=backlog)  # noqa: S104 - every address
