"""Masking of words: shares, whole words, replays; what is never masked."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ToySource

from multiway.batch import ViewSpec
from multiway.data.draws import uniforms
from multiway.data.loader import Loader
from multiway.data.masking import Masking, mask_words, ordinary_ids
from multiway.data.source import DataError
from multiway.data.tokenizer import Tokenizer, TokenizerSpec

# A small vocabulary, so that most words are several tokens.
CAPTIONS = ["a photograph of a zebra", "extraordinary dotted circles", "one", "left of the rectangle, 12 stars"]
WORDS = Tokenizer.train(CAPTIONS, TokenizerSpec(vocabulary=280, context=24))
ORDINARY = ordinary_ids(WORDS)
MASK = WORDS.special["mask"]


def draws_for(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return uniforms(seed, np.zeros(rows, int), np.arange(rows), "mask", 3 * length).reshape(rows, 3, length)


def words_of(tokens, row: int) -> list[list[int]]:
    """Positions of each word's tokens, by walking along the text."""
    found: list[list[int]] = []
    for place in range(tokens.ids.shape[1]):
        if int(tokens.ids[row, place]) in WORDS.special.values():
            continue
        if tokens.word_starts[row, place]:
            found.append([])
        found[-1].append(place)
    return found


@given(seed=st.integers(0, 10_000), ratio=st.floats(0, 1), least=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_whole_words_and_never_special_tokens(seed: int, ratio: float, least: int) -> None:
    tokens = WORDS(CAPTIONS)
    masking = Masking(ratio=ratio, least=least)
    shown, chosen = mask_words(tokens, draws_for(*tokens.ids.shape, seed), masking, MASK, ORDINARY)
    special = torch.isin(tokens.ids, torch.tensor(list(WORDS.special.values())))
    assert not (chosen & (special | ~tokens.mask)).any()
    assert torch.equal(shown[~chosen], tokens.ids[~chosen])  # what is not chosen is left alone
    assert not torch.isin(shown[chosen], torch.tensor(sorted(set(WORDS.special.values()) - {MASK}))).any()
    for row in range(len(CAPTIONS)):
        words = words_of(tokens, row)
        masked = [bool(chosen[row, word[0]]) for word in words]
        for word, is_masked in zip(words, masked, strict=True):
            assert chosen[row, word].tolist() == [is_masked] * len(word)
        if ratio > 0:
            assert sum(masked) >= min(least, len(words))


def test_there_are_words_of_several_tokens() -> None:
    tokens = WORDS(CAPTIONS)
    assert any(len(word) > 3 for word in words_of(tokens, 1))


def test_shares_are_80_10_10() -> None:
    rows = 4000
    tokens = WORDS(["extraordinary dotted circles of the rectangle"] * rows)
    shown, chosen = mask_words(tokens, draws_for(*tokens.ids.shape), Masking(0.15), MASK, ORDINARY)
    words = words_of(tokens, 0)
    share = chosen[:, [word[0] for word in words]].float().mean()
    assert float(share) == pytest.approx(0.15, abs=0.01)
    as_mask = (shown == MASK)[chosen].float().mean()
    kept = (shown == tokens.ids)[chosen].float().mean()
    assert float(as_mask) == pytest.approx(0.8, abs=0.01)
    # A random token is the true one now and then.
    assert float(kept) == pytest.approx(0.1 + 0.1 / len(ORDINARY), abs=0.01)
    random = shown[chosen & (shown != MASK) & (shown != tokens.ids)]
    assert len(random.unique()) > 0.9 * len(ORDINARY)


def test_single_tokens_can_be_masked_instead() -> None:
    tokens = WORDS(["extraordinary"] * 300)
    _, chosen = mask_words(tokens, draws_for(*tokens.ids.shape), Masking(0.3, whole_words=False), MASK, ORDINARY)
    (word,) = words_of(tokens, 0)
    part = chosen[:, word].float().mean(1)
    assert ((part > 0) & (part < 1)).any()
    assert float(part.mean()) == pytest.approx(0.3, abs=0.03)


def test_masks_are_a_function_of_the_row_and_epoch() -> None:
    source = ToySource(24)
    words = Tokenizer.train([c for i in range(24) for c in source.row(i).captions], TokenizerSpec(300, 16))
    spec = dict(source=source, view=ViewSpec(size=8), tokenizer=words, masking=Masking(0.4))
    whole = Loader(**spec, batch=12).batch(0)
    again = Loader(**spec, batch=12).batch(0)
    assert torch.equal(whole.masked_text, again.masked_text) and torch.equal(whole.masked, again.masked)
    half = Loader(**spec, batch=12, rank=1, world=2).batch(0)
    length = half.text.shape[1]
    assert torch.equal(half.masked, whole.masked[1::2, :length])
    other = Loader(**spec, batch=12, seed=1).batch(0)
    assert other.masked.shape != whole.masked.shape or not torch.equal(other.masked, whole.masked)
    assert Loader(source, ViewSpec(size=8), words, batch=12).batch(0).masked is None


def test_refusals() -> None:
    with pytest.raises(ValueError, match="shares"):
        Masking(ratio=1.5)
    with pytest.raises(ValueError, match="replaced"):
        Masking(replaced=0.8, random=0.3)
    no_mask = Tokenizer.from_json(WORDS.to_json().replace("[MASK]", "[NONE]"), 24)
    with pytest.raises(DataError, match="mask token"):
        ordinary_ids(no_mask)
