"""Few payments begin at a time: the others wait in line, or hear that they have to come again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from mpesa_gateway.errors import UnavailableError
from mpesa_gateway.usecases.entrance import Entrance

LONG_S = 60.0


def _wait_until_in_line(entrance: Entrance, number: int) -> None:
    give_up = time.monotonic() + LONG_S
    while len(entrance._line) < number:
        assert time.monotonic() < give_up
        time.sleep(0.001)


@contextmanager
def _in_line(entrance: Entrance, name: str, served: list[str]) -> Iterator[None]:
    """Somebody who waits for a place, takes it and leaves. It has ended when the block has."""

    def come() -> None:
        with entrance.turn():
            served.append(name)

    before = len(entrance._line)
    thread = threading.Thread(target=come)
    thread.start()
    _wait_until_in_line(entrance, before + 1)
    yield
    thread.join(LONG_S)
    assert not thread.is_alive()


def test_whoever_finds_no_place_in_time_is_sent_away() -> None:
    entrance = Entrance(places=1, patience_s=0.0)

    with entrance.turn(), pytest.raises(UnavailableError, match="more payments"), entrance.turn():
        pass

    with entrance.turn():
        assert not entrance._line


def test_the_line_is_served_in_its_order() -> None:
    entrance, served = Entrance(places=1, patience_s=LONG_S), list[str]()

    with ExitStack() as waiting, entrance.turn():
        for name in ("first", "second", "third"):
            waiting.enter_context(_in_line(entrance, name, served))
        assert served == []

    assert served == ["first", "second", "third"]


def test_a_place_comes_back_from_a_payment_that_failed() -> None:
    entrance = Entrance(places=1, patience_s=0.0)

    with pytest.raises(RuntimeError), entrance.turn():
        raise RuntimeError

    with entrance.turn():
        pass


def test_there_are_as_many_places_as_it_says() -> None:
    entrance = Entrance(places=2, patience_s=0.0)

    with entrance.turn(), entrance.turn(), pytest.raises(UnavailableError), entrance.turn():
        pass
