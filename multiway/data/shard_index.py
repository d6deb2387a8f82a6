"""The side-car index of a WebDataset tar: where each sample's picture lies, and its words.

A tar has no table of contents. One pass over its headers writes one, `shard.tar` -> `shard.tar.index.json`, so that
afterwards any sample has an address (file, offset, length) and shuffling or resuming is arithmetic. The index is
bound to the tar's size and time of change, rebuilt when either differs or it disagrees with its own digest, written aside and
renamed. Where the folder is read-only it goes to the user's cache folder; where that fails too, it is built anew each time. Of a tar
by URL see `shard_remote.py`.

Samples are grouped by key as the WebDataset convention has it: what stands before the first dot of the base name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from multiway.data.rejected import Rejected, encodable
from multiway.data.shard_sample import LABEL_CEILING, WORDS, Members, read_sample
from multiway.data.source import BadRow, DataError

__all__ = ["INDEX_VERSION", "ShardIndex", "build_index", "cache_folder", "index_of", "read_index", "write_index"]

INDEX_VERSION = 2
# Key and extension; a member without an extension belongs to no sample.
_MEMBER = re.compile(r"^((?:.*/)?[^./]+)\.([^/]*)$")


@dataclass
class ShardIndex:
    """What one tar holds; the lists run in parallel, a sample each.

    Attributes:
        version, size, mtime_ns: what the index was made of; of a tar by URL, `mtime_ns` is `RemoteFile.changed`.
        keys: WebDataset keys.
        offsets, lengths: where the encoded picture lies in the tar, in bytes.
        captions: at least one each.
        labels: class numbers, -1 where unknown.
        image_ids: as the sample's JSON gives them; empty where it does not.
        picture_ids: final 63-bit ids written by `write_shards`; -1 where there are none.
        checks: CRC-32 of the encoded pictures, likewise.
        lost: samples left out, as [where, why].
        partly: captions left out of samples that stay, likewise.
    """

    version: int
    size: int
    mtime_ns: int
    keys: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    image_ids: list[str] = field(default_factory=list)
    picture_ids: list[int] = field(default_factory=list)
    checks: list[int] = field(default_factory=list)
    lost: list[list[str]] = field(default_factory=list)
    partly: list[list[str]] = field(default_factory=list)


def index_of(tar: Path) -> ShardIndex:
    """The index of a tar: read if there is a fresh one, else built and, where possible, kept.

    Raises:
        DataError: if the tar cannot be used at all: unreadable, compressed, corrupt, with unsafe names or links, or
            with the same member twice.
    """
    try:
        status = tar.stat()
    except OSError as error:
        raise DataError(f"{tar}: the shard cannot be read ({error.strerror}); correct the pattern") from error
    places = (tar.with_name(f"{tar.name}.index.json"), _cache_place(tar))
    for place in places:
        known = read_index(place)
        if known and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
            return known
    try:
        with tar.open("rb") as file:
            index = build_index(str(tar), file, ShardIndex(INDEX_VERSION, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise DataError(f"{tar}: the shard cannot be read ({error.strerror or error}); check the file") from error
    for place in places:
        if write_index(place, index):
            break
    return index


def cache_folder() -> Path:
    """Where what is known of shards is kept, beside those that nothing can be written beside."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "multiway" / "shards"


def _cache_place(tar: Path) -> Path:
    return cache_folder() / f"{hashlib.sha256(str(tar.resolve()).encode()).hexdigest()[:32]}.json"


def read_index(place: Path | bytes) -> ShardIndex | None:
    """An index, from its file or its bytes, that is there and whole; anything else is as good as none, since it can be built again."""
    try:
        value = json.loads(place if isinstance(place, bytes) else place.read_text(encoding="utf-8"))
        if value.pop("digest") != _digest(value):
            return None
        index = ShardIndex(**value)
        return index if index.version == INDEX_VERSION and _believable(index) else None
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None


