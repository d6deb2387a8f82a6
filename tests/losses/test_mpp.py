"""Masked patch prediction: colours against a loop, the loss against a loop, chance by its own formula."""

import math

import pytest
import torch

from multiway.losses.mpp import LEVELS, mpp, patch_colours

HALF = (0.5, 0.5, 0.5)


def test_colours_equal_a_loop() -> None:
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, 8, 12))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    shape = (1, 3, 1, 1)
    images = (pixels / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    got = patch_colours(images, 4, mean, std)
    assert got.shape == (2, 6, 3) and got.dtype == torch.int64
    for b in range(2):
        for n in range(6):
            top, left = n // 3 * 4, n % 3 * 4
            for c in range(3):
                total = int(pixels[b, c, top : top + 4, left : left + 4].sum())
                assert int(got[b, n, c]) == total // 16, (b, n, c)


@pytest.mark.parametrize("level", [0, 1, 127, 128, 254, 255])
def test_plain_patches_keep_their_colour(level: int) -> None:
    images = torch.full((1, 3, 8, 8), level / 255) * 2 - 1
    assert (patch_colours(images, 4, HALF, HALF) == level).all()


def test_loss_equals_a_loop() -> None:
    torch.manual_seed(1)
    logits, target = torch.randn(5, 3 * LEVELS), torch.randint(0, LEVELS, (5, 3))
    slow = []
    for row in range(5):
        for channel in range(3):
            scores = logits[row, channel * LEVELS : (channel + 1) * LEVELS].double()
            slow.append(scores.logsumexp(0) - scores[target[row, channel]])
    result = mpp(logits, target)
    torch.testing.assert_close(result.loss.double(), torch.stack(slow).mean(), rtol=1e-6, atol=1e-6)


def test_the_best_constant_scores_chance() -> None:
    target = torch.tensor([[0, 5, 9], [0, 7, 9], [1, 5, 9], [1, 7, 9]])
    logits = torch.full((4, 3, LEVELS), -1e4)
    for channel in range(3):
        logits[:, channel, target[:, channel].unique()] = 0.0
    result = mpp(logits.flatten(1), target)
    assert result.chance == pytest.approx(2 / 3 * math.log(2)) == pytest.approx(float(result.loss), abs=1e-6)
    sure = torch.nn.functional.one_hot(target, LEVELS).flatten(1) * 1e4
    assert float(mpp(sure, target).loss) == 0.0 == float(mpp(sure, target).error)


def test_nothing_hidden_keeps_the_graph() -> None:
    logits = torch.zeros(0, 3 * LEVELS, requires_grad=True)
    result = mpp(logits * 2, torch.zeros(0, 3, dtype=torch.int64))
    result.loss.backward()
    assert float(result.loss.detach()) == 0.0 and logits.grad is not None


def test_errors_name_what_was_given() -> None:
    with pytest.raises(ValueError, match=r"\(4, 256\)"):
        mpp(torch.zeros(4, 256), torch.zeros(4, 3, dtype=torch.int64))
