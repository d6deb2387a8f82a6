"""BEiT v2: Masked Image Modeling with Vector-Quantized Visual Tokenizers.

Peng, Dong, Bao, Ye, Wei; 2022; arXiv 2208.06366. Of hidden patches their *codes* are guessed, those of an image tokeniser that was
trained before (`multiway train vqkd`), as words of a text are (section 3.2):

    L_mim = - mean over hidden patches i of  log p(z_i | x with mask tokens),     z = tokeniser(x)

Nothing asks of the class token that it knows the picture. *Patch aggregation* does (section 3.3): beside the last class token the
patches' tokens of an earlier block l go through two further blocks and the same head, so that what has been found out since then must
pass through the class token: L = L_mim + L_mim^c. They are thrown away afterwards. `--method.aggregate-from 0` leaves them out, which is
BEiT's objective (Bao et al., 2022, arXiv 2106.08254) with another tokeniser.

Departures: learned positions of each patch, where the release has relative ones in every block; blocks do not start scaled down by depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from multiway.batch import Batch
from multiway.losses.mlm import mlm
from multiway.methods.masked_pictures import MaskedPictures, MaskedPicturesConfig, mask_token
from multiway.methods.method import Losses, Reps, Step, Term
from multiway.methods.presets import preset_named
from multiway.nn.backbone import vit
from multiway.nn.hidden_patches import cover, pooled
from multiway.nn.pool import marked_positions
from multiway.nn.transformer import Transformer, TransformerConfig, init_weights
from multiway.nn.visual_tokeniser import VisualTokeniser, VisualTokeniserConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

__all__ = ["Beit", "BeitConfig"]


@dataclass(frozen=True)
class BeitConfig(MaskedPicturesConfig):
    """Sizes and choices of BEiT v2; for what is not named here see `MaskedPicturesConfig`.

    Attributes:
        tokeniser: of pictures; taken from the run that `codes` names.
        aggregate_from: l, the block whose patches are aggregated; 0 for no aggregation.
        aggregate_layers: blocks that aggregate.
    """

    backbone: VisionConfig = VisionConfig(size=64, patch=8, width=128, layers=4, heads=2, stem="conv")
    tokeniser: VisualTokeniserConfig | None = None
    aggregate_from: int = 3
    aggregate_layers: int = 2

    @classmethod
    def preset(cls, name: str) -> BeitConfig:
        """`tiny`, for the `tiny` image tokeniser; `base` and `large`, the paper's.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        presets = {
            "tiny": cls(),
            "base": cls(vit("base", drop_path=0.1, layer_scale=0.1), aggregate_from=9),
            "large": cls(vit("large", drop_path=0.1, layer_scale=1e-5), aggregate_from=21),
        }
        return preset_named(name, presets, "BEiT")


class Beit(MaskedPictures):
    """A ViT that sees mask tokens, a head on codes, blocks that aggregate, and a frozen tokeniser.

    Raises:
        ValueError: if there is no tokeniser or it sees other patches, or if what aggregates does not fit the ViT.
    """

    name = "beit"
    config_class = BeitConfig
    config: BeitConfig
    own_state: ClassVar[tuple[str, ...]] = ("probe.", "tokeniser.", "code_head.")

    def __init__(self, config: BeitConfig) -> None:
        super().__init__(config)
        if config.tokeniser is None:
            raise ValueError(
                "masked patches are guessed as codes and there is no image tokeniser; name one: --codes RUN"
            )
        own, last = config.backbone, config.aggregate_from
        if last and (not own.has_class_token or not 0 < last < own.layers or own.checkpoint or own.dropout):
            raise ValueError(
                f"aggregate_from is {last} with {own.layers} blocks, class token {own.has_class_token}, checkpoint {own.checkpoint} and "
                f"dropout {own.dropout}; expected a block before the last, a class token, and neither of the others; 0 aggregates nothing"
            )
        self.mask_token = mask_token(own.width)
        self.code_head = nn.Linear(own.width, config.tokeniser.codes)
        init_weights(self.code_head)
        # Their last norm is the ViT's, as the head is.
        aggregate = replace(TransformerConfig.of(own), layers=config.aggregate_layers, final_norm=False)
        self.aggregate = Transformer(aggregate) if last else None
        self.tokeniser = VisualTokeniser(config.tokeniser).requires_grad_(False)
        if self.tokeniser.image.grid != self.backbone.grid:
            raise ValueError(
                f"the image tokeniser sees {self.tokeniser.image.grid} patches and the model {self.backbone.grid}; they must agree"
            )

    def encode(self, batch: Batch, step: Step) -> Reps:
        """As of every such method; of the visible patches, about which nothing is asked, `said` is zero."""
        images, mask = self.given(batch)
        if self.config.backbone.pool != "class":  # the mean is of all patches
            return super().encode(batch, step)
        at, real = marked_positions(mask)
        features, asked = self._read(images, mask, at)
        said = asked.new_zeros(*mask.shape, *asked.shape[2:])
        said[mask] = asked[real]
        return {"said": said} | ({} if self.probe is None else {"features": features.detach()})

    def look(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, W), and tokens (B, N, 1, W) of every patch; (B, N, 2, W) with those that the class token has told."""
        return self._read(images, mask)

    def _read(self, images: Tensor, mask: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `look`, of the patches `at` (B, P) alone: the last block of either path then computes nothing for the others."""
        tower, transformer = self.backbone, self.backbone.transformer
        tokens = cover(tower, images, mask, self.mask_token)
        wanted = told_wanted = None
        if at is not None:  # in the whole sequence, whose class token is read too, and behind a class token alone
            first = torch.arange(tower.prefix, device=at.device).expand(len(at), -1)
            wanted, told_wanted = torch.cat([first, at + tower.prefix], 1), at + 1
        if self.aggregate is None:
            last = transformer(tokens, at=wanted)
            return pooled(tower, last).pooled, self.patches_of(last)[:, :, None]
        early = tokens
        for number, block in enumerate(transformer.blocks, start=1):
            tokens = block(tokens, at=wanted if number == len(transformer.blocks) else None)
            if number == self.config.aggregate_from:
                early = tokens
        told = self.aggregate(torch.cat([tokens[:, :1], self.patches_of(early)], 1), at=told_wanted)
        told = told if told_wanted is not None else told[:, 1:]
        both = [transformer.norm(each) for each in (self.patches_of(tokens), told)]
        return pooled(tower, transformer.norm(tokens)).pooled, torch.stack(both, 2)

    def judge(self, said: Tensor, images: Tensor, mask: Tensor, world: World) -> Losses:
        """Cross entropy of the hidden patches' codes, by their own tokens and by the class token's."""
        codes = self.tokeniser.tokenise(images)[mask]
        found = Losses({})
        for name, tokens in zip(("codes", "aggregated_codes"), said[mask].unbind(1), strict=False):
            read = mlm(self.code_head(tokens), codes)
            found.terms[name] = Term(read.loss, chance=read.chance, formula=read.formula)
            found.report[f"{name}_accuracy"] = read.accuracy
            found.counts |= read.over(name)
        return found
