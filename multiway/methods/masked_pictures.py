"""What methods of masked image modelling share: a ViT, pictures of which some is hidden, something to be said of that, and a probe.

    y = head(f(x with M hidden)),     L = the mean over M of what y gets wrong of t(x)

They differ in how M is hidden (left out, covered by a token, blackened), in the target t (pixels, gradients, codes) and in the head.
What is hidden comes with the batch (`data/patch_masking.py`), a function of seed, epoch and sample.

The probe (`probed.py`) reads the features of what the encoder was shown: of a quarter of each picture with MAE. A trained model,
which sees all of it, is better than that; `--evaluate knn=@random` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import Encoded
from multiway.batch import Batch, DataInfo
from multiway.methods.method import Losses, Method, Pairs, Reps, Step
from multiway.methods.probed import add_probe, probe_of
from multiway.nn.backbone import VIT_TINY
from multiway.nn.hidden_patches import cover, cut, join, pooled
from multiway.nn.pool import Tower
from multiway.nn.vit import VisionConfig, VisionTransformer
from multiway.world import World

__all__ = ["MaskedPictures", "MaskedPicturesConfig", "filled_in", "mask_token"]


@dataclass(frozen=True)
class MaskedPicturesConfig:
    """What every such method has; each sets its own.

    Attributes:
        backbone: the ViT whose features are wanted.
        probe: classes of the probe; 0 for none. Filled in from the data.
    """

    backbone: VisionConfig = VIT_TINY
    probe: int = 0

    def resolve(self, data: DataInfo) -> Self:
        """The config with a probe for the data's classes, where they have any."""
        return replace(self, probe=self.probe or data.classes)


class MaskedPictures(Method):
    """Encoder and probe. A method says what is shown to the encoder (`look`) and what is asked of its answer (`judge`)."""

    own_state: ClassVar[tuple[str, ...]] = ("probe.",)
    config: MaskedPicturesConfig

    def __init__(self, config: MaskedPicturesConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = self.make_encoder()
        self.probe = probe_of(self.backbone.width, config.probe)

    def make_encoder(self) -> VisionTransformer:
        """The network whose features are wanted, newly made at random: a ViT, unless a method takes another."""
        return VisionTransformer(self.config.backbone)

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W), nothing hidden -> the ViT's vector (B, W) on the unit sphere, and its tokens."""
        tower = self.backbone(images)
        return Encoded(F.normalize(tower.pooled.float(), dim=-1), tower.tokens)

    @property
    def hides(self) -> int:
        """Side, in pixels, of the squares that the batch's mask is about: a patch."""
        return self.config.backbone.patch

    # The training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """What the method says of every patch, `said` (B, N, ...), and `features` (B, W) for the probe."""
        images, mask = self.given(batch)
        features, said = self.look(images, mask)
        return {"said": said} | ({} if self.probe is None else {"features": features.detach()})

    def given(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The pictures (B, 3, H, W), the first view, and what is hidden of them, (B, N) bool.

        Raises:
            ValueError: if the batch has none, or its mask is of other patches.
        """
        images = batch.views[0] if batch.views else batch.images
        if images is None or batch.patch_mask is None:
            raise ValueError(
                f"{self.name} learns from what is hidden, and the batch has {'pictures' if images is not None else 'no pictures'} and "
                f"{'a' if batch.patch_mask is not None else 'no'} mask; set the recipe's patches.ratio above 0"
            )
        side, mask = self.hides, batch.patch_mask.bool()
        squares = (images.shape[2] // side) * (images.shape[3] // side)
        if mask.shape[1] != squares:
            raise ValueError(
                f"the mask is of {mask.shape[1]} squares a picture and the model's {side} pixels make {squares} of "
                f"{images.shape[2]}x{images.shape[3]}; set --patches.patch {side} and --view.size to the views' size"
            )
        return images, mask

    def look(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What training makes of pictures that are partly hidden: features (B, W), and what is said of each patch (B, N, ...)."""
        raise TypeError(f"{type(self).__name__} does not define look")

    def judge(self, said: Tensor, images: Tensor, mask: Tensor, world: World) -> Losses:
        """The method's loss; arguments as of `look`, and what it gave."""
        raise TypeError(f"{type(self).__name__} does not define judge")

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """What the method asks, and beside it the probe."""
        images, mask = self.given(batch)
        found = self.judge(reps["said"], images, mask, world)
        found.report["hidden"] = mask.float().mean()
        add_probe(found, self.probe, reps.get("features"), batch)
        return found

    def covered(self, images: Tensor, mask: Tensor, mask_token: Tensor) -> Tower:
        """The ViT on pictures whose hidden patches are covered by a token."""
        return pooled(self.backbone, self.backbone.transformer(cover(self.backbone, images, mask, mask_token)))

    def patches_of(self, tokens: Tensor) -> Tensor:
        """(B, prefix + N, W) -> (B, N, W), without the class token."""
        return tokens[:, self.backbone.prefix :]


def mask_token(width: int) -> nn.Parameter:
    """(W,) what stands in the place of a hidden patch, at random (BEiT, section 2.5: a normal of 0.02)."""
    token = nn.Parameter(torch.empty(width))
    nn.init.trunc_normal_(token, std=0.02)
    return token


def filled_in(said: Tensor, images: Tensor, mask: Tensor, patch: int, *, normalised: bool = False) -> Tensor:
    """The pictures with their hidden patches as they were guessed.

    Args:
        said: (B, N, 3 x patch x patch) values of every patch.
        images: (B, 3, H, W), whose visible patches are kept as they are.
        mask: (B, N) bool.
        patch: in pixels.
        normalised: whether values are told in units of each patch's own deviation from its mean. How bright a hidden patch is was
            then never guessed, and is taken from the picture.

    Returns:
        (B, 3, H, W) float32, normalised as `images` are.
    """
    true, guess = cut(images.float(), patch), said.float()
    if normalised:
        variance, mean = torch.var_mean(true, dim=-1, keepdim=True)
        guess = guess * (variance + 1e-6).sqrt() + mean  # what `losses.reconstruction.normalise_patches` has divided by
    chosen = torch.where(mask[..., None], guess, true)
    return join(chosen, (images.shape[2], images.shape[3]), patch)
