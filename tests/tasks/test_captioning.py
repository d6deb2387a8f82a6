"""Caption likelihood: what is averaged over what, beside which picture, and the best constant answer beside it."""

import math
from typing import ClassVar

import pytest
import torch
from fused import Cards

from multiway.abilities import CaptionScores, Encoded, LacksAbility
from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.data.source import DataError
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.tasks.captioning import Captioning

CAPTIONS = ["a red circle", "a red square", "a blue star", "an extraordinary circle"]


class Known(Cards):
    """Cards that know which words are colours and which shapes."""

    word_classes: ClassVar = {
        "colour": ("red", "blue"),
        "shape": ("circle", "square", "star"),
        "rare": ("extraordinary",),
    }


class Teller:
    """Says each token of the picture's own caption with probability 1/2 and any other with 1/8."""

    def __init__(self) -> None:
        self.processor = Processor(
            ViewSpec(size=4), Tokenizer.train(CAPTIONS, TokenizerSpec(vocabulary=268, context=24))
        )

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image", "caption_likelihood")

    def encode_image(self, images, tokens: bool = False) -> Encoded:
        numbers = torch.tensor([float(image.getpixel((0, 0))) for image in images])
        unit = torch.nn.functional.normalize(torch.ones(len(numbers), 2), dim=1)
        return Encoded(unit, numbers[:, None, None] if tokens else None)

    def caption_likelihood(self, image: Encoded, ids: torch.Tensor, mask: torch.Tensor) -> CaptionScores:
        own = self.processor.tokenizer([CAPTIONS[int(number)] for number in image.tokens[:, 0, 0]]).ids
        known = torch.full_like(ids, -1)
        width = min(own.shape[1], ids.shape[1])
        known[:, :width] = own[:, :width]
        scored = mask.clone()
        scored[:, 0] = False
        logp = torch.where(known == ids, math.log(1 / 2), math.log(1 / 8))
        return CaptionScores(logp * scored, torch.where(scored, known, torch.tensor(-1)))


def source(captions: list[str] = CAPTIONS) -> Cards:
    return Known([(caption, "never asked about") for caption in captions])


def test_nats_and_words_beside_both_pictures() -> None:
    model = Teller()
    metrics = Captioning(resamples=50).run(model, source()).metrics
    tokens = model.processor.texts(CAPTIONS)
    scored = tokens.mask[:, 1:]
    assert metrics["with_picture/nats"].value == pytest.approx(math.log(2))
    assert metrics["with_picture/nats"].n == int(scored.sum())
    # Half a turn: captions 0 and 2, 1 and 3 change pictures.
    turned = torch.nn.functional.pad(tokens.ids, (0, 0))[[2, 3, 0, 1]][:, 1:]
    same = ((turned == tokens.ids[:, 1:]) & scored).sum() / scored.sum()
    want = float(same * math.log(2) + (1 - same) * math.log(8))
    assert metrics["other_picture/nats"].value == pytest.approx(want)
    assert metrics["gain/nats"].value == pytest.approx(want - math.log(2))
    counts = torch.bincount(tokens.ids[:, 1:][scored]).double()
    p = counts[counts > 0] / counts.sum()
    assert metrics["with_picture/nats"].chance == pytest.approx(float(-(p * p.log()).sum()))
    assert metrics["with_picture/colour"].value == metrics["with_picture/shape"].value == 1.0
    assert metrics["with_picture/rare"].value == 1.0 and metrics["with_picture/rare"].n == 1
    assert metrics["other_picture/colour"].value == 0.0 == metrics["other_picture/rare"].value
    assert metrics["other_picture/shape"].n == 4 and metrics["with_picture/shape"].chance == 0.5
    assert metrics["with_picture/colour"].chance == pytest.approx(2 / 3)


def test_details_tell_of_each_caption() -> None:
    told = Captioning(resamples=50).run(Teller(), source()).details
    assert [each.caption for each in told] == CAPTIONS
    assert told[0].words == (("red", "colour", True, False), ("circle", "shape", True, False))
    assert all(len(each.seen) == len(each.other) == len(each.tokens) for each in told)


def test_a_gain_of_nothing_where_the_picture_tells_nothing() -> None:
    model = Teller()
    model.encode_image = lambda images, tokens=False: Encoded(
        torch.ones(len(images), 1), torch.zeros(len(images), 1, 1)
    )
    metrics = Captioning(resamples=50).run(model, source()).metrics
    assert metrics["gain/nats"].value == 0.0 == metrics["gain/nats"].chance


def test_a_model_that_sees_nothing_has_one_figure() -> None:
    """It is asked without pictures, and nothing of it is called a gain."""
    blind, asked = Teller(), []
    real = blind.caption_likelihood

    def told(images, ids, mask):
        asked.append(images)
        return real(Encoded(torch.ones(len(ids), 1), torch.zeros(len(ids), 1, 1)), ids, mask)

    blind.caption_likelihood = told  # type: ignore[method-assign]
    blind.abilities = lambda: ("caption_likelihood",)  # type: ignore[method-assign]
    result = Captioning(resamples=50).run(blind, source())
    assert asked == [None] and all(each.blind for each in result.details)
    names = set(result.metrics)
    assert "without_picture/nats" in names and "without_picture/colour" in names
    assert not any(name.startswith(("with_picture", "other_picture", "gain")) for name in names)


def test_refusals() -> None:
    model = Teller()
    with pytest.raises(DataError, match="two rows"):
        Captioning().run(model, source(CAPTIONS[:1]))
    model.abilities = lambda: ("encode_image",)  # type: ignore[method-assign]
    with pytest.raises(LacksAbility, match="caption_likelihood"):
        Captioning().run(model, source())
