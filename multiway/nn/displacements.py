"""Numbers for displacements on one grid, interpolated to another.

As BEiT and VLMo are tuned at other sizes (Bao et al., 2022, arXiv 2106.08254, and 2021, arXiv 2111.02358; released code): a step of
one patch stays a step of one patch. What the old grid knows of displacement d is moved outwards to 1 + q + q^2 + ... (d terms), with
q, at most 1.5, such that its farthest lands on the new grid's farthest, and a cubic spline through these places is read at the whole
numbers; beyond them the outermost value goes on. Stretching evenly, as positions are interpolated, would make a neighbour out of what was half a patch away.

Departure: on a smaller grid q is 1, which takes the displacements that are left as they are; there it is 1.01.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["places", "resize_displacements"]

_STEEPEST = 1.5  # ratio of one step outwards to the one before, as released


def resize_displacements(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Numbers for the displacements between two patches of one grid as those of another.

    Args:
        table: ((2 R - 1) (2 C - 1), W) of a grid of R rows and C columns, from the farthest up and left, row by row.
        old, new: (rows, columns); the same grid returns `table` itself.

    Returns:
        The same for the new grid, in the table's dtype.

    Raises:
        ValueError: if the table is not of the old grid.
    """
    sides = [2 * side - 1 for side in old]
    if sides[0] * sides[1] != len(table):
        raise ValueError(
            f"{len(table)} displacements for a grid of {old[0]}x{old[1]} patches; expected {sides[0] * sides[1]}, without the class "
            "token's"
        )
    if old == new:
        return table
    square = table.view(*sides, -1).float()
    down, right = (_spline(before, after).to(square) for before, after in zip(old, new, strict=True))
    with torch.autocast(table.device.type, enabled=False):  # products would be in half precision
        return torch.einsum("ia,jb,abw->ijw", down, right, square).flatten(0, 1).to(table.dtype)


def places(old: int, new: int) -> list[float]:
    """Where the numbers for displacements -(old - 1) ... old - 1 lie among those of a grid with `new` patches a side."""
    terms, farthest = old - 1, new - 1

    def reach(ratio: float) -> float:
        return sum(ratio**power for power in range(terms))

    low, high = 1.0, _STEEPEST
    while terms < farthest and high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if reach(middle) > farthest else (middle, high)
    away = [sum(low**power for power in range(count)) for count in range(1, terms + 1)]
    return [*(-each for each in reversed(away)), 0.0, *away]


@lru_cache(maxsize=16)
def _spline(old: int, new: int) -> Tensor:
    """(2 new - 1, 2 old - 1) float64: what each displacement of the new side takes of each of the old."""
    at = torch.tensor(places(old, new), dtype=torch.float64)
    wanted = torch.arange(1 - new, new, dtype=torch.float64).clamp(at[0], at[-1])
    count = len(at)
    if count < 4:  # too few for a cubic: the polynomial through all
        powers = torch.arange(count)
        return (wanted[:, None] ** powers) @ torch.linalg.inv(at[:, None] ** powers)
    # A cubic between any two places, by the values and the curvatures at both (M). That slopes agree is one
    # equation at each inner place; at the second and the last but one the third derivative agrees too ("not a knot").
    gap = at.diff()
    left, right = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, count, dtype=torch.float64)
    for i in range(1, count - 1):
        left[i, i - 1 : i + 2] = torch.stack([gap[i - 1], 2 * (gap[i - 1] + gap[i]), gap[i]]) / 6
        right[i, i - 1 : i + 2] = torch.stack([1 / gap[i - 1], -1 / gap[i - 1] - 1 / gap[i], 1 / gap[i]])
    left[0, :3] = torch.stack([gap[1], -gap[0] - gap[1], gap[0]])
    left[-1, -3:] = torch.stack([gap[-1], -gap[-1] - gap[-2], gap[-2]])
    curvature = torch.linalg.solve(left, right)  # (places, values)
    piece = (torch.searchsorted(at, wanted, right=True) - 1).clamp(0, count - 2)
    one = torch.eye(count, dtype=torch.float64)
    width = gap[piece, None]
    after = (wanted - at[piece])[:, None] / width
    before = 1 - after
    bend = (before**3 - before) * curvature[piece] + (after**3 - after) * curvature[piece + 1]
    return before * one[piece] + after * one[piece + 1] + width**2 / 6 * bend
