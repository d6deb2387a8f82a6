"""Batches of toy pictures for the multiway methods, and for one rank against two."""

import torch
from toy import ToySource

from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.data.augment import finish
from multiway.data.loader import Loader
from multiway.data.masking import Masking
from multiway.data.patch_masking import PatchMasking
from multiway.data.tokenizer import Tokenizer, TokenizerSpec

_SOURCE = ToySource(32)
WORDS = Tokenizer.train([c for i in range(32) for c in _SOURCE.row(i).captions], TokenizerSpec(300, 16))
INFO = DataInfo(vocabulary=len(WORDS), context=16, special=WORDS.special)

MASKING, PATCHES = Masking(0.3, least=1), PatchMasking(0.4, 4, 1)


def toy_batch(
    rows: int = 12,
    number: int = 0,
    rank: int = 0,
    world: int = 1,
    masking: Masking = MASKING,
    patches: PatchMasking = PATCHES,
) -> Batch:
    view = ViewSpec(size=16)
    loader = Loader(_SOURCE, view, WORDS, rows, rank=rank, world=world, masking=masking, patches=patches)
    return finish(loader.batch(number), view)


def laid_together(parts: list[Batch]) -> Batch:
    """The batch of all ranks, whose rows were dealt by turns."""
    length = max(b.text.shape[1] for b in parts)

    def by_turns(name: str) -> torch.Tensor:
        tensors = [getattr(b, name) for b in parts]
        if name in ("text", "text_mask", "masked_text", "masked"):
            tensors = [torch.nn.functional.pad(t, (0, length - t.shape[1])) for t in tensors]
        return torch.stack(tensors, 1).flatten(0, 1)

    names = ("images", "image_id", "text_id", "text", "text_mask", "masked_text", "masked", "patch_mask")
    return Batch(**{name: by_turns(name) for name in names if getattr(parts[0], name) is not None})
