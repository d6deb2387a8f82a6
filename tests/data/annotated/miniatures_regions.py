"""Benchmarks with regions in miniature: scenes in the original files of VCR, RefCOCO and Flickr30k Entities.

As in `miniatures.py`, a writer returns what a reader must find.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from annotated.miniatures import SIDE, all_of, few, renumbered, save_pictures, write_json, write_lines, write_text

from multiway.data.examples import Chosen, Examples, Pointed


def write_vcr(folder: Path, split: str = "val", examples: Examples[Chosen] | None = None) -> list[Chosen]:
    """VCR: each question begins with the first object, each right answer ends with the last one."""
    examples = examples or few("choices", split=split)
    rows, wanted = [], []
    for number, each in enumerate(all_of(examples)):
        things = examples.pictures.scene(each.pictures[0]).things  # type: ignore[attr-defined]
        objects = [thing.shape for thing in things]
        still = f"movie_{each.pictures[0]}/still@{each.pictures[0]}.jpg"
        metadata = still.replace(".jpg", ".json")
        last = len(objects) - 1
        answers = [[*words.split(), "with", [0, last]] for words in each.choices]
        labels = {} if split == "test" else {"answer_label": each.label, "rationale_label": each.reason}
        rows.append(
            {
                "movie": "shapes", "objects": objects, "img_fn": still, "metadata_fn": metadata, **labels,
                "question": [[0], ",", *each.text.removesuffix("?").split(), "?"], "answer_choices": answers,
                "rationale_choices": [[*words.split(), "."] for words in each.reasons],
                "img_id": f"{split}-{each.pictures[0]}", "annot_id": f"{split}-{number}",
            }
        )  # fmt: skip
        boxes = [[SIDE * edge for edge in thing.box] for thing in things]
        corners = [[[box[0], box[1]], [box[2], box[1]], [box[2], box[3]]] for box in boxes]
        write_json(
            folder / "vcr1images" / metadata,
            {
                "boxes": [[*box, 0.9] for box in boxes], "segms": [[ring] for ring in corners],
                "names": objects, "width": SIDE, "height": SIDE,
            },
        )  # fmt: skip
        first, end = f"{objects[0]} 1", f"{objects[0]} 1 and {objects[last]} {last + 1}"
        wanted.append(
            replace(
                each, key=f"{split}-{number}", where="", group="",
                text=f"{first}, {each.text}", choices=tuple(f"{words} with {end}" for words in each.choices),
                reasons=tuple(f"{words}." for words in each.reasons),
                label=labels.get("answer_label", -1), reason=labels.get("rationale_label", -1),
            )
        )  # fmt: skip
    write_lines(folder / f"{split}.jsonl", rows)
    save_pictures(examples, lambda number: f"vcr1images/movie_{number}/still@{number}.jpg", folder)
    return renumbered(wanted)


def write_refcoco(
    folder: Path, name: str = "refcoco", splits: Sequence[str] = ("train", "val", "testA", "testB"),
    examples: Examples[Pointed] | None = None,
) -> dict[str, list[Pointed]]:  # fmt: skip
    """RefCOCO: pictures go to the splits by turns, and every expression is said twice."""
    examples = examples or few("expressions", 12)
    images: dict[int, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []
    wanted: dict[str, list[Pointed]] = {split: [] for split in splits}
    sent_id = 0
    for each in all_of(examples):
        picture = each.pictures[0]
        image_id = 500 + picture
        if picture not in images:
            file = f"COCO_train2014_{image_id:012d}.jpg"
            images[picture] = {"id": image_id, "file_name": file, "width": 2 * SIDE, "height": SIDE}
            annotations += [
                {"id": 100 * image_id + place, "image_id": image_id, "bbox": _bbox(box), "category_id": 1, "iscrowd": 0}
                for place, box in enumerate(each.candidates)
            ]
        split = splits[picture % len(splits)]
        sentences = []
        for text in (each.text, f"that {each.text}"):
            sent_id += 1
            sentences.append({"sent_id": sent_id, "sent": text, "raw": text.upper(), "tokens": text.split()})
            wanted[split].append(replace(each, key=str(sent_id), where="", group="", text=text))
        refs.append(
            {
                "ref_id": len(refs), "ann_id": 100 * image_id + each.candidates.index(each.boxes[0]), "image_id": image_id,
                "category_id": 1, "split": split, "sentences": sentences, "sent_ids": [one["sent_id"] for one in sentences],
                "file_name": f"COCO_train2014_{image_id:012d}_{len(refs)}.jpg",
            }
        )  # fmt: skip
    partition = "umd" if name == "refcocog" else "unc"
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / f"refs({partition}).p").write_bytes(pickle.dumps(refs, 2))
    write_json(
        folder / name / "instances.json",
        {"images": list(images.values()), "annotations": annotations, "categories": [{"id": 1, "name": "shape"}]},
    )
    save_pictures(examples, lambda number: f"train2014/{images[number]['file_name']}", folder)
    return {split: renumbered(each) for split, each in wanted.items()}


def _bbox(box: tuple[float, float, float, float]) -> list[float]:
    """In a picture that is said to be twice as wide as high."""
    left, top, right, bottom = box
    return [2 * SIDE * left, SIDE * top, 2 * SIDE * (right - left), SIDE * (bottom - top)]


def write_flickr30k_entities(
    folder: Path, split: str = "val", examples: Examples[Pointed] | None = None
) -> list[Pointed]:
    """Flickr30k Entities: a line for each expression, with a phrase that is invisible and one that is the whole scene."""
    examples = examples or few("expressions", 6)
    by_picture: dict[int, list[Pointed]] = {}
    for each in all_of(examples):
        by_picture.setdefault(each.pictures[0], []).append(each)
    wanted = []
    for picture, several in by_picture.items():
        name = str(36_000 + picture)
        candidates = several[0].candidates
        pixels = [[round(100 * edge) for edge in box] for box in candidates]
        objects = [
            f"<object><name>{10 + place}</name><bndbox><xmin>{box[0] + 1}</xmin><ymin>{box[1] + 1}</ymin>"
            f"<xmax>{box[2] + 1}</xmax><ymax>{box[3] + 1}</ymax></bndbox></object>"
            for place, box in enumerate(pixels)
        ]
        nobody = "<object><name>9</name><scene>1</scene><nobndbox>0</nobndbox></object>"
        size = "<size><width>100</width><height>100</height><depth>3</depth></size>"
        xml = f"<annotation><filename>{escape(name)}.jpg</filename>{size}{''.join(objects)}{nobody}</annotation>"
        write_text(folder / "Annotations" / f"{name}.xml", xml)
        shares = [tuple(edge / 100 for edge in box) for box in pixels]
        lines = []
        for number, each in enumerate(several, 1):
            place = candidates.index(each.boxes[0])
            lines.append(
                f"In [/EN#9/scene the picture] one sees [/EN#{10 + place}/other/shapes {each.text}] and [/EN#0/notvisual it] is all ."
            )
            sentence = f"In the picture one sees {each.text} and it is all ."
            wanted.append(
                replace(
                    each, key=f"{name}-{number}-2", where="", group="other", boxes=(shares[place],),
                    candidates=tuple(dict.fromkeys(shares)), sentence=sentence, start=sentence.index(each.text),
                )
            )  # fmt: skip
        write_text(folder / "Sentences" / f"{name}.txt", "\n".join(lines) + "\n")
    write_text(folder / f"{split}.txt", "".join(f"{36_000 + picture}\n" for picture in by_picture))
    save_pictures(examples, lambda number: f"flickr30k-images/{36_000 + number}.jpg", folder)
    return renumbered(wanted)
