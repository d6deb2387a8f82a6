"""The caption sets that are opened by name and folder: `coco:data/coco@test`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multiway.data.annotated.captioned import CaptionFiles
from multiway.data.annotated.coco import OWN_SPLITS, open_coco, open_flickr30k
from multiway.data.annotated.coco import SPLITS as KARPATHY
from multiway.data.annotated.imagenet import SPLITS as IMAGENET
from multiway.data.annotated.imagenet import open_imagenet
from multiway.data.annotated.msrvtt import FILES as MSRVTT_FILES
from multiway.data.annotated.msrvtt import SPLITS as MSRVTT
from multiway.data.annotated.msrvtt import open_msrvtt
from multiway.data.annotated.nocaps import open_nocaps
from multiway.data.annotated.tables import SPLITS as TRAIN
from multiway.data.annotated.tables import SPLITS_CC3M, open_cc3m, open_cc12m, open_sbu
from multiway.data.source import DataError

__all__ = ["CAPTION_SETS", "CaptionSet", "open_caption_set", "splits_there"]


@dataclass(frozen=True)
class CaptionSet:
    """A published set of captioned pictures.

    Attributes:
        about: a line on it.
        open: its reader: (folder, split, folder of the pictures or None) -> rows.
        splits: whose pictures do not overlap; `all` opens them together.
        further: splits that share pictures with those, or have their captions withheld.
        files: of splits that are in files of their own, the places of which one is there if the split is.
    """

    about: str
    open: Callable[[Path, str, Path | None], CaptionFiles]
    splits: Sequence[str]
    further: Sequence[str] = ()
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)


CAPTION_SETS: dict[str, CaptionSet] = {
    "coco": CaptionSet("COCO captions in Karpathy's splits, or its own", open_coco, KARPATHY, OWN_SPLITS),
    "flickr30k": CaptionSet("Flickr30k captions in Karpathy's splits", open_flickr30k, KARPATHY),
    "nocaps": CaptionSet("NoCaps captions of new objects, by domain", open_nocaps, ("val",), ("test",)),
    "msrvtt": CaptionSet("MSR-VTT, captioned videos", open_msrvtt, tuple(MSRVTT)[:3], tuple(MSRVTT)[3:], MSRVTT_FILES),
    "sbu": CaptionSet("SBU captioned photographs", open_sbu, TRAIN),
    "cc3m": CaptionSet(
        "Conceptual Captions 3M",
        open_cc3m,
        tuple(SPLITS_CC3M),
        (),
        {split: (at[0], f"cc3m_{split}.tsv") for split, at in SPLITS_CC3M.items()},
    ),
    "cc12m": CaptionSet("Conceptual 12M", open_cc12m, TRAIN),
    "imagenet": CaptionSet(
        "ImageNet-1k, labelled pictures",
        open_imagenet,
        tuple(IMAGENET),
        (),
        {split: (split, f"ILSVRC/Data/CLS-LOC/{split}") for split in IMAGENET},
    ),
}
"""Sets that are read from their original files, by the name that the command line has for them."""


def open_caption_set(
    name: str, folder: str, split: str, images: str | Path = "", withheld: bool = False
) -> CaptionFiles:
    """One split of a set, as a source with captions to train on and to score by.

    Args:
        name: of `CAPTION_SETS`.
        folder: of its files.
        split: of the set.
        images: folder of the pictures, if it is not that of the files.
        withheld: whether one without captions will do.

    Raises:
        DataError: if the set cannot be used, has no such split, or the captions of this one are withheld and that will not do.
    """
    known = CAPTION_SETS[name]
    everything = (*known.splits, *known.further)
    if split not in everything:
        raise DataError(f"{name} has no split {split!r}; it has {', '.join(everything)}")
    found = known.open(Path(folder).expanduser(), split, Path(images).expanduser() if images else None)
    if not withheld and not all(row.captions for row in found.rows):
        raise DataError(
            f"{name}:{folder}@{split}: the captions of this split are withheld, so that nothing can be trained on it or scored; "
            "name another split, or have captions written for it: multiway eval RUN --task captions --predictions FILE"
        )
    return found


def splits_there(name: str, folder: str) -> tuple[str, ...]:
    """The splits of a set whose files are in its folder; all of them if none is, so that opening one says what is missing."""
    known, root = CAPTION_SETS[name], Path(folder).expanduser()
    there = (split for split in known.splits if any((root / each).exists() for each in known.files.get(split, (".",))))
    return tuple(there) or tuple(known.splits)
