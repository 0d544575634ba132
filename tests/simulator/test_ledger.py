"""The ledger as a witness: filters, limits, and the file."""

from __future__ import annotations

import json
import os
import stat
import threading
from typing import Any

import pytest

from daraja_simulator import RunningSimulator, Settings, control
from daraja_simulator.ids import new_checkout_request_id, now


def get(caller, **params: object) -> dict[str, Any]:
    answer = caller.send("GET", "/ledger", params=params)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    ledger: dict[str, Any] = answer.json()
    return ledger


def three_payments(caller) -> dict[str, Any]:
    for number, path in ((1, "/one"), (2, "/two"), (3, "/two")):
        caller.push(f"25470000000{number + 3}", CallBackURL=caller.callback_url + path)
        caller.ended()
    return get(caller)


def test_the_ledger_says_everything_in_order(caller):
    ledger = three_payments(caller)
    kinds = ("tokens", "pushes", "debits", "callbacks", "queries")
    entries = [entry for kind in kinds for entry in ledger[kind]]
    assert sorted(entry["sequence"] for entry in entries) == list(range(1, 11))
    assert ledger["sequence"] == 10
    assert ledger["records"]["debits"] == {"recorded": 3, "kept": 3}
    for kind in kinds:
        sequences = [entry["sequence"] for entry in ledger[kind]]
        assert sequences == sorted(sequences)
    assert {kind: ledger[kind] for kind in kinds} == caller.simulator.ledger()


def test_the_ledger_can_be_filtered(caller):
    ledger = three_payments(caller)
    one = get(caller, phone="254700000004")
    assert [len(one[kind]) for kind in ("pushes", "debits", "callbacks", "tokens")] == [1, 1, 1, 0]
    two = get(caller, callback_url_contains="/two")
    assert [each["phone"] for each in two["debits"]] == ["254700000005", "254700000006"]
    assert two["debits"] == caller.simulator.ledger(callback_url_contains="/two")["debits"]
    since = get(caller, since=ledger["debits"][1]["sequence"])
    assert since["debits"] == ledger["debits"][2:]
    assert get(caller, since=ledger["sequence"])["pushes"] == []


@pytest.mark.parametrize("query", ["since=x", "since=-1", "since=1" + "0" * 18, "phones=1"])
def test_a_wrong_filter_is_an_error(caller, query):
    answer = caller.send("GET", "/ledger?" + query)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(query.split("=")[0])


def test_a_long_ledger_comes_in_pieces(caller, monkeypatch):
    monkeypatch.setattr(control, "CHUNK_ENTRIES", 2)
    assert len(three_payments(caller)["debits"]) == 3


def test_old_records_leave_the_memory(simulate):
    caller = simulate(max_records=2)
    first = caller.push("254700000004").json()["CheckoutRequestID"]
    caller.ended()
    assert caller.query(first).status_code == 200
    ledger = three_payments(caller)
    assert ledger["records"]["pushes"] == {"recorded": 4, "kept": 2}
    assert [each["phone"] for each in ledger["pushes"]] == ["254700000005", "254700000006"]
    assert caller.query(first).status_code == 400


def test_the_file_has_every_record_and_is_appended_to(simulate, tmp_path):
    path = tmp_path / "ledger.jsonl"
    caller = simulate(ledger_file=str(path), max_records=1)
    three_payments(caller)
    caller.simulator.stop()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["sequence"] for line in lines] == list(range(1, 11))
    assert [line["kind"] for line in lines][:4] == ["tokens", "pushes", "debits", "callbacks"]
    assert lines[2]["amount"] == 10
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    simulate(ledger_file=str(path))
    assert len(path.read_text().splitlines()) == 11


def test_a_debit_is_on_disk_before_its_callback(simulate, receiver, tmp_path):
    path = tmp_path / "ledger.jsonl"
    receiver.gate.clear()
    caller = simulate(ledger_file=str(path))
    caller.push()
    (received,) = receiver.wait_for(1)
    debit = json.loads(path.read_text().splitlines()[-1])
    assert debit["kind"] == "debits"
    assert debit["receipt"] == received.items["MpesaReceiptNumber"]


def test_records_at_once_share_an_fsync(simulate, tmp_path, monkeypatch):
    calls, gate = [], threading.Event()
    real = os.fsync

    def slow(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            gate.wait(5)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    path = tmp_path / "ledger.jsonl"
    caller = simulate(ledger_file=str(path), callback_drop_rate=1)
    pushes = [
        threading.Thread(target=caller.push, args=(f"25470000010{number}",)) for number in range(8)
    ]
    for push in pushes:
        push.start()
    caller.wait_until(lambda: len(caller.simulator.ledger()["pushes"]) == 8)
    assert len(calls) == 2
    gate.set()
    for push in pushes:
        push.join()
    caller.ended()
    assert len(path.read_text().splitlines()) == 1 + 8 + 8
    assert len(calls) < 17


def test_a_push_that_cannot_be_recorded_does_not_happen(simulate, receiver, tmp_path, monkeypatch):
    caller = simulate(ledger_file=str(tmp_path / "ledger.jsonl"))

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert caller.push().status_code == 500
        assert caller.push(Amount=0).status_code == 500
    assert caller.ended()["debits"] == []
    assert not receiver.received
    assert caller.push().status_code == 200
    assert len(caller.ended()["debits"]) == 1


def test_a_debit_that_cannot_be_written_is_not_called_back(
    simulate, receiver, tmp_path, monkeypatch
):
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:  # The token and the push came before.
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    caller = simulate(ledger_file=str(tmp_path / "ledger.jsonl"))
    caller.push()
    assert len(caller.ended()["debits"]) == 1
    assert not receiver.received


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    settings = Settings(ledger_file=str(tmp_path / "missing" / "ledger.jsonl"))
    with pytest.raises(FileNotFoundError), RunningSimulator(settings):
        pass


def test_a_stop_loses_no_line_that_waits(simulate, tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    calls = []
    started, gate = threading.Event(), threading.Event()
    real = os.fsync

    def slow(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:  # The token and the push came before.
            started.set()
            gate.wait(5)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    caller = simulate(ledger_file=str(path))
    caller.push()
    assert started.wait(5)
    stop = threading.Thread(target=caller.simulator.stop)
    stop.start()
    gate.set()
    stop.join()
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == [
        "tokens",
        "pushes",
        "debits",
    ]


def test_an_id_that_is_taken_is_not_given_again():
    at = now()
    taken: set[str] = set()
    for _ in range(1_500):
        taken.add(new_checkout_request_id(at, "254712345678", taken))
    assert len(taken) == 1_500
