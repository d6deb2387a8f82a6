"""WebDataset shards as rows that are addressable by number.

    multiway train clip --data 'shards/train-{000000..000099}.tar'
    multiway train clip --data 's3://bucket/train-{000000..000999}.tar' --shuffle shards

Each tar gets an index once (`shard_index.py`, `shard_remote.py`), all of them together a catalogue (`catalogue.py`); from then on a
picture is one read at a known place, in any order, by any number of processes.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image

from multiway.data.catalogue import FORMAT, Catalogue
from multiway.data.catalogue_writer import catalogue_of
from multiway.data.decode import decode
from multiway.data.draws import SORTED
from multiway.data.rejected import REJECTED_CEILING, Rejected, refuse_too_many
from multiway.data.remote import RemoteError, RemoteFile, read_small
from multiway.data.shard_index import INDEX_VERSION, ShardIndex, cache_folder
from multiway.data.shard_indices import indices_of, stamp_of
from multiway.data.shard_names import ShardFile, expand, name_of, split_of
from multiway.data.shard_reader import ShardReader
from multiway.data.source import BadRow, DataError, Row

__all__ = ["FACTS_FILE", "Shards", "read_shards"]

FACTS_FILE = "dataset.json"
"""Beside the shards: `{"classes": [...], "templates": [...]}`, written by `write_shards`, optional for others' shards."""

_LEARNT = 1_000_000  # rows that a tokeniser is learned from, of sets with more than `SORTED`


