"""The denominator: what Postgres itself commits, one row of ours per commit (pgbench)."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from bench.data import BODY, SAFARICOM
from bench.load import quantile
from bench.rig import Rig

CLIENTS = 32
TABLE = "limit_callbacks"
_TPS = re.compile(r"^tps = ([0-9.]+) \(without initial", re.MULTILINE)


def prepare(rig: Rig) -> None:
    """A table of its own with the same columns and indexes, without the foreign key."""
    with rig.connect() as conn:
        conn.execute(f"CREATE TABLE {TABLE} (LIKE callbacks INCLUDING ALL)".encode())
        conn.execute("CREATE SEQUENCE limit_transactions CACHE 100")


def _script() -> str:
    body = (BODY % (0, 0)).hex()
    return (
        f"INSERT INTO {TABLE} (transaction_id, by_token, body, body_sha256, source, received_at,"
        " last_received_at, next_attempt_at) VALUES (nextval('limit_transactions'), true,"
        f" '\\x{body}'::bytea, '\\x{'5a' * 32}'::bytea, '{SAFARICOM}', now(), now(), now());\n"
    )


def commits_per_second(rig: Rig, seconds: float, clients: int = CLIENTS) -> float:
    """Rows a second that so many clients commit, one each time."""
    return float(_run(rig, seconds, clients)[0])


def commit_latency(rig: Rig, seconds: float) -> float:
    """The median commit of one client, in seconds."""
    return quantile([int(us) / 1e6 for us in _run(rig, seconds, 1)[1]], 0.5)


def _run(rig: Rig, seconds: float, clients: int) -> tuple[str, list[str]]:
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "insert.sql"
        script.write_text(_script())
        command = [
            *(str(rig.postgres.program("pgbench")), "-n", "-M", "prepared"),
            *("-h", "127.0.0.1", "-p", str(rig.postgres.port), "-U", "postgres"),
            *("-c", str(clients), "-j", str(min(2, clients)), "-T", str(max(1, round(seconds)))),
            *("-f", str(script), *(["-l"] if clients == 1 else []), "postgres"),
        ]
        result = subprocess.run(  # noqa: S603 - our own command
            command, cwd=directory, check=True, capture_output=True, text=True
        )
        found = _TPS.search(result.stdout)
        assert found is not None, result.stdout
        lines = [it.read_text().splitlines() for it in Path(directory).glob("pgbench_log.*")]
        return found[1], [line.split()[2] for file in lines for line in file]
