"""Similarities asked for in slices, and all at once where that saves the second direction."""

from __future__ import annotations

import torch

from multiway.abilities import Encoded
from multiway.tasks.similarity import Similarity


class Counting:
    """Compares by a dot product, of embeddings or of each side's first token, and counts how often."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def compare(self, image: Encoded, text: Encoded, query: str = "image") -> torch.Tensor:
        self.asked.append(query)
        if image.has_embedding:
            return image.embedding @ text.embedding.T
        assert image.tokens is not None and text.tokens is not None
        return image.tokens[:, 0] @ text.tokens[:, 0].T + (10.0 if query == "text" else 0.0)


def embedded(rows: int, seed: int) -> Encoded:
    return Encoded(torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed)))


def by_tokens(rows: int, seed: int) -> Encoded:
    return Encoded(torch.zeros(rows, 0), embedded(rows, seed).embedding[:, None])


def test_a_held_table_gives_what_slices_give_and_is_worked_out_once() -> None:
    model = Counting()
    plain = Similarity.of(model, embedded(5, 0), embedded(8, 1))
    held = plain.held(40)
    assert model.asked == ["image"]
    some = slice(1, 4)
    assert torch.equal(held.of_pictures(some), held.of_pictures(slice(0, 5))[1:4])
    assert torch.equal(held.of_texts(some), held.of_pictures(slice(0, 5)).T[1:4])
    assert model.asked == ["image"]
    assert torch.allclose(held.of_pictures(some), plain.of_pictures(some), atol=1e-6)
    assert torch.allclose(held.of_texts(some), plain.of_texts(some), atol=1e-6)


def test_a_table_that_is_too_large_is_not_held() -> None:
    plain = Similarity.of(Counting(), embedded(5, 0), embedded(8, 1))
    assert plain.held(39) is plain


def test_where_it_matters_who_asks_both_directions_are_asked_for() -> None:
    model = Counting()
    similarity = Similarity.of(model, by_tokens(5, 0), by_tokens(8, 1)).held(1000)
    pictures, texts = similarity.of_pictures(slice(0, 5)), similarity.of_texts(slice(0, 8))
    assert model.asked == ["image", "text"] and torch.allclose(texts.T, pictures + 10.0)
