"""The demo from the outside: what it says, its exit status, and that nothing stays behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.waiting import wait_for
from mpesa_demo.scenarios import SCENARIOS
from mpesa_devkit.processes import answers, clean_env
from mpesa_gateway.clients.json_call import call

pytestmark = pytest.mark.e2e

GONE_AFTER_KILL_S = 10.0


class Demo:
    """A running `mpesa-gateway demo`, its output as it comes."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "mpesa_gateway", "demo", *arguments],
            env=clean_env({"TMPDIR": str(directory)}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout:
            self._lines.extend(iter(self.popen.stdout.readline, ""))

    @property
    def text(self) -> str:
        return "".join(list(self._lines))

    def wait_for_text(self, text: str) -> None:
        wait_for(
            lambda: text in self.text or self.popen.poll() is not None, timeout_s=60, what=text
        )
        assert text in self.text, self.text

    def wait(self) -> int:
        status = self.popen.wait(90)
        self._reader.join(10)
        return status

    @property
    def ports(self) -> list[int]:
        """Every port that it said it uses."""
        return [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", self.text)]

    def url_of(self, name: str) -> str:
        found = re.search(rf"✓ {name} .*(http://127\.0\.0\.1:\d+)", self.text)
        assert found is not None
        return found[1]

    def assert_nothing_remains(self) -> None:
        assert len(self.ports) >= 2
        assert [port for port in self.ports if answers(port)] == []
        assert list(self.directory.glob("mpesa-gateway-demo-*")) == []
        assert processes_in(self.directory) == []


def processes_in(directory: Path) -> list[str]:
    """Processes whose command line or working directory is in there (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            place = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(directory) in command or str(directory) in place:
            found.append(command)
    return found


@pytest.fixture
def directory() -> Iterator[Path]:
    """Readable by Postgres's own user, which pytest's directories are not when root runs them."""
    with tempfile.TemporaryDirectory(prefix="demo-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def demo(directory: Path) -> Iterator[Demo]:
    running = Demo(directory)
    yield running
    if running.popen.poll() is None:
        running.popen.kill()
    running.wait()


def test_every_payment_ends_as_it_must_and_nothing_remains(demo: Demo) -> None:
    status = demo.wait()
    assert status == 0, demo.text
    assert f"All {len(SCENARIOS)} payments are where they should be" in demo.text
    assert "✗" not in demo.text
    summary = demo.text.partition("Safaricom's ledger")
    for scenario in SCENARIOS:
        assert re.search(rf"✓ {re.escape(scenario.name)} +KES", summary[0]), scenario.name
        assert scenario.phone not in demo.text
    assert "✓ double charges 0" in summary[2]
    assert "both signatures of each verified" in summary[2]
    assert len(set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", summary[0]))) == len(SCENARIOS) - 1
    demo.assert_nothing_remains()


def test_payments_that_end_wrong_are_named_and_the_exit_status_is_1(demo: Demo) -> None:
    demo.wait_for_text("✓ simulator")
    busy = {"push_failure_rate": 1.0}
    assert call(f"{demo.url_of('simulator')}/settings", "PATCH", body=busy).status == 200
    assert demo.wait() == 1, demo.text
    assert "payments ended wrong: " in demo.text
    assert re.search(r"ended wrong: .*numbers_as_strings", demo.text)
    assert "POST /initiate answered 503, expected 201" in demo.text
    demo.assert_nothing_remains()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_during_the_payments_stops_everything(
    demo: Demo, number: int, status: int
) -> None:
    demo.wait_for_text("COMPLETED")
    demo.popen.send_signal(number)
    demo.popen.send_signal(number)
    assert demo.wait() == status, demo.text
    assert "Ended early" in demo.text
    assert "Traceback" not in demo.text
    demo.assert_nothing_remains()


@pytest.mark.slow
def test_a_signal_while_it_starts_stops_everything(demo: Demo) -> None:
    demo.wait_for_text("✓ Redis")
    demo.popen.send_signal(signal.SIGTERM)
    assert demo.wait() == 143, demo.text
    demo.assert_nothing_remains()


@pytest.mark.slow
def test_when_it_is_killed_its_processes_end_too(demo: Demo) -> None:
    demo.wait_for_text("COMPLETED")
    demo.popen.kill()
    demo.wait()
    wait_for(
        lambda: not processes_in(demo.directory) and not any(map(answers, demo.ports)),
        timeout_s=GONE_AFTER_KILL_S,
        what="every process to end",
    )


@pytest.mark.slow
def test_keep_says_where_everything_is_until_a_signal(directory: Path) -> None:
    kept = Demo(directory, "--keep")
    try:
        kept.wait_for_text("Webhooks from here on")
        commands = re.findall(r"^curl .*?(?<!\\)$", kept.text, re.MULTILINE | re.DOTALL)
        assert len(commands) == 3
        for command in commands:
            paste(command)
        wait_for(lambda: webhooks_of(kept) == 2, what="both webhooks")
        kept.popen.send_signal(signal.SIGINT)
        assert kept.wait() == 0, kept.text
    finally:
        kept.popen.kill()
        kept.wait()
    kept.assert_nothing_remains()


def webhooks_of(kept: Demo) -> int:
    """How many it has shown since the payments."""
    after = kept.text.partition("Webhooks from here on")[2]
    return len(re.findall("✓ transaction.completed .* both signatures verified", after))


def paste(command: str) -> None:
    """Run a command that a person is told to paste."""
    result = subprocess.run(
        ["/bin/sh", "-c", command.replace("curl", "curl --silent --fail", 1)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert result.returncode == 0, command
