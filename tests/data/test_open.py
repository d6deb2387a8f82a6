"""Specifications: what is name, path and split, and which reader a path gets."""

import json
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from multiway.data.open import BUNDLED, open_source, open_splits, parse, splits_of
from multiway.data.shard_writer import write_shards
from multiway.data.source import DataError, Row, Source, SourceSpec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("emoji", SourceSpec("emoji")),
        ("emoji@composition", SourceSpec("emoji", "", "composition")),
        ("emoji:some/where@val", SourceSpec("emoji", "some/where", "val")),
        ("a/b.jsonl", SourceSpec("a/b.jsonl")),
        ("a/b.jsonl@test", SourceSpec("a/b.jsonl", "", "test")),
        ("pictures@2x/a.csv", SourceSpec("pictures@2x/a.csv")),
        ("pictures@2x/a.csv@val", SourceSpec("pictures@2x/a.csv", "", "val")),
        ("C:/data/a.csv", SourceSpec("C:/data/a.csv")),
        ("shards/*.tar", SourceSpec("shards/*.tar")),
        ("shards/{000..009}.tar@train", SourceSpec("shards/{000..009}.tar", "", "train")),
        (" emoji ", SourceSpec("emoji")),
    ],
)
def test_parse(text, spec):
    assert parse(text) == spec


@given(
    name=st.sampled_from(["emoji", "digits", "a/b.jsonl", "p/"]), split=st.from_regex(r"[a-z_]{0,8}", fullmatch=True)
)
def test_parse_undoes_str(name, split):
    spec = SourceSpec(name, "", split)
    assert parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no data are named; give them with --data"),
        ("@train", "there is no|names no data"),
        ("emoji@", "ends in `@`"),
        ("emoji*2", "weight 2 to one source"),
        ("emoji + digits", "mixes 2 sources, which is for training alone; name one of them here: emoji or digits"),
        ("a.jsonl@train*0.5", r"weight 0\.5"),
    ],
)
def test_bad_specifications(text, complaint):
    with pytest.raises(DataError, match=complaint):
        open_source(text)


def test_a_file_whose_name_looks_like_a_split_is_a_file(tmp_path):
    path = tmp_path / "a@b.jsonl"
    path.write_text("{}")
    assert parse(str(path)) == SourceSpec(str(path))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "p" / "cat"
    folder.mkdir(parents=True)
    for number in range(60):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
    rows = [{"image": f"cat/{n}.png", "caption": str(n), "split": ("train", "val")[n % 2]} for n in range(60)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_each_kind_of_data_gets_its_reader(data):
    table = open_source(f"{data}/a.jsonl@val", images=data / "p")
    write_shards([table], data / "shards")
    for spec, kind in (
        (f"{data}/p", "PictureFiles"),
        (f"{data}/shards", "Shards"),
        (f"{data}/shards/val-{{000000..000000}}.tar", "Shards"),
    ):
        source = open_source(spec, default_split="train" if spec.endswith("/p") else "val")
        assert type(source).__name__ == kind and isinstance(source, Source) and len(source)
    assert [table.row(i).captions[0] for i in range(30)] == [str(n) for n in range(1, 60, 2)]


def test_splits(data):
    spec = f"{data}/a.jsonl"
    assert splits_of(spec, data / "p") == ("train", "val")
    assert splits_of(f"{data}/p") == ("test", "train", "val")
    assert open_source(f"{spec}@validation", data / "p").split == "val"
    with pytest.raises(DataError, match=r"no rows in split 'test'; it has train, val and all \(all rows\)"):
        open_source(spec, data / "p", default_split="test")
    assert [source.split for source in open_splits(spec, data / "p")] == ["train", "val"]
    assert [source.split for source in open_splits(f"{spec}@val", data / "p")] == ["val"]


def test_all_is_every_row(data):
    spec = f"{data}/a.jsonl"
    whole = open_source(spec, data / "p", default_split="all")
    parts = open_splits(spec, data / "p")
    assert isinstance(whole, Source) and whole.split == "all" and len(whole) == 60
    rows = [(part.row(i), part.image(i).tobytes(), part.encoded(i)) for part in parts for i in range(len(part))]
    assert [(whole.row(i), whole.image(i).tobytes(), whole.encoded(i)) for i in range(60)] == rows
    assert len({part.fingerprint for part in parts} | {whole.fingerprint}) == 3
    with pytest.raises(IndexError, match="row 60"):
        whole.row(60)


def test_bundled_sets_are_opened_by_the_table(monkeypatch):
    class Emoji:
        name, classes, templates, fingerprint = "emoji", (), (), ""

        @classmethod
        def open(cls, split):
            source = cls()
            source.split = split
            return source

        def __len__(self):
            return 2

        def row(self, index):
            return Row(f"{self.split}{index}", index, ("x",))

    module = types.ModuleType("multiway.data.emoji")
    module.Emoji = Emoji
    monkeypatch.setitem(sys.modules, "multiway.data.emoji", module)
    assert open_source("emoji").split == "train" and open_source("emoji@concept").split == "concept"
    assert len(open_source("emoji@all")) == 2 * len(splits_of("emoji"))
    with pytest.raises(
        DataError, match="no rows in split 'nope'; it has train, random, composition, concept, concept-strict and all"
    ):
        open_source("emoji@nope")


@pytest.mark.parametrize("name", BUNDLED)
def test_the_table_of_splits_agrees_with_the_sets(name):
    pytest.importorskip(f"multiway.data.{name}")
    for split in splits_of(name):
        source = open_source(f"{name}@{split}")
        assert isinstance(source, Source) and source.split == split and len(source)


def test_what_is_no_data_is_explained(tmp_path):
    (tmp_path / "a.docx").write_text("x")
    for spec, complaint in (
        (f"{tmp_path}/a.docx", "cannot tell what this file is"),
        (f"{tmp_path}/none", "there is no data .*expected a bundled"),
    ):
        with pytest.raises(DataError, match=complaint):
            open_source(spec)