def _digest(body: dict[str, Any]) -> str:
    """Of an index, so that a flipped bit in it is seen: it holds the captions themselves."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]


def _believable(index: ShardIndex) -> bool:
    """Whether the columns are what they should be: a digest is no secret, and the index may have come with the tar."""
    numbers = (index.offsets, index.lengths, index.labels, index.picture_ids, index.checks)
    texts = (index.keys, index.image_ids)
    notes = (index.lost, index.partly)
    return (
        all(isinstance(each, list) and len(each) == len(index.keys) for each in (*numbers, *texts, index.captions))
        and all(type(number) is int for column in numbers for number in column)
        and all(_text(text) for column in texts for text in column)
        and all(
            isinstance(each, list) and each and all(_text(one) and one.strip() for one in each)
            for each in index.captions
        )
        and all(
            isinstance(note, list) and len(note) == 2 and all(map(_text, note)) for column in notes for note in column
        )
        and all(at >= 0 and size >= 0 and at + size <= index.size for at, size in zip(index.offsets, index.lengths))
        and all(-1 <= label < LABEL_CEILING for label in index.labels)
        and all(-1 <= each < 1 << 63 for each in index.picture_ids)
        and all(-1 <= each < 1 << 32 for each in index.checks)
    )


def _text(value: object) -> bool:
    return isinstance(value, str) and encodable(value)


def write_index(place: Path, index: ShardIndex) -> bool:
    """Keep an index, in one piece; whether that could be done."""
    aside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        body = asdict(index)
        text = json.dumps({**body, "digest": _digest(body)}, ensure_ascii=False, separators=(",", ":"))
        aside.write_text(text, encoding="utf-8")
        aside.replace(place)
    except OSError:
        aside.unlink(missing_ok=True) if os.access(place.parent, os.W_OK) else None
        return False
    return True


def build_index(
    tar: str, file: BinaryIO, index: ShardIndex, keep: Callable[[int, int], None] = lambda offset, length: None
) -> ShardIndex:
    """Fill an index by one pass over a tar's headers, and one over its words.

    Args:
        tar: its name, for messages.
        file: the tar.
        index: empty, with the tar's size.
        keep: told of (offset, length) of words as they are passed, since they will be read in the second pass.

    Raises:
        DataError: as `index_of` does.
    """
    name = PurePath(tar).name
    samples, cut = _members(tar, file, index.size, keep)
    for key, members in samples.items():
        where = f"{name}, sample {key}"
        partly: list[Rejected] = []
        try:
            sample = read_sample(file, members, where, partly)
        except BadRow as error:
            index.lost.append([where, str(error)])
            continue
        index.partly += [[each.where, each.why] for each in partly]
        index.keys.append(key)
        index.offsets.append(sample.offset)
        index.lengths.append(sample.length)
        index.captions.append(list(sample.captions))
        index.labels.append(sample.label)
        index.image_ids.append(sample.image_id)
        index.picture_ids.append(sample.picture_id)
        index.checks.append(sample.crc32)
    if cut:
        if not index.keys:
            raise DataError(f"{tar}: {cut}, and nothing before that is usable; fetch or write the shard again")
        kept = f"the {len(index.keys):,} samples before are kept"
        index.lost.append([name, f"{cut}; {kept}, fetch or write the shard again"])
    return index


def _members(tar: str, file: BinaryIO, size: int, keep: Callable[[int, int], None]) -> tuple[dict[str, Members], str]:
    """All samples by key, in order of first appearance, and how the tar was cut off, if it was."""
    samples: dict[str, Members] = {}
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - the file belongs to the caller
    except tarfile.TarError as error:
        raise DataError(f"{tar}: {_no_tar(file)} ({error})") from error
    while True:
        try:
            member = archive.next()
        except tarfile.TarError:
            return samples, f"the shard breaks off after {size:,} bytes, within a member"
        if member is None:
            break
        _refuse_unsafe(tar, member)
        # Python keeps every header it has passed; a shard has tens of thousands.
        archive.members = []  # type: ignore[attr-defined]
        if member.isdir():
            continue
        if member.offset_data + member.size > size:
            return samples, f"the shard breaks off after {size:,} bytes, within {member.name}"
        key, extension = _key_and_extension(member.name)
        if not key:
            continue
        if extension in samples.setdefault(key, {}):
            raise DataError(
                f"{tar}: member {member.name} is there twice; keys must differ within a shard, write it again"
            )
        samples[key][extension] = (member.offset_data, member.size)
        if extension in WORDS:
            keep(member.offset_data, member.size)
    # tarfile takes a header that it cannot read for the end of the archive. A true end is empty blocks or nothing.
    file.seek(archive.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0"):
        if len(block) < tarfile.BLOCKSIZE:
            return samples, f"the shard breaks off after {size:,} bytes, within a header"
        raise DataError(f"{tar}: the header at byte {archive.offset:,} is damaged; fetch or write the shard again")
    return samples, ""


def _no_tar(file: BinaryIO) -> str:
    file.seek(0)
    head = file.read(8)
    if not head:
        return "the shard is empty (0 bytes); fetch or write it again"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "the shard is compressed, so that no sample has an address; unpack it to a plain .tar"
    return "this is not a tar; fetch or write it again"


def _refuse_unsafe(tar: str, member: tarfile.TarInfo) -> None:
    """Nothing is ever unpacked, yet a tar with such members was made by mistake or malice and is not trusted."""
    if member.name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", member.name):
        raise DataError(
            f"{tar}: member {member.name!r} leads out of the archive; expected plain relative names, write it again"
        )
    if not (member.isreg() or member.isdir()) or member.issparse():
        kind = "link" if member.issym() or member.islnk() else "special file"
        raise DataError(f"{tar}: member {member.name!r} is a {kind}; expected plain files only, write it again without")


def _key_and_extension(name: str) -> tuple[str, str]:
    found = _MEMBER.match(name.removeprefix("./"))
    # macOS adds `._name` beside each file, WebDataset's own tools `__info__`.
    if not found or found[1].rpartition("/")[2].startswith("__") or not encodable(name):
        return "", ""
    return found[1], found[2].lower()
