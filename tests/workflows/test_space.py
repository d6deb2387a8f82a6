"""Gap, separability, alignment and uniformity: of what is known in closed form."""

import pytest
import torch
import torch.nn.functional as F

from multiway.losses.uniformity import uniformity_of_random
from multiway.workflows.space import measure_space


def even(count: int, dimensions: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_equal_sides_have_no_gap() -> None:
    x = even(400, 8, 0)
    found = measure_space(x, x)
    assert found.gap == 0.0 and found.alignment == pytest.approx(0.0, abs=1e-12)
    assert found.alignment_of_random == pytest.approx(2.0, abs=0.05)
    assert found.image_uniformity == pytest.approx(found.uniformity_of_random, abs=0.1)
    low, high = found.separable[1:]
    assert low <= 0.5 <= high


def test_two_cones_are_told_apart() -> None:
    cone = torch.zeros(8)
    cone[0] = 3.0
    x, y = F.normalize(even(200, 8, 0) + cone, dim=1), F.normalize(even(200, 8, 1) - cone, dim=1)
    found = measure_space(x, y)
    assert found.gap > 1.5 and found.separable[0] == 1.0 and found.gap_of_random < 0.4
    assert found.gap == pytest.approx(float((x.double().mean(0) - y.double().mean(0)).norm()))
    assert found.image_uniformity > found.uniformity_of_random + 1


def test_others_are_a_double_loop() -> None:
    x, y = even(20, 5, 2), even(20, 5, 3)
    slow = [float((x[i] - y[j]).norm() ** 2) for i in range(20) for j in range(20) if i != j]
    assert measure_space(x, y).alignment_of_random == pytest.approx(sum(slow) / len(slow), rel=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3, 16, 128])
def test_directions_at_random_by_drawing_them(dimensions: int) -> None:
    x, y = even(200_000, dimensions, 0).double(), even(200_000, dimensions, 1).double()
    drawn = float((-2.0 * (x - y).square().sum(1)).exp().mean().log())
    assert uniformity_of_random(dimensions) == pytest.approx(drawn, abs=0.02)
    if dimensions == 3:  # sinh(s) / s on the sphere, s = 2 t
        import math

        assert uniformity_of_random(3) == pytest.approx(math.log(math.sinh(4.0) / 4.0) - 4.0, rel=1e-9)


def test_refusals_and_the_table() -> None:
    x = even(20, 5, 2)
    for images, texts in ((x, x[:10]), (x[:4], x[:4]), (x[0], x[0])):
        with pytest.raises(ValueError, match="at least 8"):
            measure_space(images, texts)
    with pytest.raises(ValueError, match="2 at least"):
        uniformity_of_random(1)
    table = measure_space(x, x).table()
    assert {len(row) for row in table} == {4} and table[1][1] == "0.000"
