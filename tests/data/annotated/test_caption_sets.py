"""Caption sets: sources from the original files of COCO, Flickr30k, NoCaps, MSR-VTT, SBU, CC3M/CC12M and ImageNet."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from annotated import miniatures_captions as mini
from annotated.miniatures import SIDE
from PIL import Image

from multiway.cli.main import main
from multiway.data.annotated.caption_sets import CAPTION_SETS, splits_there
from multiway.data.annotated.captioned import CaptionFiles
from multiway.data.annotated.coco import open_coco
from multiway.data.annotated.imagenet import open_imagenet, read_classes
from multiway.data.annotated.msrvtt import HasFrames, open_msrvtt
from multiway.data.annotated.nocaps import open_nocaps
from multiway.data.annotated.tables import open_cc3m, open_cc12m, open_sbu
from multiway.data.examples import HasNotes
from multiway.data.open import open_source, open_splits, splits_of
from multiway.data.source import DataError, Source
from multiway.tasks.task import Result
from multiway.tasks.written import Captions, Written


def same(found: CaptionFiles, wanted: mini.Rows) -> None:
    assert isinstance(found, Source) and isinstance(found, HasNotes)
    assert [(row.key, row.captions, row.group) for row in found.rows] == wanted
    assert len({row.image_id for row in found.rows}) == len(wanted) > 3 and not found.rejected
    assert np.asarray(found.image(0)).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("dataset", ["coco", "flickr30k"])
def test_karpathy(dataset: str, tmp_path: Path) -> None:
    wanted = mini.write_karpathy(tmp_path, dataset)
    for split, rows in wanted.items():
        found = open_source(f"{dataset}:{tmp_path}@{split}")
        same(found, rows)
        assert f"{len(rows)} of " in found.notes[0] and "a part of the public split" in found.notes[0]
    together = open_source(f"{dataset}:{tmp_path}@all")
    assert len(together) == sum(map(len, wanted.values())) == 24
    assert len({together.row(number).image_id for number in range(24)}) == 24
    assert [each.split for each in open_splits(f"{dataset}:{tmp_path}")] == list(splits_of(f"{dataset}:{tmp_path}"))
    source = mini.scenes(24)
    at = {row: place for place, row in enumerate(source.row(number).captions for number in range(24))}
    for number in range(24):
        drawn = source.squares(np.array([at[together.row(number).captions]]), SIDE)[0].astype(int)
        assert np.abs(np.asarray(together.image(number)).astype(int) - drawn).mean() < 6


def test_karpathy_with_the_pictures_of_2017(tmp_path: Path) -> None:
    """The same pictures under other names; keys and ids stay those of the file."""
    wanted = mini.write_karpathy(tmp_path / "a")
    (tmp_path / "a" / "train2014").rename(tmp_path / "train2017")
    (tmp_path / "a" / "val2014").rename(tmp_path / "val2017")
    for folder in ("train2017", "val2017"):
        for path in (tmp_path / folder).iterdir():
            path.rename(path.with_name(path.name[-16:]))
    found = open_source(f"coco:{tmp_path / 'a'}@test", images=tmp_path)
    same(found, wanted["test"])
    assert found.files[0].startswith("val2017/0000")


@pytest.mark.parametrize("split", ["val2014", "train2017"])
def test_coco_own(split: str, tmp_path: Path) -> None:
    wanted = mini.write_coco_own(tmp_path, split)
    same(open_source(f"coco:{tmp_path}@{split}"), wanted)
    with pytest.raises(DataError, match=r"Karpathy's splits: expected dataset_coco\.json .*it has annotations/"):
        open_source(f"coco:{tmp_path}@val")


def test_the_public_sizes_need_no_note(tmp_path: Path, monkeypatch) -> None:
    wanted = mini.write_karpathy(tmp_path)
    monkeypatch.setitem(open_coco.__globals__["_SIZES"]["coco"], "val", len(wanted["val"]))
    assert open_coco(tmp_path, "val").notes == ()


def test_nocaps(tmp_path: Path) -> None:
    wanted = mini.write_nocaps(tmp_path)
    same(open_source(f"nocaps:{tmp_path}", default_split="val"), wanted)
    assert splits_of(f"nocaps:{tmp_path}") == ("val",)


def test_nocaps_withholds_the_captions_of_test(tmp_path: Path) -> None:
    wanted = mini.write_nocaps(tmp_path, "test")
    found = open_nocaps(tmp_path, "test")
    same(found, wanted)
    assert "withheld" in found.notes[-1] and found.row(0).captions == ()
    with pytest.raises(DataError, match="nothing can be trained on it or scored"):
        open_source(f"nocaps:{tmp_path}@test")
    same(open_source(f"nocaps:{tmp_path}@test", bare=True), wanted)


@pytest.mark.parametrize("split", ["val", "test"])
def test_nocaps_is_submitted_by_its_own_ids(split: str, tmp_path: Path) -> None:
    """The number of an image is in no file name: two files may even have their numbers exchanged."""
    rows = mini.write_nocaps(tmp_path, split)
    path = tmp_path / ("nocaps_val_4500_captions.json" if split == "val" else "nocaps_test_image_info.json")
    text = path.read_text()
    path.write_text(text.replace('"id": 7000', '"id": 0').replace('"image_id": 7000', '"image_id": 0'))
    found = open_nocaps(tmp_path, split)
    said = tuple(f"caption {number}" for number in range(len(found)))
    written = Written(tuple(range(len(found))), tuple(row.key for row in found.rows), said)
    submitted = Captions().submission(Result("captions", found.name, split, {}, written))
    wanted = [0, *(int(key) for key, *_ in rows[1:])]
    assert submitted == [{"image_id": key, "caption": text} for key, text in zip(wanted, said, strict=True)]


@pytest.mark.parametrize("dataset", ["karpathy", "own"])
def test_coco_is_submitted_by_its_own_ids(dataset: str, tmp_path: Path) -> None:
    if dataset == "karpathy":
        mini.write_karpathy(tmp_path)
        found = open_coco(tmp_path, "test")
        listed = json.loads((tmp_path / "dataset_coco.json").read_text())["images"]
        wanted = [image["cocoid"] for image in listed if image["split"] == "test"]
    else:
        mini.write_coco_own(tmp_path, "val2014")
        found, wanted = open_coco(tmp_path, "val2014"), list(range(12))
    written = Written((), tuple(row.key for row in found.rows), ("a",) * len(found))
    submitted = Captions().submission(Result("captions", found.name, found.split, {}, written))
    assert [row["image_id"] for row in submitted] == wanted


def test_nocaps_without_domains_has_figures_over_all(tmp_path: Path) -> None:
    """The file of image infos that is published names none."""
    mini.write_nocaps(tmp_path)
    path = tmp_path / "nocaps_val_4500_captions.json"
    data = json.loads(path.read_text())
    for image in data["images"]:
        del image["domain"]
    path.write_text(json.dumps(data))
    found = open_nocaps(tmp_path)
    assert not found.rejected and {row.group for row in found.rows} == {""}
    assert found.notes[-1] == "nocaps_val_4500_captions.json has no domains: there are figures over all pictures alone"
    data["images"][3]["domain"] = "elsewhere"
    path.write_text(json.dumps(data))
    assert "expected one of in-domain, near-domain, out-domain" in str(open_nocaps(tmp_path).rejected[0])


def test_one_picture_under_two_ids_is_found(tmp_path: Path) -> None:
    mini.write_nocaps(tmp_path)
    path = tmp_path / "nocaps_val_4500_captions.json"
    data = json.loads(path.read_text())
    data["images"][5]["file_name"] = data["images"][2]["file_name"]
    path.write_text(json.dumps(data))
    [lost] = open_nocaps(tmp_path).rejected
    assert lost.where.endswith("image 6") and "image 3; remove one of the two" in lost.why


@pytest.mark.parametrize("split", ["train", "val", "test", "train9k", "1kA"])
def test_msrvtt(split: str, tmp_path: Path) -> None:
    wanted = mini.write_msrvtt(tmp_path)
    found = open_source(f"msrvtt:{tmp_path}@{split}")
    same(found, wanted[split])
    assert isinstance(found, HasFrames)
    names = [Path(file).name for file in found.clips[0]]
    assert names == [f"frame{step}.jpg" for step in (8, 9, 10, 11, 12)]
    assert Path(found.files[0]).name == "frame10.jpg"
    assert np.array_equal(found.frames(0, 1)[0], found.image(0))
    few = [np.asarray(each) for each in found.frames(0, 5)]
    assert [np.array_equal(one, two) for one, two in zip(few, (np.asarray(x) for x in found.frames(0, 10)[::2]))] == [
        True
    ] * 5


@pytest.mark.parametrize("count", range(1, 12))
def test_frames_are_evenly_spread(count: int, tmp_path: Path) -> None:
    """Against the definition: the frame in which the middle of each equal part of the video falls."""
    mini.write_msrvtt(tmp_path, 12, 7)
    found = open_msrvtt(tmp_path, "train")
    slow = [found.clips[0][int((part + 0.5) / count * 7)] for part in range(count)]
    shown = [np.asarray(each) for each in found.frames(0, count)]
    for each, file in zip(shown, slow, strict=True):
        assert np.array_equal(each, np.asarray(Image.open(found.root / file)))


@pytest.mark.parametrize("form", ["json", "text"])
def test_sbu_has_the_pictures_that_were_downloaded(form: str, tmp_path: Path) -> None:
    wanted = mini.write_sbu(tmp_path, 12, form)
    found = open_source(f"sbu:{tmp_path}")
    same(found, wanted)
    assert "9 of 12 pictures were downloaded" in found.notes[-1]


def test_sbu_whose_lists_are_not_of_one_length_is_refused(tmp_path: Path) -> None:
    mini.write_sbu(tmp_path, 12)
    path = tmp_path / "sbu-captions-all.json"
    data = json.loads(path.read_text())
    del data["captions"][3]
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match="12 `image_urls` and 11 `captions`"):
        open_sbu(tmp_path)


def test_a_line_lost_from_one_text_file_of_sbu_is_refused(tmp_path: Path) -> None:
    mini.write_sbu(tmp_path, 12, "text")
    path = tmp_path / "SBU_captioned_photo_dataset_captions.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match=r"12 lines.* 11"):
        open_sbu(tmp_path)


@pytest.mark.parametrize(
    ("spec", "file"),
    [("cc3m", "Train_GCC-training.tsv"), ("cc3m@val", "Validation_GCC-1.1.0-Validation.tsv"), ("cc12m", "cc12m.tsv")],
)
def test_conceptual_captions(spec: str, file: str, tmp_path: Path) -> None:
    wanted = mini.write_conceptual(tmp_path, file)
    name, at, split = spec.partition("@")
    found = open_source(f"{name}:{tmp_path}{at}{split}")
    same(found, wanted)
    assert "9 of 12 pictures were downloaded" in found.notes[-1]
    assert splits_there(name, str(tmp_path)) == ((split or "train"),)


def test_a_header_is_no_row(tmp_path: Path) -> None:
    wanted = mini.write_conceptual(tmp_path)
    path = tmp_path / "Train_GCC-training.tsv"
    path.write_text("caption\turl\n" + path.read_text())
    same(open_cc3m(tmp_path), wanted)


def test_addresses_with_one_crc_are_both_left_out(tmp_path: Path) -> None:
    """Which of the two was downloaded under that name cannot be told."""
    wanted = mini.write_conceptual(tmp_path, "cc12m.tsv", 40)
    path = tmp_path / "cc12m.tsv"
    lines = path.read_text().splitlines()
    # Of 2^18 addresses, two are expected to collide eight times over.
    seen: dict[int, str] = {}
    for number in range(1 << 18):
        address = f"https://shapes.example/{number * 2654435761 % 2**32:08x}"
        other = seen.setdefault(zlib.crc32(address.encode()), address)
        if other != address:
            break
    else:
        pytest.skip("no two of these addresses collide")
    for at, new in ((0, address), (1, other)):
        lines[at] = f"{new}\t{lines[at].split(chr(9))[1]}"
    path.write_text("\n".join(lines) + "\n")
    found = open_cc12m(tmp_path)
    assert len(found) == len(wanted) - 2
    assert [each.where for each in found.rejected] == ["cc12m.tsv, line 1", "cc12m.tsv, line 2"]


def test_tables_without_pictures_are_refused(tmp_path: Path) -> None:
    mini.write_sbu(tmp_path, 12)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"none of its 12 pictures is in .*9000_ab\.jpg"):
        open_sbu(tmp_path)


@pytest.mark.parametrize("flat", [False, True])
def test_imagenet(flat: bool, tmp_path: Path) -> None:
    wanted = mini.write_imagenet(tmp_path, flat=flat)
    found = open_source(f"imagenet:{tmp_path}@val")
    assert [(row.key, row.label) for row in found.rows] == wanted
    assert found.classes == ("tench", "crane", "crane, derrick", "ring")
    assert all(row.captions == (found.classes[row.label],) for row in found.rows)
    assert splits_of(f"imagenet:{tmp_path}") == ("val",)


def test_imagenet_classes_from_either_list(tmp_path: Path) -> None:
    mini.write_imagenet(tmp_path)
    classes = read_classes(tmp_path)
    (tmp_path / "LOC_synset_mapping.txt").unlink()
    with pytest.raises(
        DataError, match=r"list of ImageNet's classes: expected LOC_synset_mapping\.txt or imagenet_class"
    ):
        open_imagenet(tmp_path)
    index = {str(place): [synset, name] for place, (synset, name) in enumerate(zip(*classes))}
    (tmp_path / "imagenet_class_index.json").write_text(json.dumps(index))
    assert read_classes(tmp_path) == classes


def test_classes_that_words_cannot_tell_are_named(tmp_path: Path) -> None:
    mini.write_imagenet(tmp_path)
    path = tmp_path / "LOC_synset_mapping.txt"
    path.write_text(path.read_text().replace("crane, derrick", "crane"))
    assert "cannot be told by their words: crane" in open_imagenet(tmp_path).notes[-1]


def test_splits_and_folders_that_do_not_exist(tmp_path: Path) -> None:
    for name in CAPTION_SETS:
        with pytest.raises(DataError, match="no split 'banana'; it has "):
            open_source(f"{name}:{tmp_path}@banana")
        for split in CAPTION_SETS[name].splits:
            with pytest.raises(DataError):
                open_source(f"{name}:{tmp_path / 'nowhere'}@{split}")
            with pytest.raises(DataError):
                open_source(f"{name}:{tmp_path}@{split}")
    with pytest.raises(DataError, match=r"there is no data 'coco'; .*as NAME:FOLDER"):
        open_source("coco")


def test_what_a_set_says_of_itself_is_printed_when_it_is_looked_at(tmp_path: Path, capsys) -> None:
    """`4 of 4,500 pictures` belongs beside everything that is counted on them."""
    mini.write_nocaps(tmp_path)
    spec, note = f"nocaps:{tmp_path}@val", "val: 12 of 4,500 pictures: a part of the public split"
    assert main(["data", "check", spec]) == 0
    out, err = capsys.readouterr()
    assert f"note: {note}" in out and note not in err
    assert main(["data", "check", spec, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["notes"] == [note] and note not in err
    for verb in (["show", spec, "--out", str(tmp_path / "sheet.png")], ["shard", spec, "--out", str(tmp_path / "s")]):
        assert main(["data", *verb, "--json"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["task"] == f"data {verb[0]}" and f"note: {note}" in err
    assert main(["data", "check", "digits@test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []
