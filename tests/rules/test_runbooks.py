"""A runbook for each alert, an alert for each runbook, and commands that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from harness.alerts import alert_names
from harness.faulty_worlds import PHASES
from harness.payment_alerts import PAYMENT_CASES
from harness.platform_alerts import PLATFORM_CASES
from harness.runbooks import ALERTS_PAGE, PROGRAMS, RUNBOOKS, blocks, lines
from mpesa_gateway.cli import cli

HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def commands(path: Path) -> list[str]:
    """The commands of ours that a page tells to run."""
    return [it for page, it in lines() if page == path.stem and it.startswith("mpesa-gateway ")]


def parse(command: str) -> None:
    """As the program itself would, without running it. Raises click's UsageError."""
    words = shlex.split(command)[1:]
    group: click.Command = cli
    context = click.Context(cli, info_name="mpesa-gateway")
    while isinstance(group, click.Group):
        name, found, words = group.resolve_command(context, words)
        assert found is not None, command
        group, context = found, click.Context(found, info_name=name, parent=context)
    # What a person fills in stands in capitals; an id is a number for some commands.
    words = ["1" if word == "CALLBACK_ID" else word for word in words]
    group.make_context(context.info_name, words)


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    assert [path.stem for path in RUNBOOKS] == alert_names()


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda it: it.stem)
def test_a_runbook_has_its_four_parts(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith(f"# {path.stem}\n")
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    assert parts[1::2] == HEADINGS
    assert all(len(part.strip()) > 20 for part in parts[2::2])


@pytest.mark.parametrize("path", [*RUNBOOKS, ALERTS_PAGE], ids=lambda it: it.stem)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text("utf-8")):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda it: it.stem)
def test_commands_are_those_of_the_program(path: Path) -> None:
    for command in commands(path):
        parse(command)


def test_a_command_that_does_not_exist_is_found() -> None:
    for wrong in (
        "mpesa-gateway transactions mend 1",
        "mpesa-gateway transactions list --all",
        "mpesa-gateway transactions resolve 1 --by somebody",
        "mpesa-gateway deliveries list --state BROKEN",
    ):
        with pytest.raises(click.UsageError):
            parse(wrong)


def test_runbooks_tell_of_commands() -> None:
    assert sum(len(commands(path)) for path in RUNBOOKS) > len(RUNBOOKS)


def test_what_is_fenced_is_run_by_a_test() -> None:
    """tests/commands runs ours and SQL, tests/cluster kubectl's and Helm's; nobody runs others."""
    assert {line.split(" ")[0] for _, line in lines()} <= set(PROGRAMS)
    fenced = sum(path.read_text("utf-8").count("\n```") for path in [*RUNBOOKS, ALERTS_PAGE])
    assert fenced == 2 * (len(blocks("sh")) + len(blocks("sql")))


def table_rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading of the page of alerts."""
    text = ALERTS_PAGE.read_text("utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in text.split("\n") if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_lists_every_alert() -> None:
    named = [re.sub(r"\[(\w+)\].*", r"\1", row[0]) for row in table_rows("Every alert")]
    assert sorted(named) == alert_names()


def test_the_matrix_is_that_of_the_tests() -> None:
    """Each fault of the page is proved by a case, and each such case is on the page."""
    written = {(row[0], re.sub(r"\[(\w+)\].*", r"\1", row[1])) for row in table_rows("Faults")}
    proved = {(it.fault, it.alert) for it in PAYMENT_CASES + PLATFORM_CASES if it.fault}
    assert all(it.rings for it in PAYMENT_CASES + PLATFORM_CASES if it.fault)
    assert written == proved


def test_the_matrix_says_what_was_seen_live() -> None:
    live = {fault for phases in PHASES.values() for phase in phases for fault in phase.faults}
    assert {row[0] for row in table_rows("Faults") if row[3] == "live"} == live
    assert {row[3] for row in table_rows("Faults") if row[0] not in live} == {"promtool"}


def test_the_matrix_has_the_severities_of_the_tests() -> None:
    written = {
        (row[0], re.sub(r"\[(\w+)\].*", r"\1", row[1]), severity)
        for row in table_rows("Faults")
        for severity in row[2].split(", ")
    }
    cases = PAYMENT_CASES + PLATFORM_CASES
    assert written == {(it.fault, it.alert, how) for it in cases if it.fault for how in it.rings}
