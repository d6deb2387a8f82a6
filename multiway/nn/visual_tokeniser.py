"""Pictures to discrete tokens: each patch gets the number of a code.

Peng et al., BEiT v2, 2022, arXiv 2208.06366, section 3.1: a ViT, a narrow projection onto the unit sphere, a codebook.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.nn.codebook import Codebook
from multiway.nn.transformer import init_weights
from multiway.nn.vit import VisionConfig, VisionTransformer

__all__ = ["VisualTokeniser", "VisualTokeniserConfig"]


@dataclass(frozen=True)
class VisualTokeniserConfig:
    """Sizes of a visual tokeniser.

    Attributes:
        image: the ViT; patch and size say how many tokens a picture has.
        codes: of the codebook.
        code_width: of a code; narrow ones are used more evenly (BEiT v2, table 6).
        decay, dead: of the codebook.
    """

    image: VisionConfig = VisionConfig(size=64, patch=8, width=128, layers=2, heads=2, stem="conv")
    codes: int = 256
    code_width: int = 32
    decay: float = 0.97
    dead: float = 0.1


class VisualTokeniser(nn.Module):
    """Encoder, projection and codebook."""

    def __init__(self, config: VisualTokeniserConfig) -> None:
        super().__init__()
        self.config = config
        width = config.image.width
        self.image = VisionTransformer(config.image)
        self.narrow = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, config.code_width))
        self.codebook = Codebook(config.codes, config.code_width, config.decay, config.dead)
        init_weights(self.narrow)

    def vectors(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D) a unit vector for each patch, before it is quantised."""
        patches = self.image(images).tokens[:, self.image.prefix :]
        return F.normalize(self.narrow(patches).float(), dim=-1)

    @torch.no_grad()
    def tokenise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, N) int64 code numbers, row by row."""
        return self.codebook.assign(self.vectors(images))
