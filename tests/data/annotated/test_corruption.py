"""Thousands of corrupted annotation files: each ends in a `DataError` or in rows that are counted, and in nothing else."""

import json
import random
from copy import deepcopy
from pathlib import Path

import pytest
from annotated import miniatures
from annotated.miniatures import all_of, few, said

from multiway.data.annotated.gqa import open_gqa
from multiway.data.annotated.nlvr2 import open_nlvr2
from multiway.data.annotated.snli_ve import open_snli_ve
from multiway.data.annotated.visual_genome import open_visual_genome
from multiway.data.annotated.vqa import open_vqa
from multiway.data.examples import Asked, Judged
from multiway.data.source import DataError

ROUNDS = 250  # of each kind, for each format

JUNK = [
    None, True, False, 0, -1, 7, 10**30, 1.5, 1e308, float("nan"), "", "  ", "x", "\ud800", "\0", "../../secret", "y" * 20_000,
    [], {}, [[]], [None], {"a": 1}, "ünïcödé", "12", "-", "1e5",
]  # fmt: skip

FORMATS = {
    "vqa questions": (miniatures.write_vqa, open_vqa, "val", "questions", "*_questions.json"),
    "vqa answers": (miniatures.write_vqa, open_vqa, "val", "questions", "*_annotations.json"),
    "gqa": (miniatures.write_gqa, open_gqa, "testdev", "questions", "*/*.json"),
    "snli-ve": (miniatures.write_snli_ve, open_snli_ve, "val", "entailment", "*.jsonl"),
    "nlvr2": (miniatures.write_nlvr2, open_nlvr2, "val", "statements", "dev.json"),
    "visual genome": (
        lambda folder, _, examples: miniatures.write_visual_genome(folder, examples),
        open_visual_genome, "all", "questions", "question_answers.json",
    ),
}  # fmt: skip


def containers(tree, found: list) -> list:
    if isinstance(tree, dict | list) and tree:
        found.append(tree)
        for each in tree.values() if isinstance(tree, dict) else tree:
            containers(each, found)
    return found


def corrupt(tree, dice: random.Random) -> None:
    """One change at a random place: something lost, replaced, repeated, renamed, exchanged or wrapped."""
    place = dice.choice(containers(tree, []))
    key = dice.choice(list(place) if isinstance(place, dict) else range(len(place)))
    match dice.randrange(6):
        case 0:
            del place[key]
        case 1 if isinstance(place, list):
            place.insert(dice.randrange(len(place) + 1), deepcopy(place[key]))
        case 2 if isinstance(place, dict):
            place[f"{key} "] = place.pop(key)
        case 3:
            other = dice.choice(list(place) if isinstance(place, dict) else range(len(place)))
            place[key], place[other] = place[other], place[key]
        case 4:
            place[key] = [place[key]]
        case _:
            place[key] = deepcopy(dice.choice(JUNK))


def damage(data: bytes, dice: random.Random) -> bytes:
    """Bytes cut off, overwritten, put in, repeated or encoded otherwise."""
    at, to = sorted((dice.randrange(len(data)), dice.randrange(len(data))))
    return [
        lambda: data[:at],
        lambda: data[:at] + data[to:],
        lambda: data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :],
        lambda: data[:at] + b"\xff" + data[at:],
        lambda: data[:at] + data[at:to] + data[at:],
        lambda: data.decode().encode("utf-16"),
        lambda: b"\xef\xbb\xbf" + data[:at] + b"\r\n" + data[at:],
        lambda: b"",
    ][dice.randrange(8)]()


def believable(found) -> None:
    keys = set()
    for each in all_of(found):
        keys.add(each.key)
        assert each.text.strip() and each.pictures and all(0 <= one < len(found.pictures) for one in each.pictures)
        if isinstance(each, Asked):
            assert each.answers and all(isinstance(answer, str) for answer in each.answers)
        if isinstance(each, Judged):
            assert 0 <= each.label < len(found.labels)
        each.text.encode()
    assert len(keys) == len(found)
    for name in found.pictures.files:
        assert (found.pictures.root / name).is_file() and ".." not in name
    assert all(str(each).partition(": ")[2] for each in found.rejected)


@pytest.mark.parametrize("name", FORMATS)
def test_corrupted_files_end_in_errors_or_counted_rows(name: str, tmp_path: Path) -> None:
    write, opener, split, annotation, file = FORMATS[name]
    write(tmp_path, split, few(annotation, 20 if annotation == "statements" else 9, world="easy"))
    [path] = tmp_path.glob(file)
    before, lines = path.read_bytes(), file in ("*.jsonl", "dev.json")
    whole = opener(tmp_path, split)

    def shown(found) -> set:
        bare = [
            {**vars(each), "pictures": [found.pictures.files[one] for one in each.pictures]}
            for each in said(all_of(found))
        ]
        return {repr(each) for each in bare}

    original, dice = shown(whole), random.Random(f"corruption {name}")
    opened = refused = left_out = 0
    for _ in range(ROUNDS):
        tree = [json.loads(line) for line in before.splitlines()] if lines else json.loads(before)
        changes = dice.randrange(1, 4)
        for _ in range(changes):
            corrupt(tree, dice)
        path.write_text("".join(json.dumps(row) + "\n" for row in tree) if lines else json.dumps(tree))
        try:
            found = opener(tmp_path, split)
        except DataError as error:
            assert path.name in str(error) or str(tmp_path) in str(error)
            refused += 1
            continue
        opened += 1
        left_out += bool(found.rejected)
        believable(found)
        # A change makes one row another, or two that exchange a value; every other example is as it was, or is counted.
        assert len(shown(found) - original) <= 2 * changes
        rows = len(tree) if lines or name == "gqa" else None
        if rows is not None:
            assert len(found) + len(found.rejected) == rows
        elif name.startswith("vqa"):
            assert len(found) + len(found.rejected) >= len(whole) - changes
        if len(found) < len(whole):
            assert found.rejected or f"{len(found)} of " in found.notes[0]
    for _ in range(ROUNDS):
        path.write_bytes(damage(before, dice))
        try:
            found = opener(tmp_path, split)
        except DataError:
            refused += 1
        else:
            opened += 1
            believable(found)
            assert found.notes and (len(found) == len(whole) or found.rejected or f"{len(found)} of " in found.notes[0])
    assert opened > 50 and refused > 50 and left_out > 20, "both ends are reached"


def test_pictures_that_are_gone_are_counted_up_to_the_ceiling(tmp_path: Path) -> None:
    wanted = miniatures.write_snli_ve(tmp_path, "val", few("entailment", 20))
    folder = tmp_path / "flickr30k-images"
    for number in range(2):
        (folder / f"{1000 + number}.jpg").unlink()
    found = open_snli_ve(tmp_path, "val")
    assert len(found) == len(wanted) - 6 and len(found.rejected) == 6
    assert "1000.jpg" in str(found.rejected[0])
    (folder / "1002.jpg").unlink()
    with pytest.raises(DataError, match=r"9 of 60 rows[^$]*1000\.jpg[^$]*--images"):
        open_snli_ve(tmp_path, "val")
