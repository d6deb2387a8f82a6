"""How hard statements about two pictures are for a reader that sees perfectly: no pixels, only what is in each picture.

    python benchmarks/statements_oracle.py [--samples 12800 51200] [--data scenes:easy,objects=1-3]

A network of two hidden layers learns NLVR2's statements on scenes from words and from what each picture holds, said in one of two ways:

    fitting    how many things of the left and of the right picture fit the words: perception and matching are done for it
    inventory  how many red things, circles, large ones, red circles, ... either picture holds: perception alone is done for it

What `fitting` needs is what the logic of the sentences costs; what `inventory` needs more is what it costs to match words with things.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.data.annotated.open import open_examples
from multiway.data.annotated.scenes import ScenePictures
from multiway.data.scenes.graph import COLOURS, SHAPES, SIZES, Scene
from multiway.data.scenes.words import words_of

_PAIRS = [(colour, shape) for colour in COLOURS for shape in SHAPES] + [
    (size, shape) for size in SIZES for shape in SHAPES
]
_WAYS = ("fitting", "inventory")
_BATCH = 64


def spoken_of(text: str) -> str:
    """The description in a statement, in the singular: `both pictures show a red star` is about a `red star`."""
    words = text.split()
    known = {*COLOURS, *SIZES, *SHAPES}
    singular = [
        word
        if word in known
        else word.removesuffix("es")
        if word.removesuffix("es") in known
        else word.removesuffix("s")
        for word in words
    ]
    return " ".join(word for word in singular if word in known or word in ("shape", "thing"))


def features(way: str, text: str, scenes: list[Scene], words: dict[str, int]) -> list[float]:
    """Words of the sentence, and what the pictures hold."""
    said = [0.0] * len(words)
    for word in text.split():
        if word in words:
            said[words[word]] = 1.0
    if way == "fitting":
        about = words_of(spoken_of(text))
        return said + [float(sum(about.fit(thing.words) for thing in scene.things)) for scene in scenes]
    held: list[float] = []
    for scene in scenes:
        things = [(thing.size, thing.colour, thing.shape) for thing in scene.things]
        for kinds in (SIZES, COLOURS, SHAPES):
            held += [float(sum(kind in thing for thing in things)) for kind in kinds]
        held += [float(sum(a in thing and b in thing for thing in things)) for a, b in _PAIRS]
    return said + held


def table(
    way: str, data: str, split: str, count: int | None, words: dict[str, int] | None
) -> tuple[Tensor, Tensor, dict[str, int]]:
    """(N, F) features, (N,) truth, and the words' places."""
    examples = open_examples(data, "statements", split)
    pictures = examples.pictures
    assert isinstance(pictures, ScenePictures)
    count = len(examples) if count is None else count
    rows = [examples.example(number) for number in range(count)]
    if words is None:
        words = {
            word: place for place, word in enumerate(sorted({word for row in rows[:5000] for word in row.text.split()}))
        }
    held = [features(way, row.text, [pictures.scene(number) for number in row.pictures], words) for row in rows]
    return torch.tensor(np.array(held), dtype=torch.float32), torch.tensor([row.label for row in rows]), words


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="scenes:easy,objects=1-3")
    parser.add_argument("--samples", type=int, nargs="+", default=[12_800, 51_200])
    parser.add_argument("--lr", type=float, default=1e-3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| | examples seen once, in batches of 64 | accuracy % |\n|---|---|---|")
    for way in _WAYS:
        x, y, words = table(way, asked.data, "train", max(asked.samples), None)
        test, truth, _ = table(way, asked.data, "test", None, words)
        for samples in asked.samples:
            torch.manual_seed(0)
            net = nn.Sequential(
                nn.Linear(x.shape[1], 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2)
            )
            optimiser = torch.optim.AdamW(net.parameters(), lr=asked.lr)
            for start in range(0, samples, _BATCH):
                loss = F.cross_entropy(net(x[start : start + _BATCH]), y[start : start + _BATCH])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            right = float((net(test).argmax(1) == truth).float().mean())
            print(f"| {way} | {samples:,} | {100 * right:.1f} |", flush=True)


if __name__ == "__main__":
    main()
