"""Written captions: the metrics are those of the package over what the model said, the baseline is another picture's caption."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from fused import Cards

from multiway.abilities import Encoded, LacksAbility
from multiway.data.source import DataError, KnowsTruth
from multiway.tasks.caption_metrics import measure
from multiway.tasks.written import Captions

KNOWN = [
    ("a red circle above a square", "the circle is red"),
    ("two blue stars", "a pair of blue stars"),
    ("a green square left of a star", "there is a green square"),
    ("an orange ring", "one orange ring alone"),
]
SAID = ["a red circle above a star", "two blue stars", "a green star", "a ring of orange"]
GROUPS = ["in-domain", "out-domain", "in-domain", "out-domain"]


class Judge(Cards):
    """Cards that hold a caption for true if it is one of the row's own."""

    def noise_kind(self, row: int) -> str:
        return "none"

    def holds(self, row: int, caption: str) -> bool:
        return caption in self.captions[row]


class Writer:
    """Says of each picture what it was given for it."""

    def __init__(self, said: list[str] = SAID) -> None:
        self.said = said
        self.asked: list[Any] = []

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image", "generate")

    def encode_image(self, images: Any, tokens: bool = False) -> Encoded:
        numbers = torch.tensor([float(image.getpixel((0, 0))) for image in images])
        return Encoded(torch.ones(len(numbers), 1), numbers[:, None, None] if tokens else None)

    def generate(self, images: Any, settings: Any, prompts: Any = None, seed: int = 0) -> list[list[str]]:
        self.asked.append((settings, prompts))
        begin = "" if prompts is None else f"{prompts[0].lower()} "
        return [[begin + self.said[int(number)]] for number in images.tokens[:, 0, 0]]


def cards(groups: list[str] | None = GROUPS) -> Cards:
    return Cards(KNOWN, groups)


def test_metrics_of_all_and_of_groups() -> None:
    result = Captions(resamples=50, chunk=3).run(Writer(), cards())
    want = measure(SAID, KNOWN)
    assert list(want) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"]
    for name, corpus in want.items():
        found = result.metrics[name]
        assert found.value == corpus.value and (found.low, found.high) == corpus.interval(resamples=50)[1:]
        assert found.n == 4
    for group in ("in-domain", "out-domain"):
        some = [place for place in range(4) if GROUPS[place] == group]
        alone = measure([SAID[place] for place in some], [KNOWN[place] for place in some])
        for name in ("BLEU-1", "BLEU-4", "ROUGE-L"):
            assert result.metrics[f"{name}[{group}]"].value == pytest.approx(alone[name].value)
        # Words are worth what they are worth in the whole set.
        of_whole = want["CIDEr-D"].pictures[some].mean()
        assert result.metrics[f"CIDEr-D[{group}]"].value == pytest.approx(of_whole)
        assert of_whole != pytest.approx(alone["CIDEr-D"].value)


def test_chance_is_the_first_caption_of_another_picture() -> None:
    result = Captions(resamples=20).run(Writer(), cards())
    turned = [KNOWN[(place + 2) % 4][0] for place in range(4)]
    want = measure(turned, KNOWN)
    assert all(result.metrics[name].chance == pytest.approx(corpus.value) for name, corpus in want.items())
    # A model that copies that caption scores chance, and one that copies a reference scores more.
    copied = Captions(resamples=20).run(Writer(turned), cards())
    assert copied.metrics["CIDEr-D"].value == copied.metrics["CIDEr-D"].chance
    perfect = Captions(resamples=20).run(Writer([known[0] for known in KNOWN]), cards())
    assert perfect.metrics["CIDEr-D"].value > result.metrics["CIDEr-D"].value > copied.metrics["CIDEr-D"].value
    assert perfect.metrics["BLEU-4"].value == pytest.approx(1.0)


def test_rows_of_one_picture_are_no_other_picture() -> None:
    class Twice(Cards):
        def row(self, index: int) -> Any:
            from dataclasses import replace

            return replace(super().row(index), image_id=index % 2)

    result = Captions(resamples=20).run(Writer(), Twice(KNOWN))
    # Half a turn from row 0 is row 2, which shows the same picture; row 3 is the next that does not.
    want = measure([KNOWN[place][0] for place in (3, 0, 1, 2)], KNOWN)
    assert result.metrics["ROUGE-L"].chance == pytest.approx(want["ROUGE-L"].value)
    same = Captions(resamples=20).run(Writer(), Twice(KNOWN[:1]))
    assert same.metrics["ROUGE-L"].chance is None


