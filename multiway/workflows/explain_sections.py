"""The parts of the page that `multiway explain` writes: each looks at one thing and says in a sentence what is seen.

A part that a model has nothing to show for gives the reason instead.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.view import draw
from multiway.explain.activation import feature_norms
from multiway.explain.attention import grid_of, keep_mass, over_patches
from multiway.explain.distance import attention_distance, patch_distances
from multiway.explain.filters import as_pictures, principal_filters
from multiway.explain.overlay import with_heat
from multiway.explain.positions import position_similarity
from multiway.explain.rollout import rollout
from multiway.explain.seen import Seen
from multiway.workflows.explain_figures import (
    DPI,
    Panel,
    dim_outside,
    distance_dots,
    mosaic,
    panels,
    similarity_tiles,
)

__all__ = [
    "Drawn", "Given", "Section", "above_maps", "attention_section", "distance_section", "features_section", "filters_section",
    "positions_section",
]  # fmt: skip

_SIDE = 192  # pixels of a picture in a figure, at least
_COLUMNS = 8


@dataclass(frozen=True)
class Given:
    """A picture that is looked at: its name, as it was opened, and the square of it that the model sees."""

    name: str
    picture: Image.Image
    square: Image.Image

    @classmethod
    def of(cls, name: str, picture: Image.Image, view: ViewSpec) -> Given:
        """Cut as the model's view cuts it, as large as is good to look at."""
        return cls(name, picture, Image.fromarray(draw(picture, view, max(view.size, _SIDE))))

    @property
    def panel(self) -> Panel:
        """The square, under its name."""
        return Panel(np.asarray(self.square), self.name, smooth=True)


@dataclass(frozen=True)
class Drawn:
    """One figure: the name of its file, and what is in it; whether pages show it, which may have the same in another form."""

    file: str
    png: bytes
    about: str = ""
    paged: bool = True

    @property
    def width(self) -> int:
        """On a page, in its pixels; figures are drawn finer than that."""
        return round(Image.open(io.BytesIO(self.png)).width * 96 / DPI)


@dataclass(frozen=True)
class Section:
    """One thing that was looked at.

    Attributes:
        title: of it.
        text: what is seen, and whose idea it is.
        figures: in order.
        numbers: behind the figures, for those who want them as JSON.
        table: rows of cells, the first of them the head; () for none.
        drawing: HTML of our own making, shown as it is; empty for none.
        notes: (what, what it is), under the text.
    """

    title: str
    text: str
    figures: list[Drawn] = field(default_factory=list)
    numbers: dict[str, object] = field(default_factory=dict)
    table: tuple[tuple[str, ...], ...] = ()
    drawing: str = ""
    notes: tuple[tuple[str, str], ...] = ()


def attention_section(given: Sequence[Given], seen: Seen, block: int, mass: float, first: int = 0) -> Section:
    """The class token's attention, head by head, what holds most of it, and rollout.

    Args:
        given: the pictures of this look.
        seen: the look.
        block: whose attention is shown; negative from the last.
        mass: share of it that the patches hold which are kept.
        first: number of the first of the pictures, for the files' names.
    """
    last = len(seen.blocks) - 1
    block = block % len(seen.blocks)
    maps = over_patches(seen.blocks[block]).float().cpu()  # (B, heads, side, side)
    _, before = grid_of(seen.blocks[block].shape[-1])
    flow = over_patches(rollout([each.float() for each in seen.blocks])).cpu()
    figures = []
    for number, one in enumerate(given):
        heads = [(f"head {head}", each) for head, each in enumerate(maps[number])]
        named = [*heads, ("mean of heads", maps[number].mean(0)), ("rollout", flow[number])]
        rows: list[list[Panel | None]] = []
        for start in range(0, len(named), _COLUMNS - 1):
            some = named[start : start + _COLUMNS - 1]
            rows.append(
                [
                    None if start else one.panel,
                    *(Panel(each.numpy(), f"{title}\n{_range(each)}") for title, each in some),
                ]
            )
            rows.append([None, *(Panel(dim_outside(one.square, keep_mass(each, mass).numpy())) for _, each in some)])
        figures.append(Drawn(f"attention-{first + number + 1}.png", panels(rows), one.name))
    who = "the class token" if before else "the patches on average (there is no class token)"
    where = "the last block" if block == last else f"block {block} of {last + 1}, counted from 0"
    return Section(
        "Attention",
        f"Where {who} looks in {where}: each head's share of every patch, bright for much, each map on a scale of its own, whose "
        f"ends are given; even attention gives every patch {1 / maps[0, 0].numel():.1%}. Below, the "
        f"fewest patches that hold {mass:.0%} of it (DINO, arXiv 2104.14294, figures 1 and 4). Rollout follows attention through all "
        "blocks to the patches, half of each block being what a token was before (Abnar and Zuidema, arXiv 2005.00928).",
        figures,
    )


