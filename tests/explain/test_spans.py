"""Words of a text: their characters, their tokens, whatever the tokeniser makes of spaces, signs and what is cut off."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.explain.spans import over_words, word_mask, words_of

TOKENIZER = Tokenizer.train(["a red circle left of the star", "two blue squares, 12 stars"], TokenizerSpec(280, 24))


def test_characters_and_tokens() -> None:
    words = words_of(TOKENIZER, "A red, circle 12")
    assert [word.text for word in words] == ["A", "red", ",", "circle", "1", "2"]
    assert all("A red, circle 12"[word.start : word.stop] == word.text for word in words)
    ids = TOKENIZER(["A red, circle 12"]).ids[0]
    # Start and end belong to none, and no token to two; a space by itself is no word.
    assert words[0].tokens.start == 1 and words[-1].tokens.stop == len(ids) - 1
    assert all(one.tokens.stop <= other.tokens.start for one, other in pairwise(words))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    words = words_of(TOKENIZER, text)
    length = len(TOKENIZER([text]).ids[0])
    assert all(0 <= word.start < word.stop <= len(text) and word.text == text[word.start : word.stop] for word in words)
    assert all(0 < word.tokens.start < word.tokens.stop < length for word in words)


def test_what_is_cut_off_has_no_word() -> None:
    words = words_of(TOKENIZER, "a red circle left of the star " * 5)
    assert words and words[-1].tokens.stop <= TOKENIZER.context - 1


def test_the_mask_marks_words_alone() -> None:
    texts = ["a star", "a red circle left of the star"]
    mask, real = word_mask(TOKENIZER, texts, TOKENIZER(texts).ids.shape[1]), TOKENIZER(texts).mask
    assert torch.equal(mask.sum(1), real.sum(1) - 2) and not mask[:, 0].any() and not (mask & ~real).any()


def test_maps_of_words_are_means_over_their_tokens() -> None:
    words = words_of(TOKENIZER, "zebra star")
    assert len(words[0].tokens) > 1
    maps = torch.rand(20, 2, 2)
    found = over_words(maps, words)
    torch.testing.assert_close(found[0], maps[words[0].tokens.start : words[0].tokens.stop].mean(0))
    assert over_words(maps, ()).shape == (0, 2, 2)
    with pytest.raises(IndexError):
        found[2]
