"""One sample of a WebDataset tar: its members, read into captions, label and ids."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, BinaryIO

from multiway.data.rejected import Rejected, clean_captions, encodable
from multiway.data.source import BadRow

__all__ = ["LABEL_CEILING", "WORDS", "Members", "Sample", "read_sample"]

Members = dict[str, tuple[int, int]]
"""Extension -> (offset, length) in the tar, in bytes."""

WORDS = frozenset({"txt", "json", "cls"})
"""Extensions of members that say something of a sample."""

_PICTURES = ("jpg", "jpeg", "png", "webp")
_TEXT_CEILING = 1 << 20  # bytes of a .txt, .json or .cls member above which it is not read
LABEL_CEILING = 1_000_000
_CAPTION_FIELDS = ("captions", "caption", "texts", "text")


@dataclass(frozen=True)
class Sample:
    """What the index keeps of one sample.

    Attributes:
        offset, length: of the encoded picture in the tar, in bytes.
        captions: at least one.
        label: class number; -1 where unknown.
        image_id: as given in the JSON; empty where it is not.
        picture_id: final 63-bit id written by `write_shards`; -1 where there is none.
        crc32: of the encoded picture, as `write_shards` gives it in the JSON; -1 where there is none.
    """

    offset: int
    length: int
    captions: tuple[str, ...]
    label: int
    image_id: str
    picture_id: int
    crc32: int = -1


def read_sample(file: BinaryIO, members: Members, where: str, partly: list[Rejected]) -> Sample:
    """Read a sample's words and find its picture.

    Args:
        file: the tar.
        members: of this sample.
        where: shard and key, for messages.
        partly: receives captions that were left out of a sample that stays.

    Raises:
        BadRow: if the sample cannot be used.
    """
    pictures = [extension for extension in _PICTURES if extension in members]
    if not pictures:
        raise BadRow(
            f"the sample has {', '.join(members)} but no picture ({', '.join(_PICTURES)}); remove it or add one"
        )
    if len(pictures) > 1:
        raise BadRow(f"the sample has {len(pictures)} pictures ({', '.join(pictures)}); keep one")
    facts = _facts(file, members)
    captions = clean_captions(
        _captions(file, members, facts), where, partly, remedy="add a .txt, or a caption in .json"
    )
    given = facts.get("image_id")
    image_id = str(given) if isinstance(given, (str, int)) else ""
    return Sample(
        *members[pictures[0]],
        captions=captions,
        label=_label(file, members, facts),
        image_id=image_id if encodable(image_id) else "",
        picture_id=_number(facts, "picture_id", 1 << 63),
        crc32=_number(facts, "crc32", 1 << 32),
    )


def _number(facts: dict[str, Any], name: str, end: int) -> int:
    """A whole number in [0, end) that `write_shards` wrote; -1 for anything else, which others may mean otherwise."""
    given = facts.get(name)
    return given if type(given) is int and 0 <= given < end else -1


def _text(file: BinaryIO, members: Members, extension: str) -> str:
    offset, length = members[extension]
    if length > _TEXT_CEILING:
        raise BadRow(f"its .{extension} has {length:,} bytes, more than {_TEXT_CEILING:,}; shorten it")
    file.seek(offset)
    try:
        return file.read(length).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRow(
            f"its .{extension} is not UTF-8 ({error.reason} at byte {error.start}); write it as UTF-8"
        ) from error


def _facts(file: BinaryIO, members: Members) -> dict[str, Any]:
    if "json" not in members:
        return {}
    try:
        facts = json.loads(_text(file, members, "json"))
    except BadRow:
        raise
    except (ValueError, RecursionError) as error:
        raise BadRow(f"its .json is not valid JSON ({error}); write it again") from error
    return facts if isinstance(facts, dict) else {}


def _captions(file: BinaryIO, members: Members, facts: dict[str, Any]) -> object:
    """A list of captions in the JSON says most; else the .txt, which is one caption; else any caption in the JSON."""
    if isinstance(facts.get("captions"), list):
        return facts["captions"]
    if "txt" in members:
        return _text(file, members, "txt")
    return next((facts[name] for name in _CAPTION_FIELDS if facts.get(name)), None)


def _label(file: BinaryIO, members: Members, facts: dict[str, Any]) -> int:
    given = _text(file, members, "cls").strip() if "cls" in members else facts.get("label", -1)
    try:
        label = -1 if given is None else int(given)
        if isinstance(given, (bool, float)) and (given is True or given is False or label != given):
            raise ValueError("not a whole number")  # 1.7 is no class, and True none either
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRow(f"its label is {given!r:.40}; expected a class number, with the names in dataset.json") from error
    if not -1 <= label < LABEL_CEILING:
        raise BadRow(f"its label is {label}; expected 0 to {LABEL_CEILING - 1:,}, or -1 where it is unknown")
    return label
