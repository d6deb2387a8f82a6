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

    generator = torch.Generator().manual_seed(0)
    pictures = F.normalize(torch.randn(asked.pictures, asked.width, generator=generator), dim=1)
    noise = torch.randn(asked.pictures * asked.captions, asked.width, generator=generator) / asked.width**0.5
    texts = F.normalize(pictures.repeat_interleave(asked.captions, 0) + 4 * noise, dim=1)
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
