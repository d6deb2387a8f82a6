"""From a run to one that writes answers: built and spelt, then by the command, on scenes and on VQAv2's own files."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy import toy_picture
from tuning import METHODS

from multiway.batch import DataInfo, ViewSpec
from multiway.cli.main import main
from multiway.config import ConfigError, from_json, to_json
from multiway.data.augment import finish
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.engine.run import Run
from multiway.hub.file import write_model
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.methods import method_class
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.answer_writer import AnswerWriter
from multiway.methods.method import Step
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.recipes.answer_writer import AnswerList, AnswerWriterRecipe, answer_writer, spelt
from multiway.recipes.training import prepare
from multiway.tasks.generated_answers import GeneratedAnswers
from multiway.tasks.vqa import Vqa
from multiway.world import World

DATA = "scenes:easy,objects=1-2,gallery=6"
QUICK = ["--device", "cpu", "--precision", "fp32", "--threads", "1", "--log-every", "1", "--steps", "2", "--batch", "4"]
SAID = ["what colour is the circle", "how many things are there", "is the star red or blue", "yes no two three one"]
WORDS = Tokenizer.train(SAID, TokenizerSpec(vocabulary=300, context=40))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    config = AlbefConfig(
        image=VisionConfig(size=32, patch=8, width=32, layers=1, heads=2),
        text=TextConfig(context=0, width=32, layers=1, heads=2, causal=False, pool="class"),
        fusion_layers=2, embedding=8, queue=4,
    )  # fmt: skip
    method = Albef(config.resolve(DataInfo(vocabulary=len(WORDS), context=40)))
    file = tmp_path_factory.mktemp("run") / "model.safetensors"
    write_model(file, method, Processor(ViewSpec(size=32, crop="squash"), WORDS))
    return str(file)


def test_a_run_becomes_one_that_writes(run: str) -> None:
    recipe = answer_writer(run)
    recipe = replace(recipe, answers=AnswerList(scanned=200))
    recipe = replace(recipe, data="scenes:easy,samples=200,gallery=6", settings=replace(recipe.settings, batch=8))
    ready = prepare(recipe, World())
    method = ready.method
    assert isinstance(method, AnswerWriter) and method.config.method == "albef"
    assert len(method.answers) > 5 and method.config.answer_ids[0][-1] == WORDS.special["eos"]
    # The decoder begins from the run's fused blocks, the method underneath is the run itself.
    fused = method.base.state_dict()["student.fusion.blocks.1.attention.qkv.weight"]
    assert torch.equal(method.decoder.state_dict()["blocks.blocks.1.attention.qkv.weight"], fused)
    batch = finish(ready.loader.batch(0), recipe.view)
    assert batch.targets is not None and batch.targets.shape == (8, len(method.answers))
    assert float(batch.targets.sum(1).max()) <= 1.0 + 1e-6
    losses = method(batch, World(), Step())
    losses.total.backward()
    assert losses.terms["lm"].chance is not None and losses.terms["lm"].chance > 0
    model = Model(method, ready.processor)
    examples = recipe.open(recipe.data, "test")
    ranked = Vqa(resamples=10).run(model, examples)
    written = GeneratedAnswers(resamples=10).run(model, examples)
    assert ranked.metrics["accuracy"].n == written.metrics["accuracy"].n == len(examples)
    assert set(ranked.details.given) <= set(method.answers)


def test_answers_are_spelt_between_start_and_end() -> None:
    start, end = WORDS.special["bos"], WORDS.special["eos"]
    (yes, two) = spelt(("yes", "two three"), WORDS)
    assert (yes[0], yes[-1], two[0], two[-1]) == (start, end, start, end)
    assert WORDS.decode(yes[1:-1]) == "yes" and WORDS.decode(two) == "two three"
    with pytest.raises(ConfigError, match="has 38 tokens or more"):
        spelt(("yes", "no " * 80), WORDS)


def test_without_a_run_there_is_nothing_to_tune(run: str) -> None:
    recipe = replace(answer_writer(run), init="")
    with pytest.raises(ConfigError, match="name a run"):
        recipe.build(DataInfo())


def test_other_folders_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        answer_writer(str(tmp_path))


# --- by the command ------------------------------------------------------------------------------------------------------


def tune(start: str, out: Path, *more: str, data: str = DATA) -> int:
    words = ["finetune", start, "--task", "vqa-generate", "--data", data, "--answers.scanned", "300", *QUICK]
    try:
        return main([*words, "--out", str(out), *more])
    except SystemExit as stop:  # bad usage
        return int(stop.code or 0)


def measured(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["eval", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["metrics"]


def test_tuned_measured_and_asked_both_ways(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, file = str(tmp_path / "run"), tmp_path / "answers.json"
    assert tune(run, tmp_path / "run", "--steps", "3", "--method.top", "0") == 0
    said = capsys.readouterr().err
    assert "answer-writer" in said and "100.0% of the method's numbers" in said and "finished at step 3" in said
    at_end = Run.read(tmp_path / "run").metrics()[-1]["eval"]
    data = ["--data", f"{DATA}@val"]
    metrics = measured(capsys, out, "--task", "vqa-generate", *data, "--predictions", str(file))
    assert metrics["accuracy"]["value"] == at_end[f"{DATA}@val/accuracy"]["value"], "measured on val, at the end"
    given = json.loads(file.read_text())
    assert len(given) == metrics["accuracy"]["n"] and all(set(row) == {"question_id", "answer"} for row in given)
    # The list, ranked: the same run, the same questions.
    ranked = measured(capsys, out, "--task", "vqa", *data, "--predictions", str(file))
    assert ranked["accuracy"]["n"] == metrics["accuracy"]["n"] and "best_of_list" in ranked
    answers = load(tmp_path / "run").answers
    assert {row["answer"] for row in json.loads(file.read_text())} <= set(answers) and len(answers) > 5
    longest = str(load(tmp_path / "run").method.config.longest + 1)
    assert main(["eval", out, "--task", "vqa-generate", *data, "--min-length", longest, "--max-length", "99"]) == 1
    assert f"answers of {longest} tokens or more" in " ".join(capsys.readouterr().err.split())


def test_resumed_the_end_is_identical(run: str, tmp_path: Path) -> None:
    more = ["--horizon", "4", "--checkpoint-every", "2", "--evaluate"]
    assert tune(run, tmp_path / "straight", *more, "--steps", "4") == 0
    assert tune(run, tmp_path / "halves", *more) == 0
    assert tune(run, tmp_path / "halves", *more, "--steps", "4") == 0
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "halves"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_still_trains_is_measured_by_its_checkpoint(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(run, tmp_path / "run", "--evaluate") == 0
    asked = [str(tmp_path / "run"), "--task", "vqa-generate", "--data", f"{DATA}@val"]
    finished = measured(capsys, *asked)
    (tmp_path / "run" / "model.safetensors").unlink()
    assert measured(capsys, *asked) == finished


def test_a_dry_run_shows_the_decoder_and_trains_nothing(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(run, tmp_path / "run", "--dry-run", "--batch", "8") == 0
    said = capsys.readouterr().out
    assert "AnswerDecoder" in said and "lm" in said and not (tmp_path / "run").exists()


def test_the_options_are_the_writers(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(run, tmp_path / "run", "--help") == 0
    said = capsys.readouterr().out
    for option in ("--method.top", "--method.layers", "--method.blind", "--answers.least", "--answers.size"):
        assert option in said
    assert "--questions" not in said and "--method.two " not in said


def test_its_recipe_is_what_was_kept(run: str) -> None:
    recipe = replace(answer_writer(run), answers=AnswerList(least=2))
    kept = json.loads(json.dumps(to_json(recipe)))
    assert from_json(AnswerWriterRecipe, kept) == recipe and recipe.questions.least == 2


def vqa(root: Path) -> str:
    """VQAv2 in the layout of its download; answers of test are withheld."""
    for split, answered in (("train2014", True), ("val2014", True), ("test2015", False)):
        (root / split).mkdir(parents=True)
        questions, annotations = [], []
        for number in range(8):
            colour = ("red", "blue")[number % 2]
            toy_picture(colour, "top", number).save(root / split / f"COCO_{split}_{number:012d}.jpg")
            questions.append({"question_id": 10 * number, "image_id": number, "question": "what colour is the star"})
            said = [{"answer": colour, "answer_id": k, "answer_confidence": "yes"} for k in range(1, 11)]
            asked = {"question_id": 10 * number, "image_id": number, "answer_type": "other", "answers": said}
            annotations.append(asked)
        (root / f"v2_OpenEnded_mscoco_{split}_questions.json").write_text(json.dumps({"questions": questions}))
        if answered:
            (root / f"v2_mscoco_{split}_annotations.json").write_text(json.dumps({"annotations": annotations}))
    return f"vqa:{root}"


def test_vqa_from_its_files(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It learns what the files say, up to which of the two colours is meant."""
    data, out, file = vqa(tmp_path / "vqa"), str(tmp_path / "run"), tmp_path / "sub" / "test.json"
    assert tune(run, tmp_path / "run", "--steps", "80", "--batch", "8", "--lr", "1e-2", data=data) == 0
    assert load(out).answers == ("blue", "red")
    metrics = measured(capsys, out, "--task", "vqa-generate", "--data", f"{data}@val")
    assert metrics["accuracy"]["chance"] == 0.5 and metrics["accuracy"]["value"] >= 0.5
    assert main(["eval", out, "--task", "vqa-generate", "--data", f"{data}@test", "--predictions", str(file)]) == 0
    assert "withheld" in capsys.readouterr().err
    given = {row["question_id"]: row["answer"] for row in json.loads(file.read_text())}
    assert set(given) == set(range(0, 80, 10)) and set(given.values()) <= {"red", "blue"}
    # Options of writing reach the decoder: start and end leave room for one token of two, and four are more than it would say.
    asked = [out, "--task", "vqa-generate", "--data", f"{data}@val", "--predictions", str(file)]
    for words, holds in (
        (["--max-length", "2"], lambda lengths: max(lengths) <= 1),
        (["--min-length", "9", "--strategy", "greedy"], lambda lengths: min(lengths) > 1),
    ):
        measured(capsys, *asked, *words)
        assert holds([int(WORDS([row["answer"]]).mask.sum()) - 2 for row in json.loads(file.read_text())])


