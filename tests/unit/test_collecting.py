"""One test over many cases fails for each that failed, and never because nobody looked."""

from __future__ import annotations

import inspect

import pytest

from harness.collecting import Cases, every_case


def run(cases: list[object]) -> str:
    """Return what a test that wants even numbers, and an error of 4, reports."""

    @every_case("number", cases)
    def test(number: int) -> None:
        if number == 4:
            with pytest.raises(ValueError, match="nothing is raised"):
                pass
        assert number % 2 == 0, f"{number} is odd"

    with pytest.raises(AssertionError) as failed:
        test()
    return str(failed.value)


def test_every_case_that_failed_is_named_with_its_input_and_its_cause():
    assert run([1, 2, 3, 4, 6]).splitlines() == [
        "3 of 5 cases failed:",
        "- number=1: AssertionError: 1 is odd",
        "- number=3: AssertionError: 3 is odd",
        "- number=4: Failed: DID NOT RAISE ValueError",
    ]


def test_an_error_of_the_code_is_a_failed_case():
    assert "- number='x': TypeError: " in run(["x", 2])


def test_no_case_proves_nothing():
    assert run([]).startswith("there is no case")


def test_the_first_failure_is_the_cause_so_that_its_lines_are_shown():
    @every_case("number", [1, 2])
    def test(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(AssertionError) as failed:
        test()
    assert str(failed.value.__cause__) == "1"


def test_a_loop_collects_in_the_same_way():
    cases = Cases()
    for number in (1, 2):
        with cases.case(f"number {number}"):
            assert number == 1, "another one"
    with pytest.raises(AssertionError, match="1 of 2 cases failed:\n- number 2: AssertionError"):
        cases.report()


def test_a_skip_hides_no_other_case():
    @every_case("number", [1, 2])
    def test(number: int) -> None:
        assert number == 2, "missed"
        pytest.skip("not here")

    with pytest.raises(AssertionError, match="2 of 2 cases failed"):
        test()


def test_the_end_of_a_tests_time_ends_it():
    ran = []

    @every_case("number", [1, 2])
    def test(number: int) -> None:
        ran.append(number)
        pytest.fail("Timeout (>120.0s) from pytest-timeout.")

    with pytest.raises(pytest.fail.Exception):
        test()
    assert ran == [1]


def test_cases_multiply_and_fixtures_stay():
    seen = []

    @every_case("left", [1, 2])
    @every_case(("right", "sum_with_1"), [(3, 4), pytest.param(5, 6, id="five")])
    def test(left: int, right: int, sum_with_1: int, fixture: str) -> None:
        seen.append((left, right, fixture))
        assert right + 1 == sum_with_1

    assert list(inspect.signature(test).parameters) == ["fixture"]
    test(fixture="a")
    assert seen == [(1, 3, "a"), (1, 5, "a"), (2, 3, "a"), (2, 5, "a")]


def test_of_cases_within_a_case_each_is_named():
    @every_case("left", [1, 2])
    @every_case("right", [1, 2])
    def test(left: int, right: int) -> None:
        assert left == right, "they differ"

    with pytest.raises(AssertionError) as failed:
        test()
    assert str(failed.value).splitlines() == [
        "2 of 2 cases failed:",
        "- left=1: 1 of 2 cases failed:",
        "  - right=2: AssertionError: they differ",
        "- left=2: 1 of 2 cases failed:",
        "  - right=1: AssertionError: they differ",
    ]


@pytest.mark.parametrize("ids", [lambda it: it["name"], ["first"]])
def test_a_case_can_have_a_name(ids):
    @every_case("row", [{"name": "first", "size": 1}], ids=ids)
    def test(row: dict[str, object]) -> None:
        assert row["size"] == 2

    with pytest.raises(AssertionError, match="- first: AssertionError"):
        test()


def test_an_argument_that_the_test_does_not_take_is_an_error():
    with pytest.raises(AssertionError, match="does not take"):

        @every_case("nubmer", [1])
        def test(number: int) -> None: ...


def test_a_case_that_broke_is_told_from_one_that_was_denied() -> None:
    """scripts/planted_suite.py believes only a test that denied something."""

    def kind_of(*failures: Exception) -> str:
        cases = Cases()
        for failure in failures:
            with cases.case("x"):
                raise failure
        with pytest.raises(AssertionError) as raised:
            cases.report()
        return type(raised.value).__name__

    assert kind_of(AssertionError("x")) == "CasesFailedError"
    assert kind_of(AssertionError("x"), ValueError("x")) == "CasesBrokeError"
