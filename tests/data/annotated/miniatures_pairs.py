"""Pairs of captions in miniature: counterfactual scenes in the original files of Winoground, SugarCrepe and ARO.

As in `miniatures.py`, a writer returns what a reader must find.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from annotated.miniatures import SIDE, all_of, few, renumbered, save, save_pictures, write_json, write_lines

from multiway.data.annotated.pairs import QUESTION
from multiway.data.examples import Chosen, Examples, Judged
from multiway.data.source import stable_id


def write_winoground(folder: Path, examples: Examples[Judged] | None = None) -> list[Judged]:
    """Winoground from counterfactual scenes: two pictures, two captions."""
    examples = examples or few("counterfactuals", 6)
    pixels = examples.pictures.squares(np.arange(len(examples.pictures)), SIDE)  # type: ignore[attr-defined]
    four = all_of(examples)
    rows, wanted = [], []
    for number in range(len(four) // 4):
        parts = four[4 * number : 4 * number + 4]
        names = [f"ex_{number}_img_{side}" for side in (0, 1)]
        captions = {f"caption_{side}": parts[side].text for side in (0, 1)}
        rows.append({"id": number, "image_0": names[0], "image_1": names[1], **captions, "collapsed_tag": "Object"})
        for side in (0, 1):
            save(pixels[parts[2 * side].pictures[0]], folder / "images" / f"{names[side]}.png")
        for place, each in enumerate(parts):
            key, shown = f"{number}-{place // 2}-{place % 2}", (2 * number + place // 2,)
            wanted.append(replace(each, key=key, where="", group="Object", twin=str(number), pictures=shown))
    write_lines(folder / "examples.jsonl", rows)
    return wanted


def write_sugarcrepe(folder: Path, examples: Examples[Judged] | None = None) -> dict[str, list[Chosen]]:
    """SugarCrepe's seven files; each has the first caption of a counterfactual pair as right, the second as wrong."""
    examples = examples or few("counterfactuals", 6)
    wanted: dict[str, list[Chosen]] = {}
    for name in ("replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att", "add_obj", "add_att"):
        pairs = {}
        for number, (one, two) in enumerate(_pairs(examples)):
            file = f"{one.pictures[0]:012d}.jpg"
            pairs[str(number)] = {"filename": file, "caption": one.text, "negative_caption": two.text}
            wanted.setdefault(name, []).append(_chosen(f"{name}-{number}", one, two, name))
        write_json(folder / f"{name}.json", pairs)
        wanted[name] = renumbered(wanted[name])
    save_pictures(examples, lambda number: f"val2017/{number:012d}.jpg", folder)
    return wanted


def write_aro(folder: Path, split: str = "relation", examples: Examples[Judged] | None = None) -> list[Chosen]:
    """ARO: the right half of each picture is meant."""
    examples = examples or few("counterfactuals", 6)
    rows, wanted = [], []
    for number, (one, two) in enumerate(_pairs(examples), 1):
        more = {"relation_name": "left of"} if split == "relation" else {"attributes": ["red", "blue"]}
        box = {"bbox_x": SIDE // 2, "bbox_y": 0, "bbox_w": SIDE // 2 + 1, "bbox_h": SIDE}
        captions = {"true_caption": one.text, "false_caption": two.text}
        rows.append({"image_id": one.pictures[0], "image_path": f"{one.pictures[0]}.jpg", **captions, **box, **more})
        group = "left of" if split == "relation" else "red and blue"
        wanted.append(_chosen(f"{split}-{number}", one, two, group))
    write_json(folder / f"visual_genome_{split}.json", rows)
    save_pictures(examples, lambda number: f"images/{number}.jpg", folder)
    return renumbered(wanted)


def _pairs(examples: Examples[Judged]) -> list[tuple[Judged, Judged]]:
    """The true and the false caption of each picture."""
    four = all_of(examples)
    return [(one, two) if one.label else (two, one) for one, two in zip(four[::2], four[1::2], strict=True)]


def _chosen(key: str, right: Judged, wrong: Judged, group: str) -> Chosen:
    label = stable_id(key) & 1
    choices = (wrong.text, right.text) if label else (right.text, wrong.text)
    return Chosen(key, right.pictures, QUESTION, "", group, choices, label)
