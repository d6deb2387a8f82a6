"""What readers share: counting rows, numbering pictures, naming contents, and believing no field before it was looked at."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from multiway.data.annotated.files import FolderPictures, Published, fingerprint_of, gather
from multiway.data.annotated.records import Record, read_json, read_json_lines
from multiway.data.examples import Asked, Judged
from multiway.data.source import BadRow, DataError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)  # fmt: skip


@given(values)
def test_a_field_is_what_was_asked_for_or_a_bad_row(value: object) -> None:
    for record in (Record("row", {"a": value}), Record("row", value)):
        for read, kind in ((record.text, str), (record.name, str), (record.number, int), (record.list, list)):
            try:
                found = read("a")
            except BadRow as error:
                assert len(str(error)) < 300
            else:
                assert isinstance(found, kind) and not isinstance(found, bool)
                assert found or kind is int
                if kind is str:
                    assert found == found.strip() and found.encode()


def test_numbers_may_be_written_as_text_and_ids_as_numbers() -> None:
    record = Record("row", {"a": "0012", "b": 12, "c": "٣", "d": "-1"})
    assert record.number("a") == record.number("b") == 12 and record.name("b") == "12" and record.name("a") == "0012"
    for key in ("c", "d"):
        with pytest.raises(BadRow, match="whole number"):
            record.number(key)


def test_pictures_are_numbered_once_and_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("in/a.png", "in/deep/b.png", "outside.png"):
        Image.new("RGB", (2, 3)).save(tmp_path / name)
    pictures = FolderPictures(tmp_path / "in")
    assert [pictures.number("a.png"), pictures.number("deeper/b.png", "deep/b.png"), pictures.number("a.png")] == [
        0,
        1,
        0,
    ]
    assert pictures.files == ["a.png", "deep/b.png"] and len(pictures) == 2 and pictures.image(1).size == (2, 3)
    for name in (
        "../outside.png",
        str(tmp_path / "outside.png"),
        "deep/../../outside.png",
        "a.png\0",
        "\ud800.png",
        "deep",
        "",
    ):
        with pytest.raises(BadRow):
            pictures.number(name)
    with pytest.raises(DataError, match="does not exist"):
        FolderPictures(tmp_path / "nowhere")


def test_a_part_of_the_public_split_says_so() -> None:
    published = Published(214_354, "questions")
    assert published.note(1000) == "1,000 of 214,354 questions: a part of the public split"
    assert published.note(214_354) == "" == Published(0).note(5)
    assert "the public split has 214,354" in published.note(214_355)


def made(record: Record) -> Asked:
    return Asked(record.name("id"), (0,), record.text("q"), record.where)


def test_rows_are_examples_or_counted() -> None:
    rows = [Record(f"row {number}", {"id": number, "q": "why?"}) for number in range(30)]
    rows[3] = Record("row 3", {"id": 2, "q": "again?"})
    rows[4] = Record("row 4", 17)
    found = gather("toy", "val", "asked", rows, made, [None], published=Published(30))
    assert len(found) == 28 and found.notes == ()
    assert [str(each).partition(":")[0] for each in found.rejected] == ["row 3", "row 4"]
    assert "is also that of row 2" in str(found.rejected[0]) and "the row is 17 (int)" in str(found.rejected[1])
    with pytest.raises(DataError, match="no rows"):
        gather("toy", "val", "asked", [], made, [None])
    with pytest.raises(DataError, match="2 of 19 rows"):
        gather("toy", "val", "asked", rows[:19], made, [None])


def test_a_fingerprint_names_all_that_is_said() -> None:
    first = Judged("a", (0,), "it is so", "here", "", 1, "t")
    base = fingerprint_of([first], ("no", "yes"), ["a.png", "b.png"])
    changes = ({"key": "b"}, {"pictures": (1,)}, {"text": "it is"}, {"label": 0}, {"twin": "u"}, {"group": "g"})
    others = [fingerprint_of([replace(first, **change)], ("no", "yes"), ["a.png", "b.png"]) for change in changes]
    others += [
        fingerprint_of([first], ("yes", "no"), ["a.png", "b.png"]),
        fingerprint_of([first, first], ("no", "yes"), ["a.png"]),
    ]
    assert len({base, *others}) == len(others) + 1
    assert fingerprint_of([replace(first, where="there")], ("no", "yes"), ["a.png", "b.png"]) == base


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"[1, 2", "not the JSON"),
        (b"\xff\xfe[\x00]\x00", "UTF-16"),
        (b'["\xe4"]', "byte 0xe4 at position 3 is not UTF-8"),
        (b"{}", "expected a list"),
        (b"", "not the JSON"),
        (b"[" * 100_000, "not the JSON"),
        (b"[" + b"1" * 5000 + b"]", "not the JSON"),
        (b'[{"a": 1, "a": 2}]', "the key 'a' is there twice"),
    ],
    ids=str,
)
def test_a_doubtful_file_is_refused(data: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"rows\.json.*{complaint}"):
        read_json(path, list)
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path, list) == [1]
    path.write_bytes(b'{"a": 1}\r\n\n{"a": "b')
    rows = read_json_lines(path)
    assert next(rows) == Record("rows.json, line 1", {"a": 1})
    with pytest.raises(DataError, match="line 3"):
        next(rows)
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path, list)
    (tmp_path / "rows.json.gz").write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path / "rows.json.gz", list)
