"""Embedding in parts: the numbers of encoding directly; the same bytes after a kill, on any number of ranks; what is refused."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from by_tokens import by_tokens
from forked import spawn
from toy import ToySource

from multiway.abilities import LacksAbility
from multiway.config import ConfigError
from multiway.data import parquet
from multiway.data.source import BadRow, DataError, Row
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.workflows.bulk import Asked
from multiway.workflows.bulk_embed import Embed, embed
from multiway.workflows.bulk_folder import BulkError
from multiway.workflows.bulk_place import Part, Place
from multiway.workflows.embeddings import Embeddings
from multiway.world import World

ROWS, PER_PART = 50, 12
FULL = Embed(dtype="fp32")


class Source(ToySource):
    """Rows that two pictures in five share with the next one, two that cannot be read, and a count of what is drawn."""

    drawn = 0
    broken = (7, 34)

    def row(self, index: int) -> Row:
        row = super().row(index)
        return replace(
            row,
            image_id=index - index % 5 % 2,
            captions=(f"{row.captions[0]} {'x' * (index % 4)}".strip(), row.captions[1]),
        )

    def image(self, index: int):
        self.drawn += 1
        if index in self.broken:
            raise BadRow(f"toy, row {index}: cut off")
        return super().image(index)


def asked(out: Path, **more) -> Asked:
    return Asked(out, {"run": "a", "data": "toy"}, **{"rows_per_part": PER_PART, "batch": 8, **more})


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> Model:
    return load(tiny_run)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.lock"
    }


@pytest.fixture(scope="module")
def straight(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bulk") / "straight"
    embed(model, Source(ROWS), FULL, asked(out), World())
    return out


def test_numbers_are_those_of_encoding_directly(model: Model, straight: Path) -> None:
    source = Source(ROWS)
    found = Embeddings.open(straight)
    wanted = [row for row in range(ROWS) if row not in Source.broken and not (row % 5 in (1, 3) and row % PER_PART)]
    parts = list(found.parts("images", verify=True))
    assert [row for part in parts for row in part.table.column("row").to_pylist()] == wanted
    images = np.concatenate([part.vectors for part in parts])
    direct = model.encode_image([source.image(row) for row in wanted]).embedding.numpy()
    assert images.dtype == np.float32 and np.allclose(images, direct, atol=1e-6)
    rows = [line for part in parts for line in part.table.to_pylist()]
    texts = [line for part in found.parts("texts") for line in part.table.to_pylist()]
    vectors = np.concatenate([part.vectors for part in found.parts("texts")])
    assert [line["caption"] for line in texts] == [caption for line in rows for caption in line["captions"]]
    direct_texts = model.encode_text([line["caption"] for line in texts]).embedding.numpy()
    assert np.allclose(vectors, direct_texts, atol=1e-6)
    # Two rows of one picture are one, with the captions of both.
    first = rows[0]
    assert first["row"] == 0 and len(first["captions"]) == len(set(first["captions"])) == 4
    cosines = dict(zip(first["captions"], first["scores"], strict=True))
    for line, vector in zip(texts[:4], vectors[:4], strict=True):
        assert line["score"] == pytest.approx(float(vector @ images[0]), abs=1e-6) == cosines[line["caption"]]
    assert found.count("images") == len(wanted) and found.count("texts") == len(texts)


def test_a_picture_is_drawn_once_and_texts_need_none(model: Model, tmp_path: Path) -> None:
    source = Source(ROWS)
    embed(model, source, Embed("images"), asked(tmp_path / "images"), World())
    assert source.drawn == len({source.row(r).image_id if r % PER_PART else r for r in range(ROWS)})
    source.drawn = 0
    totals = embed(model, source, Embed("texts"), asked(tmp_path / "texts"), World())
    assert source.drawn == 0 and totals.skipped == 0 and "pictures" not in totals.counts
    assert not (tmp_path / "texts" / "images").exists() and not (tmp_path / "images" / "texts").exists()


def test_formats_hold_the_same(model: Model, straight: Path, tmp_path: Path) -> None:
    embed(model, Source(ROWS), Embed(format="parquet", dtype="fp16"), asked(tmp_path / "half", workers=1), World())
    for kind in ("images", "texts"):
        for whole, half in zip(
            Embeddings.open(straight).parts(kind), Embeddings.open(tmp_path / "half").parts(kind), strict=True
        ):
            assert half.vectors.dtype == np.float16 and (whole.vectors.astype(np.float16) == half.vectors).all()
            assert whole.table.equals(half.table)
    assert not list((tmp_path / "half").rglob("*.npy"))
    assert "embedding" in pq.read_schema(tmp_path / "half" / "images" / "000000.parquet").names
    mapped = np.load(straight / "images" / "000001.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    sample, every = (
        Embeddings.open(straight).sample("images", 7),
        [p.vectors for p in Embeddings.open(straight).parts("images")],
    )
    assert (sample == np.concatenate(every)[np.linspace(0, sum(map(len, every)) - 1, 7).astype(int)]).all()


def _killed(rank: int, run: str, out: str) -> None:
    """The third part's files are in their places, its manifest is not, when the process is killed."""
    torch.set_num_threads(1)
    keep: Callable = Place.keep

    def dying(self: Place, part: Part):
        if part.number == 2:
            part.files = {**part.files, "images/never.npy": lambda path: os.kill(os.getpid(), signal.SIGKILL)}
        return keep(self, part)

    Place.keep = dying  # type: ignore[method-assign]
    embed(load(run), Source(ROWS), FULL, asked(Path(out)), World())


