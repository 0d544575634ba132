import pytest

from harness.collecting import every_case
from mpesa_gateway.domain.problem_details import TITLES, TYPE_PREFIX, problem


@every_case("slug", list(TITLES))
def test_a_problem_has_a_stable_type_and_a_title(slug):
    assert problem(slug, 418, "what happened") == {
        "type": f"{TYPE_PREFIX}{slug}",
        "title": TITLES[slug],
        "status": 418,
        "detail": "what happened",
    }


def test_extensions_are_added_and_those_without_a_value_are_left_out():
    document = problem("not-sent", 503, "busy", retry_after=30, safaricom=None, tries=0)
    assert document["retry_after"] == 30
    assert document["tries"] == 0
    assert "safaricom" not in document


def test_a_problem_that_the_documents_do_not_know_is_a_mistake():
    with pytest.raises(KeyError):
        problem("no-such-problem", 500, "what happened")


def test_types_and_titles_are_not_shared():
    assert len(set(TITLES.values())) == len(TITLES)
    assert all(slug == slug.lower().replace("_", "-").replace(" ", "-") for slug in TITLES)
