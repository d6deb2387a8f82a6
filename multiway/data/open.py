"""From what the command line says to a source: `name[:path][@split]`, or several with weights (`spec.py`).

emoji@composition        a bundled set, one of its splits
emoji:classes=concept    the same with other labels, see `data/emoji.py`
scenes:hard,swap=0.4     a bundled world with options, see `data/scenes/options.py`
captions.jsonl           a caption file (JSON Lines, JSON, CSV, TSV, Parquet)
pictures/@val            a folder of pictures with captions beside them, or classes as sub-folders
'shards/{000..099}.tar'  WebDataset shards
cifar10:data/cifar@test  the binary files of a published picture set, see `data/annotated/binary_pictures.py`
coco:data/coco@test      the original files of a published caption set, see `data/annotated/caption_sets.py`
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePath

from multiway.data.annotated.binary_pictures import PICTURE_SETS, open_picture_set, picture_splits_there
from multiway.data.annotated.caption_sets import open_caption_set, splits_there
from multiway.data.captions import read_captions
from multiway.data.files import PictureFiles, split_name
from multiway.data.folder import read_folder
from multiway.data.join import Joined
from multiway.data.mixture import Mixture, Renamed
from multiway.data.remote import is_remote
from multiway.data.shards import Shards, read_shards
from multiway.data.source import DataError, Source, SourceSpec
from multiway.data.spec import ALL, BUNDLED, PUBLISHED, expected, is_mixed, parse, parse_mixture, parts_of
from multiway.data.table import TABLE_SUFFIXES

__all__ = [
    "ALL",
    "BUNDLED",
    "open_mixture",
    "open_source",
    "open_splits",
    "parse",
    "parts_of",
    "splits_of",
    "subsets_of",
]


def _emoji(split: str, options: str) -> Source:
    from multiway.data.emoji import Emoji

    if not options:
        return Emoji.open(split)
    key, equals, value = options.partition("=")
    if key != "classes" or not equals:
        raise DataError(f"emoji has no option {options!r}; it has classes=group, classes=subgroup and classes=concept")
    return Emoji.open(split, classes=value)


def _digits(split: str, options: str) -> Source:
    from multiway.data.digits import Digits

    _no_options("digits", options)
    return Digits.open(split)


def _scenes(split: str, options: str) -> Source:
    from multiway.data.scenes.source import Scenes

    return Scenes.open(split, options)


def _scenes_video(split: str, options: str) -> Source:
    from multiway.data.scenes.clips import SceneVideos

    return SceneVideos.open(split, options)


def _no_options(name: str, options: str) -> None:
    if options:
        raise DataError(f"{name}:{options}: {name} takes nothing after the colon; write {name}")


# How each bundled set is opened, by split and what stands after the colon; and its splits.
_OPENERS: dict[str, tuple[Callable[[str, str], Source], tuple[str, ...]]] = {
    "emoji": (_emoji, ("train", "random", "composition", "concept")),
    "digits": (_digits, ("train", "test")),
    "scenes": (_scenes, ("train", "val", "test")),
    "scenes-video": (_scenes_video, ("val", "test")),
}

# Parts of a split that are worth a figure of their own; `all` does not count them again.
_SUBSETS: dict[str, tuple[str, ...]] = {"emoji": ("concept-strict",)}


def _is_set(parsed: SourceSpec) -> bool:
    """Whether a published set is meant, and not a folder that has its name."""
    return parsed.name in PUBLISHED and bool(parsed.path)


def _there(parsed: SourceSpec) -> tuple[str, ...]:
    """The splits of a published set whose files are in its folder."""
    of = picture_splits_there if parsed.name in PICTURE_SETS else splits_there
    return of(parsed.name, parsed.path)


def _published(parsed: SourceSpec, split: str, images: str | Path, withheld: bool = False) -> Source:
    if parsed.name in PICTURE_SETS:
        return open_picture_set(parsed.name, parsed.path, split)
    return open_caption_set(parsed.name, parsed.path, split, images, withheld)


def _read(
    spec: SourceSpec, images: str | Path, image_column: str | None, caption_column: str | None, bare: bool = False
) -> dict[str, PictureFiles] | dict[str, Shards]:
    """One's own data: all splits."""
    if is_remote(spec.name):
        if PurePath(spec.name.partition("?")[0]).suffix.lower() in TABLE_SUFFIXES:
            raise DataError(
                f"{spec.name}: of files by URL only shards are read; fetch a caption file, or pack it with `multiway data shard`"
            )
        return read_shards(spec.name)
    name = str(Path(spec.name).expanduser())
    path = Path(name)
    if path.is_dir():
        if any(path.glob("*.tar")) or any(path.glob("*/*.tar")):
            return read_shards(name)
        return read_folder(path, image_column, caption_column, bare=bare)
    if path.suffix.lower() in TABLE_SUFFIXES:
        return read_captions(path, images, image_column, caption_column)
    if path.suffix.lower() == ".tar" or glob.has_magic(name) or "{" in name:
        return read_shards(name)
    if path.exists():
        raise DataError(f"{spec.name}: cannot tell what this file is; {expected()}")
    raise DataError(f"there is no data {spec.name!r}; {expected()}")


