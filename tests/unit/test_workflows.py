"""The workflows, which only run outside: their rights, their gate, and that what they call exists.

Nobody here can run them, so what can be judged without running is judged: every action is a commit,
nothing can be signed by what builds, no pipe hides a failure, every script parses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import shell
from harness.collecting import every_case

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = {it.name: it for it in sorted((ROOT / ".github" / "workflows").glob("*.yaml"))}
# Who may prove to be this repository, and so sign and publish.
SIGNERS = {("release.yaml", "sign"), ("release.yaml", "pypi")}
GATE = "check"
MAKEFILES = ("Makefile", "compose/targets.mk")
_PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+$")

Job = dict[str, Any]


def load(name: str) -> dict[Any, Any]:
    return dict(yaml.safe_load(WORKFLOWS[name].read_text("utf-8")))


def jobs() -> Iterator[tuple[str, str, Job]]:
    for name in WORKFLOWS:
        for job, content in load(name)["jobs"].items():
            yield name, job, content


def scripts() -> Iterator[tuple[str, str]]:
    """Where a script stands, and its text."""
    for name, job, content in jobs():
        for number, step in enumerate(content.get("steps", ())):
            if "run" in step:
                yield f"{name} {job} {number}", step["run"]


JOBS = {f"{name} {job}": content for name, job, content in jobs()}


def test_there_are_workflows_to_check() -> None:
    assert set(WORKFLOWS) == {"ci.yaml", "release.yaml"}


@every_case("name", WORKFLOWS)
def test_every_action_is_named_by_its_commit_with_its_version_beside_it(name: str) -> None:
    lines = [it.strip() for it in WORKFLOWS[name].read_text("utf-8").splitlines()]
    used = [it for it in lines if "uses:" in it and "uses: ./" not in it]
    assert used
    assert [it for it in used if not _PINNED.search(it)] == []


@every_case("name", WORKFLOWS)
def test_a_failure_inside_a_pipe_fails_the_step(name: str) -> None:
    """GitHub's own default is `bash -e`; only a named bash has pipefail."""
    assert load(name)["defaults"]["run"]["shell"] == "bash"
    steps = [step for _, _, job in jobs() for step in job.get("steps", ())]
    assert not any("shell" in it for it in steps)


@every_case("name", WORKFLOWS)
def test_a_workflow_has_no_rights_but_those_of_its_jobs(name: str) -> None:
    assert load(name)["permissions"] == {}


@every_case("job", JOBS)
def test_a_job_asks_for_no_more_rights_than_it_needs_and_ends(job: str) -> None:
    content = JOBS[job]
    assert content["permissions"]
    if "uses" not in content:
        assert content["timeout-minutes"] <= 120
    for step in content.get("steps", ()):
        if "actions/checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
        # An expression inside a script is replaced before the shell reads it.
        assert "${{" not in step.get("run", ""), step


@every_case("job", JOBS)
def test_only_what_builds_nothing_can_sign_or_publish(job: str) -> None:
    rights = JOBS[job]["permissions"]
    signs = rights.get("id-token") == "write" or rights.get("attestations") == "write"
    assert signs == (tuple(job.split()) in SIGNERS)
    if signs:
        steps = JOBS[job]["steps"]
        assert not any("build-push" in it.get("uses", "") for it in steps)
        assert not any("make " in it.get("run", "") for it in steps)
        assert JOBS[job]["environment"]


def test_nothing_of_a_release_begins_before_its_commit_passed_everything() -> None:
    release = load("release.yaml")["jobs"]
    assert release[GATE]["uses"] == "./.github/workflows/ci.yaml"
    assert "workflow_call" in load("ci.yaml")[True]  # YAML 1.1 reads `on` as true
    assert any(it.get("run") == ".ci/run" for it in load("ci.yaml")["jobs"]["test"]["steps"])
    for name in release:
        assert GATE in before(release, name) | {name}, name


