"""Fine-tuning as a user does it: the command on scenes and on files as published, resumed, on two ranks, at another size."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import multiway
from safetensors.torch import load_file
from toy import toy_picture
from tuning import METHODS

from multiway.batch import DataInfo, ViewSpec
from multiway.cli.main import main
from multiway.data.open import open_source
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.engine.run import Run
from multiway.hub.file import write_model
from multiway.hub.load import load
from multiway.methods import method_class
from multiway.methods.finetune import FineTune
from multiway.methods.method import Step
from multiway.recipes.finetune import finetune
from multiway.recipes.training import prepare
from multiway.recipes.unfinished import recipe_of
from multiway.world import World

DATA = "scenes:easy,objects=1-2,gallery=6"
QUICK = ["--device", "cpu", "--precision", "fp32", "--threads", "1", "--log-every", "1", "--steps", "2", "--batch", "4"]
Weights = Callable[[str], str]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Files of untrained models whose tokeniser knows the scenes' words."""
    source = open_source(f"{DATA}@val")
    words = Tokenizer.train(source.tokenizer_captions, TokenizerSpec(512, 32))
    folder = tmp_path_factory.mktemp("weights")

    def of(name: str) -> str:
        file = folder / f"{name}.safetensors"
        if not file.exists():
            torch.manual_seed(0)
            config = METHODS[name].resolve(DataInfo(vocabulary=len(words), context=32, special=words.special))
            write_model(
                file, method_class(name.partition("-")[0])(config), Processor(ViewSpec(size=16, crop="squash"), words)
            )  # type: ignore[call-arg]
        return str(file)

    return of


def tune(start: str, task: str, out: Path, *more: str, data: str = DATA) -> int:
    return main(["finetune", start, "--task", task, "--data", data, *QUICK, "--out", str(out), *more])


