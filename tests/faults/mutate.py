"""Damage by chance, of bytes and of JSON: what a disk, a download or somebody with bad intent may have made of a file."""

import json
import random
from copy import deepcopy
from typing import Any

JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 7, 255, 2**31, 2**60, 2**64, -(2**63), 10**30, 1.5, -0.0, 1e308, float("inf"), float("nan"), "", " ", "x",
    "\ud800", "\0", "a\nb", "\x1b[2J", "\u202e", "../../secret", "/etc/passwd", "y" * 20_000, [], {}, [[]], [None], [1, "2"], {"a": 1},
    "float32", "load", "12", "1e5", "true",
]  # fmt: skip


def damage(data: bytes, dice: random.Random) -> bytes:
    """Bytes cut off, left out, overwritten, put in, repeated, exchanged, or numbers made huge."""
    at, to = sorted((dice.randrange(len(data) + 1), dice.randrange(len(data) + 1)))
    end = min(len(data), at + dice.randrange(1, 40))
    return [
        lambda: data[:at],
        lambda: data[:at] + data[end:],
        lambda: data[:at] + dice.randbytes(end - at) + data[end:],
        lambda: (
            data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
            if at < len(data)
            else data + b"\0"
        ),
        lambda: data[:at] + b"\xff" * 8 + data[at + 8 :],
        lambda: (
            data[:at] + dice.choice([b"\0", b"\n", b'"', b"{" * 50, b"[" * 5000, b"9" * 5000, b"\\ud800"]) + data[at:]
        ),
        lambda: data[:at] + data[at:to] + data[at:],
        lambda: data[to:] + data[:at],
    ][dice.randrange(8)]()


def _containers(tree: Any, found: list) -> list:
    if isinstance(tree, dict | list) and tree:
        found.append(tree)
        for each in tree.values() if isinstance(tree, dict) else tree:
            _containers(each, found)
    return found


def corrupt(tree: Any, dice: random.Random) -> Any:
    """A copy with one change at a random place: something lost, repeated, renamed, exchanged, wrapped, or replaced by junk."""
    tree = deepcopy(tree)
    place = dice.choice(_containers(tree, []))
    key = dice.choice(list(place) if isinstance(place, dict) else range(len(place)))
    match dice.randrange(8):
        case 0:
            del place[key]
        case 1 if isinstance(place, list):
            place.insert(dice.randrange(len(place) + 1), deepcopy(place[key]))
        case 2 if isinstance(place, dict):
            place[f"{key}{dice.choice([' ', chr(0), '/../x'])}"] = place.pop(key)
        case 3:
            other = dice.choice(list(place) if isinstance(place, dict) else range(len(place)))
            place[key], place[other] = place[other], place[key]
        case 4:
            place[key] = [place[key]]
        case _:
            place[key] = deepcopy(dice.choice(JUNK))
    return tree


def as_json(tree: Any) -> bytes:
    """As bytes that a JSON parser takes, lone surrogates escaped."""
    return json.dumps(tree).encode()
