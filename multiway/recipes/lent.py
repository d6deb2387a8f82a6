"""What a recipe borrows from other runs: a teacher's tower, an image tokeniser.

Their tensors are copied into the method, so that a run is complete by itself, and their hash is part of its identity.
"""

from __future__ import annotations

from multiway.config import ConfigError
from multiway.hub.load import load
from multiway.nn.visual_tokeniser import VisualTokeniser
from multiway.nn.vit import VisionTransformer

__all__ = ["vision_tower", "visual_tokeniser"]


def vision_tower(run: str, option: str) -> VisionTransformer:
    """The ViT by which a run's method reads pictures.

    Args:
        run: folder or weights file.
        option: that named it, for the message.

    Raises:
        ConfigError: if none is named, or the method has none.
        WeightsError: if it cannot be read.
    """
    if not run:
        raise ConfigError(
            f"a trained model whose pictures' features are the target is needed; name its run: {option} RUN"
        )
    method = load(run).method
    for owner in (method, getattr(method, "student", None)):
        tower = getattr(owner, "image", None)
        if isinstance(tower, VisionTransformer):
            return tower
    raise ConfigError(
        f"{option} {run} is a {method.name}, which has no ViT of its own for pictures; name a clip or albef run"
    )


def visual_tokeniser(run: str, option: str) -> VisualTokeniser:
    """The image tokeniser of a `vqkd` run.

    Raises:
        ConfigError: if none is named, or the run is of another method.
        WeightsError: if it cannot be read.
    """
    if not run:
        raise ConfigError(
            f"masked patches are guessed as codes of an image tokeniser; train one with `multiway train vqkd` and name its run: {option} RUN"
        )
    method = load(run).method
    tokeniser = getattr(method, "tokeniser", None)
    if not isinstance(tokeniser, VisualTokeniser):
        raise ConfigError(f"{option} {run} is a {method.name}; expected a run of `multiway train vqkd`")
    return tokeniser
