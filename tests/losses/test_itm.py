"""Matching: mining never draws what belongs together, draws by similarity, and the loss is its definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.losses.itm import hard_negatives, itm
from multiway.losses.same import Same


def test_a_negative_is_never_a_positive_over_10_000_draws() -> None:
    """Similarities that shout for the positives: they are the largest by far, and are still never drawn."""
    torch.manual_seed(0)
    rows = 20
    image_id = torch.arange(rows) // 3  # three captions of each picture
    text_id = torch.randint(0, 12, (rows,))  # and captions that several pictures share
    same = Same(image_id, text_id)
    related = (image_id[:, None] == image_id) | (text_id[:, None] == text_id)
    similarity = torch.randn(rows, rows) + 50.0 * related
    drawn = 0
    while drawn < 10_000:
        hardness = (drawn % 3) / 2
        found = hard_negatives(similarity, same, hardness)
        row = torch.arange(rows)
        assert not related[row, found.text_of_image].any() and not related[row, found.image_of_text].any()
        assert found.found.all()
        drawn += 2 * rows


@given(ids=st.lists(st.integers(0, 4), min_size=2, max_size=12), hardness=st.floats(0, 1), scale=st.floats(0, 1e4))
@settings(max_examples=100, deadline=None)
def test_any_ids_and_scales(ids: list[int], hardness: float, scale: float) -> None:
    image_id = torch.tensor(ids)
    similarity = scale * torch.randn(len(ids), len(ids))
    result = hard_negatives(similarity, Same(image_id), hardness)
    for row, (text, image, found) in enumerate(zip(*vars(result).values(), strict=True)):
        assert bool(found) == (len(set(ids)) > 1)
        if found:
            assert ids[int(text)] != ids[row] != ids[int(image)]


def test_draws_follow_the_softmax_and_both_directions_their_own() -> None:
    torch.manual_seed(1)
    similarity = torch.tensor([[9.0, 2.0, 1.0, 0.0], [0.0, 9.0, 0.0, 0.0], [3.0, 0.0, 9.0, 0.0], [1.0, 0.0, 0.0, 9.0]])
    draws = 20_000
    texts, images = torch.zeros(4), torch.zeros(4)
    for _ in range(draws // 100):
        found = [hard_negatives(similarity, Same(), 1.0) for _ in range(100)]
        texts += torch.bincount(torch.stack([f.text_of_image for f in found])[:, 0], minlength=4)
        images += torch.bincount(torch.stack([f.image_of_text for f in found])[:, 0], minlength=4)
    for counts, logits in ((texts, similarity[0]), (images, similarity[:, 0])):
        expected = logits.clone()
        expected[0] = -torch.inf
        torch.testing.assert_close(counts / draws, expected.softmax(0), atol=0.02, rtol=0)


def test_without_hardness_all_wrong_partners_are_equally_likely() -> None:
    torch.manual_seed(2)
    similarity = torch.randn(5, 5) * 30
    counts = torch.zeros(5)
    for _ in range(4000):
        counts += torch.bincount(hard_negatives(similarity, Same(), 0.0).text_of_image[:1], minlength=5)
    torch.testing.assert_close(counts / 4000, torch.tensor([0.0, 0.25, 0.25, 0.25, 0.25]), atol=0.03, rtol=0)


def test_a_saturated_row_still_has_negatives() -> None:
    """softmax of (1000, 0, 0) leaves exactly zero for all that may be drawn."""
    similarity = torch.eye(6) * 1e6
    assert (hard_negatives(similarity, Same(), 1.0).text_of_image != torch.arange(6)).all()


def test_loss_is_the_definition() -> None:
    torch.manual_seed(3)
    logits = torch.randn(12, 2, dtype=torch.float64)
    result = itm(logits, torch.ones(4, dtype=torch.bool))
    slow = 0.0
    for row in range(12):
        p = math.exp(logits[row, 1]) / (math.exp(logits[row, 0]) + math.exp(logits[row, 1]))
        slow -= math.log(p if row < 4 else 1 - p) / 12
    assert float(result.loss) == pytest.approx(slow, rel=1e-6)
    assert result.chance == pytest.approx(0.6365, abs=1e-4) and result.formula == "H(1/3)"


def test_the_best_constant_scores_chance_and_no_other_scores_less() -> None:
    found = torch.ones(8, dtype=torch.bool)
    for p in (0.2, 1 / 3, 0.5):
        logits = torch.tensor([0.0, math.log(p / (1 - p))]).expand(24, 2)
        result = itm(logits, found)
        assert float(result.loss) >= result.chance - 1e-6
        if p == 1 / 3:
            assert float(result.loss) == pytest.approx(result.chance, abs=1e-6)
            assert float(result.positive) == pytest.approx(1 / 3) and float(result.negative) == pytest.approx(1 / 3)


def test_rows_without_a_negative_count_only_as_pairs() -> None:
    torch.manual_seed(4)
    logits = torch.randn(9, 2)
    found = torch.tensor([True, False, True])
    changed = logits.clone()
    changed[[4, 7]] += 5.0  # the wrong text and wrong picture of row 1, which it does not have
    assert float(itm(logits, found).loss) == float(itm(changed, found).loss)
    none = itm(logits, torch.zeros(3, dtype=torch.bool))
    assert none.chance == 0.0 and torch.isfinite(none.loss)


def test_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(9, 2\)"):
        itm(torch.zeros(6, 2), torch.ones(3, dtype=torch.bool))


def test_the_least_weight_decides_where_the_softmax_is_saturated() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([[0.0, 200.0, 0.0, 0.0]]).expand(4, 4)
    often = [hard_negatives(logits, Same(), least=least).text_of_image[0] for least in (1e-6, 1e3) for _ in range(200)]
    sure, even = torch.stack(often[:200]), torch.stack(often[200:])
    assert (sure == 1).all() and (even == 1).float().mean() < 0.5
