"""Corrupted files of the second half of the readers: each ends in a `DataError` or in rows that are counted, and in nothing else."""

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from annotated import miniatures_captions as captions
from annotated import miniatures_pairs as pairs
from annotated import miniatures_regions as regions
from annotated.miniatures import few
from annotated.test_corruption import corrupt, damage

from multiway.data.annotated.captioned import CaptionFiles
from multiway.data.annotated.coco import open_coco, open_flickr30k
from multiway.data.annotated.flickr30k_entities import open_flickr30k_entities
from multiway.data.annotated.imagenet import open_imagenet
from multiway.data.annotated.msrvtt import VideoFiles, open_msrvtt
from multiway.data.annotated.nocaps import open_nocaps
from multiway.data.annotated.pairs import Cuts, open_aro, open_sugarcrepe, open_winoground
from multiway.data.annotated.refcoco import open_refcoco
from multiway.data.annotated.tables import open_cc3m, open_sbu
from multiway.data.annotated.vcr import VcrFiles, open_vcr
from multiway.data.annotated.vcr_regions import DrawnStills
from multiway.data.examples import Chosen, Judged, Pointed
from multiway.data.source import BadRow, DataError

ROUNDS = 120  # of each kind, for each format

Count = Callable[[object], int]  # rows of a tree

# What is written, with which reader and split it is opened, the file that is corrupted, and how many rows a tree of it has.
FORMATS: dict[str, tuple[Callable, Callable, str, str, Count | None]] = {
    "vcr": (lambda at: regions.write_vcr(at, "val", few("choices", 4)), open_vcr, "val", "val.jsonl", len),
    "vcr withheld": (lambda at: regions.write_vcr(at, "test", few("choices", 4)), open_vcr, "test", "test.jsonl", len),
    "refs": (regions.write_refcoco, open_refcoco, "val", "refcoco/refs(unc).p", None),
    "instances": (lambda at: regions.write_refcoco(at, examples=few("expressions", 48)), open_refcoco, "val", "refcoco/instances.json", None),
    "winoground": (pairs.write_winoground, open_winoground, "test", "examples.jsonl", lambda tree: 4 * len(tree)),
    "aro": (pairs.write_aro, open_aro, "relation", "visual_genome_relation.json", len),
    "sugarcrepe": (pairs.write_sugarcrepe, open_sugarcrepe, "swap_att", "swap_att.json", len),
    "coco": (lambda at: captions.write_karpathy(at, "coco", 48), open_coco, "train", "dataset_coco.json", None),
    "flickr30k": (lambda at: captions.write_karpathy(at, "flickr30k", 48), open_flickr30k, "val", "dataset_flickr30k.json", None),
    "coco's own": (captions.write_coco_own, open_coco, "val2017", "annotations/captions_val2017.json", None),
    "nocaps": (captions.write_nocaps, open_nocaps, "val", "nocaps_val_4500_captions.json", None),
    "msrvtt": (lambda at: captions.write_msrvtt(at, 36, 2), open_msrvtt, "train", "MSRVTT_data.json", None),
    "sbu": (lambda at: captions.write_sbu(at, 24), open_sbu, "train", "sbu-captions-all.json", None),
}  # fmt: skip

TEXTS = {
    "sentences": (regions.write_flickr30k_entities, open_flickr30k_entities, "val", "Sentences/*.txt"),
    "boxes": (regions.write_flickr30k_entities, open_flickr30k_entities, "val", "Annotations/*.xml"),
    "list": (regions.write_flickr30k_entities, open_flickr30k_entities, "val", "val.txt"),
    "1kA": (lambda at: captions.write_msrvtt(at, 24, 2), open_msrvtt, "1kA", "MSRVTT_JSFUSION_test.csv"),
    "train9k": (lambda at: captions.write_msrvtt(at, 24, 2), open_msrvtt, "train9k", "MSRVTT_train.9k.csv"),
    "cc3m": (lambda at: captions.write_conceptual(at, count=24), open_cc3m, "train", "Train_GCC-training.tsv"),
    "sbu's text": (lambda at: captions.write_sbu(at, 24, "text"), open_sbu, "train", "SBU_*_urls.txt"),
    "synsets": (captions.write_imagenet, open_imagenet, "val", "LOC_synset_mapping.txt"),
    "solution": (lambda at: captions.write_imagenet(at, flat=True), open_imagenet, "val", "LOC_val_solution.csv"),
}  # fmt: skip


