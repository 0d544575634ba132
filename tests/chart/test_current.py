"""What is generated is current: README, schema, k8s/; and examples use values that exist."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness import shell
from harness.helm import CHART, ROOT, VALUE_SETS, of, render, rendered_text
from harness.needs import need
from harness.schemas import LOCATION

EXAMPLES = ROOT / "k8s" / "examples"
OPTIONAL = {
    "ServiceMonitor",
    "PodMonitor",
    "PrometheusRule",
    "HTTPRoute",
    "Ingress",
    "ScaledObject",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "NetworkPolicy",
}


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return shell.run(sys.executable, str(ROOT / "scripts" / name), *arguments)


def test_readme_and_schema_are_made_from_the_values() -> None:
    done = script("chart_docs.py", "--print")
    assert done.returncode == 0, done.stderr
    made = [(CHART / name).read_text("utf-8") for name in ("README.md", "values.schema.json")]
    assert done.stdout == "".join(f"{text}\n" for text in made), "run scripts/chart_docs.py"


def test_every_value_says_what_it_means() -> None:
    table = (CHART / "README.md").read_text("utf-8").splitlines()
    assert not [line for line in table if line.startswith("| `") and line.endswith("|  |")]


def test_the_manifests_are_what_the_chart_renders() -> None:
    done = script("k8s_render.py", "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", ["k8s/gateway.yaml", "k8s/production/gateway.yaml"])
def test_the_manifests_hold_no_secret_and_nothing_of_helm(path: str) -> None:
    text = (ROOT / path).read_text("utf-8")
    assert "kind: Secret\n" not in text
    assert "managed-by: Helm" not in text
    assert "helm.sh/hook" not in text


def test_kustomize_builds_them_with_secrets_made_once(tmp_path: Path) -> None:
    need(shutil.which("kubectl"), "kubectl is not on the PATH")
    copy = tmp_path / "k8s"
    shutil.copytree(ROOT / "k8s", copy, ignore=shutil.ignore_patterns("secrets"))
    texts = []
    for _ in range(2):
        shell.output(str(copy / "make-secrets"))
        texts.append(shell.output("kubectl", "kustomize", str(copy)))
    assert texts[0] == texts[1]
    objects = list(yaml.safe_load_all(texts[0]))
    secrets = {it["metadata"]["name"]: it["data"] for it in of(objects, "Secret")}
    assert set(secrets["mpesa-gateway-app"]) == {
        "MPESA_CALLBACK_TOKEN_KEY",
        "MPESA_INTERNAL_SECRET",
        "MPESA_WEBHOOK_SECRET",
    }
    assert set(secrets["mpesa-gateway-postgresql"]) == {"password", "uri"}
    for path in (copy / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert shell.succeeds("kubectl", "kustomize", str(copy / "production"))


def test_the_value_sets_render_every_optional_kind() -> None:
    found = {it["kind"] for values in VALUE_SETS for it in render(values)}
    assert found >= OPTIONAL


@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_helm_lints_strictly(values: Path) -> None:
    done = shell.run("helm", "lint", "--strict", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout + done.stderr


def test_helm_lints_the_defaults_strictly() -> None:
    done = shell.run("helm", "lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_kubeconform_finds_nothing_wrong(values: Path, schemas: Path) -> None:
    check_with_kubeconform(rendered_text(values), schemas)


@pytest.mark.parametrize("path", ["k8s/gateway.yaml", "k8s/production/gateway.yaml"])
def test_kubeconform_finds_nothing_wrong_with_the_manifests(path: str, schemas: Path) -> None:
    check_with_kubeconform((ROOT / path).read_text("utf-8"), schemas)


def test_kubeconform_would_find_it(schemas: Path) -> None:
    wrong = rendered_text({}).replace("automountServiceAccountToken", "automountToken")
    with pytest.raises(AssertionError, match="automountToken"):
        check_with_kubeconform(wrong, schemas)


def check_with_kubeconform(manifests: str, schemas: Path) -> None:
    need(shutil.which("kubeconform"), "kubeconform is not on the PATH")
    location = f"{schemas}/{LOCATION}"
    done = shell.run(
        "kubeconform", "-strict", "-summary", "-schema-location", location, "-", stdin=manifests
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Skipped: 0" in done.stdout, done.stdout


@pytest.mark.parametrize(
    "values", sorted(EXAMPLES.rglob("values.yaml")), ids=lambda p: p.parent.name
)
def test_examples_use_values_that_exist(values: Path) -> None:
    assert of(render(values), "Deployment", "api")


def test_argo_cds_values_exist_and_generate_nothing() -> None:
    application = yaml.safe_load((EXAMPLES / "argocd" / "application.yaml").read_text("utf-8"))
    objects = render(application["spec"]["source"]["helm"]["valuesObject"])
    # It renders without a cluster: what is generated would be another one each time.
    assert not of(objects, "Secret")


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda p: p.parent.name)
def test_examples_are_yaml(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text("utf-8")):
        assert document
