"""What is drawn of a map, and where."""

import numpy as np
import torch
from PIL import Image

from multiway.explain.kinds import KINDS
from multiway.explain.overlay import drawn_part, with_heat

GREY = Image.new("RGB", (64, 64), (100, 100, 100))


def test_heat_is_red_where_it_is_and_nowhere_else() -> None:
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 3] = 5.0
    drawn = with_heat(GREY, heat).astype(int)
    redness = drawn[:, :, 0] - drawn[:, :, 2]
    assert redness[4, 60] > 100 and redness[60, 4] == 0 and redness[4, 4] == 0
    assert (with_heat(GREY, np.zeros((4, 4)))[..., 0] == with_heat(GREY, np.zeros((4, 4)))[..., 2]).all()


def test_what_is_below_zero_is_blue_on_the_same_scale() -> None:
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 3], heat[3, 0] = 1.0, -4.0
    drawn = with_heat(GREY, heat).astype(int)
    redness = drawn[:, :, 0] - drawn[:, :, 2]
    assert redness[60, 4] < -100 and 0 < redness[4, 60] < 60


def test_of_maps_that_every_patch_has_a_part_of_the_median_is_taken_off() -> None:
    heat = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) - 0.3
    for kind, each in KINDS.items():
        wanted = [[max(0.0, float(value - heat.median())) for value in row] for row in heat] if each.spreads else heat
        torch.testing.assert_close(drawn_part(kind, heat), torch.as_tensor(wanted))
