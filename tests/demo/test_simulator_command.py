"""`mpesa-gateway simulator` has an option and a variable for each setting of the simulator."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from daraja_simulator.settings import Kind, Settings
from harness.collecting import every_case
from mpesa_devkit.processes import Process, answers, clean_env, free_port
from mpesa_gateway.cli import cli
from mpesa_gateway.clients.json_call import call

# For each kind a value that is no default: as given, and as GET / shows it.
SAMPLES: dict[Kind, tuple[str, object]] = {
    Kind.DURATION: ("1500ms", 1.5),
    Kind.RATE: ("0.25", 0.25),
    Kind.COUNT: ("7", 7),
    Kind.MAPPING: ("first=one", ["first"]),
    Kind.OPEN_PROMPT: ("empty_200", "empty_200"),
}


def sample(setting: Any, port: int, directory: Path) -> tuple[str, object]:
    """A value as given and as shown; a switch is turned over."""
    special: dict[str, tuple[str, object]] = {
        "host": ("127.0.0.1", "127.0.0.1"),
        "port": (str(port), port),
        "ledger_file": (str(directory / "ledger"), str(directory / "ledger")),
    }
    if setting.name in special:
        return special[setting.name]
    if setting.metadata["kind"] is Kind.SWITCH:
        return ("false" if setting.default else "true"), not setting.default
    return SAMPLES[setting.metadata["kind"]]


@contextmanager
def running(directory: Path, port: int, *arguments: str, **env: str) -> Iterator[dict[str, Any]]:
    """The settings of a simulator that runs as a process."""
    process = Process(
        "simulator",
        [sys.executable, "-m", "mpesa_gateway", "simulator", *arguments],
        log=directory / "log",
        env=clean_env(env),
    )
    try:
        process.wait_until(lambda: answers(port))
        settings: dict[str, Any] = call(f"http://127.0.0.1:{port}/").body["settings"]
        yield settings
    finally:
        assert process.stop() == 0


def option(setting: Any, given: str) -> list[str]:
    name = setting.name.replace("_", "-")
    if setting.metadata["kind"] is Kind.SWITCH:
        return [f"--{name}" if given == "true" else f"--no-{name}"]
    return [f"--{name}", given]


def test_every_setting_has_an_option(tmp_path: Path) -> None:
    port = free_port()
    samples = {it.name: sample(it, port, tmp_path) for it in fields(Settings)}
    arguments = [part for it in fields(Settings) for part in option(it, samples[it.name][0])]
    with running(tmp_path, port, *arguments) as settings:
        assert settings == {name: shown for name, (_, shown) in samples.items()}


def test_every_setting_has_a_variable(tmp_path: Path) -> None:
    port = free_port()
    samples = {it.name: sample(it, port, tmp_path) for it in fields(Settings)}
    env = {f"MPESA_SIMULATOR_{name.upper()}": given for name, (given, _) in samples.items()}
    with running(tmp_path, port, **env) as settings:
        assert settings == {name: shown for name, (_, shown) in samples.items()}


def test_what_is_not_said_keeps_its_default(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, port, "--port", str(port)) as settings:
        assert settings == Settings(port=port).public()


def test_a_mapping_takes_several_pairs(tmp_path: Path) -> None:
    port = free_port()
    arguments = ["--port", str(port), "--passkeys", "600001=a", "--passkeys", "600002=b=c"]
    with running(tmp_path, port, *arguments, MPESA_SIMULATOR_CREDENTIALS="x=1 y=2") as settings:
        assert settings["passkeys"] == ["600001", "600002"]
        assert settings["credentials"] == ["x", "y"]


@every_case(
    ("arguments", "said"),
    [
        (["--port", "http"], "--port must be a whole number"),
        (["--callback-delay", "soon"], "--callback-delay must be seconds or a text"),
        (["--push-failure-rate", "2"], "--push-failure-rate must be a number from 0 to 1"),
        (["--query-while-open", "no"], "--query-while-open must be one of 4999"),
        (["--credentials", "secret"], "--credentials"),
        (["--max-records", "0"], "--max-records must be at least 1"),
        (["--nothing"], "--nothing"),
    ],
)
def test_a_bad_value_is_a_sentence_that_names_the_option(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, ["simulator", *arguments])
    assert result.exit_code == 2
    assert said in result.output


def test_all_bad_values_are_named_at_once_as_they_were_given() -> None:
    env = {"MPESA_SIMULATOR_LATE_DELAY": "later"}
    result = CliRunner().invoke(cli, ["simulator", "--port", "no"], env=env)
    assert result.exit_code == 2
    assert "--port must be" in result.output
    assert "MPESA_SIMULATOR_LATE_DELAY must be" in result.output


def test_a_bad_pair_is_not_repeated_because_it_may_hold_a_secret() -> None:
    result = CliRunner().invoke(cli, ["simulator", "--credentials", "hidden"])
    assert result.exit_code == 2
    assert "hidden" not in result.output


def test_a_port_in_use_is_a_sentence(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, port, "--port", str(port)):
        result = CliRunner().invoke(cli, ["simulator", "--port", str(port)])
    assert result.exit_code == 1
    assert f"port {port} of 127.0.0.1 is in use; choose another one with --port" in result.output


def test_other_commands_do_not_import_the_simulator(tmp_path: Path) -> None:
    code = "import sys, mpesa_gateway.cli; sys.exit('daraja_simulator' in sys.modules)"
    process = Process("python", [sys.executable, "-c", code], log=tmp_path / "log")
    assert process.stop(0) == 0


def test_the_help_shows_every_setting_with_its_variable_and_default() -> None:
    text = CliRunner().invoke(cli, ["simulator", "--help"], terminal_width=200).output
    for setting in fields(Settings):
        assert "--" + setting.name.replace("_", "-") in text
        assert f"MPESA_SIMULATOR_{setting.name.upper()}" in text
