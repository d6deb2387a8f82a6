"""Token-wise contrast of FILIP: every token finds its best partner on the other side.

L. Yao et al., FILIP: Fine-grained Interactive Language-Image Pre-Training, 2021, arXiv 2111.07783 (section 3.1). With unit tokens
f_i^k of picture i and g_j^r of text j, padding left out of every mean and maximum,

    s^I_ij = mean_k max_r <f_i^k, g_j^r>        what picture i makes of text j           (equation 4)
    s^T_ij = mean_r max_k <f_i^k, g_j^r>        what text j makes of picture i           (equation 5)

    L = 1/2 [ CE(scale s^I_i., T_i)  +  CE(scale s^T_.j, T_j) ]                          (equations 1 and 2)

The two similarities differ: each direction of the loss takes its own. With one token on both sides they are the dot product,
and the loss is CLIP's. Late interaction comes from ColBERT (Khattab and Zaharia, 2020, arXiv 2004.12832), which sums where this
takes the mean: texts of different length are then on one scale.

Rows that share a picture or a caption are positives or ignored, never negatives, unlike in the paper. The (b, N, K, L) table of
products is made a few pictures at a time and once more in the backward pass, so that memory is O(chunk x N x K x L).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from multiway.losses.chance import uniform, uniform_over_rows
from multiway.losses.same import gather_same
from multiway.world import World

__all__ = ["FilipResult", "Tokens", "filip", "late_interaction", "most_telling"]

# Elements of the table of products held at once: 64 MiB of float32 beside a CPU, 1 GiB on a GPU.
_ELEMENTS_CPU = 1 << 24
_ELEMENTS_GPU = 1 << 28


@dataclass(frozen=True)
class Tokens:
    """The tokens of one side.

    Attributes:
        features: (B, N, D), each L2-normalised.
        mask: (B, N) bool, True at real ones; None when all are. Every row needs one at least.
    """

    features: Tensor
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        shape = self.features.shape
        if len(shape) != 3 or not shape[1]:
            raise ValueError(f"tokens are {tuple(shape)}; expected (B, N, D) with at least one token")
        if self.mask is not None and (self.mask.shape != shape[:2] or self.mask.dtype != torch.bool):
            raise ValueError(
                f"the mask is {self.mask.dtype} of shape {tuple(self.mask.shape)} for tokens {tuple(shape)}; expected bool "
                f"{tuple(shape[:2])}, True at real tokens"
            )

    def gather(self, world: World, gradient: Literal["global", "local"]) -> Tokens:
        """All ranks' rows, padded to the longest of any."""
        if world.size == 1:
            return self
        features, mask = self.features, self.mask
        length = int(world.gather(torch.tensor([features.shape[1]], device=features.device)).max())
        more = length - features.shape[1]
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        features, mask = F.pad(features, (0, 0, 0, more)), F.pad(mask, (0, more))
        # Masks travel as bytes: not every backend gathers bool.
        return Tokens(world.gather(features, gradient), world.gather(mask.to(torch.uint8)).bool())


