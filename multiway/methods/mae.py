"""MAE: Masked Autoencoders Are Scalable Vision Learners.

K. He, Chen, Xie, Y. Li, Dollár, Girshick; CVPR 2022; arXiv 2111.06377. Three quarters of a picture's patches are left out; a ViT
encodes the rest, a small transformer decodes the pixels of what is missing (section 3):

    z = f(visible patches),    y = g(W z and mask tokens, in their places, with positions),
    L = mean over hidden patches i of  || y_i - t_i ||^2 / P,     t_i = x_i,  or (x_i - mean x_i) / sqrt(var x_i + 1e-6)

So much is hidden that interpolating does not do; and what is hidden costs the encoder nothing. The decoder is thrown away.

What the paper takes away or changes (section 4.1, table 1) is an option: decoder depth and width, mask tokens in the encoder, raw
pixels, the loss on all patches, and in the recipe the ratio, the sampling (`patches`) and the crop (`views`).

Departures: the class token's position, fixed at zero there, may learn; it adds to the class token, which learns anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from multiway.losses.reconstruction import reconstruction
from multiway.methods.masked_pictures import MaskedPictures, MaskedPicturesConfig, filled_in, mask_token
from multiway.methods.method import Losses, Term
from multiway.nn.backbone import VIT_TINY, vit
from multiway.nn.hidden_patches import blank, cut, visible
from multiway.nn.mae_decoder import MaeDecoder, MaeDecoderConfig, xavier_init
from multiway.nn.pool import Tower
from multiway.nn.vit import VisionConfig
from multiway.world import World

__all__ = ["Mae", "MaeConfig"]


@dataclass(frozen=True)
class MaeConfig(MaskedPicturesConfig):
    """Sizes and choices of MAE; for what is not named here see `MaskedPicturesConfig`.

    Attributes:
        decoder: sizes of the decoder.
        normalised: whether targets are each patch's pixels less their mean, over their deviation (table 1d: better features).
        mask_tokens: where they enter. `encoder` makes it see a token for each hidden patch (table 1c: slower, and worse).
        everywhere: whether visible patches count in the loss too (worse, by 0.5 points of fine-tuning).
    """

    backbone: VisionConfig = replace(VIT_TINY, positions="sincos")
    decoder: MaeDecoderConfig = MaeDecoderConfig(width=64, layers=2, heads=2)
    normalised: bool = True
    mask_tokens: Literal["decoder", "encoder"] = "decoder"
    everywhere: bool = False

    @classmethod
    def preset(cls, name: str) -> MaeConfig:
        """`tiny`; `vit-b-16`, `vit-l-16`, `vit-h-14`, the published ones.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        sizes = {"vit-b-16": ("base", 16), "vit-l-16": ("large", 16), "vit-h-14": ("huge", 14)}
        if name == "tiny":
            return cls()
        if name not in sizes:
            raise KeyError(f"MAE has no preset `{name}`; there are: tiny, {', '.join(sizes)}")
        return cls(vit(*sizes[name], positions="sincos"), decoder=MaeDecoderConfig())


class Mae(MaskedPictures):
    """A ViT on visible patches, and a decoder of all."""

    name = "mae"
    config_class = MaeConfig
    config: MaeConfig

    def __init__(self, config: MaeConfig) -> None:
        super().__init__(config)
        tower, own = self.backbone, config.backbone
        inside = config.mask_tokens == "encoder"
        if own.stem == "patch":
            xavier_init(tower)
        if tower.class_position is not None:
            nn.init.zeros_(tower.class_position)
        self.mask_token = mask_token(own.width) if inside else None
        self.decoder = MaeDecoder(
            config.decoder, own.width, tower.grid, tower.prefix, 3 * own.patch**2, restores=not inside,
            activation=own.activation, epsilon=own.epsilon,
        )  # fmt: skip

    def shown(self, images: Tensor, mask: Tensor) -> Tower:
        """What the encoder makes of the visible patches: tokens (B, prefix + K, W), in ascending order of the patches.

        With mask tokens in the encoder, of all of them: (B, prefix + N, W).
        """
        if self.mask_token is not None:
            return self.covered(images, mask, self.mask_token)
        if self.config.backbone.stem != "patch":  # convolutions look beyond a patch
            images = blank(images, mask, self.config.backbone.patch)
        tower: Tower = self.backbone(images, visible(mask))
        return tower

    def look(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, W) of the visible patches, and values (B, N, P) of all."""
        tower = self.shown(images, mask)
        return tower.pooled, self.decoder(tower.tokens, mask, self.backbone.patches.grid(images))

    def judge(self, said: Tensor, images: Tensor, mask: Tensor, world: World) -> Losses:
        """The squared error of hidden patches."""
        config = self.config
        counted = torch.ones_like(mask) if config.everywhere else mask
        patches = cut(images, config.backbone.patch)
        found = reconstruction(said, patches, counted, world, normalised=config.normalised)
        return Losses({"reconstruction": Term(found.loss, chance=found.chance, formula=found.formula)})

    @torch.no_grad()
    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """(B, 3, H, W) and (B, N) -> the pictures with their hidden patches as decoded; see `filled_in`."""
        return filled_in(
            self.look(images, mask)[1], images, mask, self.config.backbone.patch, normalised=self.config.normalised
        )
