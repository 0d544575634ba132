"""Each statement of `store/` can be prepared against the schema, as if pasted into psql."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg

import mpesa_gateway.store

SOURCES = Path(mpesa_gateway.store.__file__).parent
_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b")
_NAMED = re.compile(r"%\((\w+)\)s")
# Runs what cannot be prepared, or puts text of its own together.
ELSEWHERE = {"migrations.py", "long_statements.py", "session.py", "inbox.py"}


def statements() -> Iterator[tuple[str, str]]:
    """File and line, and the text, of each triple-quoted statement and each constant with one."""
    for path in sorted(SOURCES.glob("*.py")):
        if path.name in ELSEWHERE:
            continue
        module = importlib.import_module(f"mpesa_gateway.store.{path.stem}")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = {
            id(it) for of in ast.walk(tree) if isinstance(of, ast.JoinedStr) for it in of.values
        }
        for node in ast.walk(tree):
            text = None if id(node) in parts else _text(node, vars(module))
            if text is not None and _STATEMENT.match(text) and "\n" in text:
                yield f"{path.name}:{getattr(node, 'lineno', 0)}", text


def _text(node: ast.AST, names: dict[str, object]) -> str | None:
    """A constant's text, or that of an f-string of constants."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [_part(it, names) for it in node.values]
        return None if None in parts else "".join(str(it) for it in parts)
    return None


def _part(node: ast.expr, names: dict[str, object]) -> str | None:
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        found = names.get(node.value.id)
        return found if isinstance(found, str) else None
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _numbered(text: str) -> str:
    """With `$1` for `%(name)s`, the same number for the same name."""
    names = list(dict.fromkeys(_NAMED.findall(text)))
    return _NAMED.sub(lambda it: f"${names.index(it[1]) + 1}", text).replace("%%", "%")


def test_each_statement_can_be_prepared(database_url: str) -> None:
    misses = []
    seen = 0
    with psycopg.connect(database_url, autocommit=True) as conn:
        for where, text in statements():
            seen += 1
            try:
                conn.execute(f"PREPARE tried AS {_numbered(text)}".encode())
                conn.execute("DEALLOCATE tried")
            except psycopg.Error as error:
                misses.append(f"{where}: {error}")
    assert misses == []
    assert seen > 60
