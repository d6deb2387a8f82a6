"""Runs that were tuned to classify or to answer, as graphs: equal to PyTorch at other batches and lengths, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hub.exported_models import CAPTIONS, TOKENIZER, made
from hub.stand_ins import random_everywhere
from toy import COLOURS, PLACES, toy_picture

import multiway as mw
from multiway.config import to_json
from multiway.hub.graphs import parts_of
from multiway.hub.model import Model
from multiway.hub.onnx_runtime import Exported
from multiway.methods.answer_writer import AnswerWriter, AnswerWriterConfig
from multiway.methods.classifier import ClassifierConfig, PictureClassifier
from multiway.methods.finetune import FineTune, FineTuneConfig
from multiway.workflows.export import Asked, Shown, export

CLASSES = ("red", "green", "blue")
ANSWERS = ("red", "green", "blue", "yes", "no")
PICTURES = [toy_picture(colour, place) for colour in COLOURS for place in PLACES]
QUESTIONS = ["left", "what is at the top of the picture", "is it blue", "red", "which colour is on the right of it"]
SHOWN = Shown(PICTURES[:3], CAPTIONS[:3])


def tuned(kind: str, under: str) -> Model:
    """A head with random weights on a small method."""
    base = made(under)
    of, name = to_json(base.method.config), base.method.name
    torch.manual_seed(1)
    method: PictureClassifier | FineTune | AnswerWriter
    if kind == "classify":
        method = PictureClassifier(ClassifierConfig(method=name, of=of, classes=CLASSES))
    elif kind == "answer":
        method = FineTune(FineTuneConfig(name, of, "asked", ANSWERS))
    else:
        words = TOKENIZER(ANSWERS)
        ids = tuple(tuple(row[real].tolist()) for row, real in zip(words.ids, words.mask, strict=True))
        start, end = (TOKENIZER.special.get(each, TOKENIZER.special["eos"]) for each in ("bos", "eos"))
        method = AnswerWriter(
            AnswerWriterConfig(name, of, ANSWERS, ids, 1, 3, len(TOKENIZER), start, end, TOKENIZER.pad)
        )
    random_everywhere(method)
    return Model(method, base.processor)


def write(model: Model, folder: Path, *parts: str) -> Exported:
    """The parts as a folder, each graph held against PyTorch on the way."""
    report = export(model, Asked(folder, "tuned", parts=parts), SHOWN, None, lambda said: None)
    checked = {each.graph: each for each in report.checked["fp32"]}
    assert set(parts) <= set(checked) and all(each.worst < 1e-4 and each.cases == 5 for each in checked.values())
    return Exported(folder)


def answers_alike(model: Model, ran: Exported) -> None:
    """As a user asks: several batches and lengths; and what must count does."""
    assert ran.about["answers"] == list(ANSWERS)
    # One short question; several, the longest of them cut by the context.
    for rows in ([0], [3, 0], [0, 1, 2, 3, 4], [4, 4, 2, 1, 0, 3, 1]):
        pictures, questions = PICTURES[: len(rows)], [QUESTIONS[row] for row in rows]
        scores, want = ran.answer(pictures, questions), model.answer(pictures, questions)
        assert scores.shape == (len(rows), 5) and np.abs(scores - want.numpy()).max() < 1e-4
    changed = ran.answer(pictures, questions[::-1])
    assert np.abs(changed - scores).max() > 1e-3  # the question counts, and
    assert np.abs(ran.answer(pictures[::-1], questions) - scores).max() > 1e-3  # so does the picture
    # A question alone is answered as beside longer ones.
    assert np.abs(ran.answer(pictures[5:6], questions[5:6])[0] - scores[5]).max() < 1e-5


@pytest.mark.parametrize("under", ["clip", "vilt", pytest.param("dino", marks=pytest.mark.slow)])
def test_a_classifier_gives_the_scores_of_pytorch(under: str, tmp_path: Path) -> None:
    model = tuned("classify", under)
    assert "classify" in parts_of(model)
    ran = write(model, tmp_path / "onnx", "classify")
    assert ran.about["classes"] == list(CLASSES) and ran.graphs == ("classify",)
    for count in (1, 3, 11):
        scores, want = ran.classify(PICTURES[:count]), model.classify(PICTURES[:count])
        assert scores.shape == (count, 3) and np.abs(scores - want.numpy()).max() < 1e-4
    assert want.std(0).min() > 1e-3  # pictures are told apart
    with pytest.raises(KeyError, match="has no graph 'answer'; it has: classify"):
        ran.answer(PICTURES[:1], QUESTIONS[:1])

    whole = mw.load(tmp_path / "onnx")
    assert whole.abilities() == ("encode_image", "classify") and whole.classes == CLASSES
    assert whole.classify(PICTURES[:5]).sub(model.classify(PICTURES[:5])).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("kind", "under"),
    [
        ("answer", "clip"),
        ("write", "vilt"),
        pytest.param("write", "albef", marks=pytest.mark.slow),
    ],
)
def test_an_answerer_gives_the_scores_of_pytorch(kind: str, under: str, tmp_path: Path) -> None:
    model = tuned(kind, under)
    assert "answer" in parts_of(model)
    answers_alike(model, write(model, tmp_path / "onnx", "answer"))
    whole = mw.load(tmp_path / "onnx")
    assert whole.abilities() == ("encode_image", "encode_text", "answer") and whole.answers == ANSWERS
    assert whole.answer(PICTURES[:5], QUESTIONS).sub(model.answer(PICTURES[:5], QUESTIONS)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("under", "asked"), [("vilt", ("match", "answer")), pytest.param("albef", (), marks=pytest.mark.slow)]
)
def test_a_tuned_model_keeps_its_other_graphs(under: str, asked: tuple[str, ...], tmp_path: Path) -> None:
    """Pixels are kept of a picture then, and its tokens computed when they are asked for."""
    model = tuned("answer", under)
    assert parts_of(model) == ("image", "text", "match", "answer")
    answers_alike(model, write(model, tmp_path / "onnx", *asked))
    whole, few = mw.load(tmp_path / "onnx"), slice(0, 3)
    compares = ["compare"] if under == "albef" else []
    assert whole.abilities() == ("encode_image", "encode_text", *compares, "match", "answer")
    for name in ("match", "answer", *compares):
        want, got = (getattr(each, name)(PICTURES[few], QUESTIONS[few]) for each in (model, whole))
        assert got.sub(want).abs().max() < 1e-4, name
    about = json.loads((tmp_path / "onnx" / "export.json").read_text())
    assert about["parts"] == list(("image", *asked) if asked else parts_of(model))
    assert "model.answer(" in (tmp_path / "onnx" / "README.md").read_text()
