"""Partners from all ranks' rows: which picture is shown with which text is drawn alike whatever the number of ranks, and what a
row needs of a partner that another rank has is sent to it, and nothing else.

Li et al., ALBEF, 2021, arXiv 2107.07651, section 3.2, and BLIP (2201.12086) draw among a rank's own rows, so that a run on eight ranks
has other, easier negatives than one on a single rank with the same batch. VLMo (2111.02358, section 3.2) draws among all.

Rows are numbered in the data's own order (`World.turns`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.batch import Batch
from multiway.losses.itm import hard_negatives
from multiway.losses.itm_random import random_pairs
from multiway.losses.same import Same
from multiway.world import World

__all__ = ["Lent", "draw_any", "draw_partners", "meet", "own_rows"]

Lent = Mapping[str, tuple[str, ...]]
"""Name of an index in the pairs -> the tensors that are read at the rows which it names: of `encode`, or `batch.` and a field."""


def own_rows(rows: int, world: World, device: torch.device | None = None) -> Tensor:
    """(rows,) int64: the numbers of this rank's rows among all ranks'."""
    return torch.arange(rows, device=device) * world.size + world.rank


@torch.no_grad()
def draw_partners(
    image: Tensor, text: Tensor, temperature: Tensor, batch: Batch, world: World, hardness: float, least: float = 1e-6
) -> dict[str, Tensor]:
    """A wrong text for each picture and a wrong picture for each text, by likeness; see `losses.itm.hard_negatives`.

    Args:
        image, text: (B, D) features of this rank's rows.
        temperature: by which their cosines are divided.
        batch: its ids say who belongs together.

    Returns:
        `text_of_image`, `image_of_text` (B,) int64 numbers of rows, `found` (B,) bool.
    """
    images, texts = (world.turns(world.gather(each)) for each in (image, text))
    drawn = hard_negatives(images @ texts.T / temperature, _same(batch, world), hardness, least)
    told = _of_this_rank(torch.stack([drawn.text_of_image, drawn.image_of_text, drawn.found.long()]), world)
    return {"text_of_image": told[0], "image_of_text": told[1], "found": told[2].bool()}


@torch.no_grad()
def draw_any(batch: Batch, rows: int, world: World, device: torch.device) -> dict[str, Tensor]:
    """For half of the texts a wrong picture, drawn evenly; see `losses.itm_random.random_pairs`.

    Returns:
        `image_of_text` (B,) int64 numbers of rows, `matched` (B,) bool.
    """
    drawn = random_pairs(rows * world.size, _same(batch, world), device)
    told = _of_this_rank(torch.stack([drawn.image_of_text, drawn.matched.long()]), world)
    return {"image_of_text": told[0], "matched": told[1].bool()}


def _same(batch: Batch, world: World) -> Same:
    """Which of all ranks' rows belong together."""
    return Same(*(None if ids is None else world.turns(world.gather(ids)) for ids in (batch.image_id, batch.text_id)))


def _of_this_rank(drawn: Tensor, world: World) -> Tensor:
    """(n, rows of all ranks), as rank 0 drew it from its own generator, as if it had all rows -> (n, B) of this one's rows."""
    if world.size == 1:
        return drawn
    return world.gather(drawn[None])[0][:, own_rows(drawn.shape[1] // world.size, world, drawn.device)]


def meet(
    reps: Mapping[str, Tensor],
    pairs: Mapping[str, Tensor],
    batch: Batch,
    world: World,
    lent: Lent,
    together: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Batch]:
    """Bring the partners that other ranks have behind the rows of this one, and number pairs by where they now are.

    Rows of texts of unlike length are padded to the longest that any rank has. Gradients go back to the ranks that lend.

    Args:
        reps, batch: this rank's B rows.
        pairs: indices in `lent` are numbers of rows of all ranks; others are left as they are.
        lent: what is sent.
        together: whether all that is lent gets the same rows, those that any index names.

    Returns:
        The same with rows from B on that are partners alone: of each lent tensor as many as its index asks for.
    """
    if world.size == 1 or not pairs:
        return dict(reps), dict(pairs), batch
    found, local, read = dict(reps), dict(pairs), copy.copy(batch)
    groups = [list(lent)] if together else [[name] for name in lent]
    for names in groups:
        index = torch.cat([pairs[name] for name in names])
        rows, away = len(pairs[names[0]]), index % world.size != world.rank
        wanted, place = index[away].unique(return_inverse=True)
        here = index // world.size
        here[away] = rows + place
        local |= dict(zip(names, here.chunk(len(names)), strict=True))
        asked = torch.full_like(index, -1)  # as many on every rank
        asked[: len(wanted)] = wanted
        for tensor in dict.fromkeys(tensor for name in names for tensor in lent[name]):
            field = tensor.removeprefix("batch.")
            own = _as_long_everywhere(getattr(batch, field) if field != tensor else reps[tensor], world)
            sent = own.to(torch.uint8) if own.dtype == torch.bool else own
            whole = torch.cat([own, world.fetch(sent, asked)[: len(wanted)].to(own.dtype)])
            if field != tensor:
                setattr(read, field, whole)
            else:
                found[tensor] = whole
    return found, local, read


def _as_long_everywhere(own: Tensor, world: World) -> Tensor:
    """(B, L, ...) with L the greatest of all ranks."""
    if own.ndim < 2:
        return own
    longest = int(world.gather(torch.tensor([own.shape[1]], device=own.device)).max())
    return F.pad(own, (0, 0) * (own.ndim - 2) + (0, longest - own.shape[1]))