def _rank(rank: int, run: str, out: str, meet: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    said: list[str] = []
    embed(load(run), Source(ROWS), FULL, asked(Path(out)), World(rank, 2), said.append)
    Path(f"{meet}-{rank}").write_text("\n".join(said))
    dist.barrier()  # a rank that leaves first can abort the other
    dist.destroy_process_group()


def test_killed_and_gone_on_with_by_two_ranks(tiny_run: Path, straight: Path, tmp_path: Path) -> None:
    out, meet = tmp_path / "out", tmp_path / "meet"
    with pytest.raises(RuntimeError, match=f"ended with -{signal.SIGKILL.value}:"):
        spawn(_killed, (str(tiny_run), str(out)), nprocs=1)
    there = contents(out)
    assert "manifests/embeddings/000001.json" in there and "manifests/embeddings/000002.json" not in there
    assert "images/000002.npy" in there
    with pytest.raises(BulkError, match=r"3 of 5 parts are missing"):
        Embeddings.open(out)
    spawn(_rank, (str(tiny_run), str(out), str(meet)), nprocs=2)
    assert contents(out) == contents(straight)
    first, second = ((tmp_path / f"meet-{rank}").read_text() for rank in range(2))
    assert (
        "2 of 5 parts are finished" in first
        and "embeddings 000002 (1 of 2)" in first
        and "embeddings 000003 (1 of 1)" in second
    )


def test_finished_parts_are_kept_and_damaged_ones_made_again(model: Model, straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(straight, out)
    (out / "images" / "000001.npy").write_bytes(b"short")
    (out / "manifests" / "embeddings" / "000003.json").write_text("{}")
    (out / "texts" / "000004.npy").unlink()
    source = Source(ROWS)
    embed(model, source, FULL, asked(out), World())
    assert contents(out) == contents(straight) and source.drawn < 36
    source.drawn = 0
    embed(model, source, FULL, asked(out), World())
    assert source.drawn == 0


def test_another_job_is_refused_by_name(model: Model, straight: Path, tmp_path: Path, tiny_run: Path) -> None:
    other = load(tiny_run)
    with torch.no_grad():
        other.method.image_projection.weight.mul_(1.5)
    changed = Source(ROWS)
    changed.fingerprint = "other"
    for what, args in {
        "model.weights": (other, Source(ROWS), FULL, asked(straight)),
        "data.fingerprint": (model, changed, FULL, asked(straight)),
        "settings.dtype": (model, Source(ROWS), Embed(), asked(straight)),
        "settings.batch": (model, Source(ROWS), FULL, asked(straight, batch=9)),
        "data.cut": (model, Source(ROWS), FULL, asked(straight, rows_per_part=10)),
    }.items():
        with pytest.raises(BulkError, match=rf"another job \(.*{what}: .* -> "):
            embed(*args, World())
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("x")
    with pytest.raises(BulkError, match=r"not empty: it holds dear.txt"):
        embed(model, Source(ROWS), FULL, asked(tmp_path / "letters"), World())
    (tmp_path / "file").write_text("")
    with pytest.raises(BulkError, match="is a file"):
        embed(model, Source(ROWS), FULL, asked(tmp_path / "file"), World())


def test_what_cannot_be_read_is_listed_and_has_a_ceiling(model: Model, straight: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (straight / "skipped.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [7, 34] and lines[0] == {
        "row": 7, "key": "7", "where": "toy, row 7", "why": "toy, row 7: cut off",
    }  # fmt: skip
    source = Source(ROWS)
    source.broken = range(0, ROWS, 2)
    with pytest.raises(DataError, match=r"cannot be read, more than the 10% .*raise --skip-ceiling"):
        embed(model, source, FULL, asked(tmp_path / "out"), World())
    # What was finished by then stays; with another ceiling the job goes on.
    finished = len(list((tmp_path / "out" / "manifests" / "embeddings").iterdir()))
    assert 0 < finished < 5
    source.drawn = 0
    totals = embed(model, source, FULL, asked(tmp_path / "out", ceiling=0.9), World())
    assert source.drawn < 40 and totals.skipped == len((tmp_path / "out" / "skipped.jsonl").read_text().splitlines())
    # Also when nothing is left to be done.
    with pytest.raises(DataError, match=r"of 50 rows cannot be read, more than the 10%"):
        embed(model, source, FULL, asked(tmp_path / "out"), World())
    source.broken = range(ROWS)
    none = embed(model, source, FULL, asked(tmp_path / "none", ceiling=1.0), World())
    assert none.counts == {"pictures": 0, "texts": 0} and none.skipped > 30
    assert list(Embeddings.open(tmp_path / "none").parts("images")) == []


def test_a_damaged_file_is_named(straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(straight, out)
    data = bytearray((out / "images" / "000002.npy").read_bytes())
    data[-3] ^= 1
    (out / "images" / "000002.npy").write_bytes(data)
    with pytest.raises(BulkError, match=r"000002.npy has another SHA-256"):
        list(Embeddings.open(out).parts("images", verify=True))


def test_what_is_missing_is_said_before_anything_is_made(model: Model, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(LacksAbility, match="no embedding"):
        embed(by_tokens(), Source(ROWS), FULL, asked(tmp_path / "tokens", batch=4), World())
    with pytest.raises(ConfigError, match="count from 1"):
        asked(tmp_path, batch=0)
    with pytest.raises(DataError, match="no rows"):
        embed(model, Source(0), FULL, asked(tmp_path / "nothing"), World())
    with pytest.raises(BulkError, match=r"no bulk\.json"):
        Embeddings.open(tmp_path)

    def missing(name: str):
        raise ImportError(name)

    monkeypatch.setattr(parquet.importlib, "import_module", missing)
    with pytest.raises(DataError, match=r"multiway\[parquet\]"):
        embed(model, Source(ROWS), FULL, asked(tmp_path / "unused"), World())
    assert not (tmp_path / "unused").exists()


def test_a_full_disk_keeps_what_is_finished(model: Model, tmp_path: Path, monkeypatch, straight: Path) -> None:
    keep, out = Place.keep, tmp_path / "out"

    def full(self: Place, part: Part):
        def write(path: Path) -> int:
            raise OSError(28, "No space left on device", str(path))

        if part.number == 3:
            part.files = {"images/000003.npy": write}
        return keep(self, part)

    monkeypatch.setattr(Place, "keep", full)
    with pytest.raises(BulkError, match=r"part 3 cannot be written \(No space left on device\); make room"):
        embed(model, Source(ROWS), FULL, asked(out), World())
    monkeypatch.setattr(Place, "keep", keep)
    embed(model, Source(ROWS), FULL, asked(out), World())
    assert contents(out) == contents(straight)
