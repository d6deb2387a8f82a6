"""Random wrong pairs: exactly half, never the same picture or caption, evenly drawn; the loss against a loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.losses.itm_random import itm_random, random_pairs
from multiway.losses.same import Same


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_wrong_pictures_are_wrong(ids: list[tuple[int, int]], seed: int) -> None:
    torch.manual_seed(seed)
    image_id, text_id = (torch.tensor(column) for column in zip(*ids, strict=True))
    rows = len(ids)
    pairs = random_pairs(rows, Same(image_id, text_id))
    chosen, alone = pairs.image_of_text, 0
    for i in range(rows):
        possible = [j for j in range(rows) if image_id[j] != image_id[i] and text_id[j] != text_id[i]]
        alone += not possible
        if pairs.matched[i]:
            assert int(chosen[i]) == i
        else:
            assert int(chosen[i]) in possible
    # Rows for which there is no wrong picture keep their own, on top of the half that is kept.
    assert rows // 2 <= int(pairs.matched.sum()) <= rows // 2 + alone


def test_draws_are_even_and_change_with_the_seed() -> None:
    torch.manual_seed(0)
    counts, kept = torch.zeros(6, 6), torch.zeros(6)
    for _ in range(1500):
        pairs = random_pairs(6, Same(torch.arange(6), torch.arange(6)))
        counts[torch.arange(6), pairs.image_of_text] += ~pairs.matched
        kept += pairs.matched
        assert int(pairs.matched.sum()) == 3
    others = counts[~torch.eye(6, dtype=torch.bool)]
    assert (counts.diagonal() == 0).all() and others.min() > 100 and others.max() < 200  # 150 expected, deviation 12
    assert kept.min() > 650 and kept.max() < 850  # 750 expected, deviation 19


def test_loss_equals_a_loop() -> None:
    torch.manual_seed(0)
    logits, matched = torch.randn(7, 2), torch.tensor([1, 0, 0, 1, 0, 1, 0]).bool()
    result = itm_random(logits, matched)
    slow = sum(math.log(sum(math.exp(v) for v in row)) - row[yes] for row, yes in zip(logits.tolist(), matched.int()))
    assert float(result.loss) == pytest.approx(float(slow) / 7, rel=1e-6)
    assert result.chance == pytest.approx(-(3 / 7) * math.log(3 / 7) - (4 / 7) * math.log(4 / 7))
    yes = logits.softmax(1)[:, 1]
    assert float(result.positive) == pytest.approx(float(yes[matched].mean()))
    assert float(result.negative) == pytest.approx(float(yes[~matched].mean()))
    assert float(result.accuracy) == pytest.approx(float(((yes > 0.5) == matched).float().mean()))


def test_halves_have_chance_ln_2() -> None:
    result = itm_random(torch.zeros(4, 2), torch.tensor([True, False, True, False]))
    assert result.chance == pytest.approx(math.log(2)) == pytest.approx(float(result.loss))
    assert result.formula == "H(1/2)"
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        itm_random(torch.zeros(4, 3), torch.ones(4, dtype=torch.bool))
