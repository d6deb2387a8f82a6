"""Text assignment: which pictures a text is shown with."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.losses.classification import classification
from multiway.losses.same import Same
from multiway.losses.ta import NEITHER, arrange, thirds


def test_thirds_are_a_pure_function_and_even() -> None:
    samples = torch.arange(30_000)
    drawn = thirds(samples, 2)
    shares = torch.bincount(drawn) / len(drawn)
    assert len(shares) == 3 and (shares - 1 / 3).abs().max() < 4 * math.sqrt(2 / 9 / 30_000)
    # Each row by itself, in any order; another epoch is another draw, as often equal as chance has it.
    assert torch.equal(thirds(samples.flip(0), 2), drawn.flip(0))
    assert torch.equal(torch.cat([thirds(some, 2) for some in samples[:6].split(1)]), drawn[:6])
    assert abs((thirds(samples, 3) == drawn).float().mean().item() - 1 / 3) < 0.015
    assert abs((drawn[1:] == drawn[:-1]).float().mean().item() - 1 / 3) < 0.015
    assert drawn[:12].tolist() == thirds(torch.arange(12), 2).tolist() and drawn.dtype == torch.int64


def test_thirds_are_the_hash_in_whole_numbers() -> None:
    """SplitMix64's finaliser without a machine's wrapping."""

    def mix(x: int) -> int:
        x %= 2**64
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            x = (x ^ (x >> shift)) * factor % 2**64
        return x

    gamma = 0x9E3779B97F4A7C15
    for epoch, sample in ((0, 0), (0, 1), (7, 123_456_789), (1, 2**40 + 5)):
        slow = (mix(mix(epoch + 0x7441 + gamma) * 3 + sample + gamma) >> 33) % 3
        assert int(thirds(torch.tensor([sample]), epoch)) == slow


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=12),
    hardness=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_the_wrong_pictures_are_wrong(ids: list[tuple[int, int, int]], hardness: float) -> None:
    image_id, text_id, labels = (torch.tensor(each) for each in zip(*ids, strict=True))
    rows = len(ids)
    shown = arrange(torch.randn(rows, rows) * 5, Same(image_id, text_id), labels, hardness)
    for i in range(rows):
        others = [j for j in range(rows) if image_id[j] != image_id[i] and text_id[j] != text_id[i]]
        left, right, label = int(shown.left[i]), int(shown.right[i]), int(shown.labels[i])
        kinds = len({int(image_id[j]) for j in others})
        assert (label >= 0) == (kinds >= (2 if labels[i] == NEITHER else 1)), (i, others)
        if label < 0:
            continue
        assert label == labels[i] and image_id[left] != image_id[right]
        assert (left == i) == (label == 0) and (right == i) == (label == 1)
        assert all(j in others for j in {left, right} - {i})


def test_similar_pictures_are_drawn_by_the_softmax() -> None:
    torch.manual_seed(0)
    rows = 900
    similarity = torch.zeros(rows, rows)
    similarity[:, 1], similarity[:, 2] = math.log(rows), math.log(2 * rows)
    labels = torch.zeros(rows, dtype=torch.int64)
    for hardness, share in ((1.0, 2 * rows / (4 * rows - 3)), (0.0, 1 / rows)):
        drawn = arrange(similarity, Same(), labels, hardness).right[3:]
        assert (drawn == 2).float().mean().item() == pytest.approx(share, abs=0.06)


def test_a_batch_of_one_picture_counts_for_nothing() -> None:
    shown = arrange(torch.zeros(3, 3), Same(torch.tensor([4, 4, 4]), torch.arange(3)), torch.tensor([0, 1, 2]))
    assert shown.labels.tolist() == [-1] * 3
    found = classification(torch.randn(3, 3, requires_grad=True), shown.labels)
    assert float(found.loss.detach()) == 0.0 and int(found.rows) == 0 and found.chance == pytest.approx(math.log(3))
    with pytest.raises(ValueError, match=r"\(2, 3\); expected \(3, 3\)"):
        arrange(torch.zeros(2, 3), Same(), torch.tensor([0, 1, 2]))
