"""The parts of the explained page that are about what a picture is said to be: its class, or what was hidden of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.explain.evidence import class_evidence
from multiway.explain.overlay import with_heat
from multiway.explain.reconstruction import Reconstructs, reconstruct
from multiway.hub.model import Model
from multiway.workflows.explain_figures import Panel, panels
from multiway.workflows.explain_sections import Drawn, Given, Section, above_maps

__all__ = ["class_section", "reconstruction_section"]


def class_section(model: Model, given: Sequence[Given], images: Tensor) -> Section | str:
    """For a tuned classifier: what speaks for the class it gives."""
    found = class_evidence(model.method, images)
    if found is None:
        return ""
    maps, numbers, shares = (each.cpu() for each in found)
    titles = [
        f"{model.classes[number]} {share:.0%}" for number, share in zip(numbers.tolist(), shares.tolist(), strict=True)
    ]
    rows = above_maps(
        given,
        [
            Panel(with_heat(one.square, each.numpy()), title)
            for one, each, title in zip(given, maps, titles, strict=True)
        ],
    )
    return Section(
        "What speaks for the class",
        "Grad-CAM (arXiv 1610.02391) of the likeliest class, whose probability stands beside it: red where more of what is there would "
        "raise its score.",
        [Drawn("class.png", panels(rows))],
    )


def reconstruction_section(
    model: Model, given: Sequence[Given], images: Tensor, ratio: float, seed: int
) -> Section | str:
    """What is filled in where most is hidden."""
    if not isinstance(model.method, Reconstructs):
        return ""
    found = reconstruct(model.method, images, ratio, seed)
    view = model.processor.view
    rows = []
    for number in range(len(given)):
        three = [_visible(each[number], view) for each in (found.given, found.shown, found.filled)]
        titles = (
            ("as seen", f"{found.mask[number].float().mean():.0%} hidden", "filled in") if not number else ("", "", "")
        )
        rows.append([Panel(each, title) for each, title in zip(three, titles, strict=True)])
    return Section(
        "Filled in",
        "Patches hidden at random, and what the model makes of them; visible ones are as they were, unless the method draws all anew. A "
        "method that learns pixels relative to each patch's own mean and deviation takes these two from the original.",
        [Drawn("reconstruction.png", panels(rows))],
    )


def _visible(image: Tensor, view: ViewSpec) -> np.ndarray:
    """(3, H, W) normalised -> (H, W, 3) in [0, 1]."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (view.mean, view.std))
    return (image.detach().float().cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
