"""Caption files: formats agree, columns are found, and each kind of bad row or file gets its treatment."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from multiway.data.captions import read_captions
from multiway.data.source import DataError, Source, held_out_split, stable_id


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for number in range(20):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
    Image.new("RGB", (4, 4)).save(folder / "deep" / "a.png")
    Image.new("RGB", (4, 4)).save(folder.parent / "outside.png")
    return folder


def jsonl(folder: Path, rows: list, name: str = "pairs.jsonl") -> Path:
    path = folder.parent / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def good(count: int = 19) -> list[dict]:
    return [{"image": f"{number}.png", "caption": f"number {number}"} for number in range(count)]


def every_row(splits) -> list:
    """Rows of all splits in the order of the file."""
    rows = [row for source in splits.values() for row in map(source.row, range(len(source)))]
    return sorted(rows, key=lambda row: int(row.where.rpartition(" ")[2]))


def rejected(pictures: Path, bad) -> str:
    """What is said of one bad row among nineteen good ones."""
    splits = read_captions(jsonl(pictures, [*good(), bad]), pictures)
    assert len(every_row(splits)) == 19
    [only] = next(iter(splits.values())).rejected
    assert only.where == "pairs.jsonl, line 20"
    return only.why


def test_a_row_is_its_line_and_its_picture(pictures):
    splits = read_captions(jsonl(pictures, good()), pictures)
    assert [row.captions for row in every_row(splits)] == [(f"number {n}",) for n in range(19)]
    for name, source in splits.items():
        assert isinstance(source, Source) and source.split == name
        for index in range(len(source)):
            row = source.row(index)
            assert row.image_id == stable_id(row.key) and held_out_split(row.image_id) == name
            number = int(row.key.removesuffix(".png"))
            assert row.where == f"pairs.jsonl, line {number + 1}"
            assert source.image(index).getpixel((0, 0)) == (number, 0, 0)
            assert source.encoded(index) == (pictures / row.key).read_bytes()


def test_all_formats_give_the_same_rows(pictures):
    rows = good()
    rows[3]["caption"] = 'a "quoted", comma'
    folder = pictures.parent
    paths = [jsonl(pictures, rows), folder / "pairs.json", folder / "pairs.csv", folder / "pairs.tsv"]
    paths[1].write_text(json.dumps(rows))
    for path, dialect in ((paths[2], csv.excel), (paths[3], csv.excel_tab)):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["image", "caption"], dialect=dialect)
            writer.writeheader()
            writer.writerows(rows)
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    paths.append(folder / "pairs.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), paths[-1])
    read = [read_captions(path, pictures) for path in paths]
    assert [row.captions[0] for row in every_row(read[0])] == [row["caption"] for row in rows]
    for other in read[1:]:
        assert {s: source.fingerprint for s, source in other.items()} == {s: x.fingerprint for s, x in read[0].items()}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(captions=st.lists(st.text(min_size=1, max_size=30).filter(str.strip), min_size=1, max_size=8))
def test_any_text_survives_json_and_csv(pictures, captions):
    """What Python's own writers write is read back, quoted newlines, tabs and all."""
    captions = [text.replace("\r", " ").replace("\0", " ").strip() or "x" for text in captions]
    rows = [{"image": f"{number}.png", "caption": text} for number, text in enumerate(captions)]
    path = jsonl(pictures, rows)
    table = pictures.parent / "pairs.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "caption"], *([row["image"], row["caption"]] for row in rows)])
    for each in (path, table):
        assert [row.captions[0] for row in every_row(read_captions(each, pictures))] == captions


@pytest.mark.parametrize("image", ["image", "file_name", "filepath", "Path", "img"])
@pytest.mark.parametrize("caption", ["caption", "captions", "TEXT", "title", "sentence"])
def test_usual_columns_are_found(pictures, image, caption):
    rows = [{"extra": 1, caption: row["caption"], image: row["image"]} for row in good()]
    assert every_row(read_captions(jsonl(pictures, rows), pictures))[5].captions == ("number 5",)


def test_given_columns_win_and_wrong_ones_list_what_there_is(pictures):
    path = jsonl(pictures, [{**row, "german": "Zahl"} for row in good()])
    assert every_row(read_captions(path, pictures, caption_column="german"))[0].captions == ("Zahl",)
    with pytest.raises(DataError, match=r"no column `french` for captions; the file has `image`, `caption`, `german`"):
        read_captions(path, pictures, caption_column="french")
    with pytest.raises(DataError, match=r"no column of picture paths among `a`, `b`; name it with --image-column"):
        read_captions(jsonl(pictures, [{"a": 1, "b": 2}], "other.jsonl"), pictures)
    with pytest.raises(DataError, match="cannot be both"):
        read_captions(path, pictures, image_column="caption", caption_column="caption")
    (pictures.parent / "flickr.csv").write_text("image|caption\n0.png|cat\n")
    with pytest.raises(DataError, match="something else than a comma"):
        read_captions(pictures.parent / "flickr.csv", pictures)


