"""More benchmarks in miniature: scenes in the original files of VCR, RefCOCO, Flickr30k Entities, caption pairs and caption sets.

As in `miniatures.py`, a writer returns what a reader must find; those of caption sets return rows of (key, captions, group).
"""

from __future__ import annotations

import csv
import pickle
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from annotated.miniatures import SIDE, all_of, few, save, save_pictures, write_json, write_lines

from multiway.data.annotated.pairs import QUESTION
from multiway.data.examples import Chosen, Example, Examples, Judged, Pointed
from multiway.data.scenes.draw import draw_scenes
from multiway.data.scenes.source import Scenes
from multiway.data.scenes.video import make_video
from multiway.data.source import stable_id

Rows = list[tuple[str, tuple[str, ...], str]]


def scenes(count: int, world: str = "medium") -> Scenes:
    return Scenes.open("test", f"{world},gallery={count}")


def renumbered(examples: Sequence[Example]) -> list[Any]:
    """Pictures numbered in the order in which they are first named."""
    order: dict[int, int] = {}
    for each in examples:
        for picture in each.pictures:
            order.setdefault(picture, len(order))
    return [replace(each, pictures=tuple(order[one] for one in each.pictures)) for each in examples]


def save_rows(source: Scenes, names: Sequence[str], folder: Path) -> None:
    for pixels, name in zip(source.squares(np.arange(len(names)), SIDE), names, strict=True):
        save(pixels, folder / name)


# --- VCR


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


# --- RefCOCO


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


# --- Flickr30k Entities


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
        _write(folder / "Annotations" / f"{name}.xml", xml)
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
        _write(folder / "Sentences" / f"{name}.txt", "\n".join(lines) + "\n")
    _write(folder / f"{split}.txt", "".join(f"{36_000 + picture}\n" for picture in by_picture))
    save_pictures(examples, lambda number: f"flickr30k-images/{36_000 + number}.jpg", folder)
    return renumbered(wanted)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# --- caption sets


def write_karpathy(folder: Path, dataset: str = "coco", count: int = 24) -> dict[str, Rows]:
    """Karpathy's file: pictures go to train, restval, val and test by turns; restval is COCO's only."""
    source = scenes(count)
    inside = ("train", "restval", "val", "test") if dataset == "coco" else ("train", "val", "test")
    rows: dict[str, Rows] = {"train": [], "val": [], "test": []}
    images, names = [], []
    for number in range(count):
        split = inside[number % len(inside)]
        captions = source.row(number).captions
        part = "train2014" if split == "train" else "val2014"
        file = f"COCO_{part}_{number:012d}.jpg" if dataset == "coco" else f"{1000 + number}.jpg"
        place = {"filepath": part, "cocoid": number} if dataset == "coco" else {}
        sentences = [{"raw": text, "tokens": text.split(), "imgid": number} for text in captions]
        images.append({**place, "filename": file, "imgid": number, "split": split, "sentences": sentences})
        names.append(f"{part}/{file}" if dataset == "coco" else f"flickr30k-images/{file}")
        key = f"{part}/{file}" if dataset == "coco" else file
        rows["train" if split == "restval" else split].append((key, captions, ""))
    write_json(folder / f"dataset_{dataset}.json", {"images": images, "dataset": dataset})
    save_rows(source, names, folder)
    return rows


def write_coco_own(folder: Path, split: str = "val2017", count: int = 12) -> Rows:
    """COCO's own caption file of one split."""
    source = scenes(count)
    prefix = f"COCO_{split}_" if split.endswith("2014") else ""
    files = [f"{prefix}{number:012d}.jpg" for number in range(count)]
    _coco_format(source, files, folder / "annotations" / f"captions_{split}.json")
    save_rows(source, [f"{split}/{file}" for file in files], folder)
    return [(f"{split}/{file}", source.row(number).captions, "") for number, file in enumerate(files)]


def write_nocaps(folder: Path, split: str = "val", count: int = 12) -> Rows:
    """NoCaps: domains by turns; `test` has no captions."""
    source = scenes(count)
    files = [f"{number:016x}.jpg" for number in range(count)]
    domains = [("in-domain", "near-domain", "out-domain")[number % 3] for number in range(count)]
    name = "nocaps_val_4500_captions.json" if split == "val" else "nocaps_test_image_info.json"
    _coco_format(source, files, folder / name, domains, split == "test")
    save_rows(source, [f"{split}/{file}" for file in files], folder)
    captions = [() if split == "test" else source.row(number).captions for number in range(count)]
    return list(zip(files, captions, domains, strict=True))


def _coco_format(
    source: Scenes, files: Sequence[str], path: Path, domains: Sequence[str] = (), withheld: bool = False
) -> None:
    images, annotations = [], []
    for number, file in enumerate(files):
        more = {"domain": domains[number], "open_images_id": file[:16]} if domains else {}
        images.append({"id": 7000 + number, "file_name": file, "width": SIDE, "height": SIDE, **more})
        for text in source.row(number).captions:
            annotations.append({"image_id": 7000 + number, "id": len(annotations), "caption": text})
    data = {"images": images, "info": {}, "licenses": []}
    write_json(path, data if withheld else {**data, "annotations": annotations})


