"""What is written to disk to be read again, as another version would have written it: refused by name, or made anew where it can be.

Formats that were once others are in `tests/hub/test_format.py`; here are one that never was, 0, and one that is to come, 999.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toy import ToySource

from multiway.cli.main import main
from multiway.config import ConfigError, digest
from multiway.data import shard_index
from multiway.data.open import open_source
from multiway.data.shard_index import INDEX_VERSION, read_index
from multiway.data.shard_writer import write_shards
from multiway.engine.checkpoint import load_latest
from multiway.serve.index import entries, open_index
from multiway.serve.qdrant_index import QdrantIndex
from multiway.workflows.capfilt_clean import _claim
from multiway.workflows.capfilt_shards import Place

OTHERS = [0, 999]


def rewrite(path: Path, version: int, field: str = "format") -> None:
    """The same file by another version, its digest right."""
    body = json.loads(path.read_text())
    assert field in body, f"{path} has no {field}"
    signed = body.pop("digest", None)
    body[field] = version
    path.write_text(json.dumps(body | ({} if signed is None else {"digest": digest(body)})))


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("cache"))


@pytest.fixture(scope="module")
def vectors(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("versions") / "vectors"
    data = ["--data", str(tiny_run.parent / "captions.jsonl"), "--images", str(tiny_run.parent / "pictures")]
    assert main(["embed", str(tiny_run), *data, "--out", str(out), "--device", "cpu", "--what", "images"]) == 0
    return out


def said(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    capsys.readouterr()
    assert main([str(each) for each in args]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("version", OTHERS)
def test_weights(version: int, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "model.safetensors"
    with safe_open(str(file), framework="pt") as opened:
        header = dict(opened.metadata())
    save_file(load_file(str(file)), str(file), metadata=header | {"format": f"multiway-{version}", "version": "7.1"})
    told = said(capsys, "eval", run, "--data", "digits@test")
    assert f"multiway-{version}" in told and ("(7.1)" in told or "no version of multiway has written" in told)


@pytest.mark.parametrize("version", OTHERS)
def test_the_configuration_of_a_run(version: int, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(run / "config.json", version)
    assert f"config.json has format {version}, and this version of multiway reads format 1" in said(
        capsys, "report", run
    )


@pytest.mark.parametrize("version", OTHERS)
def test_a_checkpoint_is_not_taken_for_a_damaged_one(
    version: int, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Going back to an older one, as from damage, would throw away what a newer version has trained."""
    rewrite(run / "checkpoints" / "step-00000030" / "manifest.json", version)
    told = said(capsys, "consolidate", run, "--out", run / "weights.safetensors")
    assert f"manifest.json has format {version}, and this version of multiway reads format 1" in told
    shutil.rmtree(run / "checkpoints" / "step-00000030")
    found = load_latest(run / "checkpoints")
    assert found is not None and found.step == 15


@pytest.mark.parametrize("version", OTHERS)
@pytest.mark.parametrize("name", ["bulk.json", "manifests/embed/000000.json"])
def test_embeddings(
    name: str, version: int, vectors: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(vectors, tmp_path / "vectors")
    file = next(iter(other.glob(name.replace("embed", "*"))))
    rewrite(file, version)
    assert f"format {version}, and this version of multiway reads format 1" in said(
        capsys, "index", other, "--out", tmp_path / "index"
    )
    data = ["--data", tiny_run.parent / "captions.jsonl", "--images", tiny_run.parent / "pictures"]
    again = said(capsys, "embed", tiny_run, *data, "--out", other, "--device", "cpu", "--what", "images")
    assert f"format {version}, and this version of multiway reads format 1" in again


@pytest.mark.parametrize("version", OTHERS)
def test_an_index(version: int, vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "index"
    assert main(["index", str(vectors), "--out", str(place)]) == 0
    rewrite(place / "index.json", version)
    assert f"index.json has format {version}; this version reads format 1: build it again" in said(
        capsys, "search", place, "red"
    )


@pytest.mark.parametrize("version", [None, *OTHERS])
def test_a_collection(version: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those without a number were built before there was one."""
    place = f"qdrant:{tmp_path / 'q'}"
    kept = {"width": 2} if version is None else {"format": version, "width": 2}
    monkeypatch.setattr(QdrantIndex, "_kept", property(lambda self: kept))
    index = QdrantIndex(place, {"width": 2})
    index.add(np.eye(2, dtype=np.float32), entries(["a", "b"], captions=[["a"], ["b"]]))
    index.close()
    monkeypatch.undo()
    if version is None:
        again = open_index(place)
        assert again.about == {"width": 2} and len(again) == 2
        again.close()
        return
    with pytest.raises(Exception, match=f"has format {version}, and this version of multiway reads format 1"):
        open_index(place)


@pytest.mark.parametrize("version", [None, *OTHERS])
def test_what_capfilt_has_scored(version: int | None, tmp_path: Path) -> None:
    """Scores without a number were kept before there was one, and are gone on with."""
    scoring = {"format": 1, "data": "x"}
    (tmp_path / "scoring.json").write_text(json.dumps({"data": "x"} | ({} if version is None else {"format": version})))
    if version is None:
        _claim(Place(tmp_path), scoring, {})
        assert json.loads((tmp_path / "scoring.json").read_text()) == scoring
        return
    with pytest.raises(ConfigError, match=f"format: {version} -> 1"):
        _claim(Place(tmp_path), scoring, {})


@pytest.mark.parametrize("version", OTHERS)
def test_what_is_derived_is_made_anew(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indices of shards say nothing that the shards do not; nor do catalogues (`tests/data/test_catalogue.py`)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shards([ToySource(20)], tmp_path / "shards", rows_per_shard=10)
    before = rows(open_source(str(tmp_path / "shards"), default_split="all"))
    indices = sorted((tmp_path / "shards").glob("*.index.json"))
    assert len(indices) == 2
    for path in indices:
        body = json.loads(path.read_text()) | {"version": version}
        del body["digest"]
        path.write_text(json.dumps(body | {"digest": shard_index._digest(body)}))
        assert read_index(path) is None
    assert rows(open_source(str(tmp_path / "shards"), default_split="all")) == before
    assert all(json.loads(path.read_text())["version"] == INDEX_VERSION for path in indices)


def rows(source: Any) -> list[Any]:
    return [source.row(index) for index in range(len(source))]
