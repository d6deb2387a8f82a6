"""Journals: exact, valid JSON, and cut back to a step without losing or inventing a byte."""

import json
import math
import os
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from multiway.engine.journal import METRICS, SKIPPED, TENSORBOARD, TIMINGS, Journal, JournalError, read_metrics
from multiway.engine.plain import from_plain, to_plain
from multiway.world import World


def _line(step: int) -> dict:
    return {
        "epoch": 0,
        "loss": 1 / (step + 1),
        "terms": {"itc": {"value": 0.1 + step, "chance": math.log(8), "formula": "ln 8", "weight": 1.0}},
        "report": {"accuracy": 0.25},
        "health": {},
        "lr": 1e-3,
        "grad_norm": math.inf,
    }


def _write(folder: Path, steps: range, cut: int | None = None, tensorboard: bool = False) -> None:
    with Journal(folder, tensorboard=tensorboard) as journal:
        if cut is not None:
            journal.cut_back(cut)
        for step in steps:
            journal.log(step, _line(step))
            journal.time(step, {"step_seconds": 0.5, "data_seconds": 0.1, "samples_per_second": 64.0})
            journal.skip(step, [f"row {step}"] if step % 2 else [])


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text().filter(lambda s: s not in ("nan", "inf", "-inf")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(plain_values)
def test_any_value_survives_strict_json(value: object) -> None:
    text = json.dumps(to_plain(value), allow_nan=False)
    # repr distinguishes NaN, -0.0, and 1 from 1.0 from True.
    assert repr(from_plain(json.loads(text))) == repr(value)


@pytest.mark.parametrize(
    ("value", "named"),
    [({"a": "nan"}, r"\['a'\]"), ({1: 2}, "key 1"), ({"t": torch.ones(3)}, r"\['t'\].*Tensor"), ([object()], r"\[0\]")],
)
def test_what_json_lacks_is_refused_by_name(value: object, named: str) -> None:
    with pytest.raises(TypeError, match=named):
        to_plain(value, "values")


def test_zero_dimensional_tensors_and_arrays_are_numbers() -> None:
    assert to_plain({"a": torch.tensor(0.5, requires_grad=True), "b": torch.tensor(3).numpy()[()]}) == {
        "a": 0.5,
        "b": 3,
    }


def test_lines_come_back_as_they_went_in(tmp_path: Path) -> None:
    _write(tmp_path, range(1, 4))
    assert read_metrics(tmp_path / METRICS) == [{"step": step, **_line(step)} for step in (1, 2, 3)]
    assert [line["why"] for line in read_metrics(tmp_path / SKIPPED)] == ["row 1", "row 3"]
    raw = json.loads((tmp_path / METRICS).read_text().splitlines()[0], parse_constant=pytest.fail)
    assert raw["grad_norm"] == "inf"
    assert raw["terms"]["itc"]["formula"] == "ln 8"


@pytest.mark.parametrize("cut", [0, 3, 5, 9])
def test_a_replay_after_a_cut_writes_the_same_bytes(tmp_path: Path, cut: int) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    for folder in (straight, resumed):
        folder.mkdir()
    _write(straight, range(1, 10))
    _write(resumed, range(1, 8))
    _write(resumed, range(min(cut, 7) + 1, 10), cut=cut)
    for name in (METRICS, SKIPPED, TIMINGS):
        assert (straight / name).read_bytes() == (resumed / name).read_bytes()


def test_a_last_line_torn_anywhere_is_dropped_and_written_again(tmp_path: Path) -> None:
    _write(tmp_path, range(1, 4))
    path = tmp_path / METRICS
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in [*range(start, len(whole) - 3, 29), *range(len(whole) - 3, len(whole))]:
        path.write_bytes(whole[:end])
        assert [line["step"] for line in read_metrics(path)] == [1, 2]
        with Journal(tmp_path, tensorboard=False) as journal:
            journal.log(3, _line(3))
        assert path.read_bytes() == whole


def test_zeros_left_by_a_power_failure_are_a_torn_line(tmp_path: Path) -> None:
    _write(tmp_path, range(1, 3))
    whole = (tmp_path / METRICS).read_bytes()
    (tmp_path / METRICS).write_bytes(whole + b"\0" * 40)
    assert len(read_metrics(tmp_path / METRICS)) == 2
    _write(tmp_path, range(0))  # opening is enough
    assert (tmp_path / METRICS).read_bytes() == whole
    (tmp_path / SKIPPED).write_bytes(b'{"step": 1, "why": "row 1"}\n{"st')
    _write(tmp_path, range(0), cut=2)
    assert (tmp_path / SKIPPED).read_bytes() == b'{"step": 1, "why": "row 1"}\n'


@pytest.mark.parametrize("damage", [b"{oops}\n", b"[1]\n", b'{"loss": 1.0}\n', b'{"step": "1"}\n'])
def test_damage_in_the_middle_is_an_error_with_its_line(tmp_path: Path, damage: bytes) -> None:
    _write(tmp_path, range(1, 4))
    lines = (tmp_path / METRICS).read_bytes().splitlines(keepends=True)
    (tmp_path / METRICS).write_bytes(lines[0] + damage + lines[2])
    with pytest.raises(JournalError, match=r"metrics\.jsonl, line 2"):
        read_metrics(tmp_path / METRICS)
    with pytest.raises(JournalError, match="line 2"):
        _write(tmp_path, range(0), cut=1)
    assert (tmp_path / METRICS).read_bytes() == lines[0] + damage + lines[2]  # nothing is thrown away on a guess


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="does not exist"):
        read_metrics(tmp_path / METRICS)