def write_msrvtt(folder: Path, count: int = 12, frames: int = 5) -> dict[str, Rows]:
    """MSR-VTT: one file with all splits, both lists of JSFusion's, and five frames a video."""
    source = scenes(count)
    videos, sentences, listed = [], [], []
    rows: dict[str, Rows] = {"train": [], "val": [], "test": [], "train9k": [], "1kA": []}
    for number in range(count):
        video, split = f"video{number}", ("train", "validate", "test")[number % 3]
        captions = source.row(number).captions
        videos.append({"id": number, "video_id": video, "category": 1, "split": split, "url": ""})
        sentences += [{"sen_id": len(sentences), "video_id": video, "caption": text} for text in captions]
        rows["val" if split == "validate" else split].append((video, captions, ""))
        listed.append((video, captions))
        steps = draw_scenes(make_video(source.scene(number), 0, frames).frames, SIDE)
        for step, pixels in enumerate(steps):
            save(pixels, folder / "frames" / video / f"frame{step + 8}.jpg")  # 8, 9, 10: not in alphabetical order
    write_json(folder / "MSRVTT_data.json", {"info": {}, "videos": videos, "sentences": sentences})
    with (folder / "MSRVTT_JSFUSION_test.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["key", "vid_key", "video_id", "sentence"])
        for number, (video, captions) in enumerate(listed[: count // 2]):
            table.writerow([f"ret{number}", f"msr{number}", video, captions[0]])
            rows["1kA"].append((video, captions[:1], ""))
    _write(folder / "MSRVTT_train.9k.csv", "video_id\n" + "".join(f"{video}\n" for video, _ in listed[count // 2 :]))
    rows["train9k"] = [(video, captions, "") for video, captions in listed[count // 2 :]]
    return rows


def write_sbu(folder: Path, count: int = 12, form: str = "json") -> Rows:
    """SBU, of which every fourth picture was not downloaded."""
    source = scenes(count)
    addresses = [f"http://static.flickr.com/{number % 3}/{9_000 + number}_ab.jpg" for number in range(count)]
    captions = [source.row(number).captions[0] for number in range(count)]
    if form == "json":
        data = {"image_urls": addresses, "captions": captions, "user_ids": ["7"] * count}
        write_json(folder / "sbu-captions-all.json", data)
    else:
        for name, lines in (("urls", addresses), ("captions", captions)):
            _write(folder / f"SBU_captioned_photo_dataset_{name}.txt", "".join(f"{line}\n" for line in lines))
    names = [f"{9_000 + number}_ab.jpg" for number in range(count)]
    save_rows(source, [f"images/{name}" for name in names], folder)
    for number in range(3, count, 4):
        (folder / "images" / names[number]).unlink()
    return [(names[number], (captions[number],), "") for number in range(count) if number % 4 != 3]


def write_conceptual(folder: Path, file: str = "Train_GCC-training.tsv", count: int = 12) -> Rows:
    """CC3M or CC12M, of which every fourth picture was not downloaded; a picture's file has no suffix."""
    source = scenes(count)
    inner = "validation" if "Validation" in file else "training"
    rows: Rows = []
    lines = []
    pixels = source.squares(np.arange(count), SIDE)
    for number in range(count):
        address, caption = f"https://shapes.example/{number}?size=large", source.row(number).captions[0]
        fields = (address, caption) if file == "cc12m.tsv" else (caption, address)
        lines.append("\t".join(fields) + "\n")
        if number % 4 != 3:
            crc = zlib.crc32(address.encode())
            save(pixels[number], folder / inner / f"{crc}.png")
            (folder / inner / f"{crc}.png").rename(folder / inner / str(crc))
            rows.append((f"{inner}/{crc}", (caption,), ""))
    _write(folder / file, "".join(lines))
    return rows


def write_imagenet(folder: Path, split: str = "val", count: int = 12, flat: bool = False) -> list[tuple[str, int]]:
    """ImageNet with four classes; `flat` puts the pictures of val into one folder. Returns keys and labels."""
    words = {
        "n02012849": "crane",
        "n01440764": "tench, Tinca tinca",
        "n03126707": "crane, derrick",
        "n09999999": "ring",
    }
    _write(folder / "LOC_synset_mapping.txt", "".join(f"{synset} {said}\n" for synset, said in words.items()))
    synsets = sorted(words)
    source = scenes(count)
    names, found = [], []
    for number in range(count):
        synset = synsets[number % len(synsets)]
        file = f"ILSVRC2012_val_{number:08d}.JPEG"
        names.append(file if flat else f"{synset}/{file}")
        found.append((names[-1], number % len(synsets)))
    save_rows(source, [f"{split}/{name}" for name in names], folder)
    if flat:
        lines = [f"{Path(name).stem},{synsets[label]} 1 2 3 4\n" for name, label in found]
        _write(folder / "LOC_val_solution.csv", "ImageId,PredictionString\n" + "".join(lines))
    return sorted(found)


# --- pairs of captions


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
