"""What the runbooks tell to type into kubectl is typed, on the release of this suite."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from harness import shell
from harness.release import Release
from harness.runbooks import commands

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/commands.md"
MERCHANT = "runbook"
CHANGES_THE_CONTEXT = "kubectl config set-context"


def filled_in(command: str, release: Release) -> str:
    """The command with this suite's names."""
    values = {"RELEASE": release.name, "NAMESPACE": release.kube.namespace, "NAME": MERCHANT}
    return re.sub(r"\b(RELEASE|NAMESPACE|NAME)\b", lambda it: values[it[1]], command)


def run(command: str, release: Release, context: Path) -> str:
    """What it says, with that kubeconfig. Fails with its complaint."""
    program, *words = shlex.split(filled_in(command, release))
    return shell.output(program, f"--kubeconfig={context}", *words, timeout_s=60)


@pytest.fixture(scope="module")
def context(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig of its own, in which the page's first command has chosen the namespace."""
    path = tmp_path_factory.mktemp("runbooks") / "kubeconfig"
    path.write_text(shell.output("kubectl", "config", "view", "--raw", "--flatten"))
    (command,) = [it for it in commands("kubectl") if it.startswith(CHANGES_THE_CONTEXT)]
    assert "modified" in run(command, release, path)
    return path


@pytest.fixture(scope="module", autouse=True)
def merchant(release: Release) -> None:
    """One that is not ready, as an alert would be about. It goes with the namespace."""
    spec = {
        "environment": "sandbox",
        "shortCode": "600999",
        "transactionType": "CustomerPayBillOnline",
        "credentialsSecretRef": {"name": "nowhere"},
    }
    release.kube.apply(
        {
            "apiVersion": "mpesa-gateway.dev/v1alpha1",
            "kind": "MerchantConfig",
            "metadata": {"name": MERCHANT, "namespace": release.kube.namespace},
            "spec": spec,
        }
    )


@pytest.mark.parametrize(
    "command",
    [it for it in commands("kubectl", "helm") if not it.startswith(CHANGES_THE_CONTEXT)],
)
def test_a_command_of_a_runbook_says_something(
    release: Release, context: Path, command: str
) -> None:
    """`No resources found` goes to stderr: a label that fits nothing says nothing here."""
    assert run(command, release, context).strip()


@pytest.mark.parametrize(
    "command", ["check", "stats", "merchants list", "transactions list --stuck", "migrate"]
)
def test_commands_of_ours_run_in_the_pods(release: Release, command: str) -> None:
    target = f"deployment/{release.fullname}-worker"
    assert release.kube.execute(target, "mpesa-gateway", *command.split()).strip()


def test_the_plugin_of_kubectl_runs_a_command_in_a_worker(
    release: Release, context: Path, tmp_path: Path
) -> None:
    """Found by the real kubectl on the PATH, as docs/commands.md says."""
    shutil.copy(ROOT / "scripts/kubectl-mpesa", tmp_path)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    for line in re.findall(r"^kubectl mpesa .*$", PAGE.read_text("utf-8"), re.MULTILINE):
        program, *words = shlex.split(filled_in(line, release))
        done = shell.run(program, *words, env={"PATH": path}, timeout_s=60)
        assert (done.returncode, bool(done.stdout)) == (0, True), done.stderr
    done = shell.run(
        "kubectl",
        "mpesa",
        f"--kubeconfig={context}",
        "--release",
        "none",
        "stats",
        env={"PATH": path},
    )
    assert done.returncode == 1
    assert "no worker of the release none" in done.stderr
