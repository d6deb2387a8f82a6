"""The matching task: its numbers from log-odds, its chance, and whom it draws as wrong partners."""

import math

import pytest
import torch
from fused import Cards, FusedModel

from multiway.tasks.matching import Matching


def source(rows: int) -> tuple[Cards, list[str]]:
    texts = [f"card {i}" for i in range(rows)]
    return Cards([(text,) for text in texts]), texts


def test_a_constant_scores_chance() -> None:
    cards, texts = source(12)
    third = math.log(0.5)  # log-odds of 1/3
    result = Matching(resamples=50).run(FusedModel(torch.full((12, 12), third), texts), cards)
    for kind in ("hard", "random"):
        loss, accuracy = result.metrics[f"{kind}/loss"], result.metrics[f"{kind}/accuracy"]
        assert loss.value == pytest.approx(loss.chance, abs=1e-6) == pytest.approx(0.6365, abs=1e-4)
        assert accuracy.value == pytest.approx(accuracy.chance) == pytest.approx(2 / 3)
        assert loss.n == 36


def test_an_oracle_is_right_and_the_loss_is_the_cross_entropy() -> None:
    cards, texts = source(12)
    result = Matching(resamples=50).run(FusedModel(6.0 * torch.eye(12) - 3, texts), cards)
    assert result.metrics["hard/accuracy"].value == 1.0
    assert result.metrics["hard/loss"].value == pytest.approx(math.log(1 + math.exp(-3)), rel=1e-4)


def test_hard_partners_are_those_that_look_alike() -> None:
    """A model that errs on the nearest neighbour alone: found out by hard negatives, hardly by random ones."""
    cards, texts = source(60)
    model = FusedModel(8.0 * torch.eye(60) - 4, texts)
    cosine = model._vectors(list(range(60)), 0) @ model._vectors(list(range(60)), 1).T
    nearest = cosine.masked_fill(torch.eye(60, dtype=torch.bool), -1).argmax(1)
    model.odds[torch.arange(60), nearest] = 4.0
    result = Matching(resamples=50, rows=60, temperature=0.02).run(model, cards)
    assert result.metrics["hard/accuracy"].value < result.metrics["random/accuracy"].value - 0.1


def test_rows_of_one_picture_are_never_wrong_partners() -> None:
    class OnePicture(Cards):
        def row(self, index: int):
            row = super().row(index)
            return type(row)(row.key, 7, row.captions)

    cards, texts = source(4)
    result = Matching(resamples=50).run(FusedModel(torch.zeros(4, 4), texts), OnePicture(cards.captions))
    assert result.metrics["hard/accuracy"].n == 4 and result.metrics["hard/loss"].chance == 0.0