def measured(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["eval", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["metrics"]


@pytest.mark.parametrize(
    ("name", "task", "best"),
    [
        ("albef", "vqa", "accuracy"),
        ("vilt", "gqa", "accuracy"),
        ("clip", "entailment", "accuracy"),
        ("albef", "nlvr2", "consistency"),
        ("bert", "vcr", "Q->AR"),
        ("clip", "refcoco", "accuracy@0.5"),
    ],
)
def test_tuned_saved_and_measured(
    name: str, task: str, best: str, weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(weights(name), task, tmp_path / "run") == 0
    said = capsys.readouterr().err
    assert "100.0% of the method's numbers" in said and "finished at step 2" in said
    lines = Run.read(tmp_path / "run").metrics()
    (own,) = {key.split("@val/")[0] for key in lines[-1]["eval"]}
    assert own == DATA and f"{DATA}@val/{best}" in lines[-1]["eval"], "measured on val, at the end"
    predictions = tmp_path / "predictions"
    metrics = measured(
        capsys, str(tmp_path / "run"), "--task", task, "--data", f"{DATA}@val", "--predictions", str(predictions)
    )
    assert metrics[best]["value"] == pytest.approx(lines[-1]["eval"][f"{DATA}@val/{best}"]["value"])
    assert (
        predictions.read_text().count("val-")
        == metrics["accuracy" if best == "consistency" else "Q->A" if task == "vcr" else best]["n"]
    )


def test_what_it_could_do_it_still_can(weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At a learning rate of nothing: retrieval after tuning is retrieval before."""
    assert tune(weights("clip"), "entailment", tmp_path / "run", "--lr", "1e-12") == 0
    before, after = (
        measured(capsys, each, "--task", "retrieval", "--data", f"{DATA}@val")
        for each in (weights("clip"), str(tmp_path / "run"))
    )
    assert after == before


def test_resumed_the_end_is_identical(weights: Weights, tmp_path: Path) -> None:
    more = ["--horizon", "4", "--checkpoint-every", "2", "--view.augment", "affine", "--data", DATA]
    assert tune(weights("albef"), "nlvr2", tmp_path / "straight", *more, "--steps", "4") == 0
    assert tune(weights("albef"), "nlvr2", tmp_path / "halves", *more) == 0
    assert tune(weights("albef"), "nlvr2", tmp_path / "halves", *more, "--steps", "4") == 0
    one, other = (load_file(tmp_path / run / "model.safetensors") for run in ("straight", "halves"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_micro_batches_train_the_same(weights: Weights, tmp_path: Path) -> None:
    for parts in ("1", "2"):
        assert tune(weights("clip"), "refcoco", tmp_path / parts, "--accumulate", parts, "--batch", "6") == 0
    one, two = (load_file(tmp_path / parts / "model.safetensors") for parts in ("1", "2"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5)


def test_two_ranks_compute_what_one_does(weights: Weights, tmp_path: Path) -> None:
    args = ["finetune", weights("clip"), "--task", "nlvr2", "--data", DATA, *QUICK, "--evaluate", "--out"]
    done = multiway(*args, str(tmp_path / "two"), ranks=2)
    assert done.returncode == 0, done.stderr
    assert main([*args, str(tmp_path / "one")]) == 0
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5)
    losses = [[line["loss"] for line in Run.read(tmp_path / run).metrics()] for run in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_larger_picture_interpolates_positions(
    weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        tune(weights("albef"), "entailment", tmp_path / "run", "--view.size", "24", "--method.layer-decay", "0.8") == 0
    )
    assert "1 resized (student.image.positions)" in " ".join(capsys.readouterr().err.split())
    model = load(tmp_path / "run")
    assert model.method.base.config.image.size == model.processor.view.size == 24
    assert model.method.base.student.image.positions.shape[0] == 36


def test_a_tuned_run_is_tuned_again(weights: Weights, tmp_path: Path) -> None:
    assert tune(weights("albef"), "entailment", tmp_path / "first") == 0
    assert tune(str(tmp_path / "first"), "nlvr2", tmp_path / "second", "--lr", "1e-12", "--method.two", "triplet") == 0
    first, second = load(tmp_path / "first").method, load(tmp_path / "second").method
    assert isinstance(second, FineTune) and second.base.name == "albef" and second.config.two == "triplet"
    ours, theirs = (each.base.student.state_dict() for each in (second, first))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)
    assert "judge" in second.abilities() and second.verdicts == ("false", "true")


def test_a_dry_run_shows_the_head_and_trains_nothing(
    weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the rows share pictures, of which there are fewer."""
    nlvr2(tmp_path / "nlvr2")
    args = ["--dry-run", "--batch", "8"]
    assert tune(weights("albef"), "nlvr2", tmp_path / "run", *args, data=f"nlvr2:{tmp_path / 'nlvr2'}") == 0
    said = capsys.readouterr().out
    assert "Classifier" in said and "ln 2" in said and not (tmp_path / "run").exists()


# --- files as published --------------------------------------------------------------------------------------------------


def nlvr2(root: Path, labels: bool = True) -> Path:
    for name, split in (("train", "train"), ("dev", "dev"), ("test1", "test1")):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        rows = []
        for number in range(4):
            for side in (0, 1):
                colour = ("red", "blue")[(number + side) % 2]
                toy_picture(colour, "left", number).save(folder / f"{split}-{number}-0-img{side}.png")
            for sentence in range(2):
                row = {
                    "identifier": f"{split}-{number}-0-{sentence}",
                    "sentence": "the left picture is red",
                    "label": str(bool(number % 2)),
                }
                rows.append(json.dumps(row if labels or name == "train" else {**row, "label": None}))
        (root / f"{name}.json").write_text("\n".join(rows) + "\n")
    return root


def vqa(root: Path) -> Path:
    for split, answered in (("train2014", True), ("val2014", True), ("test2015", False)):
        (root / split).mkdir(parents=True)
        questions, annotations = [], []
        for number in range(8):
            toy_picture(("red", "blue")[number % 2], "top", number).save(
                root / split / f"COCO_{split}_{number:012d}.jpg"
            )
            questions.append({"question_id": 10 * number, "image_id": number, "question": "what colour is the top?"})
            said = [
                {"answer": ("red", "blue")[number % 2], "answer_id": k, "answer_confidence": "yes"}
                for k in range(1, 11)
            ]
            annotations.append(
                {"question_id": 10 * number, "image_id": number, "answer_type": "other", "answers": said}
            )
        (root / f"v2_OpenEnded_mscoco_{split}_questions.json").write_text(json.dumps({"questions": questions}))
        if answered:
            (root / f"v2_mscoco_{split}_annotations.json").write_text(json.dumps({"annotations": annotations}))
    return root


def test_vqa_from_its_files(weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"vqa:{vqa(tmp_path / 'vqa')}"
    assert tune(weights("clip"), "vqa", tmp_path / "run", data=data) == 0
    assert load(tmp_path / "run").answers == ("blue", "red")
    metrics = measured(capsys, str(tmp_path / "run"), "--task", "vqa", "--data", f"{data}@val")
    assert metrics["accuracy"]["chance"] == pytest.approx(0.5) and metrics["best_of_list"]["value"] == 1.0
    file = tmp_path / "sub" / "test.json"
    assert (
        main(
            [
                "eval",
                str(tmp_path / "run"),
                "--task",
                "vqa",
                "--data",
                f"{data}@test",
                "--predictions",
                str(file),
                "--json",
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert json.loads(out)["metrics"] == {}
    assert "withheld" in err and "no score" in err and "8 of 447,793 questions" in err and str(file) in err
    said = json.loads(file.read_text())
    assert {row["question_id"] for row in said} == set(range(0, 80, 10)) and {row["answer"] for row in said} <= {
        "red",
        "blue",
    }


def test_nlvr2_from_its_files(weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"nlvr2:{nlvr2(tmp_path / 'nlvr2')}"
    assert tune(weights("albef"), "nlvr2", tmp_path / "run", "--method.two", "pair-attention", data=data) == 0
    file = tmp_path / "dev.csv"
    metrics = measured(
        capsys, str(tmp_path / "run"), "--task", "nlvr2", "--data", f"{data}@val", "--predictions", str(file)
    )
    right = sum(
        line.split(",")[1] == ("false", "true")[int(line.split("-")[1]) % 2] for line in file.read_text().splitlines()
    )
    assert metrics["accuracy"]["value"] == pytest.approx(right / 8)
    # The pictures of one that is gone are replaced in training, counted, and listed.
    (tmp_path / "nlvr2" / "images" / "train" / "train-1-0-img1.png").write_bytes(b"no picture")
    assert tune(weights("albef"), "nlvr2", tmp_path / "again", "--bad-rows", "1", "--steps", "3", data=data) == 0
    assert any("train-1-0" in row["why"] for row in Run.read(tmp_path / "again").skipped())


@pytest.mark.parametrize("name", ["albef", "blip"])
def test_two_pictures_in_the_way_of_the_method(
    name: str, weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parts for a second picture begin as copies of what the run has learned of one, and the file has them."""
    assert tune(weights(name), "nlvr2", tmp_path / "run", "--method.two", "own") == 0
    assert "100.0% of the method's numbers" in capsys.readouterr().err
    model = load(tmp_path / "run")
    assert model.method.base.name == f"{name}-two" and "fuse_two" in model.abilities()
    assert measured(capsys, str(tmp_path / "run"), "--task", "nlvr2", "--data", f"{DATA}@val")["accuracy"]["n"] > 0
    assert tune(weights("vilt"), "nlvr2", tmp_path / "no", "--method.two", "own") == 1
    assert "has no way of its own to read two pictures" in capsys.readouterr().err


# --- a run that has not finished -----------------------------------------------------------------------------------------


def test_a_run_that_still_trains_is_measured_by_its_checkpoint(
    weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert tune(weights("clip"), "entailment", run) == 0
    asked = [str(run), "--task", "entailment", "--data", f"{DATA}@val"]
    finished = measured(capsys, *asked)
    (run / "model.safetensors").rename(tmp_path / "kept.safetensors")
    assert measured(capsys, *asked) == finished
    # The file of an earlier stop is older than the checkpoint: it is not taken for the run as it stands.
    write_model(
        run / "model.safetensors", tuned_otherwise(tmp_path / "kept.safetensors"), load(weights("clip")).processor
    )
    os.utime(run / "model.safetensors", (1, 1))
    assert main(["eval", *asked, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["metrics"] == finished and "has not finished; this is its checkpoint at step 2" in err


def tuned_otherwise(file: Path) -> Any:
    method = load(file).method
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter))
    return method


# --- what cannot be --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "complaint"),
    [
        (
            "clip",
            ["--task", "retrieval"],
            "no head is tuned for the task 'retrieval'; tasks that have one: vqa, gqa, entailment, nlvr2, vcr, refcoco",
        ),
        (
            "clip",
            ["--task=refcoco", "--view.crop", "center"],
            "boxes are shares of the whole picture.*--view.crop squash",
        ),
        ("clip", ["--task", "refcoco", "--view.augment", "affine"], "view.augment=affine"),
        (
            "clip",
            ["--task", "entailment", "--view.size", "18"],
            "cannot be tuned with pictures of 18: size 18 is not divisible by patch 4",
        ),
        (
            "clip",
            ["--evaluate", "retrieval=emoji@composition"],
            "measured afterwards: multiway eval RUN --task retrieval",
        ),
        ("clip", ["--task", "nlvr2", "--method.two", "triplet"], "two pairs: --method.two pair; given triplet"),
        ("vlmo", ["--task", "nlvr2", "--method.two", "triplet"], "vlmo does not read two pictures in one sequence"),
        ("coca", ["--task", "refcoco"], "coca keeps of a picture 6 queries"),
        ("clip", ["--task", "entailment", "--method.answers", "no", "yes"], "verdicts of .* are entailment, neutral"),
        ("clip", ["--method.layer-decay", "2"], "layer_decay 2"),
        ("clip", ["--task", "nlvr2", "--data", "emoji"], "no annotated data 'emoji'"),
        ("clip", ["--batch", "5", "--accumulate", "2"], "batch 5 does not divide"),
    ],
)
def test_mistakes_are_told(
    name: str, args: list[str], complaint: str, weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done: Any
    try:
        done = main(["finetune", weights(name), "--data", DATA, *QUICK, "--out", str(tmp_path / "run"), *args])
    except SystemExit as stop:
        done = stop.code
    said = " ".join(capsys.readouterr().err.split())
    assert done in (1, 2) and "Traceback" not in said
    assert re.search(complaint, said), said
    assert not (tmp_path / "run").exists()


def test_examples_about_other_pictures_are_refused(
    weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"nlvr2:{nlvr2(tmp_path / 'nlvr2')}"
    assert tune(weights("clip"), "entailment", tmp_path / "run", data=data) == 1
    assert "`entailment` is about 1 pictures" in " ".join(capsys.readouterr().err.split())


def test_its_recipe_is_what_was_kept(weights: Weights, tmp_path: Path) -> None:
    recipe = finetune(weights("clip"), "vcr")
    small = replace(
        recipe, data=DATA, settings=replace(recipe.settings, steps=1, batch=2, device="cpu", precision="fp32")
    )
    run = Run.open(tmp_path / "run", small.identity())
    run.close()
    kept = recipe_of(Run.read(tmp_path / "run"))
    assert replace(kept, settings=replace(kept.settings, horizon=0)) == small


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_larger_pictures(name: str, weights: Weights, tmp_path: Path) -> None:
    recipe = finetune(weights(name), "entailment")
    settings = replace(recipe.settings, batch=2, device="cpu")
    ready = prepare(replace(recipe, data=DATA, view=replace(recipe.view, size=24), settings=settings), World())
    assert ready.started is not None and ready.started.numbers[0] == ready.started.numbers[1]
    batch = ready.finish(ready.loader.batch(0))
    assert batch.images is not None and batch.images.shape[-1] == 24
    assert torch.isfinite(ready.method.training_step(batch, World(), Step()).total)


def test_vlmo_is_tuned_at_another_size_and_measured(
    weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(weights("vlmo"), "entailment", tmp_path / "run", "--view.size", "24") == 0
    assert "1 resized (positions.table); 100.0% of the method's numbers" in capsys.readouterr().err
    model = load(tmp_path / "run")
    assert model.method.base.config.size == model.processor.view.size == 24
    found = measured(capsys, str(tmp_path / "run"), "--task", "entailment", "--data", f"{DATA}@val")
    assert (
        found["accuracy"]["value"] == Run.read(tmp_path / "run").metrics()[-1]["eval"][f"{DATA}@val/accuracy"]["value"]
    )


# --- forgetting little -----------------------------------------------------------------------------------------------------

LORA = ["--method.lora", r"blocks.*\.(qkv|module)$", "--method.lora-rank", "2"]


@pytest.mark.parametrize("name", ["albef", "clip"])
def test_the_life_of_a_run_with_changes_of_low_rank(
    name: str, weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Begun, resumed, measured on its way, finished, averaged, tuned for something else."""
    run, more = tmp_path / "run", [*LORA, "--horizon", "4", "--checkpoint-every", "2", "--lr", "0.01"]
    assert tune(weights(name), "entailment", tmp_path / "straight", *more, "--steps", "4") == 0
    told = capsys.readouterr().err
    assert "100.0% of the method's numbers" in told and "M of which learn" in told
    assert tune(weights(name), "entailment", run, *more) == 0
    # On its way: what is measured by the checkpoint is what the file says.
    asked = [str(run), "--task", "entailment", "--data", f"{DATA}@val"]
    finished = measured(capsys, *asked)
    (run / "model.safetensors").unlink()
    halfway = measured(capsys, *asked)
    assert halfway["accuracy"]["value"] == finished["accuracy"]["value"]
    assert tune(weights(name), "entailment", run, *more, "--steps", "4") == 0
    one, other = (load_file(each / "model.safetensors") for each in (tmp_path / "straight", run))
    assert one.keys() == other.keys() and all(torch.equal(one[each], other[each]) for each in one)
    # Finished: a method like any other, of which the chosen matrices alone are not what they were.
    before, after = load(weights(name)).method.state_dict(), load(run).method
    assert isinstance(after, FineTune) and after.config.lora == "" and not any("changes" in each for each in one)
    moved = {each for each, tensor in after.base.state_dict().items() if not torch.equal(tensor, before[each])}
    moved = {each for each in moved if not each.startswith(after.base.own_state)}
    assert moved and all(re.search(LORA[1], each.removesuffix(".weight")) for each in moved), moved
    rank = {each: torch.linalg.matrix_rank(one[f"base.{each}"] - before[each], atol=1e-4) for each in moved}
    assert set(map(int, rank.values())) <= {1, 2}
    between = str(tmp_path / "between.safetensors")
    assert main(["average", weights(name), str(run), "--alpha", "0.5", "--out", between]) == 0
    each = next(iter(moved))
    torch.testing.assert_close(load_file(between)[f"base.{each}"], (before[each] + one[f"base.{each}"]) / 2)
    assert tune(str(run), "vqa", tmp_path / "again", *LORA) == 0
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == one.keys()


def test_frozen_towers_are_what_they_were(weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert tune(weights("albef"), "vqa", run, "--method.freeze", "image", "text", "--lr", "0.01") == 0
    before, after = load(weights("albef")).method.state_dict(), load(run).method.base.state_dict()
    moved = {each.split(".")[1] for each, tensor in after.items() if not torch.equal(tensor, before[each])}
    assert "fusion" in moved and not moved & {"image", "text"}
    capsys.readouterr()
    assert tune(weights("clip"), "vqa", tmp_path / "head", "--method.freeze", "base") == 0
    told = re.search(r"([\d.]+) M parameters, ([\d.]+) M of which learn", capsys.readouterr().err)
    head = sum(each.numel() for each in load(tmp_path / "head").method.head.parameters())
    assert told and float(told[2]) == round(head / 1e6, 2) < float(told[1])
    before, after = load(weights("clip")).method.state_dict(), load(tmp_path / "head").method.base.state_dict()
    assert all(torch.equal(each, before[name]) for name, each in after.items())


def test_runs_from_before_these_options_go_on(weights: Weights, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert tune(weights("clip"), "entailment", run, "--horizon", "4") == 0
    kept = json.loads((run / "config.json").read_text())
    assert not {"freeze", "lora", "lora_rank", "lora_alpha"} & {*kept["method"]}
    assert recipe_of(Run.read(run)).method.freeze == ()
    assert tune(weights("clip"), "entailment", run, "--horizon", "4", "--steps", "3") == 0


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--method.freeze", "vision"], "clip has no part 'vision' that could be frozen; there are: base"),
        (["--method.lora", "nothing"], "--method.lora: no linear layer fits 'nothing'; there are: image"),
        (["--method.lora", "qkv", "--method.freeze", "base"], "nothing is left that lora could change"),
        (["--init", "image=runs/a,text=runs/b"], "names a model for each of image, text, .*expected one model"),
    ],
)
def test_what_cannot_be_kept_is_told(
    args: list[str], complaint: str, weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test_mistakes_are_told("clip", args, complaint, weights, tmp_path, capsys)


def test_a_source_for_each_part_is_nothing_to_tune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "image=runs/a,text=runs/b", "--out", str(tmp_path / "run")]) == 1
    assert "names a model for each of image, text" in " ".join(capsys.readouterr().err.split())
