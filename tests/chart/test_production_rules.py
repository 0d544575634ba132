"""The chart judges production as the gateway does: one table of cases, asked of both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

from harness import shell
from harness.helm import CHART, need_helm, refusal
from mpesa_gateway.domain.endpoint import LOCAL_SUFFIXES
from mpesa_gateway.domain.merchant import parse_networks
from mpesa_gateway.domain.production import (
    REFUSED_WORDS,
    TUNNEL_DOMAINS,
    TUNNEL_WORDS,
    find_callback_url_problem,
    is_too_wide,
)

SAFARICOM = {
    "allowedCIDRs": ["196.201.214.0/24"],
    "callbackUrl": "https://pay.example.com/callback",
}
LISTS = (
    ["196.201.214.200", "196.201.214.0/24"],
    ["10.0.0.0/9", "10.128.0.0/9"],
    ["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/9", "10.0.0.7"],
    ["10.0.0.0/8", "11.0.0.1"],
    ["0.0.0.0/1", "128.0.0.0/1"],
    ["0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/2", "192.0.0.0/2"],
    [f"{first}.0.0.0/10" for first in (1, 3, 5, 7, 9)],
    [f"{first}.0.0.0/10" for first in (1, 3, 5, 7)],
    ["10.9.9.9/8"],
    ["::ffff:0:0/96"],
    ["::FFFF:0.0.0.0/97", "::ffff:128.0.0.0/97"],
    ["::ffff:196.201.214.0/120", "::ffff:c4c9:d4c8"],
    ["0:0:0:0:0:ffff:a00:0/104", "10.0.0.0/8"],
    ["::/0"],
    ["::/1", "8000::/1"],
    ["2001:4860::/33", "2001:4860:8000::/33"],
    ["2001:4860::/32", "2001:4860:1::/48", "2001:4860::8888"],
    ["2001:4860::/32", "2001:4861::1"],
    ["2001:4860::/32", "10.0.0.0/8"],
    ["ffff:ffff:ffff:ffff::/64", "::1"],
)
NO_NETWORKS = ("10.0.0", "10.0.0.0/33", "10.0.0.256", "2001:::1", "1::2::3", "::/129", "any")
URLS = (
    "https://pay.example.com/callback",
    "https://pay.example.com:8443/callback",
    "https://196.201.214.1/callback",
    "https://[2a00:1450::1]/callback",
    "https://mythts.net/callback",
    "https://pay.example.com./callback",
    "http://pay.example.com/callback",
    "https://localhost:5001/callback",
    "https://127.0.0.1/callback",
    "https://172.20.0.7/callback",
    "https://127.1/callback",
    "https://2130706433/callback",
    "https://0x7f.1/callback",
    "https://[::1]/callback",
    "https://[fd00::1]:8443/callback",
    "https://gateway.payments.svc.cluster.local/callback",
    "https://gateway.svc.example.com/callback",
    "https://payments/callback",
    "https://user:pw@pay.example.com/callback",
    "https://Pay.Example.com/callback",
    "https://pay.example.com/SQL",
    "https://pay.example.com/m-pesa",
    "https://ngrok.example.com/callback",
    "https://abc.trycloudflare.com/callback",
    "https://webhook.site/7d2c",
)


def judge(tmp_path: Path, name: str, cases: object) -> list[str]:
    """What one of the chart's rules says of each case, all in one rendering."""
    (tmp_path / "templates").mkdir()
    shutil.copy(CHART / "templates" / "_production.tpl", tmp_path / "templates")
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: rules\nversion: 0.0.1\n")
    rule = f'{{{{ range .Values.cases }}}}- {{{{ include "mpesa-gateway.{name}" . | quote }}}}\n'
    (tmp_path / "templates" / "said.yaml").write_text("said:\n" + rule + "{{ end }}")
    need_helm()
    given = json.dumps({"cases": cases})
    done = shell.run("helm", "template", "g", str(tmp_path), "--values", "-", stdin=given)
    assert done.returncode == 0, done.stderr
    said: list[str] = yaml.safe_load(done.stdout)["said"]
    return said


def test_addresses_are_judged_by_their_union(tmp_path: Path) -> None:
    said = judge(tmp_path, "isTooWide", LISTS)

    expected = [str(is_too_wide(parse_networks(texts))).lower() for texts in LISTS]
    assert list(zip(LISTS, said, strict=True)) == list(zip(LISTS, expected, strict=True))


def test_what_is_no_network_is_named(tmp_path: Path) -> None:
    cases = [["196.201.214.0/24", text] for text in NO_NETWORKS]

    assert judge(tmp_path, "isTooWide", cases) == list(NO_NETWORKS)


def test_callback_urls_are_judged_alike(tmp_path: Path) -> None:
    urls = [*URLS, *(f"https://abc.{domain}/x" for domain in (*TUNNEL_DOMAINS, *LOCAL_SUFFIXES))]
    said = judge(tmp_path, "callbackUrlProblem", urls)

    refused = {url for url, problem in zip(urls, said, strict=True) if problem}
    assert refused == {url for url in urls if find_callback_url_problem(url)}


def test_the_lists_are_the_gateways() -> None:
    text = (CHART / "templates" / "_production.tpl").read_text(encoding="utf-8")
    for name, words in {
        "refusedWords": REFUSED_WORDS,
        "tunnelWords": TUNNEL_WORDS,
        "tunnelDomains": TUNNEL_DOMAINS,
        "localSuffixes": LOCAL_SUFFIXES,
    }.items():
        block = text.split(f'define "mpesa-gateway.{name}" -}}}}\n')[1].split("\n{{- end")[0]
        assert tuple(block.split()) == words, name


def test_production_on_the_sandbox_is_refused() -> None:
    for url in ("https://sandbox.safaricom.co.ke", "https://SANDBOX.safaricom.co.ke.:443/x"):
        values = {"environment": "production", "safaricom": {**SAFARICOM, "baseUrl": url}}
        assert "safaricom.baseUrl is the sandbox while environment is production" in refusal(values)
