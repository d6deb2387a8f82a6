"""What 8 bits are measured on: the run's own task and split, so many rows of it, before and after."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotated.miniatures import write_vqa
from multiway_batches import WORDS
from tuning import VIEW, tuned

from multiway.data.processor import Processor
from multiway.hub.model import Model
from multiway.workflows.export_measure import Origin, losses

SCENES = {"task": "vqa", "data": "scenes:easy,objects=1-2,gallery=8", "images": "", "evaluate": ["vqa=@val"]}


def test_a_tuned_run_is_measured_on_its_own_task() -> None:
    model = Model(tuned("vilt"), Processor(VIEW, WORDS))
    (found,) = Origin(SCENES, rows=12).evaluations(model)
    assert found.task.name == "vqa" and found.source.split == "val" and len(found.source) == 12
    whole = Origin(SCENES, tasks=("vqa",)).evaluations(model)[0].source
    assert [each.key for each in found.source.examples] == [
        whole.example(number * len(whole) // 12).key for number in range(12)
    ]
    other = Model(tuned("vilt", seed=1), Processor(VIEW, WORDS))
    rows = {row["metric"]: row for row in losses(model, other, [found], pytest.fail)}
    want = [found.task.run(each, found.source).metrics["accuracy"].value for each in (model, other)]
    assert [rows["accuracy"][name] for name in ("fp32", "int8")] == want
    assert rows["accuracy"]["data"].endswith("@val") and rows["accuracy"]["n"] == 12


def test_pictures_and_questions_of_a_benchmark_are_shown(tmp_path: Path) -> None:
    asked = write_vqa(tmp_path)
    origin = Origin({"task": "vqa", "data": f"vqa:{tmp_path}", "images": "", "evaluate": ["vqa=@val"]})
    pictures, texts = origin.examples()
    assert texts == [each.text for each in asked[:8]] and len(pictures) == len(texts)
    assert all(min(picture.size) > 1 for picture in pictures)
    pictures, texts = Origin(SCENES).examples()  # scenes have captions too
    assert len(pictures) == len(texts) == 8
