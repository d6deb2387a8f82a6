"""How pictures and texts lie in the space that they share: modality gap, alignment, uniformity, each beside what chance has.

Liang et al., Mind the Gap, 2022, arXiv 2203.02053, section 2: the two kinds of embeddings lie in two narrow cones apart from each
other; the gap is the distance between their means. Beside it stands whether a plane tells the two kinds apart, by a logistic
regression learnt on one half of the pairs and asked about the other. Alignment and uniformity are those of
`losses/uniformity.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.losses.uniformity import alignment, uniformity, uniformity_of_random
from multiway.tasks.logistic import Standard, fit_logistic
from multiway.tasks.statistics import wilson
from multiway.world import World

__all__ = ["Space", "measure_space"]

_FEWEST = 8
_SHUFFLES = 20
_L2 = 1e-2


@dataclass(frozen=True)
class Space:
    """What was measured of N pairs in D dimensions.

    Attributes:
        pairs: N.
        gap: distance between the mean picture and the mean text, 0 to 2.
        gap_of_random: that of two random halves of all embeddings, mean over shuffles: what is left where there is no gap.
        separable: share of the other half's embeddings whose kind a plane tells, with the ends of its 95 % interval; 0.5 by chance.
        alignment: mean squared distance between a picture and its text, 0 to 4.
        alignment_of_random: between a picture and any other's text.
        image_uniformity, text_uniformity: of either kind by itself.
        uniformity_of_random: of directions drawn evenly in D dimensions.
    """

    pairs: int
    gap: float
    gap_of_random: float
    separable: tuple[float, float, float]
    alignment: float
    alignment_of_random: float
    image_uniformity: float
    text_uniformity: float
    uniformity_of_random: float

    def table(self) -> tuple[tuple[str, ...], ...]:
        """For pages: what it is, its value, what chance or directions at random have, and how it is read."""
        value, low, high = self.separable
        return (
            ("", "value", "by chance", ""),
            ("modality gap", f"{self.gap:.3f}", f"{self.gap_of_random:.3f}", "distance of the mean picture from the mean text"),
            ("told apart by a plane", f"{value:.1%} ({low:.1%} – {high:.1%})", "50.0%", "pictures from texts, on pairs not learnt from"),
            ("alignment", f"{self.alignment:.3f}", f"{self.alignment_of_random:.3f}", "squared distance of pairs; less is better"),
            ("uniformity of pictures", f"{self.image_uniformity:.3f}", f"{self.uniformity_of_random:.3f}", "even over the sphere; less is better"),
            ("uniformity of texts", f"{self.text_uniformity:.3f}", f"{self.uniformity_of_random:.3f}", "the same"),
        )  # fmt: skip


def measure_space(images: Tensor, texts: Tensor, seed: int = 0) -> Space:
    """Measure.

    Args:
        images, texts: (N, D), row i of each a pair of its own; no picture twice. Normalised here.
        seed: of the halves and shuffles.

    Raises:
        ValueError: for shapes that do not fit, or fewer than 8 pairs.
    """
    if images.ndim != 2 or images.shape != texts.shape or len(images) < _FEWEST or images.shape[1] < 2:
        raise ValueError(
            f"given pictures {tuple(images.shape)} and texts {tuple(texts.shape)}; expected (N, D) twice, N at least {_FEWEST} and D 2"
        )
    x, y = F.normalize(images.double(), dim=1), F.normalize(texts.double(), dim=1)
    count, world = len(x), World()
    others = ((x.sum(0) @ y.sum(0)) - (x * y).sum()) / (count * (count - 1))
    generator = torch.Generator().manual_seed(seed)
    both = torch.cat([x, y])
    gaps = []
    for _ in range(_SHUFFLES):
        order = torch.randperm(2 * count, generator=generator)
        gaps.append(float((both[order[:count]].mean(0) - both[order[count:]].mean(0)).norm()))
    return Space(
        count,
        float((x.mean(0) - y.mean(0)).norm()),
        sum(gaps) / len(gaps),
        _separable(x, y, torch.randperm(count, generator=generator)),
        float(alignment(x, y, world)),
        float(2 - 2 * others),
        float(uniformity(x, world)),
        float(uniformity(y, world)),
        uniformity_of_random(x.shape[1]),
    )


def _separable(x: Tensor, y: Tensor, order: Tensor) -> tuple[float, float, float]:
    """Both of a pair in the same half, so that nothing is known of the other half's pictures."""
    taught, asked = order[: len(order) // 2], order[len(order) // 2 :]

    def kinds(rows: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([x[rows], y[rows]]), torch.arange(2).repeat_interleave(len(rows))

    features, labels = kinds(taught)
    standard = Standard.of(features)
    fitted = fit_logistic(standard(features), labels, 2, _L2)
    features, labels = kinds(asked)
    right = int((fitted.logits(standard(features)).argmax(1) == labels).sum())
    return right / len(labels), *wilson(right, len(labels))