def test_steps_do_not_run_backwards_unnoticed(tmp_path: Path) -> None:
    _write(tmp_path, range(1, 4))
    with Journal(tmp_path, tensorboard=False) as journal, pytest.raises(JournalError, match=r"step 2 after step 3"):
        journal.log(2, _line(2))


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, range(1, 3))
    before = (tmp_path / METRICS).read_bytes()
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset > len(before):
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:7], offset)

    with Journal(tmp_path, tensorboard=False) as journal:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(JournalError, match=r"metrics\.jsonl cannot be written at step 3.*No space"):
            journal.log(3, _line(3))
        assert (tmp_path / METRICS).read_bytes() == before
        monkeypatch.undo()
        journal.log(3, _line(3))
    assert len(read_metrics(tmp_path / METRICS)) == 3


def test_a_disk_that_is_full_when_lines_are_brought_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with Journal(tmp_path, tensorboard=False) as journal:
        journal.log(3, _line(3))
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(JournalError, match=r"metrics\.jsonl cannot be written at step 3.*No space.*then resume"):
            journal.sync()
        monkeypatch.undo()
    journal = Journal(tmp_path, tensorboard=False)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(JournalError, match="Free some space"):
        journal.close()
    monkeypatch.undo()
    _write(tmp_path, range(4, 5))  # the files were let go of all the same
    assert [line["step"] for line in read_metrics(tmp_path / METRICS)] == [3, 4]


def test_events_that_cannot_be_flushed_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: object) -> None:
        raise OSError(28, "No space left on device")

    with Journal(tmp_path) as journal:
        journal.log(1, _line(1))
        for name in ("flush", "close"):
            monkeypatch.setattr(f"torch.utils.tensorboard.SummaryWriter.{name}", full)
        journal.sync()
        journal.log(2, _line(2))
    assert caplog.text.count("no more TensorBoard events") == 1
    assert [line["step"] for line in read_metrics(tmp_path / METRICS)] == [1, 2]


def test_other_ranks_report_bad_rows_and_nothing_else(tmp_path: Path) -> None:
    with Journal(tmp_path, World(rank=1, size=2)) as journal:
        journal.log(1, _line(1))
        journal.time(1, {})
        journal.skip(1, ["row 7"])
    assert [path.name for path in tmp_path.iterdir()] == [SKIPPED]
    assert read_metrics(tmp_path / SKIPPED) == [{"step": 1, "rank": 1, "why": "row 7"}]


def test_tensorboard_shows_the_resumed_course_only(tmp_path: Path) -> None:
    _write(tmp_path, range(1, 6), tensorboard=True)
    time.sleep(1.1)  # event files are read in the order of the second in their names
    _write(tmp_path, range(3, 5), cut=2, tensorboard=True)
    board = EventAccumulator(str(tmp_path / TENSORBOARD))
    board.Reload()
    assert {"loss", "terms/itc", "terms/itc/chance", "report/accuracy", "timings/step_seconds"} <= set(
        board.Tags()["scalars"]
    )
    assert [event.step for event in board.Scalars("terms/itc")] == [1, 2, 3, 4]
