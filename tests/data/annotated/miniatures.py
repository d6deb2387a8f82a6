"""Benchmarks in miniature: scenes written into the files and folders in which the originals are published.

Each writer takes examples as `few` gives them and returns the examples that a reader must find, pictures numbered in the order
in which they are first named. Questions, sentences, answers and labels are those of the scenes, so that what is read can also be
learnt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multiway.data.annotated.scenes import open_scenes
from multiway.data.examples import Asked, Example, Examples, Judged
from multiway.data.source import DrawsBatches

SIDE = 32


def few(annotation: str, scenes: int = 4, split: str = "val", world: str = "medium") -> Examples[Any]:
    """What is said of so many scenes; `split` says which scenes, not which file they will be in."""
    return open_scenes(annotation, "test" if split == "test" else "val", f"{world},gallery={scenes}")


def save_pictures(examples: Examples[Any], name: Callable[[int], str], folder: Path, side: int = SIDE) -> None:
    """Every picture under the name that belongs to its number."""
    assert isinstance(examples.pictures, DrawsBatches)
    pixels = examples.pictures.squares(np.arange(len(examples.pictures)), side)
    for number, each in enumerate(pixels):
        save(each, folder / name(number))


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def all_of(examples: Examples[Any]) -> list[Any]:
    return [examples.example(number) for number in range(len(examples))]


def said(examples: Iterable[Example]) -> list[Example]:
    """Without their places, for comparison."""
    return [replace(each, where="") for each in examples]


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: Path, rows: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def renumbered(examples: Sequence[Example]) -> list[Any]:
    """Pictures numbered in the order in which they are first named."""
    order: dict[int, int] = {}
    for each in examples:
        for picture in each.pictures:
            order.setdefault(picture, len(order))
    return [replace(each, pictures=tuple(order[one] for one in each.pictures)) for each in examples]


def write_vqa(folder: Path, split: str = "val", examples: Examples[Asked] | None = None) -> list[Asked]:
    """VQAv2: questions, ten answers each (none in the test sets), and COCO's pictures."""
    examples = examples or few("questions", split=split)
    subset = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test-dev2015"}[split]
    coco = subset.replace("-dev", "")
    asked, answered, wanted = [], [], []
    for number, each in enumerate(all_of(examples)):
        image = 1000 + each.pictures[0]
        ids = {"image_id": image, "question_id": image * 1000 + number}
        asked.append({**ids, "question": each.text})
        answers = [
            {"answer": answer, "answer_confidence": "yes", "answer_id": place}
            for place, answer in enumerate(each.answers, 1)
        ]
        kind = {"question_type": "what", "answer_type": each.group, "multiple_choice_answer": each.answers[0]}
        answered.append({**ids, **kind, "answers": answers})
        hidden = {"answers": (), "group": ""} if subset.startswith("test") else {}
        wanted.append(replace(each, key=str(ids["question_id"]), where="", **hidden))
    head = {"info": {"version": "2.0"}, "task_type": "Open-Ended", "data_type": "mscoco", "data_subtype": subset}
    write_json(folder / f"v2_OpenEnded_mscoco_{subset}_questions.json", {**head, "questions": asked})
    if not subset.startswith("test"):
        write_json(folder / f"v2_mscoco_{subset}_annotations.json", {**head, "annotations": answered})
    save_pictures(examples, lambda number: f"{coco}/COCO_{coco}_{1000 + number:012d}.jpg", folder)
    return wanted


def write_gqa(folder: Path, split: str = "testdev", examples: Examples[Asked] | None = None) -> list[Asked]:
    """GQA: an object of questions by their ids; those of the test set have no answer."""
    examples = examples or few("questions", split=split)
    rows: dict[str, object] = {}
    wanted = []
    for number, each in enumerate(all_of(examples)):
        key = f"0{number:07d}"
        row = {"imageId": f"n{each.pictures[0]}", "question": each.text, "isBalanced": True}
        if split != "test":
            types = {"structural": each.group, "semantic": "attr", "detailed": "weather"}
            row |= {
                "answer": each.answers[0],
                "fullAnswer": f"It is {each.answers[0]}.",
                "types": types,
                "semantic": [],
            }
        rows[key] = row
        hidden = {"answers": (), "group": ""} if split == "test" else {"answers": each.answers[:1]}
        wanted.append(replace(each, key=key, where="", **hidden))
    write_json(folder / "questions1.2" / f"{split}_balanced_questions.json", rows)
    save_pictures(examples, lambda number: f"images/n{number}.jpg", folder)
    return wanted


