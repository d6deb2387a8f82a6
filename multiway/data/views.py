"""Several views of one picture: what joint-embedding methods (SimCLR, MoCo, BYOL, SwAV, DINO) learn from.

A view is a random crop, mirrored or not, with colours jittered or taken away, blurred, solarised. All of it is batched tensor
code on the training device and a pure function of the numbers that come with the batch, `PER_VIEW` for every view whatever it
makes of them; a row's views are the same, bit for bit, in any batch, on any rank and after resuming. The published settings are
in `view_presets.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.bands import both_ways
from multiway.data.blur import blur, tenth_of
from multiway.data.colour import ORDERS, greyscale, jitter, solarise
from multiway.data.rectangles import Filter, bands, rectangles
from multiway.data.view import normalise

__all__ = ["PER_VIEW", "CropSpec", "ViewsSpec", "draw_views", "kept_side"]

_NUMBERS = (
    "area", "ratio", "x", "y", "flip",
    "jitter", "order", "brightness", "contrast", "saturation", "hue",
    "grey", "blur", "sigma", "solarise",
)  # fmt: skip
PER_VIEW = len(_NUMBERS)
"""Uniform numbers that each view of a row takes."""

_BLOCK = (
    1 << 19
)  # floats of a view that are worked on at a time on a CPU: 2 MiB, which is in its caches while it is worked on


@dataclass(frozen=True)
class CropSpec:
    """One kind of view. The default is the picture as it is.

    The order is that of the published code: crop, mirror, jitter, greyscale, blur, solarise.

    Attributes:
        size: side of the view, in pixels.
        scale: least and greatest share of the picture's area that is seen.
        aspect: the crop's width over its height lies in [1 / aspect, aspect].
        resample: Pillow's filter by name; crops that shrink are averaged.
        flip: probability of mirroring left to right.
        jitter: probability of the colour jitter, whose four operations come in random order.
        brightness, contrast, saturation: factors are uniform in [max(0, 1 - it), 1 + it].
        hue: its shift is uniform in [-it, it], of the full circle; at most 0.5.
        grey: probability of losing all colour.
        grey_first: greyscale before the jitter, as InstDisc has it.
        blur: probability of a Gaussian blur.
        sigma: least and greatest deviation of the blur, in pixels.
        kernel: taps of the blur, odd; None is a tenth of `size` (`blur.tenth_of`).
        solarise: probability of inverting bright values.
        threshold: the least of them, of 255.
    """

    size: int = 32
    scale: tuple[float, float] = (1.0, 1.0)
    aspect: float = 4.0 / 3.0
    resample: Filter = "bilinear"
    flip: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    grey_first: bool = False
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    kernel: int | None = None
    solarise: float = 0.0
    threshold: int = 128

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grey", "blur", "solarise"):
            _demand(0.0 <= getattr(self, name) <= 1.0, self, name, "a probability, in [0, 1]")
        for name in ("brightness", "contrast", "saturation"):
            _demand(getattr(self, name) >= 0.0, self, name, "a strength of 0 or more")
        _demand(self.size >= 1, self, "size", "a side of 1 pixel or more")
        _demand(0.0 < self.scale[0] <= self.scale[1] <= 1.0, self, "scale", "(least, greatest) share, in (0, 1]")
        _demand(self.aspect >= 1.0, self, "aspect", "the greatest width over height, 1 or more")
        _demand(self.resample in ("bilinear", "bicubic"), self, "resample", "'bilinear' or 'bicubic'")
        _demand(0.0 <= self.hue <= 0.5, self, "hue", "a share of the circle in [0, 0.5]")
        _demand(0.0 < self.sigma[0] <= self.sigma[1], self, "sigma", "(least, greatest) deviation in pixels, above 0")
        _demand(0 <= self.threshold <= 256, self, "threshold", "a level in [0, 256]; 256 inverts nothing")
        if self.kernel is not None:
            _demand(self.kernel >= 1 and self.kernel % 2 == 1, self, "kernel", "an odd number of taps, or None")
        if self.blur > 0:
            _demand(
                self.taps < 2 * self.size, self, "kernel", f"at most {2 * self.size - 1} taps at {self.size} pixels"
            )

    @property
    def taps(self) -> int:
        """Of the blur."""
        return self.kernel if self.kernel is not None else tenth_of(self.size)


def _demand(met: bool, spec: CropSpec, field: str, expected: str) -> None:
    # NaN fails every comparison, and so is refused with the rest.
    if not met:
        raise ValueError(f"CropSpec.{field} is {getattr(spec, field)!r}; expected {expected}")


@dataclass(frozen=True)
class ViewsSpec:
    """Which views a method learns from.

    Attributes:
        views: one kind for each, in the order in which `Batch.views` has them.
        plain: also fill `Batch.images` with what the `ViewSpec` alone gives: the evaluation's view, or its own augmentation.
    """

    views: tuple[CropSpec, ...]
    plain: bool = False

    def __post_init__(self) -> None:
        if not self.views:
            raise ValueError(
                "ViewsSpec.views is empty; give a CropSpec for each view, CropSpec(size) for the picture as it is"
            )

    @property
    def draws(self) -> int:
        """Uniform numbers that a row takes."""
        return PER_VIEW * len(self.views)


def kept_side(view: ViewSpec, views: ViewsSpec | None) -> int:
    """Side at which squares leave the loader: with views as much larger than `view.size` as `view.margin` says."""
    return view.kept if views is None else round(view.size * view.margin)


@torch.no_grad()
def draw_views(squares: Tensor, draws: Tensor, views: ViewsSpec, view: ViewSpec) -> tuple[Tensor, ...]:
    """All views of a batch of pictures.

    Args:
        squares: (B, 3, S, S) uint8, as they leave the loader.
        draws: (B, `views.draws`) float64 in [0, 1).
        views: the kinds.
        view: whose mean and deviation the views are normalised with.

    Returns:
        One (B, 3, H, H) float32 tensor for each view, normalised.

    Raises:
        ValueError: if the number of draws is another.
    """
    rows, side = squares.shape[0], squares.shape[-1]
    if draws.shape != (rows, views.draws):
        raise ValueError(
            f"{len(views.views)} views of {rows} pictures take {PER_VIEW} draws each, ({rows}, {views.draws}); given "
            f"{tuple(draws.shape)}: the batch was drawn for other views"
        )
    # Decided on the CPU, once: which rows an operation takes is needed there.
    plans = [
        _Plan(spec, numbers, side, squares.device)
        for spec, numbers in zip(views.views, draws.cpu().split(PER_VIEW, 1), strict=True)
    ]
    drawn = tuple(
        torch.empty(rows, 3, spec.size, spec.size, device=squares.device, dtype=torch.float32) for spec in views.views
    )
    largest = 3 * max(side, *(spec.size for spec in views.views)) ** 2
    step = max(1, _BLOCK // largest) if squares.device.type == "cpu" else max(1, rows)
    for start, stop in pairwise([*range(0, rows, step), rows]):
        pixels = squares[start:stop].float().div_(255.0)
        for plan, out in zip(plans, drawn, strict=True):
            normalise(plan.draw(pixels, start, stop), view, out[start:stop])
    return drawn


class _Plan:
    """What is done to each row for one kind of view, decided from its numbers.

    Args:
        spec: the kind.
        draws: (B, PER_VIEW) on the CPU.
        side: of the pictures.
        device: where they are.
    """

    def __init__(self, spec: CropSpec, draws: Tensor, side: int, device: torch.device) -> None:
        self.spec = spec
        number = dict(zip(_NUMBERS, draws.double().T, strict=True))
        self.whole = spec.scale == (1.0, 1.0) and spec.size == side
        self.flip = number["flip"] < spec.flip
        if not self.whole:
            width, height, x, y = rectangles(draws[:, :4].double(), spec.scale, spec.aspect)
            lengths = torch.stack([width, height]) * side
            starts = (torch.stack([x, y]) + 1.0) * (0.5 * side) - 0.5 * lengths
            starts, lengths = starts.to(device, torch.float32), lengths.to(device, torch.float32)
            self.across, self.down = bands(starts, lengths, self.flip.to(device), side, spec.size, spec.resample)
        self.jitter = number["jitter"] < spec.jitter
        self.order = (number["order"] * len(ORDERS)).long()
        strengths = (spec.brightness, spec.contrast, spec.saturation)
        names = ("brightness", "contrast", "saturation")
        factors = [
            _between(number[name], max(0.0, 1.0 - by), 1.0 + by) for name, by in zip(names, strengths, strict=True)
        ]
        self.factors = torch.stack([*factors, _between(number["hue"], -spec.hue, spec.hue)])
        self.grey = number["grey"] < spec.grey
        self.blur, self.sigma = number["blur"] < spec.blur, _between(number["sigma"], *spec.sigma)
        self.solarise = number["solarise"] < spec.solarise

    def draw(self, pixels: Tensor, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the view, from their pictures (n, 3, S, S) in [0, 1], which are left as they are."""
        part, spec = slice(start, stop), self.spec
        views = self._crop(pixels, part)
        if spec.grey_first:
            views = self._lose_colour(views, part)
        order, factors = self.order[part], self.factors[:, part]
        views = _on(views, self.jitter[part], lambda some, taken: jitter(some, order[taken], factors[:, taken]))
        if not spec.grey_first:
            views = self._lose_colour(views, part)
        sigma = self.sigma[part]
        views = _on(views, self.blur[part], lambda some, taken: blur(some, sigma[taken], spec.taps))
        return _on(views, self.solarise[part], lambda some, taken: solarise(some, spec.threshold))

    def _crop(self, pixels: Tensor, part: slice) -> Tensor:
        if self.whole:  # nothing to resample
            rows = self.flip[part].nonzero()[:, 0].to(pixels.device)
            return pixels.index_copy(0, rows, pixels.index_select(0, rows).flip(-1))
        across, down = ((lines[part], weights[part]) for lines, weights in (self.across, self.down))
        return both_ways(pixels, across, down).clamp_(0.0, 1.0)

    def _lose_colour(self, views: Tensor, part: slice) -> Tensor:
        return _on(views, self.grey[part], lambda some, taken: greyscale(some)[:, None].repeat(1, 3, 1, 1))


def _on(views: Tensor, whether: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Some rows through an operation, which is given them and their numbers; `views` themselves are changed, or given up."""
    taken = whether.nonzero()[:, 0]
    if len(taken) == 0:
        return views
    if len(taken) == len(views):
        return operation(views, taken)
    rows = taken.to(views.device)
    return views.index_copy_(0, rows, operation(views.index_select(0, rows), taken))


def _between(number: Tensor, least: float, greatest: float) -> Tensor:
    return least + (greatest - least) * number