def believable(found) -> None:
    """Everything that a task relies on, of whatever was opened."""
    assert all(str(each).partition(": ")[2] for each in found.rejected)
    if isinstance(found, CaptionFiles):
        assert len({row.key for row in found.rows}) == len(found) > 0
        for row, file in zip(found.rows, found.files, strict=True):
            assert (found.root / file).is_file() and ".." not in file
            assert all(each.strip() and each.encode() for each in row.captions)
            assert row.label < max(len(found.classes), 1)
        assert not isinstance(found, VideoFiles) or all(map(len, found.clips))
        return
    whole = found.pictures.pictures if isinstance(found.pictures, Cuts | DrawnStills) else found.pictures
    assert all((whole.root / name).is_file() and ".." not in name for name in whole.files)
    assert len({each.key for each in found.examples}) == len(found)
    for each in found.examples:
        assert each.text.strip() and each.text.encode()
        assert each.pictures and all(0 <= one < len(found.pictures) for one in each.pictures)
        if isinstance(each, Chosen):
            assert len(each.choices) >= 2 and all(each.choices) and -1 <= each.label < len(each.choices)
            assert all(each.reasons) and -1 <= each.reason < max(len(each.reasons), 1)
        if isinstance(each, Judged):
            assert each.label in (0, 1)
        if isinstance(each, Pointed):
            assert each.boxes and set(each.boxes) <= set(each.candidates)
            assert all(0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1 for box in each.candidates)
    if isinstance(found, VcrFiles):
        assert len(found.metadata) == len(found)
        for number in range(0, len(found), 7):
            example = found.example(number)
            for look, place in (
                (lambda: found.regions(number), example.where),  # noqa: B023
                (lambda: found.pictures.image(example.pictures[0]), "still@"),  # noqa: B023
            ):
                try:
                    look()
                except BadRow as error:
                    assert place in str(error)


def accounted(found, rows: int | None = None) -> None:
    """Every row of the file is there or rejected: `5 of 26,534 questions` says how many there were."""
    stated = int(found.notes[0].split(" of ")[0].replace(",", "")) if " of " in found.notes[0] else 0
    each = 4 if isinstance(found.examples[0] if hasattr(found, "examples") and found.examples else None, Judged) else 1
    assert len(found) + len(found.rejected) >= stated * each
    if rows is not None:
        assert len(found) + len(found.rejected) == rows


@pytest.mark.parametrize("name", FORMATS)
def test_corrupted_records(name: str, tmp_path: Path) -> None:
    write, opener, split, file, count = FORMATS[name]
    write(tmp_path)
    path = tmp_path / file
    before = path.read_bytes()
    dice = random.Random(f"corruption {name}")
    ends = {"opened": 0, "refused": 0, "left out": 0}

    def tried(rows: int | None = None, strict: bool = True) -> None:
        try:
            found = opener(tmp_path, split)
        except DataError as error:
            assert path.name in str(error) or str(tmp_path) in str(error)
            ends["refused"] += 1
            return
        ends["opened"] += 1
        ends["left out"] += bool(found.rejected)
        believable(found)
        if strict and name != "sbu":  # whose second note counts the pictures
            accounted(found, rows)

    for _ in range(ROUNDS):
        if file.endswith(".jsonl"):
            tree = [json.loads(line) for line in before.splitlines()]
        else:
            tree = pickle.loads(before) if file.endswith(".p") else json.loads(before)
        for _ in range(dice.randrange(1, 4)):
            corrupt(tree, dice)
        if file.endswith(".jsonl"):
            path.write_text("".join(json.dumps(row) + "\n" for row in tree))
        else:
            path.write_bytes(pickle.dumps(tree, 2) if file.endswith(".p") else json.dumps(tree).encode())
        tried(count(tree) if count else None)
    original = pickle.dumps(pickle.loads(before), 0) if file.endswith(".p") else before
    for _ in range(ROUNDS):
        path.write_bytes(damage(original, dice))
        tried(strict=False)
    assert ends["opened"] > 20 and ends["refused"] > 20 and ends["left out"] > 5, ends


@pytest.mark.parametrize("name", TEXTS)
def test_damaged_texts(name: str, tmp_path: Path) -> None:
    write, opener, split, pattern = TEXTS[name]
    write(tmp_path)
    path = sorted(tmp_path.glob(pattern))[0]
    before = path.read_bytes()
    dice = random.Random(f"damage {name}")
    opened = refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(damage(before, dice))
        try:
            found = opener(tmp_path, split)
        except DataError as error:
            assert str(error)
            refused += 1
        else:
            opened += 1
            believable(found)
    assert opened + refused == ROUNDS and opened > 5
