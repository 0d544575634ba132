"""One test over many cases of data: every case runs, and each that failed is named with its input.

`pytest.mark.parametrize` makes a test of each case. That is right where each case is a behaviour
of its own. Where the cases are rows of data (spellings of an amount, recorded bodies, entries of a
catalogue), one test that reports every miss says the same, sets its fixtures up once, and leaves
the count of tests to mean something.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

# Many cases share the time of one test, on machines that may be busy. A hang still ends.
TIMEOUT_S = 600
_LONGEST_NAME = 200
_ASSERTIONS = (AssertionError, pytest.fail.Exception)
# An assertion, `pytest.raises` that saw nothing, and a skip, which would hide the other cases.
_FAILURES = (Exception, pytest.fail.Exception, pytest.skip.Exception)
_PARAMETER_SET = type(pytest.param())


class CasesFailedError(AssertionError):
    """Some cases failed. Its text names them all."""


class CasesBrokeError(CasesFailedError):
    """Some of them not by an assertion: the test may be broken, and not what it tests."""


class Cases:
    """The cases that ran, and those that failed."""

    def __init__(self) -> None:
        self.count = 0
        self.failures: list[tuple[str, BaseException]] = []

    @contextmanager
    def case(self, name: object) -> Iterator[None]:
        """Run one case. What fails inside is reported at the end, with this name."""
        self.count += 1
        try:
            yield
        except _FAILURES as failure:
            if _is_timeout(failure):
                raise
            self.failures.append((_bounded(str(name)), failure))

    def report(self) -> None:
        """Fail with every case that failed. A test without a case proves nothing and fails too."""
        assert self.count, "there is no case"
        if self.failures:
            lines = [f"{len(self.failures)} of {self.count} cases failed:"]
            lines += [f"- {name}: {_in_words(failure)}" for name, failure in self.failures]
            asserted = all(isinstance(it, _ASSERTIONS) for _, it in self.failures)
            error = CasesFailedError if asserted else CasesBrokeError
            raise error("\n".join(lines)) from self.failures[0][1]


@contextmanager
def collected() -> Iterator[Cases]:
    """Collect the failures of a loop's cases: `with cases.case(row): …`, and report them all."""
    cases = Cases()
    yield cases
    cases.report()


def every_case(
    names: str | Sequence[str],
    values: Iterable[Any],
    ids: Callable[[Any], object] | Iterable[object] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test function for every case, as one test. Takes what `parametrize` takes.

    The fixtures are set up once and shared by the cases, so a case must leave nothing behind that
    another one would see.
    """
    arguments = [it.strip() for it in names.split(",")] if isinstance(names, str) else list(names)
    rows = [_values(row, len(arguments)) for row in values]
    name_of = _namer(ids)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            with collected() as cases:
                for number, row in enumerate(rows):
                    case = dict(zip(arguments, row, strict=True))
                    with cases.case(name_of(case, number)):
                        test(**fixtures, **case)

        signature = inspect.signature(test)
        unknown = set(arguments) - set(signature.parameters)
        assert not unknown, f"{test.__name__} does not take {unknown}"
        others = [it for it in signature.parameters.values() if it.name not in arguments]
        run.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        pytest.mark.timeout(TIMEOUT_S)(run)
        return run

    return decorate


def _values(row: Any, arguments: int) -> tuple[Any, ...]:
    if isinstance(row, _PARAMETER_SET):
        assert not row.marks, "a case has no marks of its own"
        return tuple(row.values)
    return (row,) if arguments == 1 else tuple(row)


def _namer(
    ids: Callable[[Any], object] | Iterable[object] | None,
) -> Callable[[dict[str, Any], int], str]:
    if ids is None:
        return lambda case, _: ", ".join(f"{name}={value!r}" for name, value in case.items())
    if callable(ids):
        return lambda case, _: ", ".join(str(ids(it) or repr(it)) for it in case.values())
    texts = [str(it) for it in ids]
    return lambda _, number: texts[number]


def _bounded(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def _in_words(failure: BaseException) -> str:
    """Put the kind of a failure and its first line in words: the rest is in the traceback."""
    if isinstance(failure, CasesFailedError):
        return str(failure).replace("\n", "\n  ")
    first = next(iter(str(failure).splitlines()), "")
    return f"{type(failure).__name__}: {first}"


def _is_timeout(failure: BaseException) -> bool:
    """Tell whether pytest-timeout has ended the test: it fails by an exception of its own."""
    return isinstance(failure, pytest.fail.Exception) and str(failure).startswith("Timeout")
