"""NoCaps: captions of pictures with objects that COCO's captions do not name, in three domains.

Agrawal et al., nocaps: novel object captioning at scale, 2019, arXiv 1812.08658. The domain of a picture is its row's
group, where the file tells it, so that every metric is also reported for `in-domain`, `near-domain` and `out-domain`, as the
paper does. A row's key is the id of its image, by which the server's submissions name it: Open Images' file names say another.
"""

from __future__ import annotations

from pathlib import Path

from multiway.data.annotated.captioned import CaptionFiles
from multiway.data.annotated.coco import gather_coco_format
from multiway.data.annotated.files import FolderPictures, Published, one_of_splits
from multiway.data.annotated.records import find_file

__all__ = ["DOMAINS", "SPLITS", "open_nocaps"]

SPLITS = {"val": 4_500, "test": 10_600}
"""Split -> pictures that were published; there is none to train on, which is the point."""

DOMAINS = ("in-domain", "near-domain", "out-domain")

_FILES = {
    "val": ("nocaps_val_4500_captions.json", "nocaps_val_image_info.json"),
    "test": ("nocaps_test_image_info.json",),
}
_OPEN_IMAGES = {"val": "validation", "test": "test"}


def open_nocaps(root: Path, split: str = "val", images: Path | None = None) -> CaptionFiles:
    """NoCaps, ten captions a picture; those of `test` are withheld.

    Args:
        root: folder with `nocaps_val_4500_captions.json` and `nocaps_test_image_info.json`.
        split: `val` or `test`.
        images: folder of the pictures, in it or in `val/` and `test/`; by default
            `root`, where `images/` is looked into too.

    Raises:
        DataError: for another split, missing files, or too many rows that cannot be used.
    """
    one_of_splits("nocaps", split, SPLITS)
    names = [place + file for file in _FILES[split] for place in ("", "annotations/")]
    path = find_file(root, names, f"captions of NoCaps's {split}", "nocaps.org/download has it")
    prefixes = ("", f"{split}/", "images/", f"images/{split}/", f"{_OPEN_IMAGES[split]}/")
    return gather_coco_format(
        f"nocaps:{root}",
        split,
        path,
        FolderPictures(images or root),
        lambda file: tuple(prefix + file for prefix in prefixes),
        Published(SPLITS[split], "pictures"),
        DOMAINS,
        by_id=True,
    )
