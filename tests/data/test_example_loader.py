"""Batches of examples: pictures once, replays exact, any number of ranks, unreadable pictures counted."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from multiway_batches import WORDS
from tuning import KINDS, VIEW, ToyPictures, toy_examples, tuning_loader

from multiway.batch import Batch
from multiway.data.annotated.files import ExampleFiles
from multiway.data.annotated.open import open_examples
from multiway.data.augment import finish
from multiway.data.example_loader import ExampleLoader, Wanted, usable
from multiway.data.examples import Asked, Chosen, Judged
from multiway.data.source import DataError
from multiway.data.view import draw


def equal(left: Batch, right: Batch) -> bool:
    pairs = [(getattr(left, name), getattr(right, name)) for name in vars(left)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("augment", ["none", "affine"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_is_exact_and_pictures_are_those_that_are_meant(kind: str, augment: Any) -> None:
    view, examples = replace(VIEW, augment=augment), toy_examples(kind, 21)
    loader = tuning_loader(kind, 8, examples, view, seed=3)
    batches = list(loader.batches(0, 6))
    again = tuning_loader(kind, 8, toy_examples(kind, 21), view, seed=3)
    assert all(equal(again.batch(step), batches[step]) for step in (5, 2, 0, 3))
    assert not equal(tuning_loader(kind, 8, examples, view, seed=4).batch(0), batches[0])
    for batch in batches:
        batch.sample_index.sort()
        assert len(batch) == 8 and len(batch.images) <= 8 * batch.pictures.shape[1]
        for row, index in enumerate(batch.sample_index.tolist()):
            example = examples.example(index)
            assert batch.captions[row] == example.text
            for place, number in zip(batch.pictures[row].tolist(), example.pictures, strict=True):
                square = draw(examples.pictures.image(number), view)
                assert torch.equal(batch.images[place], torch.from_numpy(square.copy()).permute(2, 0, 1))
    seen = sorted(index for batch in batches for index in batch.sample_index.tolist())[:48]
    assert len(set(seen)) == 21 and loader.epoch(21) == 8.0


def test_a_picture_that_questions_share_is_there_once() -> None:
    examples = toy_examples("asked", 8)
    batch = tuning_loader("asked", 8, examples).batch(0)
    assert len(batch.images) == 4 and sorted(batch.pictures.flatten().tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert examples.pictures.read == [1, 1, 1, 1], "each is decoded once"
    two = tuning_loader("two", 8, toy_examples("two", 8)).batch(0)
    assert two.pictures.shape == (8, 2) and len(two.images) == 4


@pytest.mark.parametrize("augment", ["none", "affine"])
@pytest.mark.parametrize("kind", ["asked", "two"])
def test_two_ranks_see_what_one_does(kind: str, augment: Any) -> None:
    """Also where a batch straddles two epochs: 10 rows do not divide by 8."""
    view = replace(VIEW, augment=augment)
    one = tuning_loader(kind, 8, toy_examples(kind, 10), view)
    ranks = [tuning_loader(kind, 8, toy_examples(kind, 10), view, rank=rank, world=2) for rank in (0, 1)]
    for step in range(5):
        whole = finish(one.batch(step), view)
        for rank, loader in enumerate(ranks):
            part = finish(loader.batch(step), view)
            assert torch.equal(part.sample_index, whole.sample_index[rank::2])
            torch.testing.assert_close(part.images[part.pictures], whole.images[whole.pictures[rank::2]])
            assert part.captions == whole.captions[rank::2]


def test_unreadable_pictures_are_replaced_and_recorded() -> None:
    examples = toy_examples("asked", 24, broken=(0, 3))
    loader = tuning_loader("asked", 24, examples)
    batch = loader.batch(0)
    assert len(batch.skipped) >= 4 and all("is cut off" in said and "toy, example" in said for said in batch.skipped)
    assert not {0, 1, 6, 7} & set(batch.sample_index.tolist()) and len(batch) == 24
    assert equal(batch, tuning_loader("asked", 24, toy_examples("asked", 24, broken=(0, 3))).batch(0))
    everything = toy_examples("asked", 24, broken=range(12))
    with pytest.raises(DataError, match=r"pictures of 20 examples in a row could not be read.*images folder"):
        tuning_loader("asked", 4, everything).batch(0)


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_keep_the_pictures_of_their_rows(kind: str) -> None:
    view = replace(VIEW, augment="affine")
    batch = tuning_loader(kind, 8, view=view).batch(1)
    for start in (0, 3, 6):
        part = batch.rows(start, start + 2)
        assert len(part) == 2 and len(part.images) == len(part.draws) == len(part.pictures.unique())
        rows = batch.pictures[start : start + 2]
        assert torch.equal(part.images[part.pictures], batch.images[rows])
        assert torch.equal(part.draws[part.pictures], batch.draws[rows])
        for name in ("text", "choices", "choices_mask", "targets", "labels", "boxes", "boxes_mask", "sample_index"):
            value = getattr(batch, name)
            assert (value is None) == (getattr(part, name) is None)
            assert value is None or torch.equal(getattr(part, name), value[start : start + 2])


def test_choices_are_padded_and_masked() -> None:
    examples = toy_examples("chosen", 24)
    batch = tuning_loader("chosen", 24, examples).batch(0)
    assert batch.text is None and batch.choices.shape[:2] == (24, 4)
    for row, index in enumerate(batch.sample_index.tolist()):
        example, real = examples.example(index), batch.choices_mask[row].any(1)
        own = [
            WORDS.backend.decode(ids[mask].tolist()) for ids, mask in zip(batch.choices[row], batch.choices_mask[row])
        ]
        answers = [f"{example.text} {choice}" for choice in example.choices]
        reasons = [f"{example.text} {example.choices[example.label]} {reason}" for reason in example.reasons]
        wanted, right = (answers, example.label) if int(real.sum()) != 3 or own[0].strip() in answers else (reasons, 0)
        assert [text.strip() for text in own[: len(wanted)]] == wanted and int(real.sum()) == len(wanted)
        assert int(batch.labels[row]) == right


def test_every_example_asks_for_answer_and_reason_by_turns() -> None:
    examples = toy_examples("chosen", 12)
    loader = tuning_loader("chosen", 12, examples)
    asked: dict[int, set[int]] = {}
    for step in (0, 1):
        batch = loader.batch(step)
        for row, index in enumerate(batch.sample_index.tolist()):
            asked.setdefault(index, set()).add(hash(tuple(batch.choices[row, 0].tolist())))
    assert all(len(each) == 2 for each in asked.values())


def test_what_has_no_answer_is_left_out() -> None:
    rows = [Asked(str(n), (0,), "what", answers=("red",) if n % 3 == 0 else ()) for n in range(9)]
    examples: Any = ExampleFiles("toy", "test", "asked", rows, ToyPictures())
    assert usable(examples).tolist() == [0, 3, 6]
    withheld: Any = ExampleFiles("toy", "test", "judged", [Judged("a", (0,), "b")], ToyPictures(), ("no", "yes"))
    with pytest.raises(DataError, match=r"toy@test: none of 1 examples has an answer.*train on another"):
        usable(withheld)
    assert len(usable(open_examples("scenes:easy", "vqa", "train"))) == 1_000_000  # without looking at a million


def test_scenes_are_drawn_together() -> None:
    examples = open_examples("scenes:easy,objects=1-3", "nlvr2", "train")
    view = replace(VIEW, size=24)
    batch = ExampleLoader(examples, view, WORDS, Wanted(), 6).batch(0)
    for row, index in enumerate(batch.sample_index.tolist()):
        numbers = torch.tensor(examples.example(index).pictures)
        squares = torch.from_numpy(examples.pictures.squares(numbers.numpy(), 24))  # type: ignore[attr-defined]
        assert torch.equal(batch.images[batch.pictures[row]], squares.permute(0, 3, 1, 2))


def test_refusals() -> None:
    with pytest.raises(DataError, match="batch 9 does not divide by 2 ranks"):
        tuning_loader("asked", 9, world=2)
    rows = [Judged(str(n), (0,) if n else (0, 1), "a", f"row {n}", label=0) for n in range(4)]
    mixed: Any = ExampleFiles("toy", "train", "judged", rows, ToyPictures(), ("no", "yes"))
    with pytest.raises(DataError, match=r"is about . pictures and row . about"):
        ExampleLoader(mixed, VIEW, WORDS, Wanted(), 4).batch(0)
    long = "the top is red and the bottom is blue and the left is green and the right is black "
    rows = [Chosen(str(n), (0,), "what", choices=(long + "red", long + "blue"), label=0) for n in range(4)]
    cut: Any = ExampleFiles("toy", "train", "chosen", rows, ToyPictures())
    with pytest.raises(DataError, match="choices are the same after 16 tokens"):
        tuning_loader("chosen", 4, cut)
