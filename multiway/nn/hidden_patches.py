"""Patches that a network must not see: left out, put back, or covered by a token.

K. He et al., Masked Autoencoders Are Scalable Vision Learners (MAE), 2022, arXiv 2111.06377, section 3: the visible patches are
gathered in front (shuffle), and after the encoder mask tokens are appended and all are put back where they belong (unshuffle).
Bao et al., BEiT, 2022, arXiv 2106.08254, section 2.3: a mask token stands in the place of each hidden patch.
Y. Li et al., Scaling Language-Image Pre-training via Masking (FLIP), 2023, arXiv 2212.00794, section 3: what is hidden is left out of
the encoder, and nothing is put back: the contrast needs one vector of a picture.

Masks are (B, N) bool, True at hidden patches, row by row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.nn.pool import Tower
from multiway.nn.vit import VisionTransformer

__all__ = ["blank", "cover", "cut", "join", "pooled", "put_back", "shown", "visible"]


def visible(mask: Tensor) -> Tensor:
    """(B, N) -> (B, K) int64 numbers of the visible patches, in ascending order.

    Raises:
        ValueError: if pictures show different numbers of patches, or none.
    """
    shown = (~mask).sum(1)
    kept = int(shown.min()) if len(mask) else 0
    if kept < 1 or kept != int(shown.max()):
        raise ValueError(
            f"pictures of one batch show {kept} to {int(shown.max()) if len(mask) else 0} patches; an encoder of visible patches alone "
            "needs equally many of all, and one at least: set patches.ratio below 1, and not patches.ratios"
        )
    return _order(mask)[:, :kept]


def shown(tower: VisionTransformer, images: Tensor, mask: Tensor | None) -> Tensor | None:
    """What a ViT takes as `keep` of pictures of which perhaps some patches are left out (FLIP): None where none are.

    Args:
        tower: that is to see the pictures.
        images: (B, 3, H, W).
        mask: (B, N), or None.

    Raises:
        ValueError: if the mask is not of the tower's patches of these pictures.
    """
    if mask is None:
        return None
    rows, columns = tower.patches.grid(images)
    if mask.shape != (len(images), rows * columns):
        patch = tower.config.patch
        raise ValueError(
            f"the mask is of {mask.shape[1]} patches of {len(mask)} pictures, and the model cuts {len(images)} into {rows}x{columns} of "
            f"{patch} pixels; patches of a ViT's own size alone can be left out: set --patches.patch {patch}"
        )
    return visible(mask)


def put_back(tokens: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
    """Visible tokens in their places, the mask token in all others.

    Args:
        tokens: (B, K, W), of `visible(mask)`.
        mask: (B, N).
        mask_token: (W,).

    Returns:
        (B, N, W).
    """
    hidden = mask_token.to(tokens.dtype).expand(len(tokens), mask.shape[1] - tokens.shape[1], -1)
    back = _order(mask).argsort(1)
    return torch.cat([tokens, hidden], 1).gather(1, back[..., None].expand(-1, -1, tokens.shape[2]))


def _order(mask: Tensor) -> Tensor:
    """(B, N) the visible patches' numbers, then the hidden ones'; its inverse puts them back."""
    return mask.int().argsort(dim=1, stable=True)


def cover(tower: VisionTransformer, images: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
    """What enters the blocks of a ViT whose hidden patches are covered: their position is seen and nothing else.

    Args:
        tower: of any kind. A convolutional stem looks beyond a patch, so what is hidden is blank before it.
        images: (B, 3, H, W).
        mask: (B, N).
        mask_token: (W,).

    Returns:
        (B, prefix + N, W).
    """
    if tower.config.stem != "patch":
        images = blank(images, mask, tower.config.patch)
    tokens = tower.embed(images)
    hidden = tower.pre_norm(mask_token + tower.places(images)).to(tokens.dtype)
    patches = torch.where(mask[..., None], hidden, tokens[:, tower.prefix :])
    return torch.cat([tokens[:, : tower.prefix], patches], 1)


def pooled(tower: VisionTransformer, tokens: Tensor) -> Tower:
    """The blocks' last tokens (B, prefix + N, W), and the vector (B, W) that the ViT's config says of them."""
    return Tower(tower.pool(tokens), tokens)


def blank(images: Tensor, mask: Tensor, patch: int) -> Tensor:
    """The pictures with hidden squares of `patch` pixels at 0, whatever was there; `mask` (B, N) of these squares."""
    rows, columns = images.shape[2] // patch, images.shape[3] // patch
    grid = mask.view(-1, 1, rows, columns).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return torch.where(grid, torch.zeros((), dtype=images.dtype, device=images.device), images)


def cut(images: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, N, C x patch x patch), as `PatchEmbed.unfold` cuts them."""
    return F.unfold(images, patch, stride=patch).transpose(1, 2)


def join(patches: Tensor, shape: tuple[int, int], patch: int) -> Tensor:
    """(B, N, C x patch x patch) -> (B, C, H, W) of the height and width `shape`; the inverse of `cut`."""
    return F.fold(patches.transpose(1, 2), shape, patch, stride=patch)
