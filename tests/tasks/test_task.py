"""The form of a result."""

from __future__ import annotations

import json

import pytest
from tasks.task_fakes import Fused, Shelf, random_model

from multiway.abilities import LacksAbility
from multiway.data.source import DataError, Source
from multiway.tasks import TASKS
from multiway.tasks.task import Metric, collect

# Tasks that take pictures with captions and nothing before: not those on annotated examples (`tasks/test_vqa.py`, ...), on video,
# on features that something is learnt from first, or on heads that were tuned; each of these has a file of tests.
CAPTIONED = ("retrieval", "rerank", "fusion", "matching", "masked-words", "captioning", "zeroshot")

SHELF = Shelf([(i, [f"text {i}"], i % 3) for i in range(12)], classes=["a", "b", "c"])


def test_every_task_is_known_by_its_own_name_and_says_what_it_needs():
    for name, task in TASKS.items():
        assert task.name == name and task.needs


def test_the_stand_in_is_a_source():
    assert isinstance(SHELF, Source)


@pytest.mark.parametrize("name", CAPTIONED)
def test_every_task_reports_in_one_form(name):
    result = TASKS[name].run(random_model(kind=Fused), SHELF)
    line = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert list(line) == ["task", "data", "split", "metrics"]
    assert (line["task"], line["data"], line["split"]) == (name, "shelf", "test")
    for metric in line["metrics"].values():
        assert list(metric) == ["value", "low", "high", "n", "chance"]
        assert metric["low"] <= metric["value"] <= metric["high"]
        assert metric["chance"] is not None and metric["n"] > 0


@pytest.mark.parametrize("name", CAPTIONED)
def test_a_model_without_text_is_refused_before_any_picture_is_read(name):
    class OnlyPictures:
        encode_image = random_model().encode_image

    shelf = Shelf(SHELF.rows, classes=SHELF.classes)
    with pytest.raises(LacksAbility, match=f"`{name}` needs .*which OnlyPictures lacks"):
        TASKS[name].run(OnlyPictures(), shelf)
    assert shelf.opened == []


@pytest.mark.parametrize("name", CAPTIONED)
def test_no_rows_is_an_error(name):
    with pytest.raises(DataError, match="shelf@test, which has no rows; name another split"):
        TASKS[name].run(random_model(kind=Fused), Shelf([], classes=["a"]))


def test_collect_refuses_what_could_mislead():
    task = TASKS["retrieval"]
    one = Metric("R@1", 0.5, 0.4, 0.6, 10, 0.1)
    assert collect(task, SHELF, iter([one])).metrics == {"R@1": one}
    with pytest.raises(ValueError, match="yields `R@1` twice"):
        collect(task, SHELF, [one, one])
    with pytest.raises(ValueError, match="expected finite"):
        collect(task, SHELF, [Metric("R@1", float("nan"), 0.4, 0.6, 10)])


def test_a_metric_reads_as_a_line():
    assert str(Metric("R@1", 0.3, 0.25, 0.35, 400, 0.0025)) == "R@1 0.3 [0.25, 0.35] (n = 400, chance 0.0025)"
