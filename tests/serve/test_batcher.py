"""Micro-batching: who shares a pass, who waits how long, and what happens to whom nobody waits for any more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.serve.batcher import Batcher, Closed, Expired, Full, Operation


class Recorded:
    """Doubles numbers, batch by batch, and keeps what came together; waits at a gate before each batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def run(self, payloads: list[Any]) -> list[Any]:
        self.entered.set()
        self.gate.wait(10)
        self.batches.append(list(payloads))
        if any(payload == 13 for payload in payloads):
            raise ZeroDivisionError("thirteen")
        return [payload * 2 for payload in payloads]


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    made = Batcher(rows=4, wait=0.02, queue=10)
    yield made
    made.close()


def held(batcher: Batcher, recorded: Recorded) -> Any:
    """The model's thread, busy with number 0 until the gate opens."""
    recorded.gate.clear()
    recorded.entered.clear()
    first = batcher.submit(Operation("double", recorded.run), 0)
    assert recorded.entered.wait(5)
    return first


def test_what_comes_meanwhile_shares_a_pass(batcher: Batcher, recorded: Recorded) -> None:
    double = Operation("double", recorded.run)
    first = held(batcher, recorded)
    futures = [batcher.submit(double, number) for number in range(1, 7)]
    assert batcher.queued == 6
    recorded.gate.set()
    assert [future.result(5) for future in (first, *futures)] == [0, 2, 4, 6, 8, 10, 12]
    assert recorded.batches == [[0], [1, 2, 3, 4], [5, 6]] and batcher.queued == 0


def test_only_what_agrees_shares_a_pass(batcher: Batcher, recorded: Recorded) -> None:
    double, lone = Operation("double", recorded.run), Operation("lone", recorded.run, alone=True)
    first = held(batcher, recorded)
    asked = [(double, 1, "a"), (double, 2, "b"), (lone, 3, None), (double, 4, "a"), (lone, 5, None)]
    futures = [batcher.submit(operation, number, key=key) for operation, number, key in asked]
    recorded.gate.set()
    assert [future.result(5) for future in (first, *futures)] == [0, 2, 4, 6, 8, 10]
    assert recorded.batches == [[0], [1, 4], [2], [3], [5]]


def test_a_lone_request_waits_for_company_no_longer_than_stated(recorded: Recorded) -> None:
    batcher = Batcher(rows=4, wait=0.2)
    double = Operation("double", recorded.run)
    began = time.monotonic()
    assert batcher.submit(double, 1).result(5) == 2
    assert 0.19 < time.monotonic() - began < 2
    began = time.monotonic()
    both = [batcher.submit(double, 2, rows=2), batcher.submit(double, 3, rows=2)]
    assert [future.result(5) for future in both] == [4, 6]
    assert time.monotonic() - began < 0.15  # a full batch waits for nobody
    batcher.close()


def test_nothing_is_computed_for_those_who_left_or_were_too_late(batcher: Batcher, recorded: Recorded) -> None:
    double = Operation("double", recorded.run)
    first = held(batcher, recorded)
    gone = batcher.submit(double, 1)
    late = batcher.submit(double, 2, deadline=time.monotonic() + 0.05)
    stays = batcher.submit(double, 3, deadline=time.monotonic() + 60)
    assert gone.cancel()
    time.sleep(0.1)
    recorded.gate.set()
    assert first.result(5) == 0 and stays.result(5) == 6
    with pytest.raises(Expired):
        late.result(5)
    assert recorded.batches == [[0], [3]]


def test_a_full_queue_refuses(batcher: Batcher, recorded: Recorded) -> None:
    double = Operation("double", recorded.run)
    held(batcher, recorded)
    kept = [batcher.submit(double, number, rows=5) for number in (1, 2)]
    with pytest.raises(Full, match="10 rows wait already"):
        batcher.submit(double, 3)
    kept[0].cancel()  # whoever left holds no place
    assert batcher.submit(double, 4) is not None
    recorded.gate.set()


def test_who_waits_too_long_is_told(batcher: Batcher, recorded: Recorded) -> None:
    double = Operation("double", recorded.run)
    held(batcher, recorded)
    began = time.monotonic()
    with pytest.raises(Expired):
        asyncio.run(batcher.ask(double, 1, deadline=began + 0.05))
    assert 0.04 < time.monotonic() - began < 2
    recorded.gate.set()
    assert asyncio.run(batcher.ask(double, 2, deadline=time.monotonic() + 60)) == 4
    with pytest.raises(ZeroDivisionError):
        asyncio.run(batcher.ask(double, 13))


def test_one_that_fails_does_not_fail_its_companions(batcher: Batcher, recorded: Recorded) -> None:
    double = Operation("double", recorded.run)
    held(batcher, recorded)
    futures = [batcher.submit(double, number) for number in (1, 13, 2)]
    recorded.gate.set()
    assert futures[0].result(5) == 2 and futures[2].result(5) == 4
    with pytest.raises(ZeroDivisionError):
        futures[1].result(5)


def test_an_operation_that_loses_a_result_is_an_error(batcher: Batcher) -> None:
    with pytest.raises(RuntimeError, match="gave 0 results for 1"):
        batcher.submit(Operation("lossy", lambda payloads: []), 1).result(5)
    assert batcher.submit(Operation("fine", list), 1).result(5) == 1  # the thread lives on


def test_closing_finishes_what_was_accepted_and_takes_no_more(batcher: Batcher, recorded: Recorded) -> None:
    double = Operation("double", recorded.run)
    first = held(batcher, recorded)
    futures = [batcher.submit(double, number) for number in range(1, 7)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    time.sleep(0.05)
    with pytest.raises(Closed):
        batcher.submit(double, 9)
    recorded.gate.set()
    closing.join(5)
    assert not closing.is_alive()
    assert [future.result(0) for future in (first, *futures)] == [0, 2, 4, 6, 8, 10, 12]


def test_a_task_that_is_cancelled_takes_its_request_out(batcher: Batcher, recorded: Recorded) -> None:
    double = Operation("double", recorded.run)
    held(batcher, recorded)

    async def leave() -> None:
        asking = asyncio.create_task(batcher.ask(double, 7))
        await asyncio.sleep(0.02)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(leave())
    recorded.gate.set()
    assert batcher.submit(double, 8).result(5) == 16
    assert [7] not in recorded.batches and all(7 not in batch for batch in recorded.batches)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 6)), min_size=1, max_size=30))
def test_everyone_gets_their_own_in_batches_that_fit(asked: list[tuple[str, int]]) -> None:
    """A slow twin: whoever asks, gets their own number back; no batch is larger than it may be, or mixes keys, or overtakes."""
    seen: list[list[tuple[int, str, int]]] = []

    def run(payloads: list[tuple[int, str, int]]) -> list[int]:
        seen.append(payloads)
        return [number for number, _, _ in payloads]

    batcher, operation = Batcher(rows=8, wait=0.001, queue=10_000), Operation("own", run)
    futures = [
        batcher.submit(operation, (number, key, rows), rows=rows, key=key) for number, (key, rows) in enumerate(asked)
    ]
    assert [future.result(10) for future in futures] == list(range(len(asked)))
    batcher.close()
    for batch in seen:
        assert len(batch) == 1 or sum(rows for _, _, rows in batch) <= 8
        assert len({key for _, key, _ in batch}) == 1
    for own in "ab":
        order = [number for batch in seen for number, key, _ in batch if key == own]
        assert order == sorted(order)
