"""Trackers get the journal, in order and once, whatever fails; and whatever they do, nobody waits for them."""

import contextlib
import inspect
import json
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracker_stand_ins import Client, Mlflow, Run, Wandb, stand_in

from multiway.config import identity_json
from multiway.engine.journal import METRICS, Journal, Tail, read_metrics, scalars
from multiway.engine.settings import OPERATIONAL, Settings
from multiway.engine.tracking import Target, TrackingError, open_tracker, require, targets
from multiway.engine.tracking_delivery import TRACKING, Delivery, Kept, numbers
from multiway.engine.tracking_thread import Courier, Tracking

CONFIG = {"settings": {"steps": 9, "lr": 0.1}, "method": {"betas": [0.9, 0.98], "long": "x" * 900}}


def write(folder: Path, steps: range) -> None:
    with Journal(folder, tensorboard=False) as journal:
        for step in steps:
            terms = {"itc": {"value": 1 / step, "chance": 2.0, "formula": "ln 8"}}
            journal.log(step, {"loss": 1 / step, "terms": terms, "eval": {"own@val/R@1": {"value": 0.5, "n": 8}}})
            journal.time(step, {"step_seconds": 0.5})


class Recorded:
    """A tracker that does as its script says: at each call an error, or nothing."""

    def __init__(self, fails: Callable[[], bool] = lambda: False, place: str = "here") -> None:
        self.place, self.fails = place, fails
        self.steps: list[int] = []
        self.started: list[str | None] = []
        self.ended: list[str] = []

    def _perhaps(self) -> None:
        if self.fails():
            raise ConnectionError("server\nis away")

    def start(self, name: str, config: Any, known: str | None) -> str:
        self._perhaps()
        self.started.append(known)
        return known or "id-1"

    def log(self, step: int, numbers: Any) -> None:
        self._perhaps()
        assert "loss" in numbers and "timings/step_seconds" in numbers
        self.steps.append(step)

    def finish(self, status: str) -> None:
        self._perhaps()
        self.ended.append(status)


def delivery(folder: Path, tracker: Any, again: bool = False) -> Delivery:
    return Delivery(folder, CONFIG, Target("wandb"), tracker, Kept(folder), again)


@pytest.mark.parametrize(
    "text", ["wandb", "wandb:project", "wandb:team/project", "mlflow", "mlflow:http://h:5000", "mlflow:runs/ml"]
)
def test_a_target_is_read_and_written(text: str) -> None:
    assert str(Target.parse(text)) == text


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["comet"], "no tracker 'comet'; expected one of: wandb"),
        (["wandb:"], "nothing after the colon"),
        (["wandb", "wandb"], "named twice"),
        (["mlflow:https://me:secret@host"], "MLFLOW_TRACKING_URI"),
    ],
)
def test_a_target_that_cannot_be_is_refused(texts: list[str], named: str) -> None:
    with pytest.raises(TrackingError, match=named) as raised:
        targets(texts)
    assert "secret" not in str(raised.value)
    with pytest.raises(ValueError):
        Settings(steps=1, batch=1, lr=0.1, track=tuple(texts))


def test_tracking_is_no_part_of_what_a_run_is() -> None:
    assert "track" in OPERATIONAL
    assert "track" not in identity_json(Settings(steps=1, batch=1, lr=0.1))  # older runs lack it


def test_a_library_that_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)  # as Python marks what cannot be imported
    with pytest.raises(TrackingError, match=r"pip install 'multiway\[wandb\]'.*multiway track RUN --to wandb"):
        require([Target("wandb")])


def test_names_are_those_of_tensorboard_but_for_what_is_said_of_a_value(tmp_path: Path) -> None:
    write(tmp_path, range(1, 2))
    line = read_metrics(tmp_path / METRICS)[0]
    found = numbers(line, {"step": 1, "step_seconds": 0.5})
    assert found == {
        "loss": 1.0, "terms/itc": 1.0, "terms/itc_chance": 2.0, "eval/own@val/R@1": 0.5, "eval/own@val/R@1_n": 8.0,
        "timings/step_seconds": 0.5,
    }  # fmt: skip
    assert set(dict(scalars(line))) - set(found) == {"step", "terms/itc/chance", "eval/own@val/R@1/n"}
    # MLflow keeps a name as a path: none may be the folder of another.
    assert not [(a, b) for a in found for b in found if b.startswith(f"{a}/")]
    assert math.isnan(numbers({"step": 1, "loss": "nan"})["loss"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=6))
