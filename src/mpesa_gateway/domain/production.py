"""Where real money moves, and what must not be so there.

`ENVIRONMENT` is a word that can be forgotten, so the base URL decides: whatever is neither the
sandbox, nor this machine, nor a private network moves real money. The operator judges with the
same functions.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from mpesa_gateway.domain.endpoint import DEVELOPMENT, LOCAL_SUFFIXES, parse_endpoint
from mpesa_gateway.domain.merchant import Network
from mpesa_gateway.errors import InvalidInputError

SANDBOX_URL = "https://sandbox.safaricom.co.ke"
PRODUCTION_URL = "https://api.safaricom.co.ke"
_SANDBOX_HOST = "sandbox.safaricom.co.ke"

# The addresses that may call back, or whose X-Forwarded-For is believed, are at most so many:
# a /8 and a /32. Safaricom has a dozen, a cloud's load balancers a few thousand.
MAX_V4_ADDRESSES = 2 ** (32 - 8)
MAX_V6_ADDRESSES = 2 ** (128 - 32)

# Safaricom refuses these in C2B URLs (Daraja 3.0 pages); whether in STK ones too is unclear.
REFUSED_WORDS = ("mpesa", "m-pesa", "safaricom", "exe", "exec", "cmd", "sql", "query")
# Tunnels to a developer's machine and request bins: Safaricom refuses some, and all of them let
# somebody else read or answer callbacks. A name stands for itself and for every name below it.
TUNNEL_DOMAINS = (
    "app.github.dev", "beeceptor.com", "bore.pub", "devtunnels.ms", "expose.dev", "gitpod.io",
    "hkdk.events", "hookbin.com", "hookdeck.com", "lhr.life", "lhr.pro", "lhr.rocks", "loca.lt",
    "localhost.run", "localhostrun.com", "localtunnel.me", "loclx.io", "mockbin.com", "mockbin.io",
    "mockbin.org", "ngrok-free.app", "ngrok-free.dev", "ngrok.app", "ngrok.com", "ngrok.dev",
    "ngrok.io", "packetriot.net", "pagekite.me", "pinggy.io", "pinggy.link", "pinggy.online",
    "pipedream.net", "playit.gg", "requestbin.com", "requestbin.net", "requestcatcher.com",
    "serveo.net", "serveousercontent.com", "sharedwithexpose.com", "smee.io", "telebit.cloud",
    "telebit.io", "trycloudflare.com", "ts.net", "tunnelmole.net", "webhook.site", "zrok.io",
)  # fmt: skip
# Safaricom refuses these wherever they stand in a host.
TUNNEL_WORDS = ("localtunnel", "mockbin", "ngrok", "requestbin")

_LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # carrier-grade NAT, which clouds use for pods
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


def is_local_host(host: str) -> bool:
    """Whether a host, as it is written, is this machine or a network of one's own.

    A name is judged by its form and never looked up: a single label (`postgres`), `*.svc` and the
    suffixes that no public resolver answers are local, `db.example.com` is not, wherever it leads.
    An oddly written address (`2130706433`) is not local either.
    """
    host = host.lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _is_local_name(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    judged = mapped or address
    return any(
        judged in network for network in _LOCAL_NETWORKS if network.version == judged.version
    )


def _is_local_name(host: str) -> bool:
    if _below(host, LOCAL_SUFFIXES):
        return True
    return bool(host) and "." not in host and ":" not in host and not host[0].isdigit()


def _below(host: str, domains: Iterable[str]) -> bool:
    return any(host == domain or host.endswith("." + domain) for domain in domains)


def moves_real_money(base_url: str) -> bool:
    """Whether payments at that Daraja address are real: neither sandbox, nor loopback, nor private.

    A URL that two programs could read in two ways counts as real.
    """
    if "@" in base_url or "\\" in base_url:
        return True
    try:
        host = (urlsplit(base_url).hostname or "").removesuffix(".")
    except ValueError:
        return True
    # `.example` is reserved for documentation (RFC 2606): it leads nowhere.
    return host != _SANDBOX_HOST and not is_local_host(host) and not _below(host, ("example",))


def is_sandbox(base_url: str) -> bool:
    """Whether that is Safaricom's sandbox, whose payments are not real money."""
    return (urlsplit(base_url).hostname or "").removesuffix(".") == _SANDBOX_HOST


def is_too_wide(networks: Iterable[Network]) -> bool:
    """Whether the networks together cover more than a /8, or of IPv6 more than a /32."""
    found = list(networks)
    v4 = [it for it in found if isinstance(it, ipaddress.IPv4Network)]
    v6 = [it for it in found if isinstance(it, ipaddress.IPv6Network)]
    covered_v4 = sum(it.num_addresses for it in ipaddress.collapse_addresses(v4))
    covered_v6 = sum(it.num_addresses for it in ipaddress.collapse_addresses(v6))
    return covered_v4 > MAX_V4_ADDRESSES or covered_v6 > MAX_V6_ADDRESSES


def find_callback_url_problem(url: str) -> str | None:
    """Why Safaricom would not, or should not, call that URL; None when nothing is wrong with it."""
    if not url.startswith("https://"):
        return "is not https: Safaricom calls production only over https"
    try:
        host = parse_endpoint(url).host
    except InvalidInputError as error:
        why = error.problems[0].message.removesuffix(f"; {DEVELOPMENT}")
        return f"cannot be called by Safaricom: {why}"
    netloc = urlsplit(url).netloc
    if netloc != netloc.lower():
        return "has a host that is not in lower case: Safaricom has refused such URLs"
    words = [word for word in REFUSED_WORDS if word in url.lower()]
    if words:
        return f"contains {', '.join(words)}: Safaricom refuses such URLs"
    if _below(host, TUNNEL_DOMAINS) or any(word in host for word in TUNNEL_WORDS):
        return "is a tunnel or a request bin: somebody else could read and answer callbacks"
    return None


def is_daraja_password(passkey: str, short_code: str) -> bool:
    """Whether a passkey is the `Password` of a push: base64 of short code, passkey and time."""
    try:
        decoded = base64.b64decode(passkey, validate=True)
    except (binascii.Error, ValueError):
        return False
    return bool(short_code) and decoded.startswith(short_code.encode())
