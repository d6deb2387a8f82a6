"""Scores held against other texts: what all texts share goes, and a map that it had turned round points at the thing again."""

from types import SimpleNamespace

import pytest
import torch
from toy import toy_picture

from multiway.abilities import Encoded
from multiway.config import ConfigError
from multiway.explain.alone import similarity_cam
from multiway.explain.look import explain, explain_pairs
from multiway.explain.occlusion import occlude, occlusion
from multiway.explain.pairs import CannotShow, Look, Pairs
from multiway.explain.scores import score_of, similarity

PICTURES = [toy_picture("red", "left"), toy_picture("blue", "top", 3)]
TEXTS = ["red on the left", "the top is blue and more"]
OTHERS = ("blue", "the right")


@pytest.mark.parametrize("name", ["clip", "filip", "albef", "vlmo"])
def test_similarities_less_the_mean_by_a_slow_twin(models, name: str) -> None:
    pairs = Pairs(models[name], PICTURES, TEXTS, Look(against=OTHERS))
    found = similarity(pairs.method, pairs.image, pairs.text, pairs.others)
    for row, text in enumerate(TEXTS):
        own, *others = (
            float(models[name].compare(
                models[name].encode_image([PICTURES[row]], tokens=True), models[name].encode_text([each], tokens=True)
            ))
            for each in (text, *OTHERS)
        )  # fmt: skip
        assert float(found[row]) == pytest.approx(own - sum(others) / 2, abs=1e-5)


@pytest.mark.parametrize(("name", "score"), [("clip", "similarity"), ("filip", "similarity"), ("albef", "match")])
def test_against_itself_nothing_is_left(models, name: str, score: str) -> None:
    look = Look(against=(TEXTS[0], TEXTS[0]), score=score)
    found = occlusion(Pairs(models[name], PICTURES[:1], TEXTS[:1], look))
    assert (
        found.heat.abs().max() < 1e-5 and found.score.abs().max() < 1e-5 and "above that of others" in found.score_name
    )
    if score == "similarity":
        assert similarity_cam(Pairs(models[name], PICTURES[:1], TEXTS[:1], look)).heat.abs().max() < 1e-6


def test_of_pairs_read_together_the_others_are_read_too(models) -> None:
    model = models["vilt"]
    score, name = score_of(Pairs(model, PICTURES, TEXTS, Look(against=OTHERS)))
    pixels = model.processor.images(PICTURES)
    with torch.no_grad():
        found = score(pixels, torch.tensor([0, 1]))
    image = model.encode_image(PICTURES, tokens=True)
    odds = [model.match(image, model.encode_text(list(texts), tokens=True)) for texts in (TEXTS, *zip(OTHERS, OTHERS))]
    torch.testing.assert_close(found, odds[0] - (odds[1] + odds[2]) / 2, atol=1e-4, rtol=1e-4)
    assert name == "log-odds of a match above that of others"


def test_what_all_texts_share_turns_a_map_round_and_others_turn_it_back() -> None:
    """Every text is mostly `little to be seen`, and a bit of one thing: covering the thing makes the picture liker to each of them."""
    common, things = torch.tensor([[0.9, 0.0, 0.0]]), torch.eye(3)[1:] * 0.3

    class Narrow:
        name = "narrow"

        def abilities(self) -> tuple[str, ...]:
            return ("encode_image", "encode_text", "compare")

        def encode_image(self, images: torch.Tensor) -> Encoded:
            left, right = images[:, 0, 4:, :4].mean((1, 2)), images[:, 0, :4, 4:].mean((1, 2))
            return Encoded(torch.stack([1 - left - right, left, right], 1))

        def encode_text(self, ids: torch.Tensor, mask: torch.Tensor) -> Encoded:
            return Encoded(common + things[ids[:, 0]], None, mask, ids)

        def compare(self, image: Encoded, text: Encoded, query: str = "image") -> torch.Tensor:
            return image.embedding @ text.embedding.T

    number = {"the left": 0, "the right": 1}

    def read(texts: list[str]) -> SimpleNamespace:
        return SimpleNamespace(ids=torch.tensor([[number[text]] for text in texts]), mask=torch.ones(len(texts), 1) > 0)

    model = SimpleNamespace(method=Narrow(), device="cpu", processor=SimpleNamespace(tokenizer="any", texts=read))
    picture = torch.zeros(1, 3, 8, 8)
    picture[:, :, 4:, :4] = 1  # the thing on the left, below

    def hottest(against: tuple[str, ...]) -> int:
        look = Look(window=4, stride=4, against=against)
        whole = Pairs(model, picture, ["the left"], look)

        heat, _ = occlude(score_of(whole)[0], picture, torch.zeros(1, 3), 4, 4)
        return int(heat.flatten().argmax())

    assert hottest(()) != 2 and hottest(("the left", "the right")) == 2


def test_from_python_and_what_is_refused(models) -> None:
    found = explain(models["clip"], PICTURES[0], TEXTS[0], ["itc-cam", "occlusion"], against=OTHERS)
    assert found["itc-cam"].score_name == found["occlusion"].score_name == "similarity above that of others"
    assert found["itc-cam"].score == pytest.approx(found["occlusion"].score, abs=1e-5)
    # Rows do not depend on one another: the others are named, not taken from the batch.
    both = explain_pairs(models["clip"], PICTURES, TEXTS, ["occlusion"], Look(against=OTHERS))
    torch.testing.assert_close(both[0]["occlusion"].heat, found["occlusion"].heat, atol=1e-5, rtol=1e-3)
    with pytest.raises(ConfigError, match="expected words"):
        Look(against=("a cat", " "))
    with pytest.raises(CannotShow, match="no match of a picture"):
        occlusion(Pairs(models["clip"], PICTURES, TEXTS, Look(score="match", against=OTHERS)))
