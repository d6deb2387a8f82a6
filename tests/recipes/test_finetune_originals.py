"""SNLI-VE, VCR and RefCOCO end to end from files in their original layout: tuned, measured, and predictions handed in.

VQAv2 and NLVR2 are in `test_finetune.py`. The miniatures are scenes in exactly the published files and folders; a run of a few
steps learns nothing, so that what is looked at is what was read, scored and written.
"""

import csv
import json
import sys
from collections import Counter
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from annotated import miniatures, miniatures_regions
from annotated.miniatures import few
from tuning import METHODS

from multiway.batch import DataInfo, ViewSpec
from multiway.cli.main import main
from multiway.data.annotated.open import open_examples
from multiway.data.open import open_source
from multiway.data.processor import Processor
from multiway.data.regions import overlaps
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.engine.run import Run
from multiway.hub.file import write_model
from multiway.hub.load import load
from multiway.methods import method_class
from multiway.tasks import TASKS
from multiway.tasks.judging import Judging
from multiway.tasks.offered import ENTRY_POINTS

QUICK = ["--device", "cpu", "--precision", "fp32", "--threads", "1", "--log-every", "1", "--steps", "3", "--batch", "4"]
LONG = 64  # tokens: VCR's question, answer and reason


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of two untrained models: one that reads pictures with texts, one that reads each by itself."""
    words = Tokenizer.train(open_source("scenes:easy,gallery=6@val").tokenizer_captions, TokenizerSpec(512, LONG))  # type: ignore[attr-defined]
    folder, files = tmp_path_factory.mktemp("weights"), {}
    for name in ("albef", "clip"):
        torch.manual_seed(0)
        long = replace(METHODS[name], text=replace(METHODS[name].text, context=0))
        config = long.resolve(DataInfo(vocabulary=len(words), context=LONG, special=words.special))
        file = folder / f"{name}.safetensors"
        files[name] = str(file)
        write_model(file, method_class(name)(config), Processor(ViewSpec(size=16, crop="squash"), words))  # type: ignore[call-arg]
    return files


def tuned(start: str, task: str, data: str, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A run of a few steps; its figures of val are finite and there."""
    assert main(["finetune", start, "--task", task, "--data", data, *QUICK, "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "100.0% of the method's numbers" in said and "finished at step 3" in said
    last = Run.read(out).metrics()[-1]
    assert last["eval"] and torch.isfinite(torch.tensor(last["loss"]))
    return str(out)


def measured(
    run: str, task: str, data: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[dict[str, dict[str, Any]], str]:
    """Figures, and what is said beside them; predictions are in the file."""
    assert main(["eval", run, "--task", task, "--data", data, "--predictions", str(file), "--json"]) == 0
    out, err = capsys.readouterr()
    assert f"predictions on {data}: {file}" in err
    return json.loads(out)["metrics"], err


def test_snli_ve(weights: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, data = tmp_path / "snli-ve", f"snli-ve:{tmp_path / 'snli-ve'}"
    for split in ("train", "val", "test"):
        miniatures.write_snli_ve(folder, split, few("entailment", 3))
    run = tuned(weights["clip"], "entailment", data, tmp_path / "run", capsys)
    verdicts = ("entailment", "neutral", "contradiction")
    assert load(run).method.verdicts == verdicts
    metrics, said = measured(run, "entailment", f"{data}@test", tmp_path / "test.json", capsys)
    gold = {
        row["pairID"]: row["gold_label"]
        for row in map(json.loads, (folder / "snli_ve_test.jsonl").read_text().splitlines())
    }
    assert f"note: {len(gold)} of 17,901 pairs: a part of the public split" in said
    predicted = json.loads((tmp_path / "test.json").read_text())
    assert [row.keys() for row in predicted] == [{"key", "prediction"}] * len(gold)
    assert {row["key"] for row in predicted} == gold.keys() and {row["prediction"] for row in predicted} <= {*verdicts}
    right = sum(gold[row["key"]] == row["prediction"] for row in predicted)
    assert metrics["accuracy"]["value"] == pytest.approx(right / len(gold)) and metrics["accuracy"]["n"] == len(gold)
    assert metrics["accuracy"]["chance"] == pytest.approx(max(Counter(gold.values()).values()) / len(gold))


@pytest.mark.parametrize("data_set", ["vcr", "vcr-plain"])
def test_vcr(data_set: str, weights: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both steps and their product, recounted from what was handed in."""
    folder, data = tmp_path / "vcr", f"{data_set}:{tmp_path / 'vcr'}"
    for split in ("train", "val", "test"):
        miniatures_regions.write_vcr(folder, split, few("choices", 2))
    run = tuned(weights["albef"], "vcr", data, tmp_path / "run", capsys)
    file = tmp_path / "val.csv"
    metrics, _ = measured(run, "vcr", f"{data}@val", file, capsys)
    labels = {row["annot_id"]: row for row in map(json.loads, (folder / "val.jsonl").read_text().splitlines())}
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    answers = [f"answer_{place}" for place in range(4)]
    given = [[f"rationale_conditioned_on_a{answer}_{place}" for place in range(4)] for answer in range(4)]
    columns = ["annot_id", *answers, *(each for some in given for each in some)]
    assert list(rows[0]) == columns and {row["annot_id"] for row in rows} == labels.keys()
    hits = []
    for row in rows:
        right = labels[row["annot_id"]]
        asked = given[right["answer_label"]]
        hits.append((_best(row, answers) == right["answer_label"], _best(row, asked) == right["rationale_label"]))
        assert all(not row[each] for some in given if some is not asked for each in some), "asked given the right one"
    for name, share in (
        ("Q->A", sum(one for one, _ in hits)),
        ("QA->R", sum(two for _, two in hits)),
        ("Q->AR", sum(one and two for one, two in hits)),
    ):
        assert metrics[name]["value"] == pytest.approx(share / len(rows)) and metrics[name]["n"] == len(rows)
    assert [metrics[name]["chance"] for name in ("Q->A", "QA->R", "Q->AR")] == [0.25, 0.25, 0.0625]
    # The server's file: reasons given each of the four answers, and no score where the right ones are withheld.
    metrics, said = measured(run, "vcr", f"{data}@test", tmp_path / "test.csv", capsys)
    assert metrics == {} and "withheld" in said
    with (tmp_path / "test.csv").open() as lines:
        for row in csv.DictReader(lines):
            assert list(row) == columns
            for some in (answers, *given):
                assert sum(float(row[each]) for each in some) == pytest.approx(1)


def test_vcr_is_read_with_its_drawings(
    weights: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run, the same questions: with the boxes another picture is seen, and other scores come of it."""
    for split in ("train", "val"):
        miniatures_regions.write_vcr(tmp_path / "vcr", split, few("choices", 2))
    run = tuned(weights["albef"], "vcr", f"vcr:{tmp_path / 'vcr'}", tmp_path / "run", capsys)
    for data_set in ("vcr", "vcr-plain"):
        measured(run, "vcr", f"{data_set}:{tmp_path / 'vcr'}@val", tmp_path / f"{data_set}.csv", capsys)
    assert (tmp_path / "vcr.csv").read_text() != (tmp_path / "vcr-plain.csv").read_text()


def _best(row: dict[str, str], columns: list[str]) -> int:
    shares = [float(row[each]) for each in columns]
    assert sum(shares) == pytest.approx(1)
    return shares.index(max(shares))


def test_refcoco(weights: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"refcoco:{tmp_path / 'refer'}"
    miniatures_regions.write_refcoco(tmp_path / "refer", examples=few("expressions", 8))
    run = tuned(weights["albef"], "refcoco", data, tmp_path / "run", capsys)
    for split in ("testA", "testB"):
        file = tmp_path / f"{split}.json"
        metrics, _ = measured(run, "refcoco", f"{data}@{split}", file, capsys)
        examples = open_examples(f"{data}@{split}")
        wanted = {examples.example(number).key: examples.example(number) for number in range(len(examples))}
        predicted = json.loads(file.read_text())
        assert {row["key"] for row in predicted} == wanted.keys()
        hits = 0
        for row in predicted:
            example = wanted[row["key"]]
            assert any(row["box"] == pytest.approx(list(each), abs=1e-5) for each in example.candidates)
            hits += float(overlaps([tuple(row["box"])], example.boxes).max()) >= 0.5
        assert metrics["accuracy@0.5"]["value"] == pytest.approx(hits / len(wanted))


@dataclass(frozen=True)
class Doubted(Judging):
    """Entailment under another name, as a package of another's would bring a task."""

    name: str = "doubted"


def test_a_task_of_another_package_is_tuned_for(
    weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "their_package", sys.modules[__name__])
    monkeypatch.setattr(TASKS, "_offered", {"doubted": EntryPoint("doubted", "their_package:Doubted", ENTRY_POINTS)})
    monkeypatch.setattr(TASKS, "_made", {})
    for split in ("train", "val"):
        miniatures.write_snli_ve(tmp_path / "ve", split, few("entailment", 2))
    data = f"snli-ve:{tmp_path / 've'}"
    run = tuned(weights["clip"], "doubted", data, tmp_path / "run", capsys)
    metrics, _ = measured(run, "doubted", f"{data}@val", tmp_path / "val.json", capsys)
    own, _ = measured(run, "entailment", f"{data}@val", tmp_path / "own.json", capsys)
    assert metrics == own and (tmp_path / "val.json").read_text() == (tmp_path / "own.json").read_text()
