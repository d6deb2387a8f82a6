"""Write any source as WebDataset shards: the same rows give the same bytes, on any machine at any time.

Each sample is `NUMBER.jpg|png|webp` (the original bytes where the source has them, PNG otherwise), `NUMBER.txt` with the
first caption, for every reader of the format, and `NUMBER.json` with all captions, label, id and the picture's CRC-32, for ours. Everything
is written into a folder aside and moved into place at the end.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from multiway.data.decode import decode, picture_suffix
from multiway.data.rejected import Rejected
from multiway.data.shards import FACTS_FILE
from multiway.data.source import BadRow, DataError, Row, Source

__all__ = ["Written", "write_facts", "write_shards", "write_tar"]


@dataclass(frozen=True)
class Written:
    """What `write_shards` did.

    Attributes:
        tars: the shards, in order.
        rows: samples in them.
        skipped: rows whose pictures could not be read.
    """

    tars: tuple[Path, ...]
    rows: int
    skipped: tuple[Rejected, ...]


def write_shards(sources: Source | Sequence[Source], out: str | Path, rows_per_shard: int = 1000) -> Written:
    """Write splits as shards `SPLIT-000000.tar`, with `dataset.json` beside them.

    Args:
        sources: one split, or several of the same data set.
        out: folder; may exist, but not hold shards of these splits.
        rows_per_shard: samples in each tar but the last of a split.

    Raises:
        DataError: if there is nothing to write, shards would be overwritten, or the disk is full.
    """
    splits = list(sources) if isinstance(sources, Sequence) else [sources]
    folder = Path(out)
    if rows_per_shard < 1:
        raise DataError(f"rows per shard is {rows_per_shard}; expected 1 or more")
    if not any(len(source) for source in splits):
        raise DataError("there are no rows to write; choose another source or split")
    if len({source.split for source in splits}) < len(splits):
        raise DataError(f"splits {', '.join(source.split for source in splits)} are not distinct; give each once")
    for source in splits:
        there = sorted(folder.glob(f"{source.split}-*.tar"))
        if there:
            raise DataError(
                f"{folder} already holds {len(there)} shards of {source.split} ({there[0].name}, ...); choose an empty folder"
            )
    aside = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = Path(mkdtemp(prefix=".writing-", dir=folder))
        return _write(splits, folder, aside, rows_per_shard)
    except OSError as error:
        raise DataError(
            f"{folder}: shards cannot be written ({error.strerror or error}); make room or choose another folder"
        ) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def write_tar(
    path: Path, source: Source, rows: Iterable[tuple[int, Row, Mapping[str, Any]]], decoded: bool = False
) -> Written:
    """Write one shard of rows whose words may be other than the source's, aside and then renamed.

    The same rows give the same bytes. Without a readable row no file is left, not even one that was there.

    Args:
        path: of the tar; its folder exists.
        source: of the pictures.
        rows: (number in the source, what is said of it, further fields for the sample's JSON).
        decoded: their pictures were decoded a moment ago, and need not be once more before they are copied.

    Raises:
        DataError: if the disk is full, or the folder cannot be written.
    """
    aside = path.with_name(f".{path.name}.part")
    skipped: list[Rejected] = []
    count = 0
    try:
        with tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as tar:
            for index, row, more in rows:
                try:
                    suffix, picture = _picture(source, index, row, decoded)
                except BadRow as error:
                    skipped.append(Rejected(row.where or row.key, str(error)))
                    continue
                _add_sample(tar, f"{index:09d}", suffix, picture, row, more)
                count += 1
        aside.replace(path) if count else path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{path}: the shard cannot be written ({error.strerror or error}); make room or choose another folder"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    return Written((path,) if count else (), count, tuple(skipped))


def write_facts(folder: Path, source: Source) -> None:
    """Write the names of a source's classes and its templates beside its shards."""
    facts = {"classes": list(source.classes), "templates": list(source.templates)}
    (folder / FACTS_FILE).write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _write(splits: Sequence[Source], folder: Path, aside: Path, rows_per_shard: int) -> Written:
    tars: list[Path] = []
    skipped: list[Rejected] = []
    rows = 0
    for source in splits:
        names, count = _write_split(source, aside, rows_per_shard, skipped)
        tars += [folder / name for name in names]
        rows += count
    write_facts(aside, splits[0])
    for name in [tar.name for tar in tars] + [FACTS_FILE]:
        (aside / name).replace(folder / name)
    return Written(tuple(tars), rows, tuple(skipped))


def _write_split(source: Source, aside: Path, rows_per_shard: int, skipped: list[Rejected]) -> tuple[list[str], int]:
    names: list[str] = []
    count = 0
    tar: tarfile.TarFile | None = None
    try:
        for index in range(len(source)):
            row = source.row(index)
            try:
                suffix, picture = _picture(source, index, row)
            except BadRow as error:
                skipped.append(Rejected(row.where or row.key, str(error)))
                continue
            if count % rows_per_shard == 0:
                if tar is not None:
                    tar.close()
                names.append(f"{source.split}-{len(names):06d}.tar")
                tar = tarfile.open(aside / names[-1], "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - spans the loop
            assert tar is not None
            _add_sample(tar, f"{index:09d}", suffix, picture, row)
            count += 1
    finally:
        if tar is not None:
            tar.close()
    return names, count


def _picture(source: Source, index: int, row: Row, decoded: bool = False) -> tuple[str, bytes]:
    """Suffix and bytes; a picture that cannot be decoded is refused here rather than copied."""
    encoded = getattr(source, "encoded", None)
    data: bytes | None = encoded(index) if callable(encoded) else None
    suffix = picture_suffix(data) if data is not None else ""
    if data is not None and suffix:
        if not decoded:
            decode(data, row.where or row.key)
        return suffix, data
    buffer = io.BytesIO()
    source.image(index).save(buffer, "PNG")
    return "png", buffer.getvalue()


def _add_sample(
    tar: tarfile.TarFile, name: str, suffix: str, picture: bytes, row: Row, more: Mapping[str, Any] | None = None
) -> None:
    facts = dict(more or {}) | {
        "key": row.key,
        "crc32": zlib.crc32(picture),
        "picture_id": row.image_id,
        "captions": list(row.captions),
        "label": row.label,
    }
    text = json.dumps(facts, ensure_ascii=False, sort_keys=True)
    for extension, data in ((suffix, picture), ("json", text.encode()), ("txt", row.captions[0].encode())):
        member = tarfile.TarInfo(f"{name}.{extension}")  # times, owner and group of a new TarInfo are zero or empty
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
