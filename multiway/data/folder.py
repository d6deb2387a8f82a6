"""A folder of pictures, in the three layouts in which such folders come, or without captions.

- captions in sidecars: `a.jpg` with `a.txt`, a caption per line;
- a table inside: `metadata.jsonl` or `metadata.csv` with `file_name` and `text` (the imagefolder convention);
- classes as sub-folders: the sub-folder's name is the label, and with spaces for underscores the caption.

Sub-folders named `train`, `val`, `test` are splits, each in one of the layouts. Without them, pictures are held out by
the hash of their path.

Somebody's own photos have no captions. Whoever needs none (search, captioning) opens them `bare`; nothing is trained on such rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from multiway.data.captions import read_captions
from multiway.data.files import SPLIT_NAMES, PictureFiles, split_name
from multiway.data.rejected import CAPTION_CEILING, REJECTED_CEILING, Rejected, clean_captions, refuse_too_many
from multiway.data.source import BadRow, DataError, Row, held_out_split, stable_id

__all__ = ["PICTURE_SUFFIXES", "read_folder"]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
_TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def read_folder(
    folder: str | Path,
    image_column: str | None = None,
    caption_column: str | None = None,
    longest: int = CAPTION_CEILING,
    ceiling: float = REJECTED_CEILING,
    bare: bool = False,
) -> dict[str, PictureFiles]:
    """Read a folder of pictures.

    Args:
        folder: with pictures in it, at any depth. Hidden files and folders are passed over.
        image_column, caption_column: for a table inside, if its columns are unusual.
        longest: characters of the longest caption that is kept.
        ceiling: share of rows that may be left out.
        bare: whether pictures without captions will do; those without a file beside them then have none.

    Returns:
        Its splits by name; only those that have rows.

    Raises:
        DataError: if it is no folder, has no pictures, or none of the layouts.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; correct the path")
    parts = _split_folders(root)
    if not parts:
        return _regrouped(str(root), _layout(root, root, image_column, caption_column, longest, ceiling, bare), "")
    merged: dict[str, PictureFiles] = {}
    for part in parts:
        split = split_name(part.name)
        if split in merged:
            raise DataError(
                f"{root}: {', '.join(each.name for each in parts)} are names of the same split; keep one of them"
            )
        merged.update(
            _regrouped(str(root), _layout(part, root, image_column, caption_column, longest, ceiling, bare), split)
        )
    return _same_classes(merged)


