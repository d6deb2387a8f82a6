"""Several views of each picture beside those of all ranks, laid out for a contrast of views.

V views of a rank's b pictures are V b queries, view by view. The candidates are the same features with the views moved on by
one, so that the candidate with a query's own number is another view of its picture and not the query itself: in that order
`losses/contrast.py` serves them in chunks. What a query must not see is a relation, `mask`: itself, and views of other rows
that show the same picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multiway.losses.unit import unit
from multiway.world import GradientMode, World

__all__ = ["Views", "gather_views"]


@dataclass(frozen=True)
class Views:
    """Queries and candidates on the unit sphere. Of R ranks, a candidate's number is (rank V + view) b + row.

    Attributes:
        query: (V b, D) of this rank, view by view.
        candidates: (R V b, D); the number of a query's next view is `first` plus the query's own.
        first: where this rank's candidates begin.
        count: V.
        rows: (R V b,) int64, the row, of all ranks, that a candidate is a view of.
        itself: (R V b,) int64, the candidate that is the query of this number.
        picture: (R V b,) int64 number of its picture, equal for rows that show the same one; None where no two do.
    """

    query: Tensor
    candidates: Tensor
    first: int
    count: int
    rows: Tensor
    itself: Tensor
    picture: Tensor | None

    def mask(self, start: int, stop: int) -> Tensor:
        """(stop - start, R V b) bool, True at what queries `start` to `stop`, of all ranks, are not compared with."""
        itself = self.itself[start:stop, None]
        left_out = torch.zeros(len(itself), len(self.itself), dtype=torch.bool, device=itself.device)
        left_out.scatter_(1, itself, True)
        if self.picture is not None:
            other_row = self.rows[start:stop, None] != self.rows
            left_out |= (self.picture[start:stop, None] == self.picture) & other_row
        return left_out

    @property
    def own(self) -> slice:
        """This rank's numbers among all."""
        return slice(self.first, self.first + len(self.query))

    def counted(self) -> Tensor | None:
        """(V b,) how many candidates each query is compared with; None where it is R V b - 1 for all."""
        if self.picture is None:
            return None
        picture, everyone = self.picture[self.own], torch.bincount(self.picture)
        return len(self.candidates) - everyone[picture] + self.count - 1


def gather_views(
    views: Sequence[Tensor], world: World, gradient: GradientMode = "global", image_id: Tensor | None = None
) -> Views:
    """Lay out V views of this rank's rows beside those of all ranks.

    Args:
        views: V at least 2 of (b, D); row i of each shows the same picture. Normalised here. Every rank brings the same b.
        world: the ranks.
        gradient: how gradients reach candidates (`World.gather`); queries always learn.
        image_id: (b,) int64; rows that share one are not told apart. None where no two rows do.

    Raises:
        ValueError: for fewer than two views, or shapes that do not fit.
    """
    shapes = {tuple(view.shape) for view in views}
    if len(views) < 2 or len(shapes) != 1 or views[0].ndim != 2 or len(views[0]) == 0:
        raise ValueError(
            f"{len(views)} views of shapes {sorted(shapes)}; expected two or more, equal (b, D), with a row"
        )
    rows, count, device = len(views[0]), len(views), views[0].device
    if image_id is not None and image_id.shape != (rows,):
        raise ValueError(f"image_id is {tuple(image_id.shape)}; expected one for each of this rank's {rows} rows")
    query = [unit(view) for view in views]
    candidates = world.gather(torch.cat(query[1:] + query[:1]), gradient)
    number = torch.arange(len(candidates), device=device)
    row = number // (count * rows) * rows + number % rows
    picture = None
    if image_id is not None:
        everyone = world.gather(image_id, "none")
        # Small numbers in place of ids, so that they can be counted.
        picture = torch.searchsorted(everyone.sort().values, everyone)[row]
    # As a candidate, a view stands where the view before it stands as a query.
    before = (number // rows - 1) % count
    itself = number // (count * rows) * (count * rows) + before * rows + number % rows
    return Views(torch.cat(query), candidates, world.rank * count * rows, count, row, itself, picture)
