"""A million vectors in each kind of index: how long it takes to build, how long a query takes, how many of the ten nearest it finds.

    python benchmarks/index_scale.py
    python benchmarks/index_scale.py --vectors 100000 --threads 2 --embeddings vectors/

Vectors of 128 numbers in clusters, as embeddings lie: about 2,000 centres of unequal weight, each with a cloud of 24 dimensions
about it and a little noise in all. `--embeddings` names what `multiway embed` wrote, say of the emoji, which is measured likewise,
with its texts as queries. Exact, IVF and HNSW are built by `serve/faiss_index.py`, and their effort is the least with which
recall@10 reaches 95 %, as `multiway index` chooses it. Latency is of single queries, one after another, in this process: by
turns of the kinds, so that a machine that is busy with other things is busy for all of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from multiway.serve.faiss_index import FaissIndex, How
from multiway.serve.index import entries
from multiway.serve.recall import held_out, measured, tuned
from multiway.workflows.embeddings import Embeddings

KINDS = ("exact", "ivf", "hnsw")


def clustered(count: int, width: int, seed: int) -> np.ndarray:
    """(count, width) unit vectors; the clusters are the same for every seed."""
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centres = world.normal(size=(2000, width)) / width**0.5
    weights = world.pareto(2.0, 2000) + 0.2
    spread = np.linalg.qr(world.normal(size=(width, 24)))[0].T
    found = np.empty((count, width), np.float32)
    for start in range(0, count, 100_000):
        some = slice(start, min(start + 100_000, count))
        rows = some.stop - some.start
        of = rng.choice(2000, rows, p=weights / weights.sum())
        cloud = rng.normal(size=(rows, 24)) @ spread * (0.7 / 24**0.5)
        found[some] = centres[of] + cloud + rng.normal(size=(rows, width)) * (0.1 / width**0.5)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def measure(name: str, vectors: np.ndarray, texts: np.ndarray | None, hows: dict[str, How], rounds: int) -> None:
    """Print a line of the table for each kind."""
    table = entries([f"{n}" for n in range(len(vectors))])
    queries, indices, built = None, {}, {}
    for kind, how in hows.items():
        began = time.perf_counter(), time.process_time()
        index = indices[kind] = FaissIndex(Path("unused"), how, {})
        index.add(vectors, table)
        built[kind] = time.perf_counter() - began[0], time.process_time() - began[1]
        queries = queries or held_out(index, texts)  # the same answers for all: those of the exact search
        index.how = tuned(index, queries, 0.95)
    assert queries is not None
    asked = np.concatenate([each.vectors for each in queries])
    times: dict[str, list[float]] = {kind: [] for kind in hows}
    for query in asked[np.linspace(0, len(asked) - 1, rounds).astype(int)]:
        for kind, index in indices.items():
            began = time.perf_counter()
            index.nearest(query[None], 10)
            times[kind].append(1000 * (time.perf_counter() - began))
    for kind, index in indices.items():
        recall = ", ".join(f"{each.value:.3f} ({each.name})" for each in measured(index, queries))
        half, most = np.percentile(times[kind], [50, 99])
        effort = {
            "exact": "",
            "ivf": f"nlist {index.how.nlist}, nprobe {index.how.nprobe}",
            "hnsw": f"M {index.how.links}, ef {index.how.ef}",
        }
        with tempfile.NamedTemporaryFile(suffix=".faiss") as file:
            faiss.write_index(index.structure, file.name)
            size = Path(file.name).stat().st_size / 2**20
        print(
            f"| {name} | {kind} | {effort[kind]} | {built[kind][0]:.1f} s, {built[kind][1]:.1f} s of processor | {size:,.0f} MiB | {half:.2f} ms | {most:.2f} ms | {recall} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--links", type=int, default=16)
    parser.add_argument("--build-ef", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--embeddings", default="", help="a folder that `multiway embed` wrote")
    asked = parser.parse_args()
    faiss.omp_set_num_threads(asked.threads)
    hows = {kind: How(kind, links=asked.links, build_ef=asked.build_ef) for kind in asked.kinds}
    print(f"{asked.threads} threads; latency of {asked.rounds} single queries, 10 nearest")
    print("| vectors | kind | settings | built in | size | p50 | p99 | recall@10 |\n|---|---|---|---|---|---|---|---|")
    if asked.embeddings:
        found = Embeddings.open(asked.embeddings)
        vectors = np.concatenate([np.asarray(part.vectors, np.float32) for part in found.parts("images")])
        measure(
            f"{len(vectors):,} of {found.where.get('data')}", vectors, found.sample("texts", 1000), hows, asked.rounds
        )
    vectors = clustered(asked.vectors, asked.width, 1)
    measure(f"{asked.vectors:,} clustered", vectors, None, hows, asked.rounds)


if __name__ == "__main__":
    main()