@dataclass
class Shards:
    """One split of a set of shards.

    Attributes:
        name: the pattern.
        split: which rows these are.
        tars: the shards.
        catalogue: what they hold.
        classes, templates: from `dataset.json` beside the shards.
        rejected: samples of these shards that were left out.
        fingerprint: of keys, captions, labels and ids.
    """

    name: str
    split: str
    tars: Sequence[ShardFile]
    catalogue: Catalogue = field(repr=False)
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ("a photo of a {}.", "{}")
    rejected: list[Rejected] = field(default_factory=list)
    fingerprint: str = ""

    def __post_init__(self) -> None:
        self.fingerprint = self.fingerprint or self.catalogue.splits[self.split].fingerprint
        self._reader = ShardReader(self.tars)

    @cached_property
    def _names(self) -> list[str]:
        return [name_of(tar) for tar in self.tars]

    @property
    def shard_starts(self) -> np.ndarray:
        """(S + 1,) int64: row with which each shard of this split begins, and their number."""
        starts = self.catalogue.columns[f"{self.split}.shards"]
        return starts.span(0, len(starts))

    @property
    def places(self) -> np.ndarray:
        """(rows, 2) int64: shard of each row, and its sample's number among those of all shards, which rises within one."""
        rows, starts = self.catalogue.columns[f"{self.split}.rows"], self.catalogue.columns["starts"]
        samples = rows.span(0, len(rows)).astype(np.int64)
        return np.stack([np.searchsorted(starts.span(0, len(starts)), samples, side="right") - 1, samples], 1)

    @property
    def tokenizer_captions(self) -> tuple[str, ...] | None:
        """What a tokeniser is learned from where there are too many captions to hold: those of a million rows, spread over all."""
        if len(self) <= SORTED:
            return None
        rows = (number * len(self) // _LEARNT for number in range(_LEARNT))
        return tuple(caption for row in rows for caption in self.catalogue.captions(self._sample(row)))

    def __len__(self) -> int:
        return self.catalogue.splits[self.split].rows

    def row(self, index: int) -> Row:
        """The row's words; the key is the shard's name and the sample's key, since keys often start anew in each."""
        sample = self._sample(index)
        tar, key = self.catalogue.shard_of(sample), self.catalogue.key(sample)
        return Row(
            f"{self._names[tar]}/{key}",
            self.catalogue.number("image_ids", sample),
            self.catalogue.captions(sample),
            self.catalogue.number("labels", sample),
            f"{self.tars[tar].name}, sample {key}",
        )

    def encoded(self, index: int) -> bytes:
        """The picture as it stands in the shard.

        Raises:
            BadRow: if it cannot be read any more, or is not what was written.
        """
        sample = self._sample(index)
        where = self._where(sample)
        data = self._reader.read(*self._place(sample), where)
        check = self.catalogue.number("checks", sample)
        if check >= 0 and check != zlib.crc32(data):
            # A JPEG has no sum of its own: with a flipped bit it would be shown, as another picture.
            raise BadRow(
                f"{where}: the picture has another CRC-32 than when the shard was written; fetch or write it again"
            )
        return data

    def image(self, index: int) -> Image.Image:
        """The decoded picture.

        Raises:
            BadRow: if it cannot be decoded.
        """
        return decode(self.encoded(index), self._where(self._sample(index)))

    def reduced(self, index: int, side: int) -> Image.Image:
        """The picture, a JPEG perhaps at a fraction of its size; see `source.Reduces`."""
        return decode(self.encoded(index), self._where(self._sample(index)), least=side)

    def fetch(self, rows: np.ndarray) -> None:
        """Get the encoded pictures of rows (B,) at once, where the shards are far away."""
        if any(isinstance(tar, RemoteFile) for tar in self.tars[:1]):
            self._reader.fetch([self._place(self._sample(int(row))) for row in rows])

    def picture(self, index: int) -> str:
        """A name of the row's picture that is the same wherever shards were written from the same data; empty if there is none."""
        sample = self._sample(index)
        known, check = (self.catalogue.number(column, sample) for column in ("picture_ids", "checks"))
        return f"{known} {check}" if known >= 0 and check >= 0 else ""

    def _sample(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {self.name}@{self.split}, which has {len(self):,}")
        return self.catalogue.number(f"{self.split}.rows", index)

    def _place(self, sample: int) -> tuple[int, int, int]:
        """(shard, offset, length) of the encoded picture."""
        offset, length = (self.catalogue.number(column, sample) for column in ("offsets", "lengths"))
        return self.catalogue.shard_of(sample), offset, length

    def _where(self, sample: int) -> str:
        return f"{self.tars[self.catalogue.shard_of(sample)].name}, sample {self.catalogue.key(sample)}"


def read_shards(
    pattern: str,
    ceiling: float = REJECTED_CEILING,
    workers: int = 0,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> dict[str, Shards]:
    """Read WebDataset shards.

    A shard that breaks off keeps the samples before the break; the break is listed in `rejected` and counts as a lost
    row. Names or folders that state a split are believed; otherwise pictures are held out by their id.

    Args:
        pattern: see `expand`.
        ceiling: share of samples that may be left out.
        workers: shards that are indexed at once; 0 is one of local files, and several of remote ones.
        progress: told how many of how many shards have an index.

    Returns:
        The splits by name; only those that have rows.

    Raises:
        DataError: naming shard, member and remedy.
    """
    tars = expand(pattern)
    names: dict[str, ShardFile] = {}
    for tar in tars:
        if names.setdefault(name_of(tar), tar) != tar:
            raise DataError(
                f"{tar} and {names[name_of(tar)]} have the same name, so that keys are not unique; rename one"
            )
    stated = [split_of(tar) for tar in tars]
    if any(stated) and not all(stated):
        odd = tars[stated.index("")]
        raise DataError(
            f"{pattern}: some shards state a split in their name, {odd.name} does not; rename it or leave it out"
        )

    def shards() -> Iterator[tuple[str, str, ShardIndex]]:
        for number, index in enumerate(indices_of(tars, workers)):
            progress(number + 1, len(tars))
            yield name_of(tars[number]), stated[number], index

    stamps = [stamp_of(tar) for tar in tars]
    version = hashlib.sha256(json.dumps([FORMAT, INDEX_VERSION, stamps]).encode()).hexdigest()[:24]
    catalogue = catalogue_of(shards, _set_name(pattern, tars), version, cache_folder() / "sets")
    lost, partly = ([Rejected(*note) for note in catalogue.about[kind]] for kind in ("lost", "partly"))
    refuse_too_many(lost, len(catalogue) + len(lost), pattern, ceiling)
    if not catalogue.splits:
        raise DataError(f"{pattern}: the shards hold no samples; write them again")
    classes, templates = _facts(tars[0], catalogue.about["highest"])
    return {
        split: Shards(pattern, split, tars, catalogue, classes, templates, lost + partly) for split in catalogue.splits
    }


def _set_name(pattern: str, tars: Sequence[ShardFile]) -> str:
    """A name for these shards that is the same wherever the command is run from."""
    first = tars[0]
    return f"{pattern} {first.url if isinstance(first, RemoteFile) else first.resolve()}"


def _facts(tar: ShardFile, highest: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes and templates, as `dataset.json` has them; numbers are named by themselves."""
    templates = Shards.templates
    place, text = _facts_text(tar)
    if text is None:
        return tuple(str(number) for number in range(highest + 1)), templates
    try:
        facts = json.loads(text.decode("utf-8"))
        classes = tuple(str(name) for name in facts.get("classes", ()))
        templates = tuple(str(each) for each in facts.get("templates", ())) or templates
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{place}: cannot be read ({error}); correct or remove it") from error
    if highest >= len(classes) > 0 or (highest >= 0 and not classes):
        raise DataError(f"{place}: names {len(classes)} classes, but there is a label {highest}; correct or remove it")
    return classes, templates


def _facts_text(tar: ShardFile) -> tuple[ShardFile, bytes | None]:
    """`dataset.json` in the folder of a shard or the one above, if it is in either."""
    try:
        if isinstance(tar, RemoteFile):
            places = [tar.beside(FACTS_FILE), tar.beside(FACTS_FILE, up=1)]
            found = ((place, read_small(place)) for place in places if place is not None)
            return next((each for each in found if each[1] is not None), (tar, None))
        here = next((each / FACTS_FILE for each in tar.parents[:2] if (each / FACTS_FILE).is_file()), None)
        return (here, here.read_bytes()) if here is not None else (tar, None)
    except (OSError, RemoteError) as error:
        raise DataError(f"{FACTS_FILE} beside {tar}: cannot be read ({error}); correct or remove it") from error
