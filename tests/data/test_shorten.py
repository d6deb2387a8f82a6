from typing import get_args

import numpy as np
import pytest
import torch

from multiway.data.shorten import Shorten, Shortening, shorten
from multiway.data.tokenizer import Tokenizer, TokenizerSpec

TEXTS = [
    "a small red square to the left of a large striped green circle above a yellow star",
    "red",
    "one unquestionably interminable description of nothing whatsoever",
    "two blue stars",
]
CONTEXT = 7


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return Tokenizer.train(TEXTS, TokenizerSpec(290, CONTEXT))


def rows_of(tokens) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(tokens.ids, tokens.mask, strict=True)]


@pytest.mark.parametrize("how", get_args(Shorten))
def test_equals_a_loop_over_tokens(words: Tokenizer, how: Shorten) -> None:
    whole = words.of_context(1000)(TEXTS)
    draws = np.random.default_rng(1).random((len(TEXTS), 1 + whole.ids.shape[1]))
    found = shorten(whole, draws, CONTEXT, how, words)
    for row, ids in enumerate(rows_of(whole)):
        start, *plain, end = ids
        keep = min(len(plain), CONTEXT - 2)
        places = list(range(len(plain)))
        if how == "first":
            kept = places[:keep]
        elif how == "block":
            begin = int(draws[row, 0] * (len(plain) - keep + 1))
            kept = places[begin : begin + keep]
        else:
            kept = sorted(sorted(places, key=lambda place, row=row: draws[row, 2 + place])[:keep])
        assert rows_of(found)[row] == [start, *(plain[place] for place in kept), end]
    assert found.ids.shape[1] == CONTEXT and bool((found.ids[~found.mask] == words.pad).all())


def test_the_beginning_is_what_the_tokeniser_itself_gives(words: Tokenizer) -> None:
    whole = words.of_context(1000)(TEXTS)
    found, plain = shorten(whole, np.zeros((4, 1 + whole.ids.shape[1])), CONTEXT, "first", words), words(TEXTS)
    for name in ("ids", "mask", "word_starts"):
        assert torch.equal(getattr(found, name), getattr(plain, name)), name


def test_over_the_epochs_all_of_a_caption_is_read_and_each_reading_can_be_repeated(words: Tokenizer) -> None:
    for how in ("random", "block"):
        shortening = Shortening(words, how)
        read = [shortening(TEXTS, 5, np.full(4, epoch), np.arange(4)) for epoch in range(600)]
        seen = {token for each in read for token in rows_of(each)[0]}
        assert seen == set(rows_of(words.of_context(1000)(TEXTS))[0])
        assert len({tuple(rows_of(each)[0]) for each in read}) > 5
        again = shortening(TEXTS[:1], 5, np.array([7]), np.array([0]))  # alone, in a batch of other lengths
        assert rows_of(again)[0] == rows_of(read[7])[0]
        short = {tuple(rows_of(each)[1]) for each in read}
        assert len(short) == 1  # what fits is never touched


def test_a_token_that_lost_the_beginning_of_its_word_begins_one(words: Tokenizer) -> None:
    shortening = Shortening(words, "block")
    found = [shortening(TEXTS, 0, np.full(4, epoch), np.arange(4)) for epoch in range(30)]
    whole = words.of_context(1000)(TEXTS)
    inside = {int(token) for token, begins in zip(whole.ids[2], whole.word_starts[2], strict=True) if not begins}
    begun_inside = [each for each in found if int(each.ids[2, 1]) in inside]
    assert begun_inside  # it happens at all
    for each in found:
        plain = each.mask.clone()
        plain[:, 0] = False
        assert bool(each.word_starts[:, 1].all()) and not bool((each.word_starts & ~plain).any())


def test_a_context_of_special_tokens_alone_leaves_those(words: Tokenizer) -> None:
    whole = words.of_context(1000)(TEXTS)
    found = shorten(whole, np.zeros((4, 1 + whole.ids.shape[1])), 2, "random", words)
    assert found.ids.tolist() == [[words.special["bos"], words.special["eos"]]] * 4
