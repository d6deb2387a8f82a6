"""The verb `finetune`: usage, what the run is called, and which task is meant."""

import pytest

from multiway.cli.finetune import _task
from multiway.cli.main import main
from multiway.recipes.tuning import folder_of


def test_without_a_run_there_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune"]) == 2 and "usage: multiway finetune RUN --task TASK" in capsys.readouterr().err
    assert main(["finetune", "--help"]) == 0
    assert "refcoco, classification, distil, vqa-generate" in capsys.readouterr().out.split("tasks: ")[1]
    assert main(["finetune", "--task", "vqa"]) == 2


def test_a_run_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "runs/nowhere", "--task", "vqa"]) == 1
    assert "runs/nowhere does not exist" in capsys.readouterr().err


def test_a_task_that_nothing_is_tuned_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "runs/nowhere", "--task", "captions"]) == 1
    said = capsys.readouterr().err
    assert "no head is tuned for the task 'captions'" in said and said.strip().endswith("vqa-generate, gqa-generate")


def test_the_run_is_named_after_what_is_tuned() -> None:
    names = {
        "runs/albef": "albef",
        "runs/albef/": "albef",
        "runs/a/model.safetensors": "a",
        "hf:openai/clip-b": "clip-b",
    }
    assert {each: folder_of(each, "vqa") for each in names} == {
        each: f"runs/{name}-vqa" for each, name in names.items()
    }
    assert folder_of("w/vilt.v2", "gqa") == "runs/vilt.v2-gqa"


def test_the_task_is_found_however_it_is_written() -> None:
    assert [_task(["--task", "vcr"]), _task(["--lr", "1", "--task=gqa"]), _task(["--lr", "1"])] == ["vcr", "gqa", "vqa"]


def test_predictions_are_of_tasks_that_have_a_form_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "runs/nowhere", "--task", "retrieval", "--predictions", "file"]) == 1
    assert "`retrieval` predicts nothing that a benchmark takes; tasks that do:" in capsys.readouterr().err
