"""The pages about MerchantConfigs are current, and their samples are good."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

from mpesa_operator.keys import API_KEY, PREVIOUS_API_KEYS, WEBHOOK_SECRET
from mpesa_operator.platform_settings import FINALIZER
from mpesa_operator.settings import VARIABLES
from mpesa_operator.spec import MerchantSpec

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "merchants.md"
REFERENCE = ROOT / "docs" / "merchantconfig-reference.md"
SAMPLES = sorted((ROOT / "k8s" / "samples").glob("*.yaml"))


def test_the_reference_is_what_the_crd_says() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "crd_docs.py"))
    assert REFERENCE.read_text() == script["render"](), "run scripts/crd_docs.py"


def test_every_reason_in_the_code_is_in_the_reference() -> None:
    text = REFERENCE.read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "operator").rglob("*.py"))
    reasons = set(re.findall(r'Problem\(\s*"([A-Z]\w+)"', code))
    reasons |= set(re.findall(r'Condition\(\s*\w+,\s*"(?:True|False|Unknown)",\s*"(\w+)"', code))
    assert len(reasons) > 20
    unsaid = {reason for reason in reasons if f"`{reason}`" not in text}
    assert unsaid <= {"Resolved", "Published", "Loaded", "Healthy", "Ready"}


def test_the_guide_names_what_the_code_uses() -> None:
    text = GUIDE.read_text()
    for name in (API_KEY, WEBHOOK_SECRET, PREVIOUS_API_KEYS, FINALIZER):
        assert f"`{name}`" in text or name in text, name
    for name, _, _ in VARIABLES:
        if name.startswith("OPERATOR_"):
            assert f"`MPESA_{name}`" in text, name


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_has_a_spec_and_no_credential(path: Path) -> None:
    bodies = [body for body in yaml.safe_load_all(path.read_text()) if body]
    assert [body["kind"] for body in bodies] == ["MerchantConfig"]
    for body in bodies:
        MerchantSpec.model_validate(body["spec"])


def test_there_are_a_paybill_and_a_till() -> None:
    found = {yaml.safe_load(path.read_text())["spec"]["transactionType"] for path in SAMPLES}
    assert found == {"CustomerPayBillOnline", "CustomerBuyGoodsOnline"}
