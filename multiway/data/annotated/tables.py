"""SBU, CC3M and CC12M from the tables of addresses that were published, with whatever pictures were downloaded.

SBU: Ordonez et al., Im2Text, NIPS 2011. CC3M: Sharma et al., Conceptual Captions, ACL 2018. CC12M: Changpinyo et al., 2021,
arXiv 2102.08981.

    sbu-captions-all.json                       {"image_urls": [...], "captions": [...], "user_ids": [...]}
    SBU_captioned_photo_dataset_urls.txt        an address on each line; SBU_captioned_photo_dataset_captions.txt beside it
    Train_GCC-training.tsv                      caption, tab, address; Validation_GCC-1.1.0-Validation.tsv
    cc12m.tsv                                   address, tab, caption

A picture is found by a name that its own address decides, never by counting: one failed download would shift all that
follow. For SBU that is the last part of the address (`4385058960_b0f291553e.jpg`); for CC3M and CC12M the CRC-32 of the
address, as the download script of github.com/igorbrigadir/DownloadConceptualCaptions names them. Shards or folders that
img2dataset has written hold their own captions: open those themselves, without these tables.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from multiway.data.annotated.captioned import Absent, Captioned, CaptionFiles, caption_row, gather_captions
from multiway.data.annotated.files import FolderPictures, Published, one_of_splits
from multiway.data.annotated.layout import list_in, read_lines
from multiway.data.annotated.records import Record, find_file, read_json
from multiway.data.rejected import clean_captions
from multiway.data.source import BadRow, DataError, stable_id

__all__ = ["SPLITS", "SPLITS_CC3M", "open_cc3m", "open_cc12m", "open_sbu"]

SPLITS = ("train",)
"""Of SBU and CC12M."""

SPLITS_CC3M = {
    "train": ("Train_GCC-training.tsv", "training", 3_318_333),
    "val": ("Validation_GCC-1.1.0-Validation.tsv", "validation", 15_840),
}
"""Split -> file, folder that the pictures are downloaded to, and rows that were published."""

_SIZE_SBU, _SIZE_CC12M = 1_000_000, 12_423_374

_GET_SBU = "get it from https://www.cs.rice.edu/~vo9/sbucaptions"
_GET_CC3M = "get it from https://ai.google.com/research/ConceptualCaptions/download"
_GET_CC12M = "get it from https://github.com/google-research-datasets/conceptual-12m"

_ENDS = ("", ".jpg", ".png")


def open_sbu(root: Path, split: str = "train", images: Path | None = None) -> CaptionFiles:
    """SBU captioned photographs, those that were downloaded.

    Args:
        root: folder with `sbu-captions-all.json`, or with both text files.
        split: `train`.
        images: folder of the pictures; by default `images/` or `dataset/` in `root`, or `root`.

    Raises:
        DataError: if files are missing or not as published, or too many rows cannot be used.
    """
    one_of_splits("sbu", split, dict.fromkeys(SPLITS))
    pictures = FolderPictures(images or root)

    def make(record: Record) -> Captioned:
        captions, address = _pair(record)
        name = address.partition("?")[0].rpartition("/")[2]
        return _found(record, captions, (name, f"images/{name}", f"dataset/{name}"), pictures, name)

    return gather_captions(f"sbu:{root}", split, _sbu(root), make, pictures, published=Published(_SIZE_SBU, "rows"))


def _sbu(root: Path) -> Iterator[Record]:
    texts = ("SBU_captioned_photo_dataset_urls.txt", "SBU_captioned_photo_dataset_captions.txt")
    if (root / texts[0]).is_file():
        path, other = root / texts[0], find_file(root, texts[1:], "captions of SBU", _GET_SBU)
        # A line that is empty in one file only would shift the rest, so lines are paired by their number.
        said = dict(read_lines(other, broken="none"))
        addresses = dict(read_lines(path, broken="none"))
        if max(said, default=0) != max(addresses, default=0):
            raise DataError(
                f"{path.name} has {max(addresses, default=0):,} lines, {other.name} {max(said, default=0):,}; "
                f"they belong line to line, so get both again: {_GET_SBU}"
            )
        for number in sorted(said.keys() | addresses.keys()):
            yield Record(f"{path.name}, line {number}", (said.get(number), addresses.get(number)))
        return
    path = find_file(root, ("sbu-captions-all.json", texts[0]), "captions of SBU", _GET_SBU)
    data = read_json(path, dict)
    addresses_, captions = list_in(data, "image_urls", path), list_in(data, "captions", path)
    if len(addresses_) != len(captions):
        raise DataError(
            f"{path.name} has {len(addresses_):,} `image_urls` and {len(captions):,} `captions`; "
            "they belong to each other by their place, so download the file again"
        )
    for number, pair in enumerate(zip(captions, addresses_, strict=True), 1):
        yield Record(f"{path.name}, row {number}", pair)


def open_cc3m(root: Path, split: str = "train", images: Path | None = None) -> CaptionFiles:
    """CC3M, those pictures that were downloaded.

    Args:
        root: folder with the TSV files.
        split: of `SPLITS_CC3M`.
        images: folder of the pictures; by default `training/` or `validation/` in `root`, or `root`.

    Raises:
        DataError: as `open_sbu`.
    """
    file, folder, size = one_of_splits("cc3m", split, SPLITS_CC3M)
    path = find_file(root, (file, file.lower(), f"cc3m_{split}.tsv"), f"table of CC3M's {split}", _GET_CC3M)
    return _conceptual(f"cc3m:{root}", split, path, FolderPictures(images or root), folder, size)


def open_cc12m(root: Path, split: str = "train", images: Path | None = None) -> CaptionFiles:
    """CC12M, those pictures that were downloaded; as `open_cc3m`, with `cc12m.tsv`."""
    one_of_splits("cc12m", split, dict.fromkeys(SPLITS))
    path = find_file(root, ("cc12m.tsv",), "table of CC12M", _GET_CC12M)
    return _conceptual(f"cc12m:{root}", split, path, FolderPictures(images or root), "training", _SIZE_CC12M)


def _conceptual(name: str, split: str, path: Path, pictures: FolderPictures, folder: str, size: int) -> CaptionFiles:
    shared = _collisions(path)

    def make(record: Record) -> Captioned:
        captions, address = _pair(record)
        crc = zlib.crc32(address.encode())
        if crc in shared:
            raise BadRow(f"the file {crc} may be of this address or of another with the same CRC-32; remove the row")
        # The second form is that of the script's later copies: row, counted from 0, and CRC-32.
        row = int(record.where.rsplit(" ", 1)[1]) - 1
        stems = (f"{folder}/{crc}", f"{folder}/{row}_{crc}", f"{crc}", f"{row}_{crc}", f"images/{crc}")
        return _found(
            record, captions, tuple(stem + end for stem in stems for end in _ENDS), pictures, f"{folder}/{crc}"
        )

    return gather_captions(name, split, _rows(path), make, pictures, published=Published(size, "rows"))


def _rows(path: Path) -> Iterator[Record]:
    """Caption and address of each line, whichever comes first; a header is passed over."""
    for number, line in read_lines(path, broken="none"):
        fields = line.split("\t") if line is not None else []
        if number == 1 and {each.strip().lower() for each in fields} <= {"caption", "url", "image_url", "title"}:
            continue
        if len(fields) == 2 and _is_address(fields[0]) and not _is_address(fields[1]):
            fields = fields[::-1]
        yield Record(f"{path.name}, line {number}", tuple(fields) if len(fields) == 2 else line)


def _collisions(path: Path) -> set[int]:
    """CRC-32s that different addresses share: of three million, a thousand or so."""
    # Twelve million addresses themselves would fill gigabytes; their 64-bit hashes tell them apart.
    crcs, hashes = array("I"), array("Q")
    for record in _rows(path):
        if isinstance(record.values, tuple):
            address = record.values[1].strip()
            crcs.append(zlib.crc32(address.encode()))
            hashes.append(stable_id(address))
    if not crcs:
        return set()
    crc, own = np.frombuffer(crcs, np.uint32), np.frombuffer(hashes, np.uint64)
    order = np.lexsort((own, crc))
    crc, own = crc[order], own[order]
    return set(crc[1:][(crc[1:] == crc[:-1]) & (own[1:] != own[:-1])].tolist())


def _pair(record: Record) -> tuple[tuple[str, ...], str]:
    """Caption and address of a row."""
    if not isinstance(record.values, tuple):
        what = "is not UTF-8" if record.values is None else f"is {record.values!r:.60}"
        raise BadRow(f"the line {what}; expected a caption and an address with a tab between, correct or remove it")
    caption, address = record.values
    if not isinstance(address, str) or not _is_address(address):
        raise BadRow(f"the address is {address!r:.60}; expected one such as https://..., correct or remove the row")
    return clean_captions(caption, record.where, []), address.strip()


def _is_address(text: str) -> bool:
    return text.strip().lower().startswith(("http://", "https://"))


def _found(
    record: Record, captions: tuple[str, ...], places: tuple[str, ...], pictures: FolderPictures, name: str
) -> Captioned:
    try:
        return caption_row(record.where, places, captions, pictures)
    except BadRow as error:
        raise Absent(f"there is no {name} in {pictures.root}; download the pictures, or correct --images") from error
