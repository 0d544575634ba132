"""The forms of MPESA_REDIS_URL, and sentences without a secret for what has none of them."""

from __future__ import annotations

import pytest

from harness.collecting import every_case
from mpesa_gateway.config.redis_url import RedisUrl, parse_redis_url, redis_url

PASSWORD = "hunter2"


@every_case(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6379/0",
        "redis://user:p%40ss@redis.internal:6379/3",
        "redis://[::1]:6379/0",
        "rediss://:secret@redis.internal/0?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_a_single_server_is_taken_as_it_is(url: str) -> None:
    assert parse_redis_url(url) == RedisUrl(url)
    assert redis_url(url) == url


def test_sentinels_and_their_service() -> None:
    parsed = parse_redis_url(
        "redis+sentinel://user:p%40ss@one:26379,two,[::1]:5/my%20service/2"
        "?sentinel_username=s&sentinel_password=t%2F&protocol=2"
    )
    assert parsed == RedisUrl(
        "redis://user:p%40ss@one:26379/2?protocol=2",
        (("one", 26379), ("two", 26379), ("::1", 5)),
        "my service",
        "s",
        "t/",
    )
    assert not parsed.is_tls


def test_sentinels_with_tls() -> None:
    parsed = parse_redis_url("rediss+sentinel://one/service?ssl_ca_certs=/ca.pem")

    assert parsed.server == "rediss://one:26379/0?ssl_ca_certs=/ca.pem"
    assert parsed.is_tls


@every_case(
    ("url", "words"),
    [
        ("http://u:{}@h/", "is not one of the forms redis://"),
        ("localhost:6379", "is not one of the forms"),
        ("redis+cluster://u:{}@h:1/", "Redis Cluster, which is not supported"),
        ("redis://u:{}@a:1,b:2/0", "names several hosts; servers behind Sentinels are redis+sent"),
        ("redis://u:{}/x@h:1/0", "cannot be read; a password in it must be percent-encoded"),
        ("redis://u:{}#x@h:1/0", "cannot be read"),
        ("redis://u:{}?x@h:1/0", "cannot be read"),
        ("redis://u:{} x@h y:1/0", "cannot be read"),
        ("redis://u:[{}@h:1/0", "cannot be read"),
        ("redis:///0", "cannot be read"),
        ("redis://h:70000/0", "cannot be read"),
        ("redis://h:0/0", "cannot be read"),
        ("redis://u:{}@h/first", "has a database that is no number"),
        ("redis://u:{}@h/0?db=x", "has a database that is no number"),
        ("redis://u:{}@h/0?{}=1", "has an option that is none of db,"),
        ("redis://u:{}@h/0?socket_timeout=1", "has an option that is none of db,"),
        ("redis://u:{}@h/0?ssl_cert_reqs=maybe", "has an ssl_cert_reqs"),
        ("redis://u:{}@h/0?protocol=4", "has a protocol"),
        ("unix://u:{}@h/run/redis.sock", "has no path of a socket"),
        ("unix://", "has no path of a socket"),
        ("redis+sentinel://u:{}@a:1,b:2", "names no service"),
        ("redis+sentinel://u:{}@a:1,b:2/service/x", "has a database that is no number"),
        ("redis+sentinel://u:{}@a:1,/service/0", "cannot be read"),
        ("redis+sentinel://u:{}@a:1/service/0?sentinels=3", "has an option that is none of"),
    ],
)
def test_a_wrong_url_is_a_sentence_without_the_password(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".+") as refused:
        parse_redis_url(url.replace("{}", PASSWORD))

    assert words in str(refused.value)
    assert PASSWORD not in str(refused.value)
