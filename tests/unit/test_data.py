"""The manifest of `tests/data` and the files beside it say the same."""

import pytest

from harness.data import (
    DIRECTORY,
    FOLDERS,
    load_callbacks,
    load_manifest,
    load_oauth,
    load_push,
    load_query,
)
from mpesa_gateway.domain.push import REFUSED_CODES, TOKEN_CODES, PushClass
from mpesa_gateway.domain.query import QueryClass
from mpesa_gateway.domain.results import CATALOGUE
from mpesa_gateway.domain.settlement import HELD, QUARANTINED, Verdict


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_in_the_manifest_once_and_the_reverse(folder):
    listed = [row["file"] for row in load_manifest()[folder]]
    kept = [path.name for path in (DIRECTORY / folder).iterdir()]
    assert sorted(listed) == sorted(kept)


def test_there_is_nothing_beside_the_manifest_and_its_folders():
    kept = [path.name for path in DIRECTORY.iterdir()]
    assert sorted(kept) == sorted([*FOLDERS, "manifest.toml"])
    assert list(load_manifest()) == list(FOLDERS)


def test_every_class_of_answer_has_a_file():
    assert {it.expected for it in load_push()} == {kind.name for kind in PushClass}
    assert {it.expected for it in load_query()} == {kind.name for kind in QueryClass}
    assert {it.expected for it in load_oauth()} == {"TOKEN", "REFUSED", "UNAVAILABLE"}


def test_every_effect_and_every_first_outcome_of_a_callback_has_a_file():
    pairs = {(it.effect, it.outcome) for it in load_callbacks()}
    assert pairs == {
        ("completed", Verdict.COMPLETE),
        ("failed", Verdict.FAIL),
        *(("held", verdict) for verdict in HELD),
        ("quarantined", "unreadable"),
        *(("quarantined", verdict) for verdict in QUARANTINED),
    }


def test_every_result_code_has_a_callback_and_a_query_answer():
    assert set(CATALOGUE) <= {it.code for it in load_callbacks()}
    assert set(CATALOGUE) <= {it.code for it in load_query()}


def test_every_error_code_that_a_push_knows_has_a_file():
    codes = {it.code for it in load_push()}
    assert codes >= REFUSED_CODES | TOKEN_CODES
