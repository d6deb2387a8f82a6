"""Scores of rows: by loops over pairs, and from the command line into a curriculum."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from by_tokens import by_tokens
from toy import ToySource

from multiway.abilities import CaptionScores, Encoded, LacksAbility
from multiway.cli.main import main
from multiway.data.scores import read_scores
from multiway.data.source import BadRow, DataError, Row
from multiway.hub.load import load
from multiway.workflows.row_scores import best_kind, score_rows


class Unlike(ToySource):
    """Rows of which some show the same picture or carry the same words."""

    def row(self, index: int) -> Row:
        row = super().row(index)
        return Row(row.key, index // 2 if index < 4 else index, row.captions if index % 3 else row.captions[:1])


def test_contrast_is_infonce_both_ways_written_out(tiny_run: Path) -> None:
    model, source = load(tiny_run), Unlike(40)
    found = score_rows(model, source, "contrast", gallery=64)
    rows = [source.row(index) for index in range(40)]
    images = model.encode_image([source.image(index) for index in range(40)]).embedding
    scale = float(model.method.log_scale.detach().exp())
    for index in (0, 1, 7, 33):
        losses = []
        for caption in rows[index].captions:
            word = model.encode_text([caption]).embedding[0]
            own = scale * float(images[index] @ word)

            def alike(other: int, text: str, index: int = index) -> bool:
                return rows[other].image_id == rows[index].image_id or text in rows[index].captions

            texts = [
                scale * float(images[index] @ model.encode_text([text]).embedding[0])
                for other in range(40)
                for text in rows[other].captions
                if not alike(other, text)
            ]
            pictures = [
                scale * float(images[other] @ word)
                for other in range(40)
                if rows[other].image_id != rows[index].image_id and caption not in rows[other].captions
            ]
            for others in (texts, pictures):
                losses.append(math.log(math.exp(own) + sum(map(math.exp, others))) - own)
        assert found.scores[index] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert found.keys == tuple(str(index) for index in range(40))


def test_galleries_are_drawn_by_the_seed_and_similarity_needs_none(tiny_run: Path) -> None:
    model, source = load(tiny_run), ToySource(40)
    one, again, other = (score_rows(model, source, "contrast", 8, seed).scores for seed in (0, 0, 1))
    assert np.array_equal(one, again) and not np.allclose(one, other)
    near = score_rows(model, source, "similarity", 8).scores
    assert np.allclose(near, score_rows(model, source, "similarity", 40, seed=5).scores, atol=1e-6)
    image, text = model.encode_image([source.image(3)]), model.encode_text(list(source.row(3).captions))
    assert near[3] == pytest.approx(float((image.embedding @ text.embedding.T).mean()), abs=1e-6)
    tokens = by_tokens()  # without a shared space: compared by tokens, at CLIP's temperature
    assert np.isfinite(score_rows(tokens, ToySource(8), "contrast").scores).all() and best_kind(tokens) == "contrast"


class Says:
    """A stand-in that matches and tells captions: by the number of a text's tokens."""

    class processor:
        @staticmethod
        def texts(texts: list[str]):
            mask = torch.tensor([[place < len(text.split()) + 2 for place in range(9)] for text in texts])
            return type("Tokens", (), {"ids": mask.long(), "mask": mask})

    def __init__(self) -> None:
        self.method = self

    def encode_image(self, images, tokens=False) -> Encoded:
        return Encoded(torch.zeros(len(images), 0), torch.zeros(len(images), 1, 1))

    def encode_text(self, texts, tokens=False) -> Encoded:
        return Encoded(torch.zeros(len(texts), 0), torch.tensor([[[float(len(text))]] for text in texts]))

    def match(self, image: Encoded, text: Encoded) -> torch.Tensor:
        return text.tokens[:, 0, 0] / 10

    def caption_likelihood(self, image, ids, mask) -> CaptionScores:
        logp = -mask.float() * torch.arange(mask.shape[1])
        return CaptionScores(logp, ids)


def test_match_and_caption_are_means_over_captions() -> None:
    source, model = Unlike(6), Says()
    match = score_rows(model, source, "match").scores  # type: ignore[arg-type]
    odds = [1 / (1 + math.exp(-len(caption) / 10)) for caption in source.row(1).captions]
    assert match[1] == pytest.approx(np.mean(odds)) and best_kind(model) == "match"  # type: ignore[arg-type]
    nats = score_rows(model, source, "caption").scores  # type: ignore[arg-type]
    assert nats[0] == pytest.approx((1 + 2 + 3 + 4 + 5) / 5)  # `red on the left`: six tokens, five of them said


class Torn(ToySource):
    def image(self, index: int):
        if index == 3 or len(self) == 4:
            raise BadRow(f"row {index} is cut off")
        return super().image(index)


def test_a_picture_that_cannot_be_read_is_the_hardest(tiny_run: Path) -> None:
    model = load(tiny_run)
    for by, worst in (("contrast", np.max), ("similarity", np.min)):
        found = score_rows(model, Torn(12), by, 12)  # type: ignore[arg-type]
        assert found.scores[3] == worst(np.delete(found.scores, 3)) and found.unreadable == ("row 3 is cut off",)
    with pytest.raises(DataError, match="no picture of toy@train can be read, the first: row"):
        score_rows(model, Torn(4), "similarity")
    with pytest.raises(LacksAbility, match="--by match"):
        score_rows(model, ToySource(4), "match")


def test_from_the_command_line_into_a_curriculum(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--data", str(tiny_run.parent / "captions.jsonl"), "--images", str(tiny_run.parent / "pictures")]
    scores = tiny_run.parent / "scores" / "easy.jsonl"
    assert main(["score", str(tiny_run), *own, "--out", str(scores), "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "easiest" in shown and "hardest" in shown and "low is easy" in shown
    kept = read_scores(scores)
    assert main(["score", str(tiny_run), *own, "--out", str(scores), "--by", "similarity", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["easy"] == "high" and said["rows"] == len(kept) and said["quantiles"] == sorted(said["quantiles"])
    args = ["train", "clip", *own, "--steps", "1", "--batch", "8", "--view.size", "16", "--method.image.size", "16"]
    more = ["--curriculum", str(scores), "--pacing.easy", "high", "--dry-run", "--out", str(tiny_run.parent / "paced")]
    assert main([*args, *more]) == 0