def _range(heat: Tensor) -> str:
    """From the least to the greatest share of a patch: maps of nearly even attention look as lively as others."""
    return f"{100 * float(heat.min()):.1f}–{100 * float(heat.max()):.1f} %"


def distance_section(blocks: Sequence[Tensor], size: int, pictures: int) -> Section | str:
    """How far heads look.

    Args:
        blocks: attention of each block over all pictures.
        size: side of the picture that the model sees, in pixels.
        pictures: how many there were.
    """
    whole = [block for block in blocks if block.shape[-1] == block.shape[-2]]
    if not whole:
        return "attention distance: no block computes the attention of all patches"
    side, _ = grid_of(whole[0].shape[-1])
    found = np.stack([attention_distance(block, size / side).cpu().numpy() for block in whole])
    even = float(patch_distances(side, size / side).mean())
    left = "" if len(whole) == len(blocks) else " The last block computes the class token alone, and has none."
    return Section(
        "How far heads look",
        f"Mean distance between the patch that asks and those it attends to, in pixels of the {size} x {size} that the model sees, "
        f"over {pictures} pictures: a dot for each head (ViT, arXiv 2010.11929, figure 11). Even attention would be at {even:.1f}.{left}",
        [Drawn("distance.png", distance_dots(found, even))],
        {"attention_distance": found.round(3).tolist(), "even_attention_distance": round(even, 3)},
    )


def positions_section(positions: Tensor | None) -> Section | str:
    """How alike position embeddings are."""
    if positions is None:
        return "positions: the patches have no embeddings of their own (there are none, or relative ones)"
    cosines = position_similarity(positions).cpu().numpy()
    return Section(
        "Positions",
        "Cosine similarity of position embeddings: each tile is one patch's, over all others, in its place (ViT, arXiv 2010.11929, "
        "figure 7). Near patches, and those of one row or column, grow alike; before training learned ones are alike to none.",
        [Drawn("positions.png", similarity_tiles(cosines))],
    )


def filters_section(seen: Seen) -> Section | str:
    """What enters: components of the patch embedding, or the first filters."""
    if seen.filters is None:
        return "filters: no first layer reads red, green and blue together"
    if not seen.cuts:
        pictures = as_pictures(seen.filters[:64]).cpu().numpy()
        more = f"; {len(seen.filters)} in all" if len(seen.filters) > 64 else ""
        return Section(
            "First filters",
            f"The filters of the first convolution{more}: mid-grey is 0, each on a scale of its own.",
            [Drawn("filters.png", mosaic(pictures, columns=16))],
        )
    components, shares = principal_filters(seen.filters)
    titles = [f"{100 * share:.1f} %" for share in shares.tolist()]
    return Section(
        "Patch filters",
        f"Principal components of the {len(seen.filters)} filters that patches are projected by, and the share of their variance that "
        "each holds (ViT, arXiv 2010.11929, figure 7). At random all look like noise; trained ones become even colours, then waves.",
        [Drawn("filters.png", mosaic(as_pictures(components).cpu().numpy(), titles))],
    )


def features_section(given: Sequence[Given], features: Tensor) -> Section:
    """Lengths of the features of each place."""
    norms = feature_norms(features).cpu().numpy()
    maps = [Panel(with_heat(one.square, each - each.min())) for one, each in zip(given, norms, strict=True)]
    rows = above_maps(given, maps)
    return Section(
        "Where features are strong",
        f"A convolutional network has no attention. This is the length of the feature vector in each of {norms.shape[1]} x "
        f"{norms.shape[2]} places of its last map, red from the weakest to the strongest place of a picture. The embedding is "
        "pooled from them, so that strong places count most.",
        [Drawn("features.png", panels(rows))],
    )


def above_maps(given: Sequence[Given], maps: Sequence[Panel]) -> list[list[Panel]]:
    """Pictures in rows, and under each row its maps."""
    tops = [one.panel for one in given]
    starts = range(0, len(tops), _COLUMNS)
    return [list(row[start : start + _COLUMNS]) for start in starts for row in (tops, maps)]
