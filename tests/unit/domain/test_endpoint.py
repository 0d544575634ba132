import pytest

from harness.collecting import every_case
from mpesa_gateway.domain.endpoint import (
    Endpoint,
    parse_endpoint,
)
from mpesa_gateway.errors import InvalidInputError


@every_case(
    ("url", "host", "port", "origin"),
    [
        ("https://shop.example.com", "shop.example.com", 443, "https://shop.example.com:443"),
        ("https://shop.example.com/", "shop.example.com", 443, "https://shop.example.com:443"),
        ("https://shop.example.com./a", "shop.example.com", 443, "https://shop.example.com:443"),
        ("HTTPS://Shop.EXAMPLE.com/A", "shop.example.com", 443, "https://shop.example.com:443"),
        ("https://shop.example.com:443/a", "shop.example.com", 443, "https://shop.example.com:443"),
        ("https://shop.example.com:/a", "shop.example.com", 443, "https://shop.example.com:443"),
        ("https://shop.example.com:80/a", "shop.example.com", 80, "https://shop.example.com:80"),
        (
            "https://shop.example.com:1024",
            "shop.example.com",
            1024,
            "https://shop.example.com:1024",
        ),
        (
            "https://shop.example.com:65535",
            "shop.example.com",
            65535,
            "https://shop.example.com:65535",
        ),
        ("https://a.b?x=1@2", "a.b", 443, "https://a.b:443"),
        ("https://a.b/p;q?x=%0a&y=[1]", "a.b", 443, "https://a.b:443"),
        ("https://xn--bcher-kva.example", "xn--bcher-kva.example", 443, None),
        ("https://under_score.example", "under_score.example", 443, None),
        ("https://1.1.1.1/a", "1.1.1.1", 443, "https://1.1.1.1:443"),
        ("https://1.1.1.1./a", "1.1.1.1", 443, "https://1.1.1.1:443"),
        (
            "https://[2606:4700:4700::1111]:8443/a",
            "2606:4700:4700::1111",
            8443,
            "https://[2606:4700:4700::1111]:8443",
        ),
        ("https://4chan.example", "4chan.example", 443, None),
        ("https://1.2.3.4.example", "1.2.3.4.example", 443, None),
        ("https://local.example", "local.example", 443, None),
        ("https://localhost.example", "localhost.example", 443, None),
        ("https://internal.example", "internal.example", 443, None),
        ("https://notlocal", None, None, None),
        ("https://mysvc.example", "mysvc.example", 443, None),
        ("https://0x7f.example", "0x7f.example", 443, None),
        ("https://" + "a" * 63 + ".example", "a" * 63 + ".example", 443, None),
    ],
)
def test_a_public_https_url_is_accepted(url, host, port, origin):
    if host is None:
        with pytest.raises(InvalidInputError):
            parse_endpoint(url)
        return
    endpoint = parse_endpoint(url)
    assert endpoint == Endpoint(url, "https", host, port)
    assert endpoint.origin == (origin or f"https://{host}:{port}")