def write_visual_genome(folder: Path, examples: Examples[Asked] | None = None) -> list[Asked]:
    """Visual Genome's questions, listed by picture; answers end in a full stop."""
    examples = examples or few("questions")
    rows: dict[int, list[object]] = {}
    wanted = []
    for number, each in enumerate(all_of(examples)):
        image = 1 + each.pictures[0]
        row = {"qa_id": 986768 + number, "image_id": image, "question": each.text, "answer": f"{each.answers[0]}."}
        rows.setdefault(image, []).append({**row, "q_objects": [], "a_objects": []})
        wanted.append(replace(each, key=str(986768 + number), where="", group="", answers=each.answers[:1]))
    write_json(folder / "question_answers.json", [{"id": image, "qas": qas} for image, qas in rows.items()])
    save_pictures(examples, lambda number: f"{('VG_100K', 'VG_100K_2')[number % 2]}/{1 + number}.jpg", folder)
    return wanted


def write_snli_ve(folder: Path, split: str = "val", examples: Examples[Judged] | None = None) -> list[Judged]:
    """SNLI-VE: a pair on each line, and Flickr30k's pictures."""
    examples = examples or few("entailment", split=split)
    rows, wanted = [], []
    for number, each in enumerate(all_of(examples)):
        image = str(1000 + each.pictures[0])
        label = examples.labels[each.label]
        ids = {"Flickr30K_ID": image, "captionID": f"{image}.jpg#0", "pairID": f"{image}.jpg#0r{number}{label[0]}"}
        texts = {"sentence1": "Some things.", "sentence2": each.text}
        rows.append({"annotator_labels": [label], **ids, "gold_label": label, **texts})
        wanted.append(replace(each, key=ids["pairID"], where=""))
    write_lines(folder / f"snli_ve_{'dev' if split == 'val' else split}.jsonl", rows)
    save_pictures(examples, lambda number: f"flickr30k-images/{1000 + number}.jpg", folder)
    return wanted


def write_nlvr2(folder: Path, split: str = "val", examples: Examples[Judged] | None = None) -> list[Judged]:
    """NLVR2: a statement on each line, and a pair of pictures of its own for each, which twins have beside each other."""
    examples = examples or few("statements", split=split)
    name = {"train": "train", "val": "dev", "test": "test1"}[split]
    pixels = examples.pictures.squares(np.arange(len(examples.pictures)), SIDE)
    rows, wanted = [], []
    pairs: dict[str, int] = {}
    for number, each in enumerate(all_of(examples)):
        group, _, sentence = each.twin.partition("-")
        pair = pairs.setdefault(group, -1) + 1
        pairs[group] = pair
        row = {
            "identifier": f"{name}-{group}-{pair}-{sentence}",
            "sentence": each.text,
            "label": ("False", "True")[each.label],
        }
        inner = f"{int(group) % 100}/" if split == "train" else ""
        if split == "train":
            row["directory"] = int(group) % 100
        rows.append({**row, "left_url": "", "right_url": "", "synset": "shape", "query": "shapes0", "writer": "7"})
        for side, picture in enumerate(each.pictures):
            save(pixels[picture], folder / "images" / name / f"{inner}{name}-{group}-{pair}-img{side}.png")
        twin = f"{name}-{group}-{sentence}"
        wanted.append(replace(each, key=row["identifier"], where="", twin=twin, pictures=(2 * number, 2 * number + 1)))
    write_lines(folder / f"{name}.json", rows)
    return wanted
