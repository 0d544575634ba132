"""Files that survive the process: whole, bounded, private, and never in the way of a start."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mpesa_gateway.store import spool as spool_module
from mpesa_gateway.store.spool import FORMAT, Spool


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def contents(directory: Path, kind: str = "callback") -> list[bytes]:
    """What a new process finds."""
    return [content for _, content in Spool(directory, kind).load()]


def test_what_was_put_is_found_by_the_next_process_until_it_is_removed(directory: Path) -> None:
    spool = Spool(directory, "callback")
    names = [spool.put(content) for content in (b"one", b"two\nlines", b"")]
    Spool(directory, "outcome").put(b"of another kind")

    assert sorted(contents(directory)) == [b"", b"one", b"two\nlines"]
    for name in names:
        assert name is not None
        spool.remove(name)
    assert contents(directory) == []
    assert contents(directory, "outcome") == [b"of another kind"]


def test_nobody_else_may_read_it(directory: Path) -> None:
    Spool(directory, "callback").put(b"with a phone number")

    (file,) = directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "spoiled",
    [
        b"",
        b"no format at all",
        FORMAT + b" " + b"0" * 64 + b"\nnot of this sum",
        FORMAT + b"\n",
        b"\x00\xff" * 100,
    ],
)
def test_a_file_that_is_not_whole_is_quarantined_and_the_others_are_found(
    directory: Path, spoiled: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(directory, "callback")
    bad = spool.put(b"bad")
    spool.put(b"good")
    (directory / f"{bad}.entry").write_bytes(spoiled)

    assert contents(directory) == [b"good"]
    assert "is quarantined" in caplog.text
    assert (directory / f"{bad}.corrupt").read_bytes() == spoiled
    assert contents(directory) == [b"good"], "it is not looked at again"


def test_each_truncation_is_noticed(directory: Path) -> None:
    name = Spool(directory, "callback").put(b"content")
    file = directory / f"{name}.entry"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert contents(directory) == []
        (directory / f"{name}.corrupt").rename(file)


def test_what_was_half_written_is_deleted(directory: Path) -> None:
    Spool(directory, "callback").put(b"whole")
    (directory / "callback-1.tmp").write_bytes(b"half")

    assert contents(directory) == [b"whole"]
    assert not (directory / "callback-1.tmp").exists()


def test_it_is_bounded_in_number_and_in_bytes(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "MAX_FILES", 2)
    spool = Spool(directory, "callback")
    first, second = spool.put(b"one"), spool.put(b"two")
    assert first is not None
    assert second is not None
    assert spool.put(b"three") is None
    spool.remove(first)
    assert spool.put(b"three") is not None

    monkeypatch.setattr(spool_module, "MAX_FILES", 100)
    monkeypatch.setattr(spool_module, "MAX_BYTES", 1000)
    assert spool.put(b"x" * 1000) is None


def test_a_disk_that_fails_is_not_the_callers_problem(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    spool = Spool(tmp_path / "file" / "spool", "callback")

    assert spool.put(b"content") is None
    assert "cannot be written" in caplog.text
    assert list(spool.load()) == []
    spool.remove("callback-never")
