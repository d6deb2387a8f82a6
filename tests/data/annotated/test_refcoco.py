"""RefCOCO and its like: expressions of both files, and what happens where the files do not fit together."""

import json
import pickle
from pathlib import Path

import pytest
from annotated import miniatures_regions as mini
from annotated.compared import drawn_alike, same
from annotated.miniatures import all_of, few

from multiway.data.annotated.refcoco import open_refcoco, open_refcoco_plus, open_refcocog
from multiway.data.source import DataError


@pytest.mark.parametrize(
    ("name", "opener", "splits"),
    [
        ("refcoco", open_refcoco, ("train", "val", "testA", "testB")),
        ("refcoco+", open_refcoco_plus, ("train", "val", "testA", "testB")),
        ("refcocog", open_refcocog, ("train", "val", "test")),
    ],
)
def test_refcoco(name: str, opener, splits: tuple[str, ...], tmp_path: Path) -> None:
    written = few("expressions", 12)
    wanted = mini.write_refcoco(tmp_path, name, splits, written)
    for split in splits:
        found = opener(tmp_path, split)
        same(found, wanted[split], "expressions")
        assert all(each.boxes[0] in each.candidates for each in all_of(found))
        twice = [each for each in all_of(written) if splits[each.pictures[0] % len(splits)] == split for _ in (0, 1)]
        drawn_alike(found, written, twice)
    assert opener(tmp_path / name, splits[1], tmp_path / "train2014").fingerprint
    with pytest.raises(DataError, match=f"{name.replace('+', '.')} has no split 'testC'; it has train, val"):
        opener(tmp_path, "testC")


def test_refcoco_of_two_releases_is_refused(tmp_path: Path) -> None:
    mini.write_refcoco(tmp_path)
    path = tmp_path / "refcoco" / "instances.json"
    data = json.loads(path.read_text())
    for each in data["annotations"]:
        each["image_id"] += 1
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match="of another picture"):
        open_refcoco(tmp_path, "val")


def test_bytes_that_are_not_utf8_reject_the_expression_alone(tmp_path: Path) -> None:
    mini.write_refcoco(tmp_path, examples=few("expressions", 60))
    path = tmp_path / "refcoco" / "refs(unc).p"
    refs = pickle.loads(path.read_bytes())
    next(each for each in refs if each["split"] == "val")["sentences"][0]["sent"] = "a caf\ufffd"
    path.write_bytes(pickle.dumps(refs, 2))
    assert len(open_refcoco(tmp_path, "val").rejected) == 1


def test_a_box_that_belongs_to_no_picture_is_counted(tmp_path: Path) -> None:
    """It may be a candidate of any."""
    mini.write_refcoco(tmp_path, examples=few("expressions", 60))
    path = tmp_path / "refcoco" / "instances.json"
    data = json.loads(path.read_text())
    data["annotations"].append({"id": 7, "image_id": 7, "bbox": [0, 0, 5, 5]})
    path.write_text(json.dumps(data))
    assert "none of the file's images" in str(open_refcoco(tmp_path, "val").rejected[0])
    data["annotations"].append(data["annotations"][0])
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"instances\.json, annotation \d+: its id \d+ is also that of"):
        open_refcoco(tmp_path, "val")
