"""A picture encoder as it comes, trained elsewhere: nothing to be trained for, everything to be measured, tuned or begun from.

Dosovitskiy et al., ViT, 2021, arXiv 2010.11929; Caron et al., DINO, 2021, arXiv 2104.14294; Oquab et al., DINOv2, 2023, arXiv
2304.07193; Bao et al., BEiT, 2022, arXiv 2106.08254; ResNets, Swins and ConvNeXts (`nn/backbone.py`). Released weights are of an encoder, without the heads, twins and queues of the
method that made them, so that this class is none of these methods. Its parts are called as theirs are: any of them can begin from it
(`--init backbone=MODEL`), and a head can be put on it (`multiway finetune`).

Beside the encoder there may be what stands in the place of a hidden patch, and BEiT's head that guesses the code of each patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import Encoded
from multiway.batch import Batch, DataInfo
from multiway.methods.masked_pictures import mask_token
from multiway.methods.method import Losses, Method, Pairs, Reps, Step
from multiway.nn.backbone import BackboneConfig, backbone
from multiway.nn.hidden_patches import cover
from multiway.nn.pool import Tower, marked_positions
from multiway.nn.transformer import init_weights
from multiway.nn.vit import VisionConfig, VisionTransformer
from multiway.world import World

__all__ = ["PictureEncoder", "PictureEncoderConfig"]

_UNTRAINABLE = (
    "a picture encoder as it comes has no objective to be trained for; put a head on it (multiway finetune MODEL --task classification), "
    "or begin a method from it (multiway train dino --init backbone=MODEL)"
)


@dataclass(frozen=True)
class PictureEncoderConfig:
    """What there is.

    Attributes:
        backbone: the network, mostly a ViT.
        covers: whether there is a token for hidden patches; of a ViT alone.
        codes: K, of which the head guesses one for each patch; 0 for no such head.
    """

    backbone: BackboneConfig = VisionConfig()
    covers: bool = False
    codes: int = 0

    def resolve(self, data: DataInfo) -> PictureEncoderConfig:
        """The config itself: it has nothing that data would fill in."""
        return self


class PictureEncoder(Method):
    """A network that encodes pictures; a ViT also with patches hidden.

    Raises:
        ValueError: if there is a head on hidden patches and no token for them, or such a token and no ViT.
    """

    name = "picture-encoder"
    config_class = PictureEncoderConfig
    config: PictureEncoderConfig

    def __init__(self, config: PictureEncoderConfig) -> None:
        super().__init__()
        if config.codes and not config.covers:
            raise ValueError(
                f"a head on {config.codes} codes of hidden patches needs a token for them; set covers=True"
            )
        if config.covers and not isinstance(config.backbone, VisionConfig):
            raise ValueError("patches are hidden from a ViT, and this backbone is another network; set covers=False")
        self.config = config
        self.backbone = backbone(config.backbone)
        self.mask_token = mask_token(self.backbone.width) if config.covers else None
        self.code_head: nn.Linear | None = None
        if config.codes:
            self.code_head = nn.Linear(self.backbone.width, config.codes)
            init_weights(self.code_head)

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) -> the network's vector (B, W) on the unit sphere, and its tokens, of a ViT (B, prefix + N, W)."""
        pooled, tokens = self.backbone(images)
        return Encoded(F.normalize(pooled.float(), dim=-1), tokens)

    def covered(self, images: Tensor, mask: Tensor) -> Tower:
        """The ViT on pictures whose hidden patches are covered.

        Args:
            images: (B, 3, H, W).
            mask: (B, N) bool, True at hidden patches.

        Raises:
            ValueError: if these weights have no token for hidden patches.
        """
        tokens, tower = self._blocks(images, mask), self.backbone
        assert isinstance(tower, VisionTransformer)
        return Tower(tower.pool(tokens), tokens)

    def _blocks(self, images: Tensor, mask: Tensor, at: Tensor | None = None) -> Tensor:
        """Last tokens of `covered`, (B, prefix + N, W), or (B, P, W) of the positions `at` (B, P)."""
        if self.mask_token is None:
            raise ValueError("these weights have no token for hidden patches; load those of a pre-trained model")
        tower = self.backbone
        assert isinstance(tower, VisionTransformer)
        return tower.blocks(cover(tower, images, mask, self.mask_token), tower.patches.grid(images), at=at)

    def guess_codes(self, images: Tensor, mask: Tensor, *, hidden_only: bool = False) -> Tensor:
        """(B, N, K) logits of the code of each patch, hidden or not; (P, K) of the P hidden ones alone, in the mask's order, with
        `hidden_only`: the last block and the head then compute nothing else. Other arguments as of `covered`.

        Raises:
            ValueError: if these weights have no such head.
        """
        if self.code_head is None:
            raise ValueError(
                "these weights have no head that guesses codes; load those of a BeitForMaskedImageModeling"
            )
        assert isinstance(self.backbone, VisionTransformer)
        if not hidden_only:
            return self.code_head(self.covered(images, mask).tokens[:, self.backbone.prefix :])  # type: ignore[no-any-return]
        at, real = marked_positions(mask)
        return self.code_head(self._blocks(images, mask, at=at + self.backbone.prefix)[real])  # type: ignore[no-any-return]

    # There is no training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Refused: these weights come without what they were trained for.

        Raises:
            ValueError: always, with what can be done instead.
        """
        raise ValueError(_UNTRAINABLE)

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Refused, as `encode` is."""
        raise ValueError(_UNTRAINABLE)
