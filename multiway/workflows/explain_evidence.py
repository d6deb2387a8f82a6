"""The parts of the explained page that are about what a picture is said to be: its class, a text, or what was hidden of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from multiway.abilities import Encoded, abilities_of
from multiway.batch import ViewSpec
from multiway.explain.evidence import class_evidence, text_evidence
from multiway.explain.reconstruction import Reconstructs, reconstruct
from multiway.explain.words import word_maps
from multiway.hub.model import Model
from multiway.workflows.explain_figures import Panel, panels, with_heat
from multiway.workflows.explain_sections import Drawn, Given, Section, above_maps

__all__ = ["class_section", "reconstruction_section", "text_section"]

_WORDS = 8  # of a text that get a map


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


def text_section(model: Model, given: Sequence[Given], images: Tensor, text: str) -> Section | str:
    """Where a text looks, or what speaks for it."""
    able = abilities_of(model.method)
    if "match_with_maps" in able:
        return _word_section(model, given, text)
    if "encode_text" not in able or "compare" not in able:
        return f"--text: {model.name} compares no texts with pictures"
    tokens = model.processor.texts([text])
    ids, mask = tokens.ids.to(model.device), tokens.mask.to(model.device)
    with torch.no_grad():
        said: Encoded = model.method.encode_text(ids, mask)  # type: ignore[operator]
    found = text_evidence(model.method, images, said)
    if found is None:
        return f"--text: {model.name} does not compare texts with the places of a picture that could be shown"
    maps, scores = (each.cpu() for each in found)
    titles = [f"similarity {score:.3f}".replace("-", "−") for score in scores.tolist()]
    rows = above_maps(
        given,
        [
            Panel(with_heat(one.square, each.numpy()), title)
            for one, each, title in zip(given, maps, titles, strict=True)
        ],
    )
    return Section(
        f"What speaks for “{text}”",
        "Grad-CAM (arXiv 1610.02391) of the similarity of picture and text: red where more of what is there would raise it. Each map is "
        "on a scale of its own, so a picture that has nothing to do with the text has a map too.",
        [Drawn("text.png", panels(rows))],
    )


def _word_section(model: Model, given: Sequence[Given], text: str) -> Section:
    figures = []
    for number, one in enumerate(given):
        # The square that the model sees, so that maps lie where they belong.
        maps = word_maps(model, one.picture, text)
        words = range(min(len(maps.words), _WORDS))
        looks, speaks = (
            [Panel(with_heat(one.square, _above(each[word]).numpy()), maps.words[word] * named) for word in words]
            for each, named in ((maps.attention, 1), (maps.grad_cam, 0))
        )
        png = panels([[one.panel, *looks], [None, *speaks]])
        more = "" if len(maps.words) <= _WORDS else f"; the first {_WORDS} words"
        figures.append(Drawn(f"words-{number + 1}.png", png, f"{one.name}: log-odds of a match {maps.odds:.2f}{more}"))
    return Section(
        f"Where the words of “{text}” look",
        "Above, each word's attention over the patches, mean over blocks and heads, less what an ordinary patch gets (the median). Below, "
        "its Grad-CAM: attention only where more of it would raise the score that picture and text match (ALBEF, arXiv 2107.07651, "
        "section 5.3).",
        figures,
    )


def _above(heat: Tensor) -> Tensor:
    return (heat - heat.median()).clamp(min=0)


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