def test_a_tail_reads_what_the_whole_file_says(cuts: list[int]) -> None:
    with TemporaryDirectory() as name:
        whole, grown = Path(name) / "whole", Path(name) / "grown"
        lines = [{"step": step, "loss": step / 7, "text": "é\u2028"} for step in range(1, 9)]
        whole.write_text("".join(json.dumps(line) + "\n" for line in lines))
        content, tail, found = whole.read_bytes(), Tail(grown), []
        assert tail.read() == []
        for end in [*sorted(cuts), len(content)]:
            grown.write_bytes(content[:end])  # cut anywhere, in the middle of a line as well
            found += tail.read()
        assert found == read_metrics(whole) == lines


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), max_size=12), st.lists(st.integers(0, 9), min_size=1, max_size=6), st.data())
def test_every_line_arrives_once_and_in_order_whatever_fails(script: list[bool], told: list[int], data: Any) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, range(1, 10))
        tracker = Recorded(lambda: bool(script) and script.pop())
        now = delivery(folder, tracker)
        for until in [*sorted(told), *[9] * 14]:
            if data.draw(st.booleans()):  # killed, and started again from what the folder remembers
                now = delivery(folder, tracker)
            with contextlib.suppress(ConnectionError):
                now.bring(until)
            assert tracker.steps == list(range(1, len(tracker.steps) + 1))
        assert tracker.steps == list(range(1, 10)) and Kept(folder).get("wandb:here") == ("id-1", 9)
        assert tracker.started[0] is None and set(tracker.started[1:]) <= {"id-1"}


def test_steps_computed_again_after_a_resume_are_not_sent_again(tmp_path: Path) -> None:
    write(tmp_path, range(1, 8))
    first, second = Recorded(), Recorded()
    delivery(tmp_path, first).bring(7)
    with Journal(tmp_path, tensorboard=False) as journal:
        journal.cut_back(4)
    write(tmp_path, range(5, 10))
    assert delivery(tmp_path, second).bring(9) == 2 and second.steps == [8, 9] and second.started == ["id-1"]
    # Another project knows nothing of it, and gets everything; so does another run in the same one.
    assert delivery(tmp_path, Recorded(place="there")).bring(9) == 9
    afresh = Recorded()
    assert delivery(tmp_path, afresh, again=True).bring(9) == 9 and afresh.started == [None]


def test_a_damaged_memory_is_a_new_run_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / TRACKING).write_text("{")
    assert Kept(tmp_path).get("wandb:here") == (None, -1) and "cannot be read" in caplog.text


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not what() and time.monotonic() < end:
        time.sleep(0.002)
    assert what()


def test_an_error_is_said_once_and_the_lines_arrive_later(tmp_path: Path) -> None:
    write(tmp_path, range(1, 10))
    said: list[str] = []
    away = iter([True] * 4)
    tracker = Recorded(lambda: next(away, False))
    courier = Courier(delivery(tmp_path, tracker), said.append, pause=0.001)
    with Tracking([courier]) as tracking:
        tracking.tell(3)
        wait_for(lambda: courier.errors == 4 and tracker.steps == [1, 2, 3])
        tracking.tell(9)
        tracking.status = "finished"
    assert tracker.steps == list(range(1, 10)) and tracker.ended == ["finished"]
    assert "ConnectionError: server is away" in said[0] and "training goes on" in said[0]
    assert len(said) == 2 and "failed 4 times, and has every line after all" in said[1]


def test_a_tracker_that_stays_away_is_said_to_lack_the_run(tmp_path: Path) -> None:
    write(tmp_path, range(1, 3))
    said: list[str] = []
    with Tracking([Courier(delivery(tmp_path, Recorded(lambda: True)), said.append)]) as tracking:
        tracking.tell(2)
    assert len(said) == 2 and f"lacks this run: multiway track {tmp_path} --to wandb" in said[1]


def test_a_tracker_that_hangs_costs_the_loop_nothing_and_the_end_its_patience(tmp_path: Path) -> None:
    write(tmp_path, range(1, 10))
    release, said = threading.Event(), []

    class Hanging(Recorded):
        def start(self, name: str, config: Any, known: str | None) -> str:
            release.wait(30)
            return "id"

    began = time.monotonic()
    with Tracking([Courier(delivery(tmp_path, Hanging()), said.append)], patience=0.2) as tracking:
        for step in range(20_000):
            tracking.tell(step)
        looped = time.monotonic() - began
        tracking.status = "finished"
    waited = time.monotonic() - began - looped
    release.set()
    assert looped < 5 and 0.15 < waited < 5, (looped, waited)
    assert "did not take the last lines in time" in said[0]


def test_a_run_that_fails_is_said_to_have_failed_and_one_that_never_began_is_not_told_of(tmp_path: Path) -> None:
    write(tmp_path, range(1, 3))
    failed, never = Recorded(), Recorded()
    for tracker, tell in ((failed, True), (never, False)):
        with pytest.raises(RuntimeError), Tracking([Courier(delivery(tmp_path, tracker), print)]) as tracking:
            if tell:
                tracking.tell(2)
            raise RuntimeError
    assert failed.ended == ["failed"] and never.started == [] and never.ended == []