@dataclass(frozen=True)
class FilipResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient, the mean of both directions.
        image_to_text_accuracy, text_to_image_accuracy: share of queries whose best candidate belongs to them, detached.
        chance: loss of a model to which all candidates are equal.
        formula: how `chance` comes about: `ln 128`.
    """

    loss: Tensor
    image_to_text_accuracy: Tensor
    text_to_image_accuracy: Tensor
    chance: float
    formula: str


def late_interaction(
    image: Tokens, text: Tokens, side: Literal["image", "text", "both"] = "both", chunk: int | None = None
) -> tuple[Tensor | None, Tensor | None]:
    """Token-wise similarities of every picture with every text, exact.

    Args:
        image: Bi pictures.
        text: Bt texts, in the same width D.
        side: whose similarity is wanted.
        chunk: pictures at a time; by default a few million products' worth.

    Returns:
        s^I and s^T, each (Bi, Bt); None for the one that was not asked for.

    Raises:
        ValueError: if the widths differ.
    """
    pictures, words = image.features, text.features
    if pictures.shape[2] != words.shape[2]:
        raise ValueError(
            f"picture tokens are {pictures.shape[2]} wide and text tokens {words.shape[2]}; project both to one width"
        )
    if torch.compiler.is_exporting():  # a graph has no loop over chunks, whose number depends on the pictures'
        return _interact(pictures, words, image.mask, text.mask, side)
    elements = _ELEMENTS_CPU if pictures.device.type == "cpu" else _ELEMENTS_GPU
    rows = chunk or max(1, elements // (pictures.shape[1] * words.shape[0] * words.shape[1]))
    spans = [slice(start, start + rows) for start in range(0, len(pictures), rows)]
    again = len(spans) > 1 and torch.is_grad_enabled() and (pictures.requires_grad or words.requires_grad)

    parts = []
    for span in spans:
        seen = None if image.mask is None else image.mask[span]
        given = (pictures[span], words, seen, text.mask, side)
        # Several chunks: each is computed again for its gradient, and no table outlives its chunk.
        parts.append(checkpoint(_interact, *given, use_reentrant=False) if again else _interact(*given))
    columns = [None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True)]
    return columns[0], columns[1]


def _interact(
    pictures: Tensor, words: Tensor, seen: Tensor | None, read: Tensor | None, side: str
) -> tuple[Tensor | None, Tensor | None]:
    """One chunk: (c, N, D) and (K, L, D) with masks (c, N) and (K, L) -> (c, K) twice."""
    products = pictures.flatten(0, 1) @ words.flatten(0, 1).T
    products = products.view(*pictures.shape[:2], *words.shape[:2])  # (c, N, K, L)
    by_image = by_text = None
    if side != "text":
        found = products if read is None else products.masked_fill(~read, -torch.inf)
        by_image = _mean(found.amax(3), None if seen is None else seen[:, :, None], dim=1)
    if side != "image":
        found = products if seen is None else products.masked_fill(~seen[:, :, None, None], -torch.inf)
        by_text = _mean(found.amax(1), read, dim=2)
    return by_image, by_text


def _mean(values: Tensor, mask: Tensor | None, dim: int) -> Tensor:
    """Over real tokens; `mask` is broadcast to the values."""
    if mask is None:
        return values.mean(dim)
    return values.masked_fill(~mask, 0.0).sum(dim) / mask.sum(dim if mask.dim() == values.dim() else -1)


def most_telling(own: Tokens, others: Tokens, keep: float) -> Tokens:
    """The tokens whose best partner among all rows of the other side is nearest: what ranks send each other (section 3.1).

    The number kept is a share of each row's real tokens, so that padding decides nothing.

    Args:
        own, others: the two sides of this rank's batch.
        keep: share in (0, 1]; the paper's is 0.25.

    Returns:
        (B, n, D), with n what the longest row keeps; gradients flow to the tokens that were kept.

    Raises:
        ValueError: if `keep` is no share.
    """
    if not 0.0 < keep <= 1.0:
        raise ValueError(f"keep is {keep}; expected a share above 0 and up to 1")
    if keep == 1.0:
        return own
    rows, length, _ = own.features.shape
    with torch.no_grad():
        real = others.features.flatten(0, 1) if others.mask is None else others.features[others.mask]
        elements = _ELEMENTS_CPU if real.device.type == "cpu" else _ELEMENTS_GPU
        flat = own.features.flatten(0, 1).split(max(1, elements // len(real)))
        nearness = torch.cat([(part @ real.T).amax(1) for part in flat]).view(rows, length)
        count = torch.full((rows,), length, device=real.device)
        if own.mask is not None:
            nearness = nearness.masked_fill(~own.mask, -torch.inf)
            count = own.mask.sum(1)
        count = (keep * count).ceil().long()
        best = nearness.topk(int(count.max()), dim=1).indices
        mask = torch.arange(best.shape[1], device=best.device) < count[:, None]
    features = own.features.gather(1, best[..., None].expand(-1, -1, own.features.shape[2]))
    return Tokens(features, None if bool(mask.all()) else mask)


def filip(
    image: Tokens,
    text: Tokens,
    scale: Tensor,
    world: World,
    image_id: Tensor | None = None,
    text_id: Tensor | None = None,
    *,
    same: Literal["positive", "ignore"] = "positive",
    keep: float = 1.0,
    gradient: Literal["global", "local"] = "global",
    chunk: int | None = None,
) -> FilipResult:
    """Token-wise contrast over all ranks' pairs; averaged over ranks it is the loss of the whole batch.

    Args:
        image, text: this rank's b rows, row i of each a pair; every rank brings b.
        scale: scalar, one over the temperature.
        world: the ranks.
        image_id, text_id: (b,) int64; None where no two rows share any. All ranks give them or none does.
        same: whether rows that share an id are positives or left out of the denominators.
        keep: share of each row's tokens that take part (`most_telling`).
        gradient: how gradients reach other ranks' tokens (`World.gather`).
        chunk: pictures whose products with all texts are held at once.

    Raises:
        ValueError: for shapes or options that do not fit.
    """
    rows = image.features.shape[0]
    if rows == 0 or rows != text.features.shape[0]:
        raise ValueError(f"given {rows} pictures and {text.features.shape[0]} texts; row i of each is a pair")
    if same not in ("positive", "ignore"):
        raise ValueError(f"same is {same!r}; expected 'positive' or 'ignore'")
    if image.features.shape[2] != text.features.shape[2]:
        raise ValueError(
            f"picture tokens are {image.features.shape[2]} wide and text tokens {text.features.shape[2]}; project both to one "
            "width"
        )
    image, text = most_telling(image, text, keep), most_telling(text, image, keep)
    related = gather_same(image_id, text_id, rows, world)
    if world.size == 1:
        by_image, by_text = late_interaction(image, text, chunk=chunk)
    else:
        by_image, _ = late_interaction(image, text.gather(world, gradient), "image", chunk)
        _, by_text = late_interaction(image.gather(world, gradient), text, "text", chunk)
    assert by_image is not None and by_text is not None

    own = torch.arange(world.rank * rows, (world.rank + 1) * rows, device=by_image.device)
    belongs = related.mask(world.rank * rows, (world.rank + 1) * rows) if related else None
    losses, accuracies = [], []
    for scores in (by_image, by_text.T):
        logits = scale * scores
        losses.append(_cross_entropy(logits, own, belongs, same))
        accuracies.append(related.contains(own, logits.argmax(1)).to(logits.dtype).mean())
    candidates = by_image.shape[1]
    left = same == "ignore" and bool(related)
    chance = uniform_over_rows(candidates + 1 - related.count[own]) if left else uniform(candidates)
    return FilipResult(
        0.5 * (losses[0] + losses[1]), accuracies[0], accuracies[1], chance=chance.value, formula=chance.formula
    )


def _cross_entropy(logits: Tensor, own: Tensor, belongs: Tensor | None, same: str) -> Tensor:
    """(b, K) logits against the own candidate (b,), or spread evenly over all that belong (b, K)."""
    if belongs is None:
        return F.cross_entropy(logits, own)
    if same == "ignore":
        others = belongs.clone()
        others[torch.arange(len(own), device=own.device), own] = False
        return F.cross_entropy(logits.masked_fill(others, -torch.inf), own)
    return F.cross_entropy(logits, belongs.to(logits.dtype) / belongs.sum(1, keepdim=True))
