"""Vectors with what stands beside them: every kind of index held to a slow exact search, and what it refuses or outlives."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from multiway.serve import index as index_module
from multiway.serve.faiss_index import FaissIndex, How
from multiway.serve.index import IndexFault, VectorIndex, entries, is_index, open_index
from multiway.serve.qdrant_index import QdrantIndex
from multiway.serve.recall import Queries, held_out, measured, tuned

ABOUT = {"model": {"method": "toy", "weights": "0"}, "run": "runs/a", "sources": [{"data": "toy"}]}
WIDTH = 16


def unit(rows: int, seed: int = 0) -> np.ndarray:
    """About forty clusters, as embeddings have them."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(40, WIDTH))
    found = centres[rng.integers(0, 40, rows)] + 0.6 * rng.normal(size=(rows, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def named(first: int, stop: int, **columns):
    numbers = range(first, stop)
    return entries(
        [f"k{n}" for n in numbers], captions=[[f"caption {n}", "more"] for n in numbers], row=list(numbers),
        source=[0] * len(numbers), image_id=list(numbers), where=[f"toy, row {n}" for n in numbers], **columns,
    )  # fmt: skip


def make(kind: str, folder: Path) -> VectorIndex:
    if kind == "qdrant":
        return QdrantIndex(f"qdrant:{folder}", dict(ABOUT))
    return FaissIndex(folder, How(kind, nprobe=10_000, ef=512), dict(ABOUT))


def reopened(index: VectorIndex, folder: Path) -> VectorIndex:
    index.save()
    if isinstance(index, QdrantIndex):
        index.close()
        return open_index(f"qdrant:{folder}")
    return open_index(str(folder), write=True)


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw", "qdrant"])
def test_every_kind_agrees_with_a_slow_search(kind: str, tmp_path: Path) -> None:
    """As hard as they can look: added in two parts, some taken out, some replaced, kept and opened again."""
    vectors = unit(600)
    kept = {f"k{n}": vectors[n] for n in range(600)}
    index = make(kind, tmp_path / "index")
    assert len(index) == 0 and index.add(vectors[:500], named(0, 500)) == 0
    index = reopened(index, tmp_path / "index")
    assert index.add(vectors[500:], named(500, 600)) == 0 and len(index) == 600
    gone = [f"k{n}" for n in range(60)]
    assert index.delete([*gone, "never there"]) == 60 and index.delete(gone) == 0 and len(index) == 540
    for key in gone:
        del kept[key]
    moved = unit(20, seed=7)
    assert index.add(moved, named(100, 120)) == 20 and len(index) == 540
    kept |= {f"k{n}": moved[n - 100] for n in range(100, 120)}
    index = reopened(index, tmp_path / "index")
    assert len(index) == 540 and index.about == ABOUT and is_index(str(tmp_path / "index")) == (kind != "qdrant")
    queries = unit(25, seed=3)
    keys, matrix = list(kept), np.stack(list(kept.values()))
    for query, hits in zip(queries, index.search(queries, 7), strict=True):
        scores = matrix @ query
        best = np.argsort(-scores)[:7]
        assert [hit.key for hit in hits] == [keys[place] for place in best]
        assert [hit.rank for hit in hits] == list(range(1, 8))
        assert np.allclose([hit.score for hit in hits], scores[best], atol=1e-5)
        number = int(hits[0].key[1:])
        assert (hits[0].index, hits[0].caption, hits[0].where) == (number, f"caption {number}", f"toy, row {number}")
    # A graph may have a vector that no path leads to.
    assert 530 <= len(index.search(queries[:1], 1000)[0]) <= 540


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_deleting_most_puts_the_rest_together_anew(kind: str, tmp_path: Path) -> None:
    vectors, index = unit(400), make(kind, tmp_path)
    index.add(vectors, named(0, 400))
    index.delete([f"k{n}" for n in range(90)])
    assert index.structure.ntotal == 400  # passed over
    index.delete([f"k{n}" for n in range(90, 150)])
    assert index.structure.ntotal == index.table.num_rows == len(index) == 250
    places, found = index.live()
    assert np.array_equal(found, vectors[150:]) and len(places) == 250
    assert index.search(vectors[399:], 1)[0][0].key == "k399"
    assert index.delete([f"k{n}" for n in range(400)]) == 250 and len(index) == 0
    assert index.search(vectors[:1], 3) == [[]]
    assert index.add(vectors[:50], named(0, 50)) == 0 and index.search(vectors[7:8], 1)[0][0].key == "k7"


@pytest.mark.parametrize("kind", ["exact", "qdrant"])
def test_what_cannot_be_added_or_asked_is_refused(kind: str, tmp_path: Path) -> None:
    index = make(kind, tmp_path / "index")
    vectors = unit(5)
    index.add(vectors, named(0, 5))
    bad = vectors.copy()
    bad[2, 0] = np.nan
    twice = entries(["a", "a", "b", "c", "d"])
    for given, table, said in (
        (vectors[:, :8], named(0, 5), r"\(5, 16\)"),
        (vectors[:3], named(0, 5), "5 entries"),
        (2 * vectors, named(0, 5), "length 1"),
        (bad, named(0, 5), "finite"),
        (vectors, twice, "'a' is given twice"),
    ):
        with pytest.raises(IndexFault, match=said):
            index.add(given, table)
    with pytest.raises(IndexFault, match="16"):
        index.search(vectors[:, :8])
    with pytest.raises(IndexFault, match="no colour"):
        entries(["a"], colour=["red"])
    assert len(index) == 5


def test_recall_is_that_of_a_slow_count(tmp_path: Path) -> None:
    vectors = unit(800)
    index = FaissIndex(tmp_path, How("ivf", nlist=20, nprobe=1), {})
    index.add(vectors, named(0, 800))
    index.delete(["k3", "k400"])
    texts = unit(30, seed=5)
    queries = held_out(index, texts, k=5, count=60)
    assert [(each.name, len(each.vectors)) for each in queries] == [("pictures", 60), ("texts", 30)]
    alive = [n for n in range(800) if n not in (3, 400)]
    for each, said in zip(queries, measured(index, queries), strict=True):
        shares = []
        for query, own in zip(each.vectors, each.own, strict=True):
            others = [n for n in alive if n != own]
            best = {f"k{others[place]}" for place in np.argsort(-(vectors[others] @ query))[:5]}
            found = [hit.key for hit in index.search(query[None], 6)[0] if hit.key != f"k{own}"][:5]
            shares.append(len(best & set(found)) / 5)
        assert said.value == pytest.approx(np.mean(shares), abs=1e-6) and said.n == len(each.vectors)
        assert 0.05 < said.value < 0.95  # a single cell finds some, not all
    harder = tuned(index, queries, 0.9)
    assert harder.nprobe in (2, 4, 8, 16, 20)
    assert all(each.value >= 0.9 for each in measured(index, queries, harder))
    assert any(each.value < 0.9 for each in measured(index, queries, How("ivf", 20, harder.nprobe // 2)))
    assert tuned(index, queries, 1.01).nprobe == 20  # never enough: all cells


def test_equal_vectors_do_recall_no_harm(tmp_path: Path) -> None:
    same = np.repeat(unit(1), 50, 0)
    index = FaissIndex(tmp_path, How("hnsw"), {})
    index.add(same, named(0, 50))
    assert next(measured(index, held_out(index, k=10))).value == 1.0
    alone = FaissIndex(tmp_path, How(), {})
    alone.add(same[:1], named(0, 1))
    assert held_out(alone) == [] and isinstance(held_out(index)[0], Queries)


def test_settings_come_out_as_asked(tmp_path: Path) -> None:
    index = FaissIndex(tmp_path, How("ivf"), {})
    index.add(unit(1000), named(0, 1000))
    assert index.how.nlist == 25  # 4 sqrt(n) is 126; a centroid wants 39 vectors
    few = FaissIndex(tmp_path, How("ivf", nlist=50), {})
    few.add(unit(10), named(0, 10))
    assert few.how.nlist == 1 and few.search(unit(10)[4:5], 1)[0][0].key == "k4"


def damage(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: next(folder.glob(name)).write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "index.json").unlink(), "expected the --out"),
        (damage("index.json", b"{"), "cannot be read"),
        (damage("vectors-*", b"xx"), "not the file that was written"),
        (lambda folder: next(folder.glob("entries-*")).unlink(), "is missing"),
    ],
)
def test_damage_is_named(harm: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    index = make("exact", tmp_path)
    index.add(unit(20), named(0, 20))
    index.save()
    harm(tmp_path)
    with pytest.raises(IndexFault, match=said):
        FaissIndex.open(tmp_path)


def test_a_flipped_bit_and_another_format_are_seen(tmp_path: Path) -> None:
    index = make("exact", tmp_path)
    index.add(unit(20), named(0, 20))
    index.save()
    about = json.loads((tmp_path / "index.json").read_text())
    path = next(tmp_path.glob("vectors-*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    FaissIndex.open(tmp_path)
    with pytest.raises(IndexFault, match="not the file that was written"):
        FaissIndex.open(tmp_path, verify=True)
    (tmp_path / "index.json").write_text(json.dumps(about | {"generation": 9}))
    with pytest.raises(IndexFault, match="own digest"):
        FaissIndex.open(tmp_path)


def test_a_change_that_dies_half_way_leaves_the_index_as_it_was(tmp_path: Path, monkeypatch) -> None:
    index = make("exact", tmp_path)
    index.add(unit(20), named(0, 20))
    index.save()
    reader = FaissIndex.open(tmp_path)
    changing = FaissIndex.open(tmp_path, write=True)
    changing.delete(["k1"])
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr("multiway.serve.faiss_index.write_json", lambda *_: (_ for _ in ()).throw(OSError("full")))
        changing.save()
    assert len(FaissIndex.open(tmp_path, verify=True)) == 20
    again = FaissIndex.open(tmp_path, write=True)
    again.delete(["k2", "k3"])
    again.save()
    assert len(FaissIndex.open(tmp_path, verify=True)) == 18 and len(list(tmp_path.iterdir())) == 4
    # Whoever has it open goes on with what was there.
    assert reader.search(unit(20)[2:3], 1)[0][0].key == "k2"


def test_names_of_places(tmp_path: Path, monkeypatch) -> None:
    assert is_index("qdrant:anywhere") and not is_index(str(tmp_path))
    with pytest.raises(IndexFault, match="names no collection"):
        open_index("qdrant:http://localhost:6333")
    with pytest.raises(IndexFault, match="names no place"):
        open_index("qdrant:")
    with pytest.raises(IndexFault, match="no such collection"):
        open_index(f"qdrant:{tmp_path / 'empty'}")

    def missing(name: str):
        raise ImportError(name)

    monkeypatch.setattr(index_module.importlib, "import_module", missing)
    with pytest.raises(IndexFault, match=r"multiway\[index\]"):
        FaissIndex(tmp_path)
    with pytest.raises(IndexFault, match=r"multiway\[qdrant\]"):
        QdrantIndex(f"qdrant:{tmp_path / 'q'}", {})