def test_wandb_gets_a_run_that_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb, _ = stand_in(monkeypatch)
    write(tmp_path, range(1, 4))
    target = Target("wandb", "team/project")
    for until, status in ((2, "stopped"), (3, "finished")):
        each = Delivery(tmp_path, CONFIG, target, open_tracker(target, tmp_path), Kept(tmp_path))
        each.bring(until)
        each.finish(status)  # type: ignore[arg-type]
    (run,) = wandb.runs.values()
    assert run["steps"] == [1, 2, 3] and run["numbers"][0]["terms/itc"] == 1.0
    assert (run["entity"], run["project"], run["name"], run["config"]) == ("team", "project", tmp_path.name, CONFIG)
    assert run["exit"] == [1, 0] and run["preempted"] == 1 and run["dir"] == str(tmp_path)
    wandb.keyed = False
    with pytest.raises(TrackingError, match="WANDB_API_KEY"):
        open_tracker(target, tmp_path).start("a", {}, None)
    wandb.mode = "offline"
    open_tracker(target, tmp_path).start("a", {}, None)


def test_mlflow_gets_parameters_once_and_no_infinities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mlflow = stand_in(monkeypatch)
    write(tmp_path, range(1, 4))
    target = Target("mlflow", "http://host:5000")
    for until, status in ((2, "stopped"), (3, "finished")):
        tracker = open_tracker(target, tmp_path)
        each = Delivery(tmp_path, CONFIG | {"ranks": until}, target, tracker, Kept(tmp_path))
        each.bring(until)
        each.finish(status)  # type: ignore[arg-type]
        assert mlflow.runs[f"{tmp_path.name}-0"]["status"] == {"stopped": "KILLED", "finished": "FINISHED"}[status]
    (run,) = mlflow.runs.values()
    assert run["params"]["settings.lr"] == "0.1" and len(run["params"]["method.long"]) == 500
    assert [step for name, _, step in run["metrics"] if name == "eval/own_at_val/R_at_1"] == [1, 2, 3]
    tracker.log(4, {"a": math.inf, "b": math.nan, "c": 1.0})
    assert [name for name, _, step in run["metrics"] if step == 4] == ["b", "c"]
    # What the folder keeps of a database's address has no password in it; a folder is one wherever one stands.
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "postgresql://me:secret@host/db")
    assert open_tracker(Target("mlflow"), tmp_path).place == "postgresql://host/db"
    monkeypatch.chdir(tmp_path)
    assert open_tracker(Target("mlflow", "ml/runs"), tmp_path).place == (tmp_path / "ml" / "runs").as_uri()


def accepts(real: Callable[..., Any], ours: Callable[..., Any]) -> None:
    """The real function takes every argument by the name that the stand-in gives it."""
    named = set(inspect.signature(ours).parameters) - {"self"}
    assert named <= set(inspect.signature(real).parameters), (real, named)


def test_the_stand_in_for_wandb_is_like_the_real_one() -> None:
    wandb = pytest.importorskip("wandb")
    for name in ("init", "login", "setup"):
        accepts(getattr(wandb, name), getattr(Wandb, name))
    assert set(inspect.signature(Wandb.Settings).parameters) - {"self"} <= set(wandb.Settings.model_fields)
    for name in ("log", "finish", "mark_preempting"):
        accepts(getattr(wandb.Run, name), getattr(Run, name))


def test_the_stand_in_for_mlflow_is_like_the_real_one() -> None:
    mlflow = pytest.importorskip("mlflow")
    for name in (
        "get_experiment_by_name",
        "create_experiment",
        "create_run",
        "update_run",
        "log_batch",
        "set_terminated",
    ):
        accepts(getattr(mlflow.MlflowClient, name), getattr(Client, name))
    accepts(mlflow.MlflowClient, lambda tracking_uri: None)
    accepts(mlflow.entities.Metric, Mlflow().entities.Metric)
    accepts(mlflow.entities.Param, Mlflow().entities.Param)


def test_mlflow_in_truth_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = tmp_path / "run"
    run.mkdir()
    write(run, range(1, 10))
    target = Target("mlflow", str(tmp_path / "ml"))
    for until, status in ((5, "stopped"), (9, "finished")):
        each = Delivery(run, CONFIG, target, open_tracker(target, run), Kept(run))
        each.bring(until)
        each.finish(status)  # type: ignore[arg-type]
    client = mlflow.MlflowClient((tmp_path / "ml").as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("multiway").experiment_id])
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    points = client.get_metric_history(each.id, "loss")
    assert [(point.step, point.value) for point in points] == [(step, 1 / step) for step in range(1, 10)]
    assert found.data.metrics["eval/own_at_val/R_at_1"] == 0.5 and found.data.params["settings.steps"] == "9"