LONG = "https://a.example/"
REFUSED_URLS = [
    # Nothing that is a URL.
    "",
    " ",
    "shop.example",
    "//shop.example",
    "https:",
    "https:/shop.example",
    "https:///shop.example",
    "https:shop.example",
    "https://",
    "https://?a",
    "https://:443",
    "https://.",
    "https://..",
    LONG + "a" * (2049 - len(LONG)),
    # Another scheme.
    "http://shop.example",
    "HTTP://shop.example",
    "ftp://shop.example",
    "file:///etc/passwd",
    "gopher://shop.example",
    "javascript:alert(1)",
    "httpss://shop.example",
    # A user, or what looks like one.
    "https://user@shop.example",
    "https://user:password@shop.example",
    "https://@shop.example",
    "https://:@shop.example",
    "https://shop.example@127.0.0.1",
    "https://127.0.0.1@shop.example",
    "https://shop.example:443@127.0.0.1/",
    "https://shop.example%40127.0.0.1",
    # A fragment, empty ones too.
    "https://shop.example/#",
    "https://shop.example#a",
    "https://shop.example/a#@127.0.0.1",
    # What parsers disagree about.
    "https:\\\\shop.example",
    "https://shop.example\\@127.0.0.1",
    "https://shop.example\\.127.0.0.1",
    "https://shop.example/\\a",
    "https://shop.example\t",
    "https://shop\t.example",
    "https://shop.example/\ta",
    "https://shop.example\n",
    "https://shop.example/\r\nHost: localhost",
    " https://shop.example",
    "https://shop.example ",
    "https://shop .example",
    "https://shop.example/a b",
    "https://shop.example/\x00",
    "https://shop.example/\x7f",
    "https://[2606:4700::1111]shop.example",
    "https://shop.example[2606:4700::1111]",
    "https://x[2606:4700::1111]:443",
    "https://[2606:4700::1111]]",
    "https://[2606:4700::1111]x:443",
    "https://[[2606:4700::1111]]",
    "https://[2606:4700::1111",
    "https://2606:4700::1111]",
    "https://[]",
    "https://[shop.example]",
    "https://[1.1.1.1]",
    "https://[v1.a]",
    "https://2606:4700::1111",
    # Letters of other scripts, some of which become dots and digits.
    "https://sh\u00f6p.example",
    "https://shop\u3002example",
    "https://shop.example/\u00e9",
    "https://\uff11\uff12\uff17.0.0.1",
    "https://\u2460\u2461\u2466.0.0.1",
    "https://127\u30020\u30020\u30021",
    "https://\u0661\u0662\u0667.\u0660.\u0660.\u0661",
    "https://loc\u00adalhost",
    "https://shop.example:\u0664\u0664\u0663",
    # Ports.
    "https://shop.example:0",
    "https://shop.example:1",
    "https://shop.example:22",
    "https://shop.example:25",
    "https://shop.example:79",
    "https://shop.example:81",
    "https://shop.example:442",
    "https://shop.example:1023",
    "https://shop.example:65536",
    "https://shop.example:99999999999999999999",
    "https://shop.example:-443",
    "https://shop.example:+443",
    "https://shop.example:443a",
    "https://shop.example:4_43",
    "https://shop.example:0x1bb",
    "https://shop.example:443:443",
    # Names that are not names.
    "https://-shop.example",
    "https://shop-.example",
    "https://shop..example",
    "https://.shop.example",
    "https://shop.example..",
    "https://sh*p.example",
    "https://*.example",
    "https://shop,example",
    "https://shop;x.example",
    "https://shop%2eexample",
    "https://shop%00.example",
    "https://$(id).example",
    "https://" + "a" * 64 + ".example",
    "https://" + "a." * 127 + "example",
    # Names of this machine, this cluster, this network.
    "https://localhost",
    "https://LOCALHOST",
    "https://localhost.",
    "https://a.localhost",
    "https://shop",
    "https://shop.",
    "https://kubernetes",
    "https://printer.local",
    "https://PRINTER.LOCAL.",
    "https://metadata.google.internal",
    "https://api.internal",
    "https://wiki.intranet",
    "https://router.lan",
    "https://router.home",
    "https://mail.corp",
    "https://db.private",
    "https://nas.home.arpa",
    "https://1.0.0.127.in-addr.arpa",
    "https://hidden.onion",
    "https://shop.test",
    "https://shop.invalid",
    "https://postgres.default.svc",
    "https://postgres.default.svc.cluster.local",
    "https://postgres.default.svc.cluster.local.",
    "https://POSTGRES.default.SVC.cluster.LOCAL",
    "https://postgres.default.svc.my-cluster.example",
    "https://default.cluster.local",
    # Addresses inside, plainly written.
    "https://127.0.0.1",
    "https://127.0.0.1.",
    "https://10.96.0.1:8443/a",
    "https://169.254.169.254/latest/meta-data/",
    "https://0.0.0.0",
    "https://[::1]",
    "https://[::]",
    "https://[::ffff:7f00:1]",
    "https://[::FFFF:127.0.0.1]",
    "https://[::127.0.0.1]",
    "https://[64:ff9b::7f00:1]",
    "https://[2002:7f00:1::]",
    "https://[fd00:ec2::254]",
    "https://[fe80::1]",
    "https://[fe80::1%25eth0]",
    "https://[fe80::1%eth0]",
    "https://[2606:4700:4700::1111%25eth0]",
    # Addresses in odd clothes, public ones too.
    "https://0x7f.1",
    "https://0X7F.0.0.1",
    "https://0x7f000001",
    "https://2130706433",
    "https://0177.0.0.1",
    "https://017700000001",
    "https://127.1",
    "https://127.0.1",
    "https://127.0.0.0x1",
    "https://127.0.0.01",
    "https://127.000.000.001",
    "https://127.0.0.1.1",
    "https://0",
    "https://0x",
    "https://1.0x",
    "https://256.256.256.256",
    "https://1.1.1.256",
    "https://1.1.1",
    "https://16843009",
    "https://shop.example.1",
    "https://shop.0x1",
    "https://4294967296",
]


