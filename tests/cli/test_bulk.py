"""embed, caption, filter, index and search as a user types them, end to end."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import multiway

from multiway.cli.bulk_options import from_anywhere
from multiway.cli.main import main
from multiway.workflows.embeddings import Embeddings

PARTS = ["--rows-per-part", "40", "--threads", "1", "--device", "cpu"]
WHOLE = ["--dtype", "fp32"]  # these pictures are nearly alike, and half precision puts them in another order


@pytest.fixture(scope="module")
def data(tiny_run: Path) -> list[str]:
    return ["--data", str(tiny_run.parent / "captions.jsonl"), "--images", str(tiny_run.parent / "pictures")]


@pytest.fixture(scope="module")
def vectors(tiny_run: Path, data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bulk") / "vectors"
    assert main(["embed", str(tiny_run), *data, "--out", str(out), *PARTS, *WHOLE]) == 0
    return out


def objects(capsys: pytest.CaptureFixture[str], *args: str) -> dict:
    assert main([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_embed_says_what_it_did(
    tiny_run: Path, data: list[str], vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["embed", str(tiny_run), *data, "--out", str(vectors), *PARTS]
    whole = [*again, *WHOLE]
    assert main(whole) == 0
    assert "96 pictures and 192 texts embedded, in 5 parts" in capsys.readouterr().out  # a part or two of each split
    assert objects(capsys, *whole)["pictures"] == 96
    assert main(again) == 1
    assert "settings.dtype: 'fp32' -> 'fp16'" in capsys.readouterr().err


def test_two_ranks_from_the_command_line(tiny_run: Path, data: list[str], vectors: Path, tmp_path: Path) -> None:
    done = multiway(
        "embed", str(tiny_run), *data, "--out", str(tmp_path / "out"), *PARTS, *WHOLE, "--workers", "1", ranks=2
    )
    assert done.returncode == 0, done.stderr
    names = [path.relative_to(vectors) for path in vectors.rglob("*.*") if path.suffix in (".npy", ".parquet")]
    assert len(names) == 20
    assert all((tmp_path / "out" / name).read_bytes() == (vectors / name).read_bytes() for name in names)


@pytest.mark.parametrize("kind", ["exact", "hnsw", "qdrant"])
def test_an_index_is_built_searched_and_changed(
    kind: str, vectors: Path, tiny_run: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"qdrant:{tmp_path / 'q'}" if kind == "qdrant" else str(tmp_path / "index")
    made = objects(capsys, "index", str(vectors), "--out", place, *([] if kind == "qdrant" else ["--kind", kind]))
    assert made["vectors"] == 96
    if kind != "qdrant":
        assert made["recall"]["texts"]["value"] >= 0.95 and made["kind"] == kind
    by_run = objects(capsys, "search", str(tiny_run), "red on the left", "--top", "5")
    found = objects(capsys, "search", place, "red on the left", "-k", "5")
    assert found["pictures"] == 96 and [hit["key"] for hit in found["hits"]] == [hit["key"] for hit in by_run["hits"]]
    picture = str(tiny_run.parent / "pictures" / "007.png")
    page = tmp_path / "page.html"
    shown = objects(capsys, "search", place, "--image", picture, "--html", str(page))
    assert "007" in shown["hits"][0]["key"] and page.read_text().count("data:image/png") == 11
    both = objects(capsys, "search", place, "green", "--image", picture, "--weight", "0.9")
    assert both["image"] == picture and both["hits"] != shown["hits"]
    first = found["hits"][0]["key"]
    assert objects(capsys, "index", place, "--delete", first)["deleted"] == 1
    assert first not in [hit["key"] for hit in objects(capsys, "search", place, "red on the left")["hits"]]
    changed = objects(capsys, "index", place, "--add", str(vectors))
    assert (changed["replaced"], changed["added"], changed["vectors"]) == (95, 1, 96)
    assert main(["search", place, "red", "--rerank"]) == 1 and "needs match" in capsys.readouterr().err
    assert main(["search", place, "red on the left"]) == 0 and first in capsys.readouterr().out.replace("\n", "")
    assert main(["index", place]) == 0 and "96 vectors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["index", "{vectors}"], "say where their index goes"),
        (["index", "nowhere", "--out", "unused"], "no bulk.json"),
        (["index", "{vectors}", "--out", "unused", "--recall", "2"], "--recall is a share"),
        (["search", "{run}", "red", "--model", "{run}"], "a model itself"),
        (["search", "{run}", "red", "--rerank-top", "0"], "at least 1"),
        (["search", "{run}", "--image", "nowhere.png"], "nowhere.png"),
        (["caption", "{run}", "--data", "emoji", "--out", "unused"], "needs generate"),
        (["caption", "{run}", "--data", "emoji", "--out", "unused", "--samples", "9"], "--samples 9"),
        (
            ["caption", "{run}", "--data", "emoji", "--out", "unused", "--strategy", "greedy", "--beams", "2"],
            "--beams is of",
        ),
        (["filter", "{run}", "--data", "emoji", "--out", "unused"], "--threshold or a share to --keep"),
        (["filter", "{run}", "--data", "emoji", "--out", "unused", "--by", "itm"], "needs match"),
        (["embed", "{run}", "--data", "emoji", "--out", "unused", "--batch", "0"], "count from 1"),
    ],
)
def test_mistakes_are_one_sentence(
    args: list[str],
    complaint: str,
    vectors: Path,
    tiny_run: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path,
    monkeypatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([each.format(vectors=vectors, run=tiny_run) for each in args]) == 1
    said = capsys.readouterr().err
    assert complaint in said and said.startswith("multiway: ") and not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ("emoji@train", "emoji@train"),
        ("scenes:easy,objects=1-3", "scenes:easy,objects=1-3"),
        ("pairs.jsonl@val", "{here}/pairs.jsonl@val"),
        ("web/{{0..9}}.tar", "{here}/web/{{0..9}}.tar"),
        ("coco:data@test", "coco:{here}/data@test"),
        ("s3://me:secret@bucket/{{0..9}}.tar@train", "s3://bucket/{{0..9}}.tar@train"),
        ("https://host/a.tar?signature=1", "https://host/a.tar"),
    ],
)
def test_data_are_named_from_any_folder_and_without_secrets(data: str, kept: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_anywhere(data.format()) == kept.format(here=tmp_path)


def test_filter_writes_what_fits(
    tiny_run: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clean"
    args = ["filter", str(tiny_run), *data, "--out", str(out), *PARTS]
    done = objects(capsys, *args, "--keep", "0.5")
    assert done["pairs"] == 192 and done["kept"]["pairs"] == 96 and done["by"] == "itc"
    assert main([*args, "--threshold", f"{done['quantiles']['90']}"]) == 0
    assert "20 of 192 pairs (10.4%)" in capsys.readouterr().out
    # What is kept is data like any other.
    kept = ["embed", str(tiny_run), "--data", str(out / "shards"), "--out", str(tmp_path / "kept"), "--threads", "1"]
    assert main(kept) == 0 and Embeddings.open(tmp_path / "kept").count("texts") == 20


def test_somebodys_photos_have_no_captions(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Searched as they are, embedded, indexed, and found by words and by a picture."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(20):
        shutil.copy(tiny_run.parent / "pictures" / f"{number:03}.png", photos)
    data = ["--data", str(photos)]
    found = objects(capsys, "search", str(tiny_run), "red on the left", *data, "-k", "3")
    assert found["pictures"] == 20 and [hit["caption"] for hit in found["hits"]] == [""] * 3
    vectors, index = str(tmp_path / "vectors"), str(tmp_path / "index")
    made = objects(capsys, "embed", str(tiny_run), *data, "--out", vectors, *PARTS, *WHOLE)
    assert made["pictures"] == 20 and made["texts"] == 0
    assert objects(capsys, "index", vectors, "--out", index)["vectors"] == 20
    again = objects(capsys, "search", index, "red on the left", "-k", "3")
    assert [hit["key"] for hit in again["hits"]] == [hit["key"] for hit in found["hits"]]
    like = objects(capsys, "search", index, "--image", str(photos / "007.png"), "--html", str(tmp_path / "page.html"))
    assert like["hits"][0]["score"] > 0.999 and (tmp_path / "page.html").read_text().count("data:image/png") == 11
    assert main(["filter", str(tiny_run), *data, "--out", str(tmp_path / "clean"), "--keep", "0.5"]) == 1
    assert "no captions; expected a .txt beside each picture" in capsys.readouterr().err
