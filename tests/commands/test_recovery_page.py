"""Every command of docs/recovery.md, typed one after the other as the page says."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import psycopg
import pytest

from harness import shell
from harness.given_stores import EMBEDDED_ONLY
from harness.statement import portal_csv
from mpesa_devkit.embedded import EmbeddedPostgres

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@EMBEDDED_ONLY
@pytest.mark.timeout(300)
def test_the_commands_of_the_page_restore_a_database(
    postgres: EmbeddedPostgres, database_url: str, tmp_path: Path
) -> None:
    page = (ROOT / "docs/recovery.md").read_text(encoding="utf-8")
    lines = [line for block in BLOCK.findall(page) for line in block.splitlines()]
    programs = [str(postgres.program("psql").parent), str(Path(sys.executable).parent)]
    env = {
        "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
        "MPESA_DATABASE_URL": database_url,
    }
    values = {"BACKUP_FILE": "backup.dump", "YOUR_NAME": "wanjiru", "WHY": "'a drill'"}
    values["STATEMENT_FILE"] = "statement.csv"
    debit = {"receipt": "UJ22T8IYOU", "phone": "254712340000", "amount": 10}
    statement = portal_csv([debit | {"at": "2026-12-01T00:00:00Z"}])
    (tmp_path / "statement.csv").write_text(statement, encoding="utf-8")
    said = []
    for line in lines:
        command = re.sub("|".join(values), lambda it: values[it[0]], line)
        done = shell.run("sh", "-c", command, cwd=tmp_path, env=env)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said.append(done.stdout)

    assert "New payments are held since" in said[-3]
    assert "UJ22T8IYOU" in said[-2]
    assert "deliver or refund by hand" in said[-2]
    assert "New payments may start" in said[-1]
    with psycopg.connect(database_url) as conn:
        holds = conn.execute("SELECT accepted_by, accepted_reason FROM recovery_holds").fetchall()
    assert holds == [("wanjiru", "a drill")]
