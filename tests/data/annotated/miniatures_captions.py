"""Caption sets in miniature: scenes in the original files of COCO, NoCaps, MSR-VTT, SBU, CC3M, CC12M and ImageNet.

As in `miniatures.py`, a writer returns what a reader must find: rows of (key, captions, group).
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from annotated.miniatures import SIDE, save, write_json, write_text

from multiway.data.scenes.draw import draw_scenes
from multiway.data.scenes.source import Scenes
from multiway.data.scenes.video import make_video

Rows = list[tuple[str, tuple[str, ...], str]]


def scenes(count: int, world: str = "medium") -> Scenes:
    return Scenes.open("test", f"{world},gallery={count}")


def save_rows(source: Scenes, names: Sequence[str], folder: Path) -> None:
    for pixels, name in zip(source.squares(np.arange(len(names)), SIDE), names, strict=True):
        save(pixels, folder / name)


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
    """NoCaps: domains by turns; `test` has no captions. A row's key is the id of its image, which is not in its file's name."""
    source = scenes(count)
    files = [f"{number:016x}.jpg" for number in range(count)]
    domains = [("in-domain", "near-domain", "out-domain")[number % 3] for number in range(count)]
    name = "nocaps_val_4500_captions.json" if split == "val" else "nocaps_test_image_info.json"
    _coco_format(source, files, folder / name, domains, split == "test")
    save_rows(source, [f"{split}/{file}" for file in files], folder)
    captions = [() if split == "test" else source.row(number).captions for number in range(count)]
    return list(zip(map(str, range(7000, 7000 + count)), captions, domains, strict=True))


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
    write_text(
        folder / "MSRVTT_train.9k.csv", "video_id\n" + "".join(f"{video}\n" for video, _ in listed[count // 2 :])
    )
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
            write_text(folder / f"SBU_captioned_photo_dataset_{name}.txt", "".join(f"{line}\n" for line in lines))
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
    write_text(folder / file, "".join(lines))
    return rows


def write_imagenet(folder: Path, split: str = "val", count: int = 12, flat: bool = False) -> list[tuple[str, int]]:
    """ImageNet with four classes; `flat` puts the pictures of val into one folder. Returns keys and labels."""
    words = {
        "n02012849": "crane",
        "n01440764": "tench, Tinca tinca",
        "n03126707": "crane, derrick",
        "n09999999": "ring",
    }
    write_text(folder / "LOC_synset_mapping.txt", "".join(f"{synset} {said}\n" for synset, said in words.items()))
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
        write_text(folder / "LOC_val_solution.csv", "ImageId,PredictionString\n" + "".join(lines))
    return sorted(found)
