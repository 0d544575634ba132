"""Layer C, `make chaos`: real processes under an open load while a nemesis kills, stops and cuts.

`python -m harness.chaos`, in the directory `tests`, reads CHAOS_MINUTES, SEED, CHAOS_RATE,
CHAOS_REPORT, and CHAOS_FAULTS: `kills` for nothing but `kill -9`, one after the other has healed;
`faults`, `outages` or `all` (the default); or beginnings of kinds, such as `refuse,restore`.
Exit status 1 when a promise was broken.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import requests

from harness.chaos_evidence import check_run, gather_chaos
from harness.chaos_load import NEVER_TOLD, TOLD_ONCE, Load, make_arrivals
from harness.chaos_report import AFTER, ALL_HEALED, Report, lines, make_report
from harness.chaos_stack import ChaosStack, chaos_stack
from harness.nemesis import Done, Nemesis
from harness.nemesis_plan import APIS, OUTAGES, Fault, choose_kinds, make_kills, make_plan
from harness.recovery import Recovery, Watch
from mpesa_demo.ending import EndedError, Ending

TICK_S = 0.05
SAY_EVERY_S = 5.0
# An endpoint that failed long enough is parked for minutes, and Safaricom is asked again and again.
QUIET_TIMEOUT_S = 420.0
REPLAYS = 300
# Between a recovery and the next fault, where each has its time.
CALM_S = 2.0
SIGNALLED = 128
OUTAGE_NAMES = frozenset(it.name for it in OUTAGES)

# What is not over. A push that Safaricom never answered, of which no callback came, waits for a
# person after minutes; so does what is in doubt; and nobody ever learns how `never_told` ended.
OPEN = f"""
SELECT (SELECT count(*) FROM transactions WHERE status = 'PENDING' AND NOT in_doubt
            AND attention IS NULL AND right(phone, 4) NOT IN {NEVER_TOLD + TOLD_ONCE}
            AND NOT (push_state = 'UNKNOWN' AND checkout_request_id IS NULL)) AS payments,
       (SELECT count(*) FROM callbacks WHERE state = 'RECEIVED') AS callbacks,
       (SELECT count(*) FROM deliveries WHERE state = 'PENDING') AS deliveries
"""


class Run:
    """One run, from the first payment to the report."""

    def __init__(
        self,
        stack: ChaosStack,
        plan: list[Fault],
        seed: int,
        duration_s: float,
        per_s: float,
        ending: Ending,
        *,
        alone: bool = False,
    ) -> None:
        """`alone`: a fault begins when all is well again after the one before."""
        plan = [it for it in plan if it.kind not in stack.impossible()]
        self._stack = stack
        self._seed = seed
        self._duration_s = duration_s
        self._per_s = per_s
        self._ending = ending
        self._began = time.monotonic()
        self._said_at = 0.0
        self._load = Load(stack, make_arrivals(seed, duration_s, per_s))
        self._watch = Watch(stack)
        self._nemesis = Nemesis(
            stack,
            plan,
            may_begin=lambda: not alone or self._watch.is_over(for_s=CALM_S),
            until_s=duration_s,
            on_healed=self._follow_outage,
        )
        self._skipped = stack.impossible()
        self._problems: list[str] = []

    def run(self) -> Report:
        """Raises EndedError when a signal came."""
        self._load.start()
        self._watch.start()
        try:
            self._torment()
            healed = self._watch.begin(ALL_HEALED)
            self._wait_until_quiet(healed)
        finally:
            self._load.stop()
            self._nemesis.heal_all()
            self._watch.stop()
        return self._judge()

    def _torment(self) -> None:
        while not (self._nemesis.is_over() and self._elapsed_s() >= self._duration_s):
            for done in self._nemesis.tick():
                _say(f"{self._elapsed_s():6.0f} s  {done.fault.kind}: {done.fault.target}")
                if done.fault.kind.startswith("kill"):
                    self._watch.begin(done.fault.kind, self._stack.servers[done.fault.target])
            self._look_after()

    def _follow_outage(self, done: Done) -> None:
        if done.fault.kind in OUTAGE_NAMES:
            took_s = done.healed_at - done.began_at
            _say(f"{self._elapsed_s():6.0f} s  over after {took_s:.0f} s: {done.fault.kind}")
            apis = [self._stack.servers[it] for it in APIS]
            self._watch.begin(f"{AFTER}{done.fault.kind}", *apis)

    def _look_after(self) -> None:
        """Replace who died, say how it goes, and end when told to."""
        self._stack.replace_the_dead()
        self._nemesis.operate()
        self._ending.check()
        if time.monotonic() - self._said_at > SAY_EVERY_S:
            self._said_at = time.monotonic()
            done = self._nemesis.done
            kills = sum(it.fault.kind.startswith("kill") for it in done)
            _say(
                f"{self._elapsed_s():6.0f} s  {len(self._stack.asked)} payments,"
                f" {self._load.waiting()} clients wait, backlog {self._watch.backlog},"
                f" {len(done)} faults, {kills} kill -9;"
                f" now: {', '.join(self._nemesis.active()) or 'nothing'}"
            )
        time.sleep(TICK_S)

    def _wait_until_quiet(self, healed: Recovery) -> None:
        give_up = time.monotonic() + QUIET_TIMEOUT_S
        while not (healed.took_s is not None and self._is_quiet()):
            if time.monotonic() > give_up:
                self._problems.append(f"L1 not quiet after {QUIET_TIMEOUT_S:.0f} s: {self._open()}")
                return
            self._look_after()

    def _is_quiet(self) -> bool:
        """Clients have their answers, Safaricom has nothing under way, and nothing is open."""
        with contextlib.suppress(requests.RequestException, psycopg.Error):
            return (
                self._load.is_over()
                and self._stack.simulator.is_idle()
                and not any(self._open().values())
            )
        return False

    def _open(self) -> dict[str, int]:
        (row,) = self._stack.rows(OPEN)
        return row

    def _judge(self) -> Report:
        took_s = self._elapsed_s()
        self._ask_again()
        done = self._nemesis.done
        evidence = gather_chaos(self._stack, done)
        self._problems += evidence.problems()
        self._problems += check_run(self._stack)
        network = self._stack.network
        return make_report(
            seed=self._seed,
            duration_s=self._duration_s,
            took_s=took_s,
            per_s=self._per_s,
            evidence=evidence,
            done=done,
            recoveries=self._watch.recoveries,
            skipped=self._skipped,
            network={"swallowed": network.swallowed, "cut": network.cut},
            problems=self._problems,
        )

    def _ask_again(self) -> None:
        """S7: what a key was answered, it is answered again."""
        chance = random.Random(f"{self._seed}-again")  # noqa: S311 - it is to be repeatable
        # Who was never answered would begin a payment now, after the quiet.
        asked = [it for it in self._stack.asked if it.answers]
        for it in chance.sample(asked, min(REPLAYS, len(asked))):
            response = self._stack.post(it)
            it.answers.append((response.status_code, response.json()))

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run_chaos(
    directory: Path, *, seed: int, duration_s: float, per_s: float, faults: str = "all"
) -> Report:
    """A whole run in an empty directory. Main thread only. Raises EndedError on a signal."""
    alone = faults == "kills"
    plan = (
        make_kills(seed, duration_s) if alone else make_plan(seed, duration_s, choose_kinds(faults))
    )
    with Ending() as ending, chaos_stack(directory) as stack:
        return Run(stack, plan, seed, duration_s, per_s, ending, alone=alone).run()


def main() -> int:
    """The exit status."""
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    minutes = float(os.environ.get("CHAOS_MINUTES") or 10)
    per_s = float(os.environ.get("CHAOS_RATE") or 6)
    faults = os.environ.get("CHAOS_FAULTS") or "all"
    _say(f"seed {seed}: {minutes:g} minutes, {per_s:g} payments a second (SEED={seed} repeats it)")
    directory = Path(tempfile.mkdtemp(prefix="mpesa-chaos-"))
    try:
        report = run_chaos(
            directory, seed=seed, duration_s=minutes * 60, per_s=per_s, faults=faults
        )
    except EndedError as ended:
        shutil.rmtree(directory, ignore_errors=True)
        _say(f"Ended early, by {signal.Signals(ended.number).name}. Everything is stopped.")
        return SIGNALLED + ended.number
    return _tell(report, directory)


def _tell(report: Report, directory: Path) -> int:
    file = os.environ.get("CHAOS_REPORT")
    if file:
        Path(file).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    _say("\n" + "\n".join(lines(report)) + "\n")
    if not report["problems"]:
        shutil.rmtree(directory, ignore_errors=True)
        return 0
    for problem in report["problems"][:50]:
        _say(f"PROBLEM {problem}")
    _say(f"The logs and the ledger are in {directory}.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
