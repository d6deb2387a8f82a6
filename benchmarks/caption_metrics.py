"""How long the caption metrics take, beside pycocoevalcap where it is installed, on one core.

    python benchmarks/caption_metrics.py                    5,000 pictures with 5 references, as COCO's test split
    python benchmarks/caption_metrics.py --pictures 500

Prints seconds of each metric and of its interval (2,000 resamples), the values, and by how much the two differ. Captions come
from the grammar of scenes, so that they share words and n-grams as captions of pictures do; the interval of CIDEr-D and ROUGE-L
is that of a mean.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from multiway.data.scenes.grammar import captions
from multiway.data.scenes.graph import DIFFICULTIES, make_scene
from multiway.tasks.caption_metrics import Corpus, bleu, cider_d, rouge_l, tokenise

T = TypeVar("T")


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """What `run` gives, and the seconds it took."""
    start = time.perf_counter()
    found = run()
    return found, time.perf_counter() - start


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Seconds of the caption metrics.")
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--references", type=int, default=5)
    arguments = parser.parse_args()
    written, known = corpus(arguments.pictures, arguments.references)
    texts = arguments.pictures * (arguments.references + 1)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one used; Python {platform.python_version()}"
    )
    print(f"{arguments.pictures} pictures with {arguments.references} references each")
    tokens, seconds = timed(lambda: ([tokenise(t) for t in written], [[tokenise(t) for t in each] for each in known]))
    print(f"{'tokens':>9} {seconds:8.2f} s   {texts / seconds:,.0f} captions a second")
    ours, theirs = tokens
    peers = peer(ours, theirs)
    metrics: dict[str, Callable[[], tuple[Corpus, ...]]] = {
        "BLEU": lambda: bleu(ours, theirs),
        "ROUGE-L": lambda: (rouge_l(ours, theirs),),
        "CIDEr-D": lambda: (cider_d(ours, theirs),),
    }
    for name, run in metrics.items():
        found, seconds = timed(run)
        last = found[-1]
        (value, low, high), more = timed(last.interval)
        line = f"{name:>9} {seconds:8.2f} s   interval {more:.2f} s   {last.name} {value:.4f} [{low:.4f}, {high:.4f}]"
        if peers:
            values, took = timed(peers[name])
            apart = max(abs(a.value - b) for a, b in zip(found, np.atleast_1d(values), strict=True))
            line += f"   pycocoevalcap {took:.2f} s, {took / seconds:.1f} times as long; apart by {apart:.1e}"
        print(line)


def corpus(pictures: int, references: int) -> tuple[list[str], list[list[str]]]:
    """Captions of scenes: one told of each, and others that are known of it."""
    written, known = [], []
    for number in range(pictures):
        texts = captions(make_scene(number, 0, DIFFICULTIES["easy"]), references + 1)
        known.append([f"{text.capitalize()}." for text in texts[:-1]])
        written.append(texts[-1])
    return written, known


def peer(ours: list[str], theirs: list[list[str]]) -> dict[str, Callable[[], object]]:
    """The same from pycocoevalcap; empty where it is not installed."""
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError:
        return {}
    known, written = dict(enumerate(theirs)), {number: [text] for number, text in enumerate(ours)}
    return {
        "BLEU": lambda: Bleu(4).compute_score(known, written, verbose=0)[0],
        "ROUGE-L": lambda: Rouge().compute_score(known, written)[0],
        "CIDEr-D": lambda: Cider().compute_score(known, written)[0],
    }


if __name__ == "__main__":
    main()
