"""Hidden patches filled in, with a slider for how many are hidden."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.thumbnail import picture_uri
from multiway.explain.reconstruction import Reconstructed, Reconstructs, reconstruct
from multiway.serve.subject import Refused, Subject
from multiway.serve.tabs.html import Figure, figures
from multiway.serve.tabs.tab import Tab
from multiway.serve.tabs.ui import Ui

__all__ = ["TAB", "filled_in"]

_SIDE = 224


def able(subject: Subject) -> bool:
    """Whether it fills in what is hidden."""
    return isinstance(subject.model.method, Reconstructs) and subject.able("encode_image")


def filled_in(subject: Subject, path: str | None, ratio: float = 75, seed: float = 0) -> str:
    """A picture, what the model sees of it, and what it makes of that.

    Args:
        path: of the picture.
        ratio: per cent of the patches that are hidden.
        seed: which are.

    Raises:
        Refused: without a picture, or if all or none would be hidden.
    """
    if not 0 < ratio < 100:
        raise Refused(f"{ratio:g} % of the patches would be hidden; choose more than 0 and less than 100.")
    picture = subject.opened(path)

    def work() -> Reconstructed:
        model = subject.model
        images = model.processor.images([picture]).to(model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.precision == "bf16"):
            try:
                return reconstruct(model.method, images, ratio / 100, int(seed or 0))
            except ValueError as error:
                raise Refused(str(error)) from error

    found = subject.compute(work)
    view = subject.model.processor.view
    hidden = found.mask[0].float().mean()
    error, even = errors(found)
    titles = ("as the model sees it whole", f"{float(hidden):.0%} hidden", "filled in")
    shown = [
        Figure(picture_uri(_visible(each[0], view), _SIDE), title)
        for each, title in zip((found.given, found.shown, found.filled), titles, strict=True)
    ]
    about = (
        f"Mean squared error over what was hidden: {error:.3f}; filling it with the data's mean colour has {even:.3f} (of pixels with "
        "their mean and deviation taken off). Visible patches stay as they are."
    )
    return figures([(about, shown)])


def errors(found: Reconstructed) -> tuple[float, float]:
    """Mean squared error over the hidden pixels of what was filled in, and of the mean colour in its place."""
    side = found.given.shape[-1]
    count = round(found.mask.shape[1] ** 0.5)
    cells = found.mask.reshape(-1, 1, count, count).float()
    hidden = F.interpolate(cells, size=(side, side), mode="nearest").bool().expand_as(found.given)
    right = found.given[hidden].float()
    return float((found.filled[hidden].float() - right).square().mean()), float(right.square().mean())


def _visible(image: Tensor, view: ViewSpec) -> Image.Image:
    """(3, H, W) normalised to a picture as large as it is shown."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (view.mean, view.std))
    pixels = (image.detach().float().cpu() * std + mean).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)


def draw(subject: Subject, ui: Ui) -> None:
    """The tab."""
    gr = ui.gr
    inputs, right = ui.columns()
    with inputs:
        picture = ui.picture()
        ratio = gr.Slider(5, 95, 75, step=5, label="Hidden, % of the patches")
        seed = gr.Number(0, precision=0, minimum=0, label="Seed: which patches are hidden")
        button = ui.button("Fill in")
    with right:
        answer = ui.answer()
    ui.samples([[file] for file in ui.files], [picture])

    def work(*given: Any) -> str:
        return filled_in(subject, *given)

    ui.on([button.click, ratio.release, seed.submit], work, [picture, ratio, seed], answer)


TAB = Tab("reconstruct", "Reconstruct", able, draw)
