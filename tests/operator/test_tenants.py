"""A hostile tenant against the real operator and a real gateway; Kubernetes is the in-memory one.

The same attacks run on a real API server in tests/apiserver.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import attacks
from harness.gateway import Gateways
from harness.kubernetes import KubernetesStub
from harness.merchantconfigs import FakePod, Operator
from harness.tenants import StubServer, Town, town

_NUMBERS = itertools.count(1)


@pytest.fixture
def the_town(gateways: Gateways, tmp_path: Path) -> Iterator[Town]:
    with KubernetesStub() as stub:
        server = StubServer(stub)
        with town(server.admin, gateways, tmp_path / "merchants", "shopb", "aaa") as found:
            pods = [FakePod(server.admin, name, name).start() for name in ("api", "worker")]
            operator = Operator(
                server,  # type: ignore[arg-type]
                tmp_path,
                found.gateway.simulator.url,
                ("aaa", "shopb"),
            )
            operator.settings |= {
                "MPESA_OPERATOR_RESYNC": "1s",
                "MPESA_OPERATOR_MAX_MERCHANTS_PER_NAMESPACE": "2",
            }
            operator.token = "of-no-use-anywhere"
            try:
                operator.start(install_rbac=False)
                yield found
            finally:
                operator.stop()
                for pod in pods:
                    pod.stop()
        server.admin.session.close()


def test_writes_the_key_into_its_own_secret(the_town: Town) -> None:
    attacks.writes_the_key_into_its_own_secret(the_town)


def test_writes_the_digest_into_its_replaced_keys(the_town: Town) -> None:
    attacks.writes_the_digest_into_its_replaced_keys(the_town)


def test_chooses_a_short_key(the_town: Town) -> None:
    attacks.chooses_a_short_key(the_town)


def test_names_the_digest_in_its_spec(the_town: Town) -> None:
    attacks.names_the_digest_in_its_spec(the_town)


def test_brings_the_key_in_a_secret(the_town: Town) -> None:
    attacks.brings_the_key_in_a_secret(the_town)


def test_claims_a_key_that_is_no_longer_in_use(the_town: Town) -> None:
    attacks.claims_a_key_that_is_no_longer_in_use(the_town)


def test_uses_an_app_without_its_secret(the_town: Town) -> None:
    attacks.uses_an_app_without_its_secret(the_town)


def test_squats_a_short_code_without_credentials(the_town: Town) -> None:
    attacks.squats_a_short_code_without_credentials(the_town)


def test_squats_a_short_code_with_worthless_credentials(the_town: Town) -> None:
    attacks.squats_a_short_code_with_worthless_credentials(the_town)


def test_claims_a_published_short_code_with_an_app_of_its_own(the_town: Town) -> None:
    attacks.claims_a_published_short_code_with_an_app_of_its_own(the_town)


def test_forges_that_its_claim_was_accepted(the_town: Town) -> None:
    attacks.forges_that_its_claim_was_accepted(the_town)


def test_takes_another_till_of_the_same_store(the_town: Town) -> None:
    attacks.takes_another_till_of_the_same_store(the_town)


def test_makes_its_file_large(the_town: Town) -> None:
    attacks.makes_its_file_large(the_town)


def test_makes_more_merchants_than_it_may(the_town: Town) -> None:
    attacks.makes_more_merchants_than_it_may(the_town)


def test_raises_a_platform_ceiling(the_town: Town) -> None:
    attacks.raises_a_platform_ceiling(the_town)


def test_sees_what_was_paid_to_an_earlier_owner_of_its_name(the_town: Town) -> None:
    attacks.sees_what_was_paid_to_an_earlier_owner_of_its_name(the_town)


def test_reads_a_secret_through_the_operator(the_town: Town) -> None:
    attacks.reads_a_secret_through_the_operator(the_town)


def test_a_restored_secret_is_adopted(the_town: Town) -> None:
    attacks.a_restored_secret_is_adopted(the_town)


def test_every_attack_is_here() -> None:
    assert {f"test_{attack.__name__}" for attack in attacks.ATTACKS} <= set(globals())