def test_several_captions_and_several_rows_of_a_picture(pictures):
    rows = [{"image": "0.png", "captions": ["one", "two"]}, {"image": "./deep/../0.png", "captions": "three"}]
    first, second = every_row(read_captions(jsonl(pictures, rows), pictures))
    assert first.captions == ("one", "two") and second.captions == ("three",)
    assert first.image_id == second.image_id and first.key == "0.png" and second.key == "0.png#2"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"image": "1.png", "caption": " \n"}, "caption is empty"),
        ({"image": "1.png"}, "caption is empty"),
        ({"image": "1.png", "caption": []}, "list of captions is empty"),
        ({"image": "1.png", "caption": 5}, "caption is 5 (int); expected text"),
        ({"image": "1.png", "caption": "x" * 1_000_000}, "1,000,000 characters, more than 10,000"),
        ('{"image": "1.png", "caption": "\\ud800"}', "surrogate"),
        ({"image": "99.png", "caption": "cat"}, "there is no picture 99.png"),
        ({"image": "../outside.png", "caption": "cat"}, "leads out of the images folder"),
        ({"image": "deep/../../outside.png", "caption": "cat"}, "leads out of the images folder"),
        ({"image": "/etc/hostname", "caption": "cat"}, "leads out of the images folder"),
        ({"image": "https://example.org/1.png", "caption": "cat"}, "is an address"),
        ({"image": "", "caption": "cat"}, "path is empty"),
        ({"image": 7, "caption": "cat"}, "path is 7 (int)"),
        ('{"image": "a\\u0000b.png", "caption": "cat"}', "characters that no file name can have"),
        ({"image": "deep", "caption": "cat"}, "there is no picture deep"),
        ({"caption": "cat"}, "path is empty"),
    ],
)
def test_one_bad_row_is_left_out_and_named(pictures, bad, why):
    assert why in rejected(pictures, bad)


def test_one_bad_caption_of_several_costs_only_itself(pictures):
    source = read_captions(jsonl(pictures, [{"image": "0.png", "caption": ["", "good"]}]), pictures)
    [only] = source.values()
    assert only.row(0).captions == ("good",)
    assert [str(each) for each in only.rejected] == [
        "pairs.jsonl, line 1, caption 1: the caption is empty; fill column `caption` or remove the row"
    ]


def test_too_many_bad_rows_refuse_the_file(pictures):
    bad = [{"image": f"no-{n}.png", "caption": "x"} for n in range(7)]
    with pytest.raises(DataError, match=r"7 of 26 rows cannot be used, more than the 10%") as error:
        read_captions(jsonl(pictures, good() + bad), pictures)
    assert "line 20: there is no picture no-0.png" in str(error.value) and "and 2 more" in str(error.value)
    assert len(every_row(read_captions(jsonl(pictures, good() + bad), pictures, ceiling=0.3))) == 19


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b'{"image": "0.png", "caption": "a"}\n{"image": \n', r"pairs.jsonl, line 2: this is not valid JSON"),
        (b'{"image": "0.png", "caption": "a"}\n[1]\n', r"line 2: found \[1\]; expected an object"),
        (b"[" * 100_000, r"line 1: this is not valid JSON"),
        ('{"image": "0.png", "caption": "café"}'.encode("latin-1"), r"line 1: byte 0xe9 at column 35 is not UTF-8"),
        ('{"image": "0.png", "caption": "a"}'.encode("utf-16"), r"is UTF-16.*iconv"),
        (b"", r"has no rows"),
        (b"\n\n", r"has no rows"),
    ],
)
def test_damaged_json_lines(pictures, text, complaint):
    path = pictures.parent / "pairs.jsonl"
    path.write_bytes(text)
    with pytest.raises(DataError, match=complaint):
        read_captions(path, pictures)


