"""Captions without padding: a text tower's step on whole batches, in groups of like length, and packed into shared rows.

    python benchmarks/text_buckets.py [--rounds 7] [--precision fp32 bf16] [--lengths scenes emoji web]

Forward and backward of CLIP's text tower read at its end token, as in a training step. `padded` computes what it is given, up to the
longest caption of the batch; `buckets N` reads it in at most N groups (`TextConfig.buckets`); `packed` lays captions end to end in rows
as long as the longest, first fit, with attention that is cut off between them. All have the same weights and must agree to 1e-5 first.

Lengths are those of bundled captions in batches of the recipe (`scenes`, `emoji`), or drawn like the web's (`web`: log-normal, a median
of 11 tokens, cut at 77: most are short, and every batch has long ones).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from contest import DTYPES, Contender, Precision, race
from torch import Tensor

from multiway.data.open import open_source
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.nn.attention import Visibility
from multiway.nn.text import TextConfig, TextTransformer

ROWS, END = 256, 3
SIZES = {"tiny": (128, 3, 2), "mid": (384, 6, 6)}


def lengths_of(name: str) -> np.ndarray:
    """(256,) tokens of each caption of a batch, start and end included."""
    generator = np.random.default_rng(0)
    if name == "web":
        return np.clip(np.exp(generator.normal(np.log(11), 0.7, ROWS)).round().astype(int) + 2, 3, 77)
    source = open_source("emoji" if name == "emoji" else "scenes:objects=1-3,samples=2000", default_split="train")
    captions = [source.row(int(row)).captions[0] for row in generator.choice(len(source), 1500)]
    tokens = Tokenizer.train(captions, TokenizerSpec(1024, 77))(captions[:ROWS])
    return tokens.mask.sum(1).numpy()


def pack(lengths: np.ndarray) -> tuple[list[tuple[int, int]], int]:
    """(row, first place) of each caption, longest first into the first row that has room; and how many rows there are."""
    room: list[int] = []
    places: list[tuple[int, int]] = [(0, 0)] * len(lengths)
    longest = int(lengths.max())
    for caption in np.argsort(-lengths, kind="stable"):
        row = next((row for row, left in enumerate(room) if left >= lengths[caption]), len(room))
        if row == len(room):
            room.append(longest)
        places[caption] = (row, longest - room[row])
        room[row] -= int(lengths[caption])
    return places, len(room)


def packed(tower: TextTransformer, ids: Tensor, lengths: np.ndarray) -> Callable[[], Tensor]:
    """The tower on packed rows: (B, W) at the end tokens. Who lies where is worked out beforehand, which a loader's workers could do."""
    places, rows = pack(lengths)
    longest = int(lengths.max())
    laid = torch.zeros(rows, longest, dtype=torch.int64)
    owner = torch.full((rows, longest), -1)
    position = torch.zeros(rows, longest, dtype=torch.int64)
    ends = torch.zeros(len(lengths), 2, dtype=torch.int64)
    for caption, (row, start) in enumerate(places):
        stop = start + int(lengths[caption])
        laid[row, start:stop] = ids[caption, : stop - start]
        owner[row, start:stop], position[row, start:stop] = caption, torch.arange(stop - start)
        ends[caption] = torch.tensor([row, stop - 1])
    own = (owner[:, None, :] == owner[:, :, None]) & torch.ones(longest, longest, dtype=torch.bool).tril()
    visibility = Visibility(own[:, None], complete=True)  # padding sees padding, so that every query sees a key

    def run() -> Tensor:
        tokens = tower.embed.words(laid) + tower.embed.positions[position]
        for block in tower.transformer.blocks:
            tokens = block(tokens, visibility=visibility)
        return tower.transformer.norm(tokens)[ends[:, 0], ends[:, 1]]  # type: ignore[no-any-return]

    return run


def contest(lengths: np.ndarray, size: str, precision: Precision, rounds: int) -> list[str]:
    """A row of the table for each way: name, tokens computed, milliseconds, ratio."""
    width, layers, heads = SIZES[size]
    torch.manual_seed(0)
    config = TextConfig(vocabulary=1024, context=77, width=width, layers=layers, heads=heads, eos_id=END)
    longest = int(lengths.max())
    ids = torch.randint(4, 1024, (ROWS, longest))
    mask = torch.arange(longest)[None] < torch.from_numpy(lengths)[:, None]
    ids[torch.arange(ROWS), torch.from_numpy(lengths) - 1] = END
    ids = ids.masked_fill(~mask, 0)
    towers = {f"buckets {n}": TextTransformer(replace(config, buckets=n)) for n in (2, 3, 4, 8)}
    towers = {"padded": TextTransformer(config), **towers}
    for tower in towers.values():
        tower.load_state_dict(towers["padded"].state_dict())
    ways: dict[str, Callable[[], Tensor]] = {
        name: (lambda tower=tower: tower(ids, mask, tokens=False).pooled) for name, tower in towers.items()
    }
    ways["packed"] = packed(towers["padded"], ids, lengths)
    with torch.no_grad():
        found = {name: way() for name, way in ways.items()}
    worst = max(float((each - found["padded"]).abs().max()) for each in found.values())
    assert worst < 1e-5, worst

    def step(way: Callable[[], Tensor]) -> Callable[[], float]:
        def run() -> float:
            with torch.autocast("cpu", torch.bfloat16, enabled=DTYPES[precision] == torch.bfloat16):
                loss = way().square().mean()
            loss.backward()
            return float(loss.detach())

        return run

    times = race([Contender(name, precision, step(way)) for name, way in ways.items()], rounds, 2)
    return [
        f"| {size} | {precision} | {name} | {1000 * times.median(name):.0f} ms | {times.ratio('padded', name):.2f}x |"
        for name in ways
    ]


def main() -> None:
    """Run every contest and print a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--lengths", nargs="+", default=["scenes", "emoji", "web"])
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    for name in asked.lengths:
        lengths = lengths_of(name)
        share = 1 - lengths.sum() / (ROWS * lengths.max())
        print(
            f"\n{name}: {lengths.min()} to {lengths.max()} tokens, median {np.median(lengths):.0f}; {share:.0%} padding"
        )
        print("| tower | precision | way | a step | faster |\n|---|---|---|---|---|")
        for size in asked.sizes:
            for precision in asked.precision:
                print("\n".join(contest(lengths, size, precision, asked.rounds)), flush=True)


if __name__ == "__main__":
    main()
