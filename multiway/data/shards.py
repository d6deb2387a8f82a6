"""WebDataset shards as rows that are addressable by number.

    multiway train clip --data 'shards/train-{000000..000099}.tar'

Each tar gets a side-car index once (`shard_index.py`); from then on a picture is one read at a known place, in any
order, by any number of processes.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multiway.data.decode import decode
from multiway.data.files import fingerprint_of
from multiway.data.rejected import REJECTED_CEILING, Rejected, refuse_too_many
from multiway.data.shard_index import ShardIndex, index_of
from multiway.data.shard_names import expand, name_of, split_of
from multiway.data.source import BadRow, DataError, Row, held_out_split, stable_id

__all__ = ["FACTS_FILE", "Shards", "read_shards"]

FACTS_FILE = "dataset.json"
"""Beside the shards: `{"classes": [...], "templates": [...]}`, written by `write_shards`, optional for others' shards."""

_OPEN_FILES = 64  # kept open per process; shards come in thousands, file descriptors do not


@dataclass
class Shards:
    """One split of a set of shards.

    Attributes:
        name: the pattern.
        split: which rows these are.
        tars: the shards.
        classes, templates: from `dataset.json` beside the shards.
        rejected: samples of these shards that were left out.
        fingerprint: of keys, captions, labels and ids.
    """

    name: str
    split: str
    tars: Sequence[Path]
    indices: Sequence[ShardIndex] = field(repr=False)
    places: np.ndarray = field(repr=False)  # (rows, 2) int64: tar, sample in it
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ("a photo of a {}.", "{}")
    rejected: list[Rejected] = field(default_factory=list)
    fingerprint: str = ""

    def __post_init__(self) -> None:
        self._files: OrderedDict[int, int] = OrderedDict()
        if not self.fingerprint:
            self.fingerprint = fingerprint_of(map(self.row, range(len(self))))

    def __len__(self) -> int:
        return len(self.places)

    def row(self, index: int) -> Row:
        """The row's words; the key is the shard's name and the sample's key, since keys often start anew in each."""
        tar, sample = map(int, self.places[index])
        shard = self.indices[tar]
        captions, label = tuple(shard.captions[sample]), shard.labels[sample]
        return Row(
            self._key(tar, sample), _image_id(self.tars[tar], shard, sample), captions, label, self._where(tar, sample)
        )

    def encoded(self, index: int) -> bytes:
        """The picture as it stands in the shard.

        Raises:
            BadRow: if it cannot be read any more, or is not what was written.
        """
        tar, sample = map(int, self.places[index])
        offset, length = self.indices[tar].offsets[sample], self.indices[tar].lengths[sample]
        try:
            data = os.pread(self._file(tar), length, offset)
        except OSError as error:
            raise BadRow(
                f"{self._where(tar, sample)}: cannot be read ({error.strerror}); check {self.tars[tar]}"
            ) from error
        if len(data) != length:
            raise BadRow(
                f"{self._where(tar, sample)}: the shard has become shorter since it was opened; leave it alone while it is used"
            )
        check = self.indices[tar].checks[sample]
        if check >= 0 and check != zlib.crc32(data):
            # A JPEG has no sum of its own: with a flipped bit it would be shown, as another picture.
            raise BadRow(
                f"{self._where(tar, sample)}: the picture has another CRC-32 than when the shard was written; fetch or write it again"
            )
        return data

    def image(self, index: int) -> Image.Image:
        """The decoded picture.

        Raises:
            BadRow: if it cannot be decoded.
        """
        tar, sample = map(int, self.places[index])
        return decode(self.encoded(index), self._where(tar, sample))

    def _key(self, tar: int, sample: int) -> str:
        return f"{name_of(self.tars[tar])}/{self.indices[tar].keys[sample]}"

    def _where(self, tar: int, sample: int) -> str:
        return f"{self.tars[tar].name}, sample {self.indices[tar].keys[sample]}"

    def _file(self, tar: int) -> int:
        """A descriptor for positioned reads, which workers may share: there is no common place in the file to fight over."""
        if tar in self._files:
            self._files.move_to_end(tar)
            return self._files[tar]
        if len(self._files) >= _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        self._files[tar] = os.open(self.tars[tar], os.O_RDONLY)
        return self._files[tar]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}  # descriptors mean nothing to another process

    def __del__(self) -> None:
        for descriptor in getattr(self, "_files", {}).values():
            os.close(descriptor)


def _image_id(tar: Path, shard: ShardIndex, sample: int) -> int:
    if shard.picture_ids[sample] >= 0:
        return shard.picture_ids[sample]
    return stable_id(shard.image_ids[sample] or f"{name_of(tar)}/{shard.keys[sample]}")


def read_shards(pattern: str, ceiling: float = REJECTED_CEILING) -> dict[str, Shards]:
    """Read WebDataset shards.

    A shard that breaks off keeps the samples before the break; the break is listed in `rejected` and counts as a lost
    row. Names or folders that state a split are believed; otherwise pictures are held out by their id.

    Args:
        pattern: see `expand`.
        ceiling: share of samples that may be left out.

    Returns:
        The splits by name; only those that have rows.

    Raises:
        DataError: naming shard, member and remedy.
    """
    tars = expand(pattern)
    names: dict[str, Path] = {}
    for tar in tars:
        if names.setdefault(name_of(tar), tar) != tar:
            raise DataError(
                f"{tar} and {names[name_of(tar)]} have the same name, so that keys are not unique; rename one"
            )
    stated = {tar: split_of(tar) for tar in tars}
    if any(stated.values()) and not all(stated.values()):
        odd = next(tar for tar in tars if not stated[tar])
        raise DataError(
            f"{pattern}: some shards state a split in their name, {odd.name} does not; rename it or leave it out"
        )
    indices = [index_of(tar) for tar in tars]
    lost = [Rejected(where, why) for index in indices for where, why in index.lost]
    partly = [Rejected(where, why) for index in indices for where, why in index.partly]
    refuse_too_many(lost, sum(len(index.keys) for index in indices) + len(lost), pattern, ceiling)
    places: dict[str, list[tuple[int, int]]] = {}
    for number, (tar, index) in enumerate(zip(tars, indices, strict=True)):
        for sample in range(len(index.keys)):
            places.setdefault(stated[tar] or held_out_split(_image_id(tar, index, sample)), []).append((number, sample))
    if not places:
        raise DataError(f"{pattern}: the shards hold no samples; write them again")
    classes, templates = _facts(tars[0].parent, max(max(index.labels, default=-1) for index in indices))
    return {
        split: Shards(pattern, split, tars, indices, np.array(rows, dtype=np.int64), classes, templates, lost + partly)
        for split, rows in sorted(places.items())
    }


def _facts(folder: Path, highest: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes and templates, as `dataset.json` has them; numbers are named by themselves."""
    place = next((each / FACTS_FILE for each in (folder, folder.parent) if (each / FACTS_FILE).is_file()), None)
    templates = Shards.templates
    if place is None:
        return tuple(str(number) for number in range(highest + 1)), templates
    try:
        facts = json.loads(place.read_text(encoding="utf-8"))
        classes = tuple(str(name) for name in facts.get("classes", ()))
        templates = tuple(str(each) for each in facts.get("templates", ())) or templates
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{place}: cannot be read ({error}); correct or remove it") from error
    if highest >= len(classes) > 0 or (highest >= 0 and not classes):
        raise DataError(f"{place}: names {len(classes)} classes, but there is a label {highest}; correct or remove it")
    return classes, templates