def before(all_jobs: dict[str, Job], name: str) -> set[str]:
    """Every job that must have passed before this one begins."""
    needs = all_jobs[name].get("needs", [])
    direct = {needs} if isinstance(needs, str) else set(needs)
    return direct.union(*(before(all_jobs, it) for it in direct)) if direct else direct


@every_case(("place", "script"), list(scripts()))
def test_a_script_parses_and_what_it_calls_exists(place: str, script: str) -> None:
    done = shell.run("bash", "-n", stdin=script)
    assert done.returncode == 0, f"{place}: {done.stderr}"
    makefile = "".join((ROOT / it).read_text("utf-8") for it in MAKEFILES)
    for target in re.findall(r"^make ([\w-]+)", script, re.MULTILINE):
        assert re.search(rf"^([\w-]+ )*{target}( [\w-]+)*:", makefile, re.MULTILINE), target
    for called in re.findall(r"(?:^|[ (])((?:scripts|\.ci)/[\w.]+)", script, re.MULTILINE):
        file = ROOT / called
        assert file.is_file(), called
        assert file.stat().st_mode & 0o100, called


def test_a_runner_names_its_cluster_and_leaves_nothing_out() -> None:
    for name in ("test", "kubernetes"):
        steps = load("ci.yaml")["jobs"][name]["steps"]
        assert any("KUBECONFIG=" in it.get("run", "") for it in steps)
        assert steps[-1]["env"]["MPESA_CLUSTER_TESTS"] == "required"


def test_the_matrix_has_the_oldest_kubernetes_that_the_chart_allows_and_both_helms() -> None:
    chart = (ROOT / "charts/mpesa-gateway/Chart.yaml").read_text("utf-8")
    oldest = re.search(r'^kubeVersion: ">=(1\.\d+)', chart, re.MULTILINE)
    rows = load("ci.yaml")["jobs"]["kubernetes"]["strategy"]["matrix"]["include"]
    assert oldest
    assert {it["helm"].split(".")[0] for it in rows} == {"v3", "v4"}
    assert any(f":v{oldest[1]}." in it["node"] for it in rows)
    for row in rows:
        assert re.search(rf":{row['kubectl']}@sha256:[0-9a-f]{{64}}$", row["node"])


@pytest.mark.parametrize("version", ["3.13"])
def test_the_python_of_the_workflows_is_the_image_s(version: str) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert f"BASE_IMAGE=python:{version}-" in dockerfile
    setups = [
        step["with"]["python-version"]
        for _, _, job in jobs()
        for step in job.get("steps", ())
        if "setup-python" in step.get("uses", "")
    ]
    assert set(setups) == {version}


@every_case(
    ("required", "kubeconfig", "asked"),
    [("", "", False), ("", "/a/config", True), ("required", "", True), ("required", "/a/c", True)],
)
def test_what_ci_requires_is_never_left_out_in_silence(
    tmp_path_factory: pytest.TempPathFactory, required: str, kubeconfig: str, asked: bool
) -> None:
    """.ci/run, with a `make` whose tests on Kubernetes fail, as they do without a cluster."""
    root = tmp_path_factory.mktemp("ci") / "checkout"
    (root / ".ci").mkdir(parents=True)
    (root / "bin").mkdir()
    shutil.copy(ROOT / ".ci" / "run", root / ".ci")
    make = root / "bin" / "make"
    make.write_text('#!/bin/sh\necho "make $*"\n[ "$1" != e2e ]\n')
    make.chmod(0o755)
    env = {"PATH": f"{make.parent}:{os.environ['PATH']}", "TMPDIR": str(root)}
    env |= {"MPESA_CLUSTER_TESTS": required, "KUBECONFIG": kubeconfig}

    done = subprocess.run(
        [root / ".ci" / "run"], env=env, capture_output=True, text=True, check=False
    )

    assert ("make e2e" in done.stdout.splitlines()) == asked
    assert (done.returncode != 0) == asked
    assert ("not run: tests/" in done.stdout) != asked
