"""From a specification to examples, and from a wrong one to what there is."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from annotated import miniatures
from annotated.miniatures import all_of

from multiway.data import plugins
from multiway.data.annotated import open as opening
from multiway.data.annotated.open import READERS, open_examples, parse_examples
from multiway.data.annotated.vqa import open_vqa
from multiway.data.plugins import PluginError
from multiway.data.source import DataError, SourceSpec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("vqa:data/vqa@val", SourceSpec("vqa", "data/vqa", "val")),
        ("vqa:data/vqa", SourceSpec("vqa", "data/vqa")),
        ("nlvr2:/a/b@2/c", SourceSpec("nlvr2", "/a/b@2/c")),
        ("vqa:C:/a@test-dev", SourceSpec("vqa", "C:/a", "test-dev")),
        ("scenes", SourceSpec("scenes")),
        ("scenes@test", SourceSpec("scenes", "", "test")),
        (" scenes:hard,objects=2-3@test ", SourceSpec("scenes", "hard,objects=2-3", "test")),
    ],
)
def test_a_specification_is_taken_apart(text: str, spec: SourceSpec) -> None:
    assert parse_examples(text) == spec


def test_a_folder_may_have_an_at_sign(tmp_path: Path) -> None:
    (tmp_path / "a@b").mkdir()
    assert parse_examples(f"vqa:{tmp_path}/a@b") == SourceSpec("vqa", f"{tmp_path}/a@b")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("vqa", r"write vqa:FOLDER@val"),
        ("vqa@test", r"write vqa:FOLDER@test"),
        ("vqa:data@", "without a split"),
        ("visual7w:data", r"no annotated data 'visual7w'.*vqa:FOLDER"),
        ("", "no annotated data ''"),
        ("scenes:medium@validate", "no split 'validate'; they have train, val, test"),
        ("vqa:data@validate", "no split 'validate'; it has train, val, test, test-dev"),
        ("nlvr2:data@val", "kind `judged`; vqa needs `asked`"),
        ("vqa:nowhere@val", "no such folder"),
    ],
)
def test_a_wrong_one_says_what_there_is(text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        open_examples(text, "vqa")


def test_files_and_scenes_open_alike(tmp_path: Path) -> None:
    wanted = all_of(open_vqa(tmp_path, "val")) if miniatures.write_vqa(tmp_path) else []
    for spec, default in (
        (f"vqa:{tmp_path}@val", "test"),
        (f"vqa:{tmp_path}", "dev"),
        (f"vqa:{tmp_path}@validation", "test"),
    ):
        assert all_of(open_examples(spec, "vqa", default)) == wanted
    (tmp_path / "val2014").rename(tmp_path / "elsewhere")
    assert all_of(open_examples(f"vqa:{tmp_path}@val", images=tmp_path / "elsewhere")) == wanted
    assert open_examples("scenes:easy,gallery=5@val", "nlvr2").kind == "judged"
    assert open_examples("scenes:easy,gallery=5", "pointed").kind == "pointed"
    with pytest.raises(DataError, match="say which: questions"):
        open_examples("scenes:easy")


def test_splits_have_the_names_of_their_benchmark_and_its_neighbours(tmp_path: Path) -> None:
    miniatures.write_gqa(tmp_path)
    miniatures.write_nlvr2(tmp_path, "test")
    assert open_examples(f"gqa:{tmp_path}@test-dev").split == "testdev"
    assert open_examples(f"nlvr2:{tmp_path}@test1").split == "test"


def test_every_reader_is_where_the_table_says() -> None:
    for name, reader in READERS.items():
        opener, splits = reader.load()
        assert callable(opener) and splits, name


def test_a_package_may_bring_its_own_reader(tmp_path: Path, monkeypatch) -> None:
    miniatures.write_vqa(tmp_path)
    offered = [
        EntryPoint(name, "multiway.data.annotated.vqa:open_vqa", opening.ENTRY_POINTS) for name in ("okvqa", "nlvr2")
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: offered)
    assert len(open_examples(f"okvqa:{tmp_path}@val", "vqa")) > 0
    with pytest.raises(DataError, match="examples of NLVR2"):  # a name of multiway's own stays its own
        open_examples(f"nlvr2:{tmp_path}@val")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (
            "no_such_package.reader:open_it",
            "cannot be imported .ModuleNotFoundError: .*no_such_package.*repair or uninstall",
        ),
        ("multiway.data.annotated.vqa:open_nothing", "cannot be imported .AttributeError"),
        ("multiway.data.annotated.vqa:SPLITS", "is dict, expected a function"),
    ],
)
def test_a_broken_reader_stops_only_who_asks_for_it(value: str, complaint: str, tmp_path: Path, monkeypatch) -> None:
    miniatures.write_vqa(tmp_path)
    entry = EntryPoint("theirs", value, opening.ENTRY_POINTS)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    assert len(open_examples(f"vqa:{tmp_path}@val")) > 0
    with pytest.raises(PluginError, match=f"multiway.examples: `theirs = {value}` {complaint}"):
        open_examples(f"theirs:{tmp_path}@val")
    with pytest.raises(DataError, match="theirs:FOLDER"):
        open_examples(f"others:{tmp_path}@val")
