"""`kubectl mpesa`, with a kubectl that writes down what it is asked (a real one: tests/cluster)."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.collecting import every_case

ROOT = Path(__file__).parents[2]
LABELS = "app.kubernetes.io/part-of=mpesa-gateway,app.kubernetes.io/component=worker"
ONE = "gw-mpesa-gateway-worker gw 2\n"
# What `get` answers comes from a file; every call's arguments go into another.
KUBECTL = """#!/usr/bin/env python3
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([os.environ.get("KUBECONFIG", ""), *sys.argv[1:]]) + "\\n")
if "get" in sys.argv:
    sys.stdout.write((here / "found").read_text())
else:
    sys.stdout.write(sys.stdin.read())
    sys.exit(7)
"""


@dataclass
class Shell:
    directory: Path

    def run(self, *arguments: str, found: str = ONE) -> subprocess.CompletedProcess[str]:
        (self.directory / "calls").write_text("")
        (self.directory / "found").write_text(found)
        return subprocess.run(
            [ROOT / "scripts/kubectl-mpesa", *arguments],
            input="statement",
            env={"PATH": f"{self.directory}:{os.environ['PATH']}", "namespace": "of the caller"},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[list[str]]:
        return [json.loads(it) for it in (self.directory / "calls").read_text().splitlines()]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    return Shell(tmp_path)


@every_case(
    ("given", "config", "options", "labels"),
    [
        ((), "", [], LABELS),
        (("-n", "pay"), "", ["--namespace=pay"], LABELS),
        (("--namespace=pay", "--context", "a b"), "", ["--context=a b", "--namespace=pay"], LABELS),
        (("--kubeconfig", "/a b"), "/a b", [], LABELS),
        (("--release", "gw"), "", [], f"{LABELS},app.kubernetes.io/instance=gw"),
        (("--release=gw", "--"), "", [], f"{LABELS},app.kubernetes.io/instance=gw"),
    ],
)
def test_a_command_runs_in_a_worker_with_its_words_stdin_and_status(
    shell: Shell, given: tuple[str, ...], config: str, options: list[str], labels: str
) -> None:
    words = ["transactions", "resolve", "it's $HOME", "-n", "--reason", "a  b", ""]
    done = shell.run(*given, *words)

    look, execute = shell.calls()
    assert look[:-1] == [config, *options, "get", "deployments", "--selector", labels, "--output"]
    worker = ["--stdin", "deployment/gw-mpesa-gateway-worker", "--container", "worker", "--"]
    assert execute == [config, *options, "exec", *worker, "mpesa-gateway", *words]
    assert (done.returncode, done.stdout, done.stderr) == (7, "statement", "")


@every_case(
    ("found", "words"),
    [
        ("", "there is no worker in that namespace"),
        ("gw-mpesa-gateway-worker gw \n", "no pod of deployment/gw-mpesa-gateway-worker is ready"),
        ("a-worker a 1\nb-worker b 1\n", "several releases (a b): choose one with --release"),
    ],
)
def test_where_nothing_can_run_it_says_why_and_what_to_do(
    shell: Shell, found: str, words: str
) -> None:
    done = shell.run("stats", found=found)
    assert (done.returncode, done.stdout, len(shell.calls())) == (1, "", 1)
    assert words in done.stderr


@every_case("given", [(), ("-n",), ("-n", "pay"), ("--release",), ("--all", "stats")])
def test_wrong_usage_asks_the_cluster_nothing(shell: Shell, given: tuple[str, ...]) -> None:
    done = shell.run(*given)
    assert (done.returncode, done.stdout, shell.calls()) == (2, "", [])
    assert "kubectl mpesa" in done.stderr


def test_help_says_how(shell: Shell) -> None:
    done = shell.run("--help")
    assert (done.returncode, shell.calls()) == (0, [])
    assert "--release NAME" in done.stdout
