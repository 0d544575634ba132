"""How settings are written: a URL's host is lower-cased, and nothing else of it."""

from __future__ import annotations

from harness.collecting import every_case
from mpesa_gateway.config.forms import http_url


@every_case(
    ("written", "read"),
    [
        ("http://LOCALHOST:9/CallBack/", "http://localhost:9/CallBack"),
        ("HTTPS://Pay.Example.COM/A/b%2FC", "https://pay.example.com/A/b%2FC"),
        ("https://User:PassWord@Pay.Example.com/", "https://User:PassWord@pay.example.com"),
        ("https://[2A00:1450::1]:8443/X", "https://[2a00:1450::1]:8443/X"),
        ("https://pay.example.com/callback", "https://pay.example.com/callback"),
    ],
)
def test_the_host_of_a_url_is_lower_case_and_its_path_as_written(written: str, read: str) -> None:
    assert http_url(written) == read