def _split_folders(root: Path) -> list[Path]:
    inner = sorted(each for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    return [each for each in inner if each.name.lower() in SPLIT_NAMES]


def _layout(
    part: Path,
    root: Path,
    image_column: str | None,
    caption_column: str | None,
    longest: int,
    ceiling: float,
    bare: bool,
) -> list[PictureFiles]:
    for name in _TABLES:
        if (part / name).is_file():
            found = read_captions(part / name, part, image_column, caption_column, longest, ceiling)
            # Paths in the table are relative to its folder; keys and ids of two splits must not meet.
            return [_prefixed(source, part, root) for source in found.values()]
    pictures = sorted(_pictures(part))
    if not pictures:
        raise DataError(f"{part}: the folder holds no pictures ({', '.join(PICTURE_SUFFIXES)}); correct the path")
    if any(picture.with_suffix(".txt").is_file() for picture in pictures):
        return [_sidecars(pictures, root, longest, ceiling, bare)]
    loose = [picture for picture in pictures if picture.parent == part]
    if loose and bare:
        return [_sidecars(pictures, root, longest, ceiling, bare)]
    if loose:
        raise DataError(
            f"{part}: found {len(pictures):,} pictures, {len(loose):,} of them outside sub-folders ({loose[0].name}, ...), and no captions; "
            f"expected a .txt beside each picture, a {_TABLES[0]} in the folder, or a sub-folder for each class; `search`, `embed` and `caption` do without"
        )
    return [_classes(pictures, part, root)]


def _pictures(folder: Path) -> Iterator[Path]:
    """Picture files at any depth; links are followed, and no folder is entered twice."""
    entered: set[tuple[int, int]] = set()
    for here, inner, files in os.walk(folder, followlinks=True):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in entered:
            inner.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        inner[:] = [name for name in inner if not name.startswith(".") and name != "__MACOSX"]
        yield from (
            Path(here) / name for name in files if name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")
        )


def _sidecars(pictures: list[Path], root: Path, longest: int, ceiling: float, bare: bool) -> PictureFiles:
    lost: list[Rejected] = []
    partly: list[Rejected] = []
    rows: list[Row] = []
    for picture in pictures:
        key = picture.relative_to(root).as_posix()
        try:
            without = bare and not picture.with_suffix(".txt").exists()
            captions = () if without else clean_captions(_sidecar_lines(picture), key, partly, longest)
        except BadRow as error:
            lost.append(Rejected(key, str(error)))
            continue
        rows.append(Row(key, stable_id(key), captions, where=key))
    refuse_too_many(lost, len(pictures), str(root), ceiling)
    return PictureFiles(
        str(root), "", rows, root, [row.key for row in rows], (), ("a photo of a {}.", "{}"), lost + partly
    )


def _sidecar_lines(picture: Path) -> list[str]:
    sidecar = picture.with_suffix(".txt")
    try:
        text = sidecar.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise BadRow(
            f"there is no {sidecar.name} beside the picture; write its captions there, one per line"
        ) from error
    except UnicodeDecodeError as error:
        raise BadRow(f"{sidecar.name} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
    # An empty line parts captions, it is not one; a file of nothing else has none.
    return [line for line in text.splitlines() if line.strip()] or [""]


def _classes(pictures: list[Path], part: Path, root: Path) -> PictureFiles:
    names = tuple(sorted({picture.relative_to(part).parts[0] for picture in pictures}))
    number = {name: label for label, name in enumerate(names)}
    rows = []
    for picture in pictures:
        name = picture.relative_to(part).parts[0]
        key = picture.relative_to(root).as_posix()
        rows.append(Row(key, stable_id(key), (_words(name),), number[name], key))
    return PictureFiles(str(root), "", rows, root, [row.key for row in rows], tuple(_words(name) for name in names))


def _words(folder_name: str) -> str:
    return " ".join(folder_name.replace("_", " ").split()) or folder_name


def _prefixed(source: PictureFiles, part: Path, root: Path) -> PictureFiles:
    if part == root:
        return source
    inside = part.relative_to(root).as_posix()
    rows = [
        replace(
            row,
            key=f"{inside}/{row.key}",
            image_id=stable_id(f"{inside}/{row.image_id}"),
            where=f"{inside}/{row.where}",
        )
        for row in source.rows
    ]
    files = [f"{inside}/{file}" for file in source.files]
    return replace(source, rows=rows, root=root, files=files, fingerprint="")


def _regrouped(name: str, sources: list[PictureFiles], split: str) -> dict[str, PictureFiles]:
    """All rows under `split`; by default under the split each has, or else is held out to."""
    groups: dict[str, tuple[list[Row], list[str]]] = {}
    for source in sources:
        for row, file in zip(source.rows, source.files, strict=True):
            rows, files = groups.setdefault(split or source.split or held_out_split(row.image_id), ([], []))
            rows.append(row)
            files.append(file)
    first = sources[0]
    return {
        each: PictureFiles(name, each, rows, first.root, files, first.classes, first.templates, first.rejected)
        for each, (rows, files) in sorted(groups.items())
    }


def _same_classes(splits: dict[str, PictureFiles]) -> dict[str, PictureFiles]:
    """Label numbers that mean the same class in every split, and one list of what was left out."""
    names = tuple(sorted({name for source in splits.values() for name in source.classes}))
    number = {name: label for label, name in enumerate(names)}
    rejected = [each for source in splits.values() for each in source.rejected]
    joined = {}
    for split, source in splits.items():
        rows = [replace(row, label=number[source.classes[row.label]]) if row.label >= 0 else row for row in source.rows]
        joined[split] = replace(source, rows=rows, classes=names, rejected=rejected, fingerprint="")
    return joined
