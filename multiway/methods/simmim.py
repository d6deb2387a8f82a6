"""SimMIM: A Simple Framework for Masked Image Modeling.

Xie, Zhang, Cao, Lin, Bao, Yao, Dai, Hu; CVPR 2022; arXiv 2111.09886. What is needed to learn from masked pictures, and no more
(section 3): large squares hidden at random, covered by a token in the encoder's input; a linear head; raw pixels; the absolute error:

    y = W f(x with mask tokens) + b,     L = || y_M - x_M ||_1 / number of hidden values

Sides of 32 pixels and a ratio of 0.6 make hidden pixels far from visible ones, which the paper finds decisive (section 4.1, AvgDist).

The encoder is a ViT, or the paper's main one, a Swin (`--patches.patch` is then its stride): each of its last tokens stands for a
square, and the head says all of the square's pixels.

Departure: the ViT has learned positions of each patch where the released one has relative ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from multiway.losses.reconstruction import reconstruction
from multiway.methods.masked_pictures import MaskedPictures, MaskedPicturesConfig, filled_in, mask_token
from multiway.methods.method import Losses, Term
from multiway.methods.presets import preset_named
from multiway.nn.backbone import VIT_TINY, swin, vit
from multiway.nn.hidden_patches import cut
from multiway.nn.swin import Swin, SwinConfig
from multiway.nn.transformer import init_weights
from multiway.nn.vit import VisionConfig, VisionTransformer
from multiway.world import World

__all__ = ["SimMim", "SimMimConfig"]


@dataclass(frozen=True)
class SimMimConfig(MaskedPicturesConfig):
    """Sizes and choices of SimMIM; for what is not named here see `MaskedPicturesConfig`.

    Attributes:
        error: of pixels; the paper finds no great difference (table 6).
    """

    backbone: VisionConfig | SwinConfig = replace(VIT_TINY, pool="mean", class_token=True)  # type: ignore[assignment]
    error: Literal["absolute", "squared"] = "absolute"

    @classmethod
    def preset(cls, name: str) -> SimMimConfig:
        """`tiny`; `vit-b-16` and `swin-b`, as released.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        presets = {
            "tiny": cls(),
            "vit-b-16": cls(vit("base", drop_path=0.1, layer_scale=0.1)),
            "swin-b": cls(swin("base", 192, 6)),
        }
        return preset_named(name, presets, "SimMIM")


class SimMim(MaskedPictures):
    """A ViT or a Swin that sees mask tokens, and a linear head."""

    name = "simmim"
    config_class = SimMimConfig
    config: SimMimConfig

    def __init__(self, config: SimMimConfig) -> None:
        super().__init__(config)
        own = config.backbone
        self.mask_token = mask_token(own.base if isinstance(own, SwinConfig) else own.width)
        self.head = nn.Linear(self.backbone.width, 3 * self.hides**2)
        init_weights(self.head)

    def make_encoder(self) -> VisionTransformer | Swin:  # type: ignore[override]
        """A ViT or a Swin; `look` covers patches of whichever it is."""
        own = self.config.backbone
        return Swin(own) if isinstance(own, SwinConfig) else VisionTransformer(own)

    @property
    def hides(self) -> int:
        """Side, in pixels, of the squares that the mask is about and a token's pixels are said of: a ViT's patch, a Swin's stride."""
        own = self.config.backbone
        return own.stride if isinstance(own, SwinConfig) else own.patch

    def look(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, W), and values (B, N, P) of every patch."""
        reader = self.backbone if isinstance(self.backbone, Swin) else self
        tower = reader.covered(images, mask, self.mask_token)
        return tower.pooled, self.head(self.patches_of(tower.tokens))

    def judge(self, said: Tensor, images: Tensor, mask: Tensor, world: World) -> Losses:
        """The absolute error of hidden pixels."""
        patches = cut(images, self.hides)
        found = reconstruction(said, patches, mask, world, self.config.error)
        return Losses({"reconstruction": Term(found.loss, chance=found.chance, formula=found.formula)})

    @torch.no_grad()
    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """(B, 3, H, W) and (B, N) -> the pictures with their hidden patches as guessed."""
        return filled_in(self.look(images, mask)[1], images, mask, self.hides)