@every_case("url", REFUSED_URLS, ids=lambda url: ascii(url)[:60])
def test_anything_else_is_refused_and_the_field_is_named(url):
    with pytest.raises(InvalidInputError) as refused:
        parse_endpoint(url)
    assert [problem.field for problem in refused.value.problems] == ["webhook_url"]


@every_case("value", [None, 5, True, [], {}, b"https://shop.example"], ids=repr)
def test_what_is_no_text_is_refused(value):
    with pytest.raises(InvalidInputError, match="must be a URL"):
        parse_endpoint(value)


def test_a_url_has_2048_characters_at_most():
    longest = LONG + "a" * (2048 - len(LONG))
    assert parse_endpoint(longest).url == longest


@every_case(
    ("url", "scheme", "host", "port"),
    [
        ("http://localhost", "http", "localhost", 80),
        ("http://127.0.0.1:9999/hook", "http", "127.0.0.1", 9999),
        ("https://[::1]:8443", "https", "::1", 8443),
        ("http://shop", "http", "shop", 80),
        (
            "http://shop.default.svc.cluster.local/hook",
            "http",
            "shop.default.svc.cluster.local",
            80,
        ),
        ("https://10.0.0.1", "https", "10.0.0.1", 443),
    ],
)
def test_for_development_plain_http_and_inner_hosts_are_accepted(url, scheme, host, port):
    with pytest.raises(InvalidInputError):
        parse_endpoint(url)
    assert parse_endpoint(url, allow_private=True) == Endpoint(url, scheme, host, port)


@every_case(
    "url",
    [
        "ftp://localhost",
        "http://user@localhost",
        "http://localhost/#a",
        "http://localhost:22",
        "http://localhost\\a",
        "http://[fe80::1%25eth0]",
        "http://[::1]x",
        "http://0x7f.1",
        "http://2130706433",
        "http://127.1",
        "http://0177.0.0.1",
        "http://under score",
        "http://-a",
        "http://",
    ],
)
def test_for_development_a_url_must_still_be_plainly_written(url):
    with pytest.raises(InvalidInputError):
        parse_endpoint(url, allow_private=True)


def test_a_merchant_may_narrow_its_endpoints_to_some_hosts():
    hosts = ("shop.example.com", "2606:4700:4700::1111")
    for url in ("https://shop.example.com/a", "https://SHOP.example.com.:8443/b"):
        assert parse_endpoint(url, allowed_hosts=hosts).host == "shop.example.com"
    assert parse_endpoint("https://[2606:4700:4700::1111]", allowed_hosts=hosts).host == hosts[1]
    for url in (
        "https://example.com",
        "https://a.shop.example.com",
        "https://shop.example.com.evil.example",
        "https://evilshop.example.com",
        "https://evil.example/shop.example.com",
        "https://evil.example/?shop.example.com",
    ):
        assert parse_endpoint(url).host not in hosts
        with pytest.raises(InvalidInputError, match="among the merchant's hosts"):
            parse_endpoint(url, allowed_hosts=hosts)


def test_endpoints_of_one_server_share_their_origin_and_others_do_not():
    def origin(url: str) -> str:
        return parse_endpoint(url, allow_private=True).origin

    same = ["https://a.example", "https://a.example:443/x", "https://A.example./y?z"]
    assert len({origin(url) for url in same}) == 1
    others = [*same[:1], "http://a.example", "https://a.example:8443", "https://b.example"]
    assert len({origin(url) for url in others}) == len(others)
    assert origin("http://[::1]:8080") == "http://[::1]:8080"
