"""Retrieval at the size of COCO's 5k test set from features that are already there: how long ranking takes, and how much memory.

    python benchmarks/retrieval_scale.py
    python benchmarks/retrieval_scale.py --pictures 5000 --captions 5 --width 512 --threads 2

5,000 pictures with five captions each, random unit features a little nearer to their own than to others, through the task
itself (`tasks/retrieval.py`): both directions ranked exactly, in chunks, then R@k and median ranks with their bootstrap
intervals. Peak memory is that of the whole process, and what it was before is printed beside it.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from contest import Contender
from PIL import Image
from torch import Tensor

from multiway.abilities import Encoded
from multiway.data.source import Row
from multiway.tasks.retrieval import Gallery, Retrieval, RetrievalDetails
from multiway.tasks.similarity import Similarity


class Shelf:
    """Rows with a number for a picture and strings that nobody reads."""

    name, split, fingerprint = "random", "test", "0"
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()

    def __init__(self, pictures: int, captions: int) -> None:
        self.pictures, self.captions = pictures, captions

    def __len__(self) -> int:
        return self.pictures

    def row(self, index: int) -> Row:
        return Row(str(index), index, tuple(f"{index}-{number}" for number in range(self.captions)))

    def image(self, index: int) -> Image.Image:
        raise AssertionError("features are there; no picture is drawn")


class Dot:
    """Compares as `hub.model.Model` does where there are embeddings."""

    def compare(self, image: Encoded, text: Encoded, query: str = "image") -> Tensor:
        return image.embedding.float() @ text.embedding.float().T


def features(pictures: int, captions: int, width: int) -> tuple[Tensor, Tensor]:
    """Random unit features of pictures and of their texts, those of one picture side by side."""
    generator = torch.Generator().manual_seed(0)
    found = F.normalize(torch.randn(pictures, width, generator=generator), dim=1)
    noise = torch.randn(pictures * captions, width, generator=generator) / width**0.5
    return found, F.normalize(found.repeat_interleave(captions, 0) + 4 * noise, dim=1)


def recalls_by_top_k(
    pictures: Tensor, texts: Tensor, captions: int, ks: tuple[int, ...] = (1, 5, 10)
) -> dict[str, float]:
    """R@k in both directions as retrieval is commonly scored: all scores at once, and the k best of every row for each k."""
    scores = pictures @ texts.T
    owner = torch.arange(len(texts)) // captions
    found = {}
    for k in ks:
        best = scores.topk(k, 1).indices
        found[f"text_retrieval/R@{k}"] = (
            (owner[best] == torch.arange(len(pictures))[:, None]).any(1).float().mean().item()
        )
        best = scores.T.topk(k, 1).indices
        found[f"image_retrieval/R@{k}"] = (best == owner[:, None]).any(1).float().mean().item()
    return found


def contenders(pictures: int = 1000, captions: int = 5, width: int = 256) -> list[Contender]:
    """`peer`, by `recalls_by_top_k`, and `ours`: the task's ranking of both directions and its recalls, without intervals.

    Raises:
        ValueError: if the two find different recalls.
    """
    images, texts = features(pictures, captions, width)
    gallery = Gallery.of(Shelf(pictures, captions))
    similarity = Similarity.of(Dot(), Encoded(images), Encoded(texts))

    def ours() -> dict[str, float]:
        details = RetrievalDetails.of(gallery, similarity)
        ways = {"text_retrieval": details.text_retrieval, "image_retrieval": details.image_retrieval}
        return {f"{name}/R@{k}": float(found.hits(k).mean()) for name, found in ways.items() for k in (1, 5, 10)}

    def peer() -> dict[str, float]:
        return recalls_by_top_k(images, texts, captions)

    mine, theirs = ours(), peer()
    if any(abs(mine[name] - value) > 1e-6 for name, value in theirs.items()):
        raise ValueError(f"the two sides rank differently: {mine} and {theirs}")
    return [
        Contender("peer", "fp32", lambda: peer()["text_retrieval/R@1"]),
        Contender("ours", "fp32", lambda: ours()["text_retrieval/R@1"]),
    ]


def peak() -> float:
    """Of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(what: str, work: Callable[[], object]) -> object:
    """Run it; print wall and processor time and the peak so far."""
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"{what:<28} {wall:7.2f} s   {processor:7.2f} s of processor   peak {peak():6.0f} MiB")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--captions", type=int, default=5)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)

    pictures, texts = features(asked.pictures, asked.captions, asked.width)
    shelf = Shelf(asked.pictures, asked.captions)
    print(f"{len(pictures):,} pictures, {len(texts):,} texts, width {asked.width}; peak before {peak():.0f} MiB")

    gallery = timed("gallery", lambda: Gallery.of(shelf))
    assert isinstance(gallery, Gallery)
    similarity = Similarity.of(Dot(), Encoded(pictures), Encoded(texts))
    details = timed("ranked both ways", lambda: RetrievalDetails.of(gallery, similarity))
    assert isinstance(details, RetrievalDetails)
    metrics = timed("metrics and intervals", lambda: list(Retrieval().metrics(details)))
    assert isinstance(metrics, list)
    for metric in metrics:
        print(f"  {metric}")


if __name__ == "__main__":
    main()
