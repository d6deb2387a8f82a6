"""Heads: regions of tokens against a loop over patches, and what attention over two readings does not see."""

import pytest
import torch
from torch import Tensor

from multiway.nn.task_heads import Classifier, PairAttention, RegionScorer, region_features


def slow(patches: Tensor, box: list[float], side: int) -> Tensor:
    """Mean over patches, each weighed by the area that the box has in it, by rectangles."""
    total, area = torch.zeros(patches.shape[-1], dtype=torch.float64), 0.0
    for row in range(side):
        for column in range(side):
            width = min(box[2], (column + 1) / side) - max(box[0], column / side)
            height = min(box[3], (row + 1) / side) - max(box[1], row / side)
            if width > 0 and height > 0:
                total += width * height * patches[row * side + column].double()
                area += width * height
    return total / area if area else total


@pytest.mark.parametrize("front", [0, 1])
@pytest.mark.parametrize("side", [1, 3, 4])
def test_region_features_equal_the_loop(side: int, front: int) -> None:
    torch.manual_seed(side)
    patches = torch.randn(2, front + side * side, 5)
    corners = torch.rand(2, 6, 2, 2).sort(2).values
    boxes = torch.cat([corners[:, :, 0], corners[:, :, 1]], -1)
    boxes[0, 0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    boxes[1, 1] = torch.tensor([0.4, 0.2, 0.4, 0.9])  # no area
    got = region_features(patches, boxes)
    for row in range(2):
        for place in range(6):
            want = slow(patches[row, front:], boxes[row, place].tolist(), side)
            torch.testing.assert_close(got[row, place].double(), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[0, 0], patches[0, front:].mean(0))
    assert torch.equal(got[1, 1], torch.zeros(5))


def test_a_region_alone_has_its_patch() -> None:
    patches = torch.arange(16.0).view(1, 16, 1)
    box = torch.tensor([[[0.25, 0.5, 0.5, 0.75]]])  # third row, second column
    assert float(region_features(patches, box)) == pytest.approx(9.0)


def test_a_region_is_scored_by_itself() -> None:
    torch.manual_seed(0)
    scorer = RegionScorer(6, 8)
    pair, patches, boxes = torch.randn(3, 6), torch.randn(3, 17, 8), torch.rand(3, 4, 4).sort(2).values
    scores = scorer(pair, patches, boxes)
    assert scores.shape == (3, 4)
    torch.testing.assert_close(scorer(pair, patches, boxes[:, [2]]), scores[:, [2]])
    for changed in ((pair + 1, patches, boxes), (pair, patches * 2, boxes), (pair, patches, boxes * 0.9)):
        assert not torch.allclose(scorer(*changed), scores)


def test_a_classifier_begins_at_its_prior() -> None:
    torch.manual_seed(0)
    head = Classifier(8, 50, prior=-4.0)
    scores = head(torch.randn(20, 8))
    assert scores.shape == (20, 50) and (scores + 4).abs().max() < 1.0
    assert [part.out_features for part in head if isinstance(part, torch.nn.Linear)] == [16, 50]


@pytest.mark.parametrize("width", [32, 96, 200])
@torch.no_grad()
def test_pair_attention_ignores_padding_and_minds_the_order(width: int) -> None:
    torch.manual_seed(0)
    attend = PairAttention(width).eval()
    left, right = torch.randn(2, 5, width), torch.randn(2, 5, width)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    one, two = attend(left, right, mask)
    assert one.shape == (2, width)
    turned = attend(right, left, mask)
    torch.testing.assert_close(turned[0], two)
    torch.testing.assert_close(turned[1], one)
    assert not torch.allclose(one, two)
    noise = torch.where(mask[..., None], 0.0, 50.0)
    for got, want in zip(attend(left + noise, right + noise, mask), (one, two), strict=True):
        torch.testing.assert_close(got, want)
    short = attend(left[1:, :3], right[1:, :3])
    torch.testing.assert_close(short[0], one[1:])
    assert not torch.allclose(attend(left, right * 2, mask)[0], one), "the other reading must matter"
