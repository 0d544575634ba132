"""Every commit, Redis call and outbound call has failpoints: new code cannot dodge the crash suite.

The syntax tree is read. Commits go through `Pool`, whose methods emit the failpoints and ask for
a name; every other call that leaves the process stands in `with step("name")`.
"""

from __future__ import annotations

import ast
import collections
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpesa_gateway
from mpesa_gateway import failpoint

SOURCE = Path(mpesa_gateway.__file__).parent
# The demo looks at the gateway from outside, as a client.
MODULES = sorted(
    path for path in SOURCE.rglob("*.py") if "demo" not in path.relative_to(SOURCE).parts
)
# The only modules that may import what talks to the outside.
OUTSIDE = {
    "redis": {
        "clients/budget.py",
        "clients/circuit_breaker.py",
        "clients/high_water.py",
        "clients/redis_pool.py",
        "clients/redis_probe.py",
        "clients/token.py",
        "services.py",
        "work_queue.py",
    },
    "requests": {"clients/daraja.py", "clients/egress.py", "clients/webhooks.py"},
    "psycopg": {
        "store/deadline.py",
        "store/long_statements.py",
        "store/engine.py",
        "store/migrations.py",
        "store/owners.py",
        "store/pool.py",
        "store/connection_errors.py",
        "store/session.py",
        "store/turns.py",
    },
    "psycopg_pool": {"store/pool.py"},
}
# Before any service runs: nothing is in hand yet, and a person reads the answer.
UNARMED = {"clients/redis_probe.py"}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def attribute(node: ast.expr) -> tuple[str, str]:
    """`("_pool", "transaction")` of `self._pool.transaction`; empty where there is no name."""
    if not isinstance(node, ast.Attribute):
        return "", ""
    owner = node.value
    if isinstance(owner, ast.Attribute):
        return owner.attr, node.attr
    return (owner.id if isinstance(owner, ast.Name) else ""), node.attr


def pool_calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in MODULES:
        if path == SOURCE / "store/pool.py":
            continue
        for call in calls(path):
            owner, name = attribute(call.func)
            if name in ("transaction", "connection") and owner.endswith("pool"):
                yield path, call


def test_every_use_of_postgres_has_a_name_of_its_own() -> None:
    names = collections.Counter[str]()
    for path, call in pool_calls():
        where = f"{path.name}:{call.lineno}"
        assert call.args, f"{where}: the failpoints of this commit need a name"
        name = call.args[0]
        assert isinstance(name, ast.Constant), f"{where}: the name must stand here"
        names[str(name.value)] += 1
    assert len(names) > 20
    assert [name for name, uses in names.items() if uses > 1] == []


def test_libraries_that_leave_the_process_stay_where_the_failpoints_are() -> None:
    found: dict[str, set[str]] = {name: set() for name in OUTSIDE}
    for path in MODULES:
        for node in ast.walk(tree(path)):
            names = [it.name for it in node.names] if isinstance(node, ast.Import) else []
            for name in set(names) & set(OUTSIDE):
                found[name].add(str(path.relative_to(SOURCE)))
            if isinstance(node, ast.ImportFrom) and node.module == "psycopg_pool":
                found["psycopg_pool"].add(str(path.relative_to(SOURCE)))
    assert found == OUTSIDE


class Leaving(ast.NodeVisitor):
    """Finds calls that leave the process, and whether a step surrounds them."""

    def __init__(self, path: Path) -> None:
        self.unguarded: list[tuple[str, int]] = []
        self.guarded = 0
        self.helpers: dict[str, list[bool]] = collections.defaultdict(list)
        self._scripts = set(scripts(path))
        self._steps = 0
        self._function = ""
        self.visit(tree(path))

    def visit_With(self, node: ast.With) -> None:
        steps = sum(is_step(item.context_expr) for item in node.items)
        self._steps += steps
        self.generic_visit(node)
        self._steps -= steps

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self._function = self._function, node.name
        steps, self._steps = self._steps, 0
        self.generic_visit(node)
        self._function, self._steps = outer, steps

    def visit_Call(self, node: ast.Call) -> None:
        owner, name = attribute(node.func)
        self.helpers[name].append(self._steps > 0)
        leaves = owner in ("_redis", "_session") or name in self._scripts
        if leaves or (owner == "conn" and name == "lpush"):
            if self._steps:
                self.guarded += 1
            else:
                self.unguarded.append((self._function, node.lineno))
        self.generic_visit(node)


def scripts(path: Path) -> Iterator[str]:
    """Attributes that hold a script of Redis: a call of them is a call of Redis."""
    for node in ast.walk(tree(path)):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        if attribute(node.value.func)[1] == "register_script":
            yield attribute(node.targets[0])[1]


def is_step(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.id if isinstance(node.func, ast.Name) else attribute(node.func)[1]
    return name == "step" and isinstance(node.args[0], ast.Constant)


def test_every_call_that_leaves_the_process_stands_in_a_step() -> None:
    guarded = 0
    for path in MODULES:
        if str(path.relative_to(SOURCE)) in UNARMED:
            continue
        found = Leaving(path)
        guarded += found.guarded
        for function, line in found.unguarded:
            # A helper is fine where each of its callers stands in a step.
            assert found.helpers[function], f"{path.name}:{line}: no failpoint around this call"
            assert all(found.helpers[function]), f"{path.name}:{line}: called outside a step"
    assert guarded >= 8


def test_an_unguarded_call_is_found(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f(self):\n    with step('x'):\n        pass\n    self._redis.get('y')\n")

    assert Leaving(bad).unguarded == [("f", 4)]


def test_names_of_steps_are_unique() -> None:
    names = [
        str(call.args[0].value)
        for path in MODULES
        for call in calls(path)
        if is_step(call) and isinstance(call.args[0], ast.Constant)
    ]
    assert len(names) == len(set(names)) >= 8


# --- what an armed failpoint does ----------------------------------------------------------------


def test_nothing_happens_unless_armed() -> None:
    with failpoint.step("some.call"):
        failpoint.failpoint("anything")


def test_a_step_that_fails_has_no_second_failpoint() -> None:
    seen: list[str] = []
    failpoint.arm(seen.append)
    try:
        with pytest.raises(KeyError), failpoint.step("call"):
            raise KeyError
        with failpoint.step("call"):
            pass
    finally:
        failpoint.arm(None)

    assert seen == ["call.before", "call.before", "call.after"]


def test_a_process_dies_where_it_is_told_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mpesa_gateway import failpoint as f\n"
        "f.arm(f.die_as_told(Path(sys.argv[1])))\n"
        "f.failpoint('first'); f.failpoint('second'); f.failpoint('third')"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    (tmp_path / "die").write_text("second")

    killed = subprocess.run(command, check=False, timeout=30)
    lived = subprocess.run(command, check=False, timeout=30)

    assert (killed.returncode, lived.returncode) == (-signal.SIGKILL, 0)
    assert (tmp_path / "hits").read_text().split() == [
        "first",
        "second",
        "first",
        "second",
        "third",
    ]
    assert (tmp_path / "died").exists()
