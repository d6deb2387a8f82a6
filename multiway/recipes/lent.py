"""What a recipe borrows from other runs: a teacher's tower, an image tokeniser.

Their tensors are copied into the method, so that a run is complete by itself, and their hash is part of its identity.
"""

from __future__ import annotations

from multiway.batch import ViewSpec
from multiway.config import ConfigError
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.nn.visual_tokeniser import VisualTokeniser
from multiway.nn.vit import VisionTransformer

__all__ = ["vision_tower", "visual_tokeniser"]


def vision_tower(run: str, option: str, view: ViewSpec) -> VisionTransformer:
    """The ViT by which a run's method reads pictures.

    Args:
        run: folder or weights file.
        option: that named it, for the message.
        view: how the borrower's pictures are drawn.

    Raises:
        ConfigError: if none is named, the method has none, or it knows pictures normalised otherwise.
        WeightsError: if it cannot be read.
    """
    if not run:
        raise ConfigError(
            f"a trained model whose pictures' features are the target is needed; name its run: {option} RUN"
        )
    method = _known(load(run), run, option, view).method
    for owner in (method, getattr(method, "student", None)):
        tower = getattr(owner, "image", None)
        if isinstance(tower, VisionTransformer):
            return tower
    raise ConfigError(
        f"{option} {run} is a {method.name}, which has no ViT of its own for pictures; name a clip or albef run"
    )


def visual_tokeniser(run: str, option: str, view: ViewSpec) -> VisualTokeniser:
    """The image tokeniser of a `vqkd` run; arguments as of `vision_tower`.

    Raises:
        ConfigError: if none is named, the run is of another method, or it knows pictures normalised otherwise.
        WeightsError: if it cannot be read.
    """
    if not run:
        raise ConfigError(
            f"masked patches are guessed as codes of an image tokeniser; train one with `multiway train vqkd` and name its run: {option} RUN"
        )
    method = _known(load(run), run, option, view).method
    tokeniser = getattr(method, "tokeniser", None)
    if not isinstance(tokeniser, VisualTokeniser):
        raise ConfigError(f"{option} {run} is a {method.name}; expected a run of `multiway train vqkd`")
    return tokeniser


def _known(model: Model, run: str, option: str, view: ViewSpec) -> Model:
    """The model, if it was trained on pixels like these: others would mean something else to it, and nothing would say so."""
    theirs = model.processor.view
    if (theirs.mean, theirs.std) != (view.mean, view.std):
        raise ConfigError(
            f"{option} {run} knows pixels of mean {theirs.mean} and deviation {theirs.std}; here they are {view.mean} and "
            f"{view.std}: set --view.mean and --view.std to the run's"
        )
    return model
