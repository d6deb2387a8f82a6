"""The three layouts of a folder of pictures."""

from pathlib import Path

import pytest
from PIL import Image

from multiway.data.folder import read_folder
from multiway.data.open import open_source
from multiway.data.source import DataError, Source


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (value, 0, 0)).save(path)
    return path


def rows_of(splits) -> dict:
    return {row.key: row for source in splits.values() for row in map(source.row, range(len(source)))}


def test_sidecars(tmp_path):
    for number in range(12):
        picture(tmp_path / "deep" / f"{number}.jpg").with_suffix(".txt").write_text(
            f"\ufeffone {number}\n\n two \n", encoding="utf-8"
        )
    picture(tmp_path / "lonely.JPG")
    picture(tmp_path / ".hidden.png")
    picture(tmp_path / "__MACOSX" / "a.png")
    splits = read_folder(tmp_path)
    rows = rows_of(splits)
    assert sorted(rows) == sorted(f"deep/{number}.jpg" for number in range(12))
    assert rows["deep/3.jpg"].captions == ("one 3", "two")
    [only] = next(iter(splits.values())).rejected
    assert only.where == "lonely.JPG" and "no lonely.txt" in only.why
    assert all(isinstance(source, Source) for source in splits.values())


def test_bad_sidecars(tmp_path):
    for number in range(30):
        picture(tmp_path / f"{number:02d}.png").with_suffix(".txt").write_text("fine")
    (tmp_path / "07.txt").write_bytes(b"caf\xe9")
    (tmp_path / "08.txt").write_text(" \n\n")
    splits = read_folder(tmp_path)
    found = {each.where: each.why for each in next(iter(splits.values())).rejected}
    assert set(found) == {"07.png", "08.png"}
    assert "not UTF-8" in found["07.png"] and "empty" in found["08.png"]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_metadata(tmp_path, name):
    picture(tmp_path / "a.png", 9)
    (tmp_path / name).write_text(
        '{"file_name": "a.png", "text": "nine"}' if name.endswith("jsonl") else "file_name,text\na.png,nine\n"
    )
    [source] = read_folder(tmp_path).values()
    assert source.row(0).captions == ("nine",) and source.image(0).getpixel((0, 0)) == (9, 0, 0)


def test_metadata_in_each_split_keeps_keys_and_ids_apart(tmp_path):
    for split in ("train", "validation"):
        picture(tmp_path / split / "a.png")
        (tmp_path / split / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "cat", "image_id": 1}\n')
    splits = read_folder(tmp_path)
    assert set(splits) == {"train", "val"}
    first, second = splits["train"].row(0), splits["val"].row(0)
    assert first.key == "train/a.png" and second.key == "validation/a.png" and first.image_id != second.image_id
    assert first.where == "train/metadata.jsonl, line 1"


def test_classes(tmp_path):
    for name in ("golden_retriever", "cat"):
        for number in range(20):
            picture(tmp_path / name / f"{number}.png")
    splits = read_folder(tmp_path)
    rows = rows_of(splits)
    assert rows["golden_retriever/3.png"].captions == ("golden retriever",)
    for source in splits.values():
        assert source.classes == ("cat", "golden retriever")
        assert all(source.classes[source.row(i).label] == source.row(i).captions[0] for i in range(len(source)))


def test_class_numbers_agree_between_splits(tmp_path):
    for path in ("train/b/1.png", "train/c/1.png", "val/a/1.png", "val/c/1.png"):
        picture(tmp_path / path)
    splits = read_folder(tmp_path)
    assert splits["train"].classes == splits["val"].classes == ("a", "b", "c")
    assert {row.key: row.label for row in rows_of(splits).values()} == {
        "train/b/1.png": 1,
        "train/c/1.png": 2,
        "val/a/1.png": 0,
        "val/c/1.png": 2,
    }


def test_held_out_rows_stay_when_pictures_join(tmp_path):
    def split_by_key():
        return {
            row.key: split
            for split, source in read_folder(tmp_path).items()
            for row in map(source.row, range(len(source)))
        }

    for number in range(60):
        picture(tmp_path / "a" / f"{number}.png")
    before = split_by_key()
    assert set(before.values()) == {"train", "val", "test"}
    for number in range(60):
        picture(tmp_path / "b" / f"{number}.png")
    after = split_by_key()
    assert len(after) == 120 and all(after[key] == split for key, split in before.items())


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    picture(tmp_path / "data" / "cat" / "1.png")
    picture(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "cat" / "loop").symlink_to(tmp_path / "data")
    assert len(rows_of(read_folder(tmp_path / "data"))) == 2


def test_what_is_no_layout_is_explained(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read_folder(tmp_path / "none")
    with pytest.raises(DataError, match="holds no pictures"):
        read_folder(tmp_path)
    picture(tmp_path / "a.png")
    picture(tmp_path / "b" / "c.png")
    with pytest.raises(DataError, match=r"2 pictures, 1 of them outside sub-folders \(a\.png.*expected a \.txt"):
        read_folder(tmp_path)
    picture(tmp_path / "s" / "val" / "x" / "a.png")
    picture(tmp_path / "s" / "valid" / "x" / "a.png")
    with pytest.raises(DataError, match="val, valid are names of the same split"):
        read_folder(tmp_path / "s")


def test_photos_without_captions_are_for_those_who_need_none(tmp_path):
    for number in range(12):
        picture(tmp_path / "june" / f"{number}.jpg")
        picture(tmp_path / f"{number}.jpg")
    (tmp_path / "3.txt").write_text("three")
    with pytest.raises(DataError):
        open_source(str(tmp_path), default_split="all")
    source = open_source(str(tmp_path), default_split="all", bare=True)
    rows = {row.key: row.captions for row in map(source.row, range(len(source)))}
    assert len(rows) == 24 and rows.pop("3.jpg") == ("three",) and set(rows.values()) == {()}
    (tmp_path / "3.txt").unlink()
    with pytest.raises(DataError, match="`search`, `embed` and `caption` do without"):
        open_source(str(tmp_path))
    assert len(open_source(str(tmp_path), default_split="all", bare=True)) == 24
