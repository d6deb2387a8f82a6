"""Masked words: what is hidden, what is counted, and the best constant answer beside it."""

from typing import ClassVar

import pytest
import torch
from fused import Cards

from multiway.abilities import Encoded, LacksAbility
from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.tasks.masked_words import MaskedWords

CAPTIONS = ["a red circle", "a red square", "a red star", "an extraordinary circle"]


class Known(Cards):
    """Cards that know which words are colours and which shapes."""

    word_classes: ClassVar = {"colour": ("red", "blue"), "shape": ("circle", "square", "star")}


class Guesser:
    """With the picture (whose number is its row) every word is right; without it each place gets a fixed word's tokens."""

    def __init__(self, blind: str = "circle", sees: bool = True) -> None:
        words = Tokenizer.train(CAPTIONS, TokenizerSpec(vocabulary=268, context=24))
        self.processor = Processor(ViewSpec(size=4), words)
        self.blind, self.sees = blind, sees
        self.asked: list[torch.Tensor] = []

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image", "fill_mask") if self.sees else ("fill_mask",)

    def encode_image(self, images, tokens: bool = False) -> Encoded:
        numbers = torch.tensor([float(image.getpixel((0, 0))) for image in images])
        unit = torch.nn.functional.normalize(torch.ones(len(numbers), 2), dim=1)
        return Encoded(unit, numbers[:, None, None])

    def fill_mask(self, image, ids, mask, at) -> torch.Tensor:
        self.asked.append(torch.where(at, ids, -1))
        tokenizer = self.processor.tokenizer
        logits = torch.zeros(int(at.sum()), len(tokenizer))
        fixed = tokenizer([self.blind]).ids[0, 1:-1]
        line = 0
        for row in range(len(ids)):
            places = at[row].nonzero().flatten()
            truth = tokenizer([CAPTIONS[int(image.tokens[row, 0, 0])]]).ids[0] if image is not None else None
            for number, place in enumerate(places.tolist()):
                word = truth[place] if truth is not None else fixed[min(number, len(fixed) - 1)]
                logits[line, word] = 1.0
                line += 1
        return logits


def source(kind: type[Cards] = Known) -> Cards:
    return kind([(caption, "never asked about") for caption in CAPTIONS])


def test_by_class_with_and_without_the_picture() -> None:
    result = MaskedWords(resamples=50).run(Guesser(), source())
    metrics = result.metrics
    assert metrics["with_picture/colour"].value == metrics["with_picture/shape"].value == 1.0
    assert metrics["without_picture/colour"].value == 0.0
    assert metrics["without_picture/shape"].value == 0.5  # circle, square, star, circle
    assert metrics["with_picture/shape"].chance == 0.5 and metrics["with_picture/colour"].chance == 1.0
    assert (metrics["with_picture/shape"].n, metrics["with_picture/colour"].n, metrics["with_picture/all"].n) == (
        4,
        3,
        7,
    )
    assert metrics["with_picture/all"].chance == pytest.approx(5 / 7)
    colours = {(guess.word, guess.seen, guess.blind == "red") for guess in result.details if guess.kind == "colour"}
    assert colours == {("red", "red", False)}


def test_one_whole_word_is_hidden_at_a_time() -> None:
    model = Guesser()
    MaskedWords(resamples=50).run(model, source(Cards))
    mask = model.processor.tokenizer.special["mask"]
    hidden = [int((row == mask).sum()) for row in model.asked[0]]
    assert set(torch.cat([row[row >= 0] for row in model.asked[0]]).tolist()) == {mask}
    assert max(hidden) > 1  # `extraordinary` is several tokens, hidden together


def test_without_classes_every_word_counts() -> None:
    result = MaskedWords(resamples=50).run(Guesser(), source(Cards))
    assert set(result.metrics) == {"with_picture/word", "without_picture/word"}
    assert result.metrics["with_picture/word"].n == sum(len(caption.split()) for caption in CAPTIONS)
    assert result.metrics["with_picture/word"].value == 1.0


def test_a_blind_model_is_only_asked_without_pictures() -> None:
    result = MaskedWords(resamples=50).run(Guesser(sees=False), source())
    assert all(name.startswith("without_picture") for name in result.metrics)


def test_refusals() -> None:
    model = Guesser()
    model.abilities = lambda: ("encode_image",)  # type: ignore[method-assign]
    with pytest.raises(LacksAbility, match="fill_mask"):
        MaskedWords().run(model, source())

    class Others(Cards):
        word_classes: ClassVar = {"colour": ("violet",)}

    with pytest.raises(ValueError, match="class that it names"):
        MaskedWords().run(Guesser(), source(Others))