def test_byte_order_mark_is_no_part_of_the_first_column(pictures):
    for name, text in (("a.csv", "image,caption\n0.png,cat\n"), ("a.jsonl", '{"image": "0.png", "caption": "cat"}')):
        (pictures.parent / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert every_row(read_captions(pictures.parent / name, pictures))[0].captions == ("cat",)


def test_csv_with_quoted_newlines_names_the_first_line_of_a_row(pictures):
    path = pictures.parent / "a.csv"
    path.write_text('image,caption\n0.png,"two\nlines"\n1.png,"say ""hi"""\n')
    first, second = every_row(read_captions(path, pictures))
    assert first.captions == ("two\nlines",) and first.where == "a.csv, line 2"
    assert second.captions == ('say "hi"',) and second.where == "a.csv, line 4"


def test_csv_troubles(pictures):
    path = pictures.parent / "a.csv"
    rows = "".join(f"{n}.png,number {n}\n" for n in range(19))
    path.write_text(f"image,caption\n{rows}0.png,red, green\n")
    [only] = next(iter(read_captions(path, pictures).values())).rejected
    assert only.where == "a.csv, line 21" and "3 columns, the header 2" in only.why
    path.write_text('image,caption\n0.png,"never closed\n1.png,cat\n')
    with pytest.raises(DataError, match=r"a.csv, line 2: the row cannot be split"):
        read_captions(path, pictures)
    limit = 131_072  # Python's own
    csv.field_size_limit(limit)
    path.write_text(f"image,caption\n{rows}0.png,{'x' * 1_000_000}\n")
    [only] = next(iter(read_captions(path, pictures).values())).rejected
    assert "1,000,000 characters" in only.why and csv.field_size_limit() == limit


def test_tsv_takes_stray_quotes_as_they_are(pictures):
    path = pictures.parent / "a.tsv"
    path.write_text('image\tcaption\n0.png\t"hello" she said\n1.png\t5" disk\n2.png\t"all ""of"" it"\n')
    captions = [row.captions[0] for row in every_row(read_captions(path, pictures))]
    assert captions == ['"hello" she said', '5" disk', 'all "of" it']


def test_splits_labels_keys_and_ids_are_honoured(pictures):
    rows = [
        {
            **row,
            "split": ("train", "validation", "extra")[n % 3],
            "label": ("dog", "cat")[n % 2],
            "key": f"k{n}",
            "image_id": n * 100,
        }
        for n, row in enumerate(good())
    ]
    splits = read_captions(jsonl(pictures, rows), pictures)
    assert set(splits) == {"train", "val", "extra"}
    for source in splits.values():
        assert source.classes == ("cat", "dog")
        for row in map(source.row, range(len(source))):
            number = int(row.key[1:])
            assert source.classes[row.label] == ("dog", "cat")[number % 2] and row.image_id == stable_id(
                str(number * 100)
            )
    numbers = read_captions(
        jsonl(pictures, [{**row, "label": n} for n, row in zip((0, 4), good(), strict=False)]), pictures
    )
    assert [row.label for row in every_row(numbers)] == [0, 4]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ([{"key": "k"}, {"key": "k"}], r"line 2: key 'k' is also that of pairs.jsonl, line 1"),
        (
            [{"image_id": 1}, {"image_id": 1}],
            r"line 2: its image_id is also that of .*line 1, but the pictures are 1.png and 0.png",
        ),
        ([{"image_id": 1}, {"image_id": 2, "image": "0.png"}], r"line 2: picture 0.png has another image_id"),
    ],
)
def test_contradictory_ids_are_refused(pictures, changes, complaint):
    with pytest.raises(DataError, match=complaint):
        read_captions(
            jsonl(pictures, [{**row, **change} for row, change in zip(good(2), changes, strict=True)]), pictures
        )


def test_files_and_folders_that_are_not_there(pictures):
    with pytest.raises(DataError, match="no such file"):
        read_captions(pictures / "none.jsonl")
    with pytest.raises(DataError, match="images folder does not exist"):
        read_captions(jsonl(pictures, good()), pictures / "none")
    (pictures / "a.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"type \.xlsx; expected \.jsonl"):
        read_captions(pictures / "a.xlsx")


def test_parquet_with_pictures_inside_says_what_to_do(pictures):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = pictures.parent / "a.parquet"
    parquet.write_table(
        pyarrow.Table.from_pylist([{"image": {"bytes": b"x", "path": "0.png"}, "caption": "cat"}]), path
    )
    with pytest.raises(DataError, match="pictures stored inside the table"):
        read_captions(path, pictures)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="not a readable Parquet"):
        read_captions(path, pictures)


def test_fingerprint_follows_words_and_order(pictures):
    def prints(rows):
        return {split: source.fingerprint for split, source in read_captions(jsonl(pictures, rows), pictures).items()}

    rows = [{**row, "split": "train"} for row in good()]
    changed = [*rows[:-1], {**rows[-1], "caption": "another"}]
    assert prints(rows) == prints(rows)
    assert prints(rows) != prints(changed) and prints(rows) != prints(rows[::-1])
