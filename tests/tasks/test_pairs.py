"""Caption pairs: Winoground's three scores and accuracies against loops over the definitions, with known similarities."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multiway.abilities import Encoded, LacksAbility
from multiway.data.annotated.files import ExampleFiles
from multiway.data.annotated.pairs import QUESTION
from multiway.data.annotated.scenes import open_scenes
from multiway.data.examples import Chosen, Judged
from multiway.data.source import DataError
from multiway.tasks.pairs import CaptionPairs


class Numbers:
    """Pictures that are their number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Image.Image:
        return Image.new("I", (1, 1), index)


class Table:
    """Scores picture p and text `t` by a table; `matched` and `compared` in the two directions may differ."""

    def __init__(self, match: np.ndarray | None = None, image: Any = None, text: Any = None) -> None:
        self.tables = {"match": match, "image": image, "text": text}

    def abilities(self) -> tuple[str, ...]:
        matches = ("match",) if self.tables["match"] is not None else ()
        compares = ("compare",) if self.tables["image"] is not None else ()
        return ("encode_image", "encode_text", *matches, *compares)

    def _encoded(self, numbers: list[int]) -> Encoded:
        return Encoded(torch.zeros(len(numbers), 0), torch.tensor(numbers).float()[:, None, None])

    def encode_image(self, images: Any, tokens: bool = False) -> Encoded:
        return self._encoded([image.getpixel((0, 0)) for image in images])

    def encode_text(self, texts: Any, tokens: bool = False) -> Encoded:
        return self._encoded([int(text.rsplit(" ", 1)[1]) for text in texts])

    def match(self, image: Encoded, text: Encoded) -> torch.Tensor:
        return torch.tensor(self.tables["match"][_of(image), _of(text)])

    def compare(self, image: Encoded, text: Encoded, query: str = "image") -> torch.Tensor:
        return torch.tensor(self.tables[query][_of(image)[:, None], _of(text)])


def _of(side: Encoded) -> np.ndarray:
    assert side.tokens is not None
    return side.tokens[:, 0, 0].long().numpy()


def quadruples(count: int) -> ExampleFiles[Judged]:
    """Pictures 2q and 2q + 1 with captions of the same numbers, in an order that is not Winoground's."""
    rows = []
    for quad in range(count):
        for picture in (1, 0):
            for caption in (0, 1):
                key, shown = f"{quad}-{picture}-{caption}", (2 * quad + picture,)
                said = f"text {2 * quad + caption}"
                rows.append(Judged(key, shown, said, "", "AB"[quad % 2], int(picture == caption), str(quad)))
    return ExampleFiles("quads", "test", "judged", rows, Numbers(2 * count), ("false", "true"))


def choices(rows: list[tuple[int, str, int]]) -> ExampleFiles[Chosen]:
    """(picture, group, label); the choices of example n are texts 2n and 2n + 1."""
    said = [
        Chosen(str(n), (picture,), QUESTION, "", group, (f"text {2 * n}", f"text {2 * n + 1}"), label)
        for n, (picture, group, label) in enumerate(rows)
    ]
    return ExampleFiles("choices", "test", "chosen", said, Numbers(max(row[0] for row in rows) + 1))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(0, 2**31), st.sampled_from([2, 5, 1000]))
def test_winoground_scores_are_those_of_the_equations(count: int, seed: int, levels: int) -> None:
    """Few levels bring ties, which are wrong."""
    table = np.random.default_rng(seed).integers(0, levels, (2 * count, 2 * count)).astype(float)
    text = image = group = 0
    for quad in range(count):
        c0_i0, c1_i0, c0_i1, c1_i1 = (table[2 * quad + p, 2 * quad + c] for p, c in ((0, 0), (0, 1), (1, 0), (1, 1)))
        text_right = c0_i0 > c1_i0 and c1_i1 > c0_i1
        image_right = c0_i0 > c0_i1 and c1_i1 > c1_i0
        text, image, group = text + text_right, image + image_right, group + (text_right and image_right)
    result = CaptionPairs(resamples=5).run(Table(table), quadruples(count))
    assert {name: result.metrics[name].value * count for name in ("text", "image", "group")} == pytest.approx(
        {"text": text, "image": image, "group": group}
    )
    # Twins are in the order of the examples, whose first one is picture 1 with caption 0.
    for quad, own in enumerate(result.details.scores):
        assert {*own.ravel()} == {*table[2 * quad : 2 * quad + 2, 2 * quad : 2 * quad + 2].ravel()}


def test_chance_is_what_random_scores_have() -> None:
    scores = np.random.default_rng(0).random((40_000, 2, 2))
    found = {metric.name: metric for metric in CaptionPairs(resamples=2).scores(scores, scores, [""] * 40_000)}
    for name, chance in (("text", 1 / 4), ("image", 1 / 4), ("group", 1 / 6)):
        assert found[name].chance == chance and found[name].value == pytest.approx(chance, abs=0.008)


def test_each_question_is_asked_in_its_own_direction() -> None:
    good, bad = np.eye(4), 1 - np.eye(4)
    metrics = CaptionPairs(resamples=5).run(Table(image=good, text=bad), quadruples(2)).metrics
    assert (metrics["text"].value, metrics["image"].value, metrics["group"].value) == (1.0, 0.0, 0.0)
    metrics = CaptionPairs(resamples=5).run(Table(image=bad, text=good), quadruples(2)).metrics
    assert (metrics["text"].value, metrics["image"].value) == (0.0, 1.0)


