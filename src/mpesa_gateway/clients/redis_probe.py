"""Tries on Redis what the gateway does there, and says in sentences what it cannot."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import redis
from redis.sentinel import MasterNotFoundError

from mpesa_gateway.clients.redis_pool import new_pool

TIMEOUT_S = 3.0
# Under the keys that an access list must allow: docs/redis.md.
PROBE_KEY = "mpesa:probe:"
PROBE_QUEUE = "huey.redis.mpesa:probe:"
_CLUSTER = "it is a Redis Cluster, which is not supported: use a single server or Sentinel"
_REPLICA = "it is a replica and takes no writes: name the primary, or the Sentinels"
_SCRIPT = """
redis.call('TIME')
redis.call('SET', KEYS[1], ARGV[1], 'PX', 1000)
redis.call('GET', KEYS[1])
redis.call('PTTL', KEYS[1])
return redis.call('DEL', KEYS[1])
"""
# What a failure says, and what it means. Constant sentences: redis-py's own may quote the URL.
_REASONS = {
    "Connection refused": "the connection is refused: it is not running, or not there",
    "Name or service not known": "nobody knows that host name",
    "No address associated": "nobody knows that host name",
    "Temporary failure in name resolution": "nobody knows that host name",
    "certificate": "its TLS certificate is not trusted; ssl_ca_certs=PATH names a private CA",
    "SSL": "TLS cannot be agreed on (redis:// or rediss://?)",
    "NOAUTH": "it asks for a password",
    "HELLO must be called": "it asks for a password",
    "Protocol Error": "what answers there is no Redis",
    "WRONGPASS": "it refuses the user or the password",
    "invalid username-password": "it refuses the user or the password",
    "Authentication required": "it asks for a password",
    "without any password configured": "it has no password, and one was sent",
    "LOADING": "it is loading its data",
    "max number of clients": "all of its connections are taken",
    "DB index is out of range": "it has no such database number",
    "SELECT is not allowed": "it has only database 0",
    "used memory": "its memory is full",
    "Redis is a replica": _REPLICA,
    "MOVED": _CLUSTER,
    "cluster": _CLUSTER,
    "Timeout": "nothing comes back: a firewall, a host that is gone, or TLS where none is spoken",
    "timed out": "nothing comes back: a firewall, or a host that is gone",
}


@dataclass(frozen=True)
class Condition:
    """What is wrong with a Redis: `problems` keep us from using it, `warnings` cost time."""

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def probe(url: str) -> Condition:
    """Connect and try every command. Raises ValueError when the URL has none of the forms."""
    with redis.Redis.from_pool(new_pool(url, timeout_s=TIMEOUT_S)) as client:
        try:
            client.ping()
            info = _info(client)
        except (redis.RedisError, OSError) as error:
            return Condition((in_words(error),))
        if _is_cluster(info):
            return Condition((_CLUSTER,))
        if info.get("role") == "slave":
            return Condition((_REPLICA,))
        return Condition(tuple(_failed(client)), tuple(_risks(info)))


def is_cluster(url: str, *, timeout_s: float) -> bool:
    """Whether a Redis Cluster answers there; False when nobody answers."""
    try:
        with redis.Redis.from_pool(new_pool(url, timeout_s=timeout_s)) as client:
            return _is_cluster(_info(client))
    except (redis.RedisError, OSError):
        return False


def in_words(error: Exception) -> str:
    """What a failed command or connection means."""
    if isinstance(error, MasterNotFoundError):
        return "no Sentinel that answers knows a primary of that service name"
    said = f"{type(error).__name__} {error}"
    return next(
        (text for words, text in _REASONS.items() if words in said),
        f"it does not answer ({type(error).__name__})",
    )


def _info(client: redis.Redis) -> dict[str, Any]:
    """Redis's own account of itself; empty where the access list forbids it."""
    try:
        found: dict[str, Any] = client.info()
    except redis.exceptions.NoPermissionError:
        return {}
    return found


def _is_cluster(info: dict[str, Any]) -> bool:
    return bool(info.get("cluster_enabled")) or info.get("redis_mode") == "cluster"


def _failed(client: redis.Redis) -> Iterator[str]:
    """A sentence for each step of the gateway's that is forbidden or fails."""
    key, queue = PROBE_KEY + secrets.token_hex(8), PROBE_QUEUE + secrets.token_hex(8)
    steps: dict[str, Callable[[], Any]] = {
        f"SET NX PX on {PROBE_KEY}*": lambda: client.set(key, "1", nx=True, px=1000),
        f"GET on {PROBE_KEY}*": lambda: client.get(key),
        f"GETRANGE on {PROBE_KEY}*": lambda: client.getrange(key, 0, 1),
        f"DEL on {PROBE_KEY}*": lambda: client.delete(key),
        f"scripts (EVAL, EVALSHA, SCRIPT LOAD; in them GET, PTTL, TIME) on {PROBE_KEY}*": (
            lambda: _run_script(client, key)
        ),
        f"LPUSH on {PROBE_QUEUE}*": lambda: client.lpush(queue, "1"),
        f"BRPOP on {PROBE_QUEUE}*": lambda: client.brpop([queue], timeout=1),
    }
    for name, run in steps.items():
        try:
            run()
        except redis.exceptions.NoPermissionError:
            yield f"its access list (ACL) forbids {name}; docs/redis.md has the line to set"
        except (redis.RedisError, OSError) as error:
            yield f"{name} fails: {in_words(error)}"
            return


def _run_script(client: redis.Redis, key: str) -> None:
    client.register_script(_SCRIPT)(keys=[key], args=["1"])


def _risks(info: dict[str, Any]) -> Iterator[str]:
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        yield (
            f"maxmemory-policy is {policy}: when it is full, notifications and Daraja tokens"
            " vanish, which costs seconds; noeviction is better"
        )
