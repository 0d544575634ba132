"""The migration Job cannot be changed, so each change of it is another Job."""

from __future__ import annotations

from typing import Any

import pytest

from harness.helm import of, only, render


def job_name(values: dict[str, Any]) -> str:
    name: str = only(render(values), "Job", "migrate")["metadata"]["name"]
    return name


def test_the_same_values_are_the_same_job() -> None:
    assert job_name({}) == job_name({"api": {"replicaCount": 5}, "worker": {"replicaCount": 0}})


@pytest.mark.parametrize(
    "values",
    [
        {"image": {"tag": "2.0.0"}},
        {"image": {"digest": "sha256:" + "b" * 64}},
        {"logging": {"level": "debug"}},
        {"migrations": {"nodeSelector": {"disk": "ssd"}}},
        {"migrations": {"backoffLimit": 3}},
        {"migrations": {"ttlSecondsAfterFinished": None}},
        {"migrations": {"podLabels": {"team": "payments"}}},
        {"imagePullSecrets": [{"name": "registry"}]},
        {"podSecurityContext": {"runAsUser": 20000}},
    ],
)
def test_a_change_of_image_or_template_is_another_job(values: dict[str, Any]) -> None:
    assert job_name(values) != job_name({})


def test_it_is_no_hook_and_goes_when_it_is_old() -> None:
    job = only(render({}), "Job", "migrate")
    assert "helm.sh/hook" not in job["metadata"].get("annotations", {})
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    assert job["metadata"]["name"].startswith("g-mpesa-gateway-migrate-")


def test_it_can_be_left_out() -> None:
    assert not of(render({"migrations": {"enabled": False}}), "Job", "migrate")