def splits_of(
    spec: str, images: str | Path = "", image_column: str | None = None, caption_column: str | None = None
) -> tuple[str, ...]:
    """Names of the splits that have rows; `all` opens them together.

    Raises:
        DataError: if the data cannot be used.
    """
    parsed = parse(spec)
    if parsed.name in _OPENERS:
        return _OPENERS[parsed.name][1]
    if _is_set(parsed):
        return _there(parsed)
    return tuple(_read(parsed, images, image_column, caption_column))


def subsets_of(spec: str) -> tuple[str, ...]:
    """Names of parts of a bundled set's splits that can be opened like splits; none for one's own data."""
    return _SUBSETS.get(parse(spec).name, ())


def open_source(
    spec: str,
    images: str | Path = "",
    default_split: str = "train",
    image_column: str | None = None,
    caption_column: str | None = None,
    *,
    bare: bool = False,
) -> Source:
    """Open one split.

    Args:
        spec: `name[:path][@split]`, see `parse`.
        images: folder that a caption file's paths are relative to.
        default_split: if `spec` names none.
        image_column, caption_column: of a caption file, if unusual.
        bare: whether pictures without captions will do, to search them or to write some: a folder of nothing but pictures, a
            published split whose captions are withheld.

    Raises:
        DataError: if the data cannot be used, or have no such split; then listing those that exist.
    """
    parsed = parse(spec)
    split = split_name(parsed.split or default_split)
    if parsed.name in _OPENERS:
        opener, known = _OPENERS[parsed.name]
        if split in (*known, *_SUBSETS.get(parsed.name, ())):
            return opener(split, parsed.path)
        if split == ALL:
            return Joined(parsed.name, ALL, [opener(each, parsed.path) for each in known])
        raise _no_split(parsed.name, split, (*known, *subsets_of(parsed.name)))
    if _is_set(parsed):
        if split != ALL:
            return _published(parsed, split, images, bare)
        name = str(replace(parsed, split=""))
        return Joined(name, ALL, [_published(parsed, each, images, bare) for each in _there(parsed)])
    found: dict[str, Source] = dict(_read(parsed, images, image_column, caption_column, bare))
    if split in found:
        return found[split]
    if split == ALL:
        return Joined(parsed.name, ALL, list(found.values()))
    raise _no_split(parsed.name, split, tuple(found))


def open_mixture(
    spec: str,
    images: str | Path = "",
    default_split: str = "train",
    image_column: str | None = None,
    caption_column: str | None = None,
) -> Mixture:
    """Open several sources, to be drawn from by weight.

    Args:
        spec: as of `spec.parse_mixture`.
        images, image_column, caption_column: of every caption file among them.
        default_split: of those that name none.

    Raises:
        DataError: as `open_source` does, of any of them.
    """
    named = parse_mixture(spec)
    parts = [open_source(str(part), images, default_split, image_column, caption_column) for part, _ in named]
    # The rows of one data set, whatever the split, have ids that agree.
    sets = [part.name if part.name in BUNDLED else str(replace(part, split="")) for part, _ in named]
    return Mixture(spec.strip(), parts, [weight for _, weight in named], sets)


def open_splits(
    spec: str, images: str | Path = "", image_column: str | None = None, caption_column: str | None = None
) -> list[Source]:
    """All splits, or the one that `spec` names; of several sources those of each, under the names of both.

    Raises:
        DataError: as `open_source` does.
    """
    if is_mixed(spec):
        return [
            Renamed(source, f"{part.name}@{source.split}")
            for part in parts_of(spec)
            for source in open_splits(str(part), images, image_column, caption_column)
        ]
    parsed = parse(spec)
    if parsed.split:
        return [open_source(spec, images, "", image_column, caption_column)]
    if parsed.name in _OPENERS:
        opener, known = _OPENERS[parsed.name]
        return [opener(split, parsed.path) for split in known]
    if _is_set(parsed):
        return [_published(parsed, split, images) for split in _there(parsed)]
    return list(_read(parsed, images, image_column, caption_column).values())


def _no_split(name: str, split: str, known: tuple[str, ...]) -> DataError:
    remedy = "a small data set may have no rows held out; give it a `split` column, or sub-folders train and val"
    return DataError(
        f"{name} has no rows in split {split!r}; it has {', '.join(known)} and {ALL} (all rows)"
        + (f"; {remedy}" if split in ("train", "val", "test") and name not in BUNDLED else "")
    )