def untrained(name: str, folder: Path) -> str:
    torch.manual_seed(0)
    words = Tokenizer.train(SAID, TokenizerSpec(vocabulary=300, context=32))
    config = METHODS[name].resolve(DataInfo(vocabulary=len(words), context=32, special=words.special))
    start = folder / "start.safetensors"
    write_model(start, method_class(name)(config), Processor(ViewSpec(size=16, crop="squash"), words))  # type: ignore[call-arg]
    return str(start)


@pytest.mark.parametrize(
    ("name", "args", "complaint"),
    [
        ("clip", [], "clip, as this run has it, does not read a picture with a question.*methods that do: albef, blip"),
        ("gpt", [], "gpt, as this run has it, does not read a picture"),
        ("albef", ["--evaluate", "retrieval=emoji@composition"], "afterwards: multiway eval RUN --task retrieval"),
        ("albef", ["--evaluate", "vqa=@val", "vqa-generate=@val"], "both report `accuracy`: name one"),
        ("albef", ["--data", "emoji"], "no annotated data 'emoji'"),
        ("albef", ["--answers.least", "0"], "answers.least and answers.scanned from 1"),
        ("albef", ["--answers.least", "100000"], "no answer occurs at least 100000"),
        ("albef", ["--view.size", "18"], "18 is not divisible by patch 4"),
        (
            "albef",
            ["--method.answers", "red", "--method.top", "0"],
            "1 answers with the tokens of 1; expected at least 2",
        ),
        ("albef", ["--task", "captions"], "no answers are written in the task 'captions'; tasks that do: vqa-generate"),
    ],
)
def test_mistakes_are_told(
    name: str, args: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = tune(untrained(name, tmp_path), tmp_path / "run", *args)
    said = " ".join(capsys.readouterr().err.split())
    assert code in (1, 2) and "Traceback" not in said and re.search(complaint, said), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["albef", "blip", "coca", "simvlm", "vlmo", "vilt", "meter", "beit3"])
def test_every_method_that_is_named_can_be_tuned(name: str, tmp_path: Path) -> None:
    recipe = replace(answer_writer(untrained(name, tmp_path)), answers=AnswerList(scanned=100, least=1))
    ready = prepare(replace(recipe, data=DATA, settings=replace(recipe.settings, batch=4)), World())
    losses = ready.method.training_step(ready.finish(ready.loader.batch(0)), World(), Step())
    losses.total.backward()
    assert torch.isfinite(losses.total) and ready.started is not None
    assert ready.started.numbers[0] == ready.started.numbers[1]
    said = GeneratedAnswers(resamples=5).run(ready.model(), recipe.open(f"{DATA}@val", "val"))
    assert said.metrics["accuracy"].n == len(said.details.given) > 0