def test_matched_where_it_can_be_and_compared_where_asked() -> None:
    both = Table(np.eye(4), image=1 - np.eye(4), text=1 - np.eye(4))
    result = CaptionPairs(resamples=5).run(both, quadruples(2))
    assert result.metrics["group"].value == 1.0 and result.details.by == "match"
    result = CaptionPairs(resamples=5, by="compare").run(both, quadruples(2))
    assert result.metrics["group"].value == 0.0 and result.details.by == "compare"
    with pytest.raises(LacksAbility, match="match"):
        CaptionPairs(by="match").run(Table(image=np.eye(4), text=np.eye(4)), quadruples(2))
    with pytest.raises(LacksAbility, match="compare"):
        CaptionPairs().run(Table(), quadruples(2))


def test_groups_and_embeddings() -> None:
    class Dual(Table):
        def _encoded(self, numbers: list[int]) -> Encoded:
            return Encoded(torch.eye(4)[torch.tensor(numbers)], torch.zeros(len(numbers), 1, 1))

        def compare(self, *args: Any) -> torch.Tensor:
            raise AssertionError("products of vectors need no matrix")

    metrics = CaptionPairs(resamples=5).run(Dual(image=0, text=0), quadruples(2)).metrics
    assert metrics["text"].value == 1.0 and metrics["group[A]"].n == 1 and metrics["group[B]"].chance == 1 / 6


def test_what_is_no_quadruple_is_refused() -> None:
    whole = quadruples(2)
    model = Table(np.eye(4))
    for rows, said in (
        (whole.examples[:7], "the 3 examples of twin '1'"),
        ([replace(row, label=1) for row in whole.examples], "not two"),
        ([replace(row, label=-1) for row in whole.examples], "not two"),
        ([replace(row, twin="") for row in whole.examples[:4]], "twin ''"),
        ([replace(row, twin="0") for row in whole.examples], "the 8 examples"),
    ):
        with pytest.raises(DataError, match=said):
            CaptionPairs().run(model, replace(whole, examples=rows))
    with pytest.raises(DataError, match="takes `judged`"):
        CaptionPairs().run(model, choices([(0, "", 0)]))
    with pytest.raises(DataError, match="teaches nothing"):
        CaptionPairs().wanted(())


def test_scenes_are_quadruples() -> None:
    examples = open_scenes("counterfactuals", "test", "easy,gallery=30")
    truth = {(row.pictures[0], row.text): row.label for row in map(examples.example, range(len(examples)))}

    class Knows(Table):
        """Numbers pictures as they come, which is the order of the examples' pictures."""

        def encode_image(self, images: Any, tokens: bool = False) -> Encoded:
            self.at = getattr(self, "at", 0)
            self.at += len(images)
            return self._encoded(list(range(self.at - len(images), self.at)))

        def encode_text(self, texts: Any, tokens: bool = False) -> Encoded:
            self.texts = list(texts)
            return self._encoded(list(range(len(texts))))

        def match(self, image: Encoded, text: Encoded) -> torch.Tensor:
            said = [self.texts[number] for number in _of(text)]
            return torch.tensor([float(truth[picture, t]) for picture, t in zip(_of(image).tolist(), said)])

    result = CaptionPairs(resamples=5).run(Knows(np.eye(1)), examples)
    assert result.metrics["group"].value == 1.0 and result.metrics["group"].n == len(examples) // 4
    assert {"group[attribute]", "group[count]"} <= set(result.metrics)


def test_choices_by_group() -> None:
    rows = [(0, "swap", 0), (1, "swap", 1), (1, "add", 0), (0, "add", 1), (1, "rare", 0), (0, "", -1)]
    table = np.zeros((2, 12))
    for number, (picture, _, label) in enumerate(rows[:4]):
        table[picture, 2 * number + label] = 1.0
    table[1, 4], table[1, 5] = 0.5, 0.5  # a tie is wrong
    result = CaptionPairs("pairs", "chosen", least=2, resamples=5).run(Table(table), choices(rows))
    metrics = result.metrics
    assert metrics["accuracy"].value == 3 / 5 and metrics["accuracy"].n == 5 and metrics["accuracy"].chance == 0.5
    assert metrics["accuracy[swap]"].value == 1.0 and metrics["accuracy[add]"].value == 0.5
    assert "accuracy[rare]" not in metrics
    assert metrics["macro_accuracy"].value == 0.75 and metrics["macro_accuracy"].n == 4
    assert CaptionPairs("pairs", "chosen").submission(result)[0] == {"key": "0", "scores": [1.0, 0.0]}


def test_choices_of_other_numbers() -> None:
    rows = choices([(0, "", 1), (0, "", 0)])
    more = replace(rows.examples[0], choices=("text 0", "text 1", "text 2"), text=QUESTION)
    asked = replace(rows.examples[1], text="what is it?")
    table = np.array([[0.1, 0.5, 0.2, 0.9]])
    model = Table(table)
    seen: list[str] = []
    real = model.encode_text

    def encode_text(texts: Any, tokens: bool = False) -> Encoded:
        seen.extend(texts)
        return real(texts, tokens)

    model.encode_text = encode_text  # type: ignore[method-assign]
    result = CaptionPairs("pairs", "chosen", resamples=5).run(model, replace(rows, examples=[more, asked]))
    assert result.metrics["accuracy"].value == 0.5
    assert result.metrics["accuracy"].chance == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert "what is it? text 2" in seen and "text 2" in seen
    assert CaptionPairs("pairs", "chosen").submission(result)[1]["scores"][2] is None


def test_diverged_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="nan or inf for 4 of 4"):
        CaptionPairs().run(Table(np.full((2, 2), np.nan)), quadruples(1))
