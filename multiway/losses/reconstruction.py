"""Reconstruction of hidden patches.

K. He et al., Masked Autoencoders Are Scalable Vision Learners (MAE), 2022, arXiv 2111.06377, section 3: the mean squared
error over hidden patches, optionally against patches normalised by their own mean and deviation; Z. Xie et al., SimMIM, 2022,
arXiv 2111.09886, section 3.4: the mean absolute error of pixels. With x the P values of a patch and M the hidden patches,

    L = mean over M of mean_p (y_p - x_p)^2,      normalised: x <- (x - mean x) / sqrt(var x + 1e-6), var over P - 1
    L = mean over M of mean_p |y_p - x_p|

What is said of visible patches changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from multiway.losses.unit import precise
from multiway.world import World

__all__ = ["ReconstructionResult", "normalise_patches", "reconstruction"]

_EPSILON = 1e-6  # of the published code


@dataclass(frozen=True)
class ReconstructionResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient; zero, with a graph, where nothing is hidden.
        chance: the loss of this rank's mean hidden patch, given for each of them: the best constant of the squared error, and
            close to it of the absolute one.
        formula: how `chance` comes about.
    """

    loss: Tensor
    chance: float
    formula: str


def normalise_patches(patches: Tensor) -> Tensor:
    """(..., P) values of each patch -> the same with mean 0 and variance 1 (of P - 1), in float32 or better."""
    patches = precise(patches)
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + _EPSILON).sqrt()


def reconstruction(
    prediction: Tensor,
    patches: Tensor,
    mask: Tensor,
    world: World,
    error: Literal["squared", "absolute"] = "squared",
    normalised: bool = False,
) -> ReconstructionResult:
    """The loss over all ranks' hidden patches, in float32 or better; its mean over ranks is that of one rank.

    Args:
        prediction: (B, N, P).
        patches: (B, N, P) the true values, in the same order.
        mask: (B, N) bool, True at hidden patches.
        world: the ranks; they may have hidden different numbers of patches.
        error: MAE's, or SimMIM's.
        normalised: compare with each patch's values normalised.

    Raises:
        ValueError: for shapes or an error that do not fit.
    """
    if prediction.ndim != 3 or prediction.shape != patches.shape or mask.shape != prediction.shape[:2]:
        raise ValueError(
            f"predictions are {tuple(prediction.shape)}, patches {tuple(patches.shape)}, mask {tuple(mask.shape)}; expected "
            "(B, N, P) twice and (B, N)"
        )
    if error not in ("squared", "absolute"):
        raise ValueError(f"error is {error!r}; expected 'squared' or 'absolute'")
    mask = mask.bool()
    said, true = precise(prediction[mask]), precise(patches.detach()[mask])
    if normalised:
        true = normalise_patches(true)
    # Not this rank's number but the ranks' mean of it: a rank that hid more then counts for more.
    hidden = world.mean(true.new_tensor(float(len(true)))).clamp(min=1.0)
    loss = _error(said - true, error).sum() / (hidden * prediction.shape[2])
    chance = float(_error(true - true.mean(0), error).mean()) if len(true) else 0.0
    return ReconstructionResult(loss, chance, f"{error} error of the mean patch" if len(true) else "nothing hidden")


def _error(difference: Tensor, error: str) -> Tensor:
    return difference.square() if error == "squared" else difference.abs()