def test_truth_where_the_data_know_it() -> None:
    judge = Judge(KNOWN, GROUPS)
    assert isinstance(judge, KnowsTruth)
    metrics = Captions(resamples=20).run(Writer(), judge).metrics
    assert metrics["true"].value == 0.25 and metrics["true"].chance == 0.0 and metrics["true"].n == 4
    assert metrics["true[in-domain]"].value == 0.0 and metrics["true[out-domain]"].value == 0.5
    assert "true" not in Captions(resamples=20).run(Writer(), cards()).metrics


def test_scenes_tell_what_is_true_of_them() -> None:
    from multiway.data.scenes.source import Scenes

    source = Scenes.open("test", "easy,gallery=6")

    class Reader(Writer):
        def encode_image(self, images: Any, tokens: bool = False) -> Encoded:
            numbers = torch.arange(len(images)).float()
            return Encoded(torch.ones(len(images), 1), numbers[:, None, None])

    right = Captions(resamples=20).run(Reader([source.row(row).captions[0] for row in range(6)]), source)
    assert right.metrics["true"].value == 1.0 and right.details.true == (True,) * 6
    # What follows a true sentence is no sentence of the grammar.
    wrong = Captions(resamples=20).run(Reader([source.row(row).captions[0] + " and" for row in range(6)]), source)
    assert wrong.metrics["true"].value == 0.0
    assert right.metrics["true"].chance == pytest.approx(
        np.mean([source.holds(row, source.row((row + 3) % 6).captions[0]) for row in range(6)])
    )


def test_the_prompt_is_cut_off() -> None:
    writer = Writer()
    task = Captions(resamples=20, prompt="A picture of", strategy="greedy", max_length=12)
    result = task.run(writer, cards())
    assert result.details.captions == tuple(SAID)
    settings, prompts = writer.asked[0]
    assert prompts == ["A picture of"] * 4 and (settings.strategy, settings.max_length) == ("greedy", 12)
    writer.generate = lambda *given: [["something else"]] * 4  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="does not begin with the prompt"):
        task.run(writer, cards())


def test_a_model_that_sees_nothing_says_one_thing() -> None:
    class Blind(Writer):
        def abilities(self) -> tuple[str, ...]:
            return ("generate",)

        def generate(self, images: Any, settings: Any, prompts: Any = None, seed: int = 0) -> list[list[str]]:
            assert images is None
            return [["a red circle"]]

    result = Captions(resamples=20).run(Blind(), cards())
    assert result.details.captions == ("a red circle",) * 4
    assert result.metrics["CIDEr-D"].value == measure(["a red circle"] * 4, KNOWN)["CIDEr-D"].value


def test_withheld_captions_are_written_and_not_measured() -> None:
    class Some(Cards):
        def row(self, index: int) -> Any:
            from dataclasses import replace

            name = f"val2014/COCO_val2014_{index:012d}.jpg" if index else "val/0a1b2c.jpg"
            return replace(super().row(index), key=name, captions=() if self.hidden else self.captions[index])

        hidden: ClassVar[bool] = True

    task = Captions(resamples=20)
    result = task.run(Writer(), Some(KNOWN))
    assert result.metrics == {}
    assert task.submission(result) == [
        {"image_id": "val/0a1b2c.jpg", "caption": SAID[0]},
        {"image_id": 1, "caption": SAID[1]},
        {"image_id": 2, "caption": SAID[2]},
        {"image_id": 3, "caption": SAID[3]},
    ]


def test_some_rows_spread_over_the_source() -> None:
    result = Captions(resamples=20, rows=2).run(Writer(), cards())
    assert result.details.rows == (0, 2) and result.metrics["BLEU-1"].n == 2


def test_refusals() -> None:
    blind = Writer()
    blind.abilities = lambda: ("encode_image",)  # type: ignore[method-assign]
    with pytest.raises(LacksAbility, match="generate"):
        Captions().run(blind, cards())
    with pytest.raises(DataError, match="no rows"):
        Captions().run(Writer(), Cards([]))
    with pytest.raises(ValueError, match="generation needs"):
        Captions(beams=0)
    with pytest.raises(ValueError, match="chunk"):
        Captions(chunk=0)
