"""Why a map points beside what is meant: what of the runs of benchmarks/pointing.py can be measured of it.

    python benchmarks/pointing_why.py [--expressions 300] [--methods clip albef vilt] [--runs runs/pointing]

Asked of each run, as far as it has it, on scenes of things on white:

- how like expressions are to their own picture, to others, to a picture of nothing but background, and to one another: where a blank
  picture is the likest of all, covering the thing raises the similarity;
- words over patches layer by layer: how often the hottest point is right, and how often it is at one and the same place;
- after the last layer of one that reads words and patches together: how near the words are to patches with a thing, and without;
- what occlusion covers with.

Printed as Markdown, in per cent where nothing else is said. The figures stand in docs/explain.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

from multiway.data.annotated.open import open_examples
from multiway.data.examples import Examples, Pointed
from multiway.data.view_boxes import in_view
from multiway.explain.pairs import Look, Pairs, on_grid
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.recipes.world import WORLD
from multiway.tasks.pointing import inside_of
from multiway.workflows.fusion import spread
from multiway.workflows.pointing import pointing_game

BASELINES = ("mean", "border", "blur", "white", "grey", "black")


def likeness(pairs: Pairs) -> Iterator[str]:
    """Similarities of expressions."""
    blank = pairs.model.processor.images([Image.new("RGB", (128, 128), "white")]).to(pairs.model.device)
    with torch.no_grad():
        picture, text = pairs.image.embedding.float(), pairs.text.embedding.float()
        nothing = pairs.method.encode_image(blank).embedding.float()
    every = picture @ text.T
    yield (
        f"similarity to the own picture {every.diagonal().mean():.3f}, to others {every.mean():.3f}, to a blank one "
        f"{(nothing @ text.T).mean():.3f}; of expressions to one another {(text @ text.T).mean():.3f}"
    )


def by_layer(model: Model, examples: Examples[Pointed], expressions: int, layers: int) -> Iterator[str]:
    """Attention and its Grad-CAM, a row for each layer and one for all."""
    kinds = ["cross-attention", "grad-cam"]
    yield "| layer | cross-attention | at one place | grad-cam | at one place |\n|---|---|---|---|---|"
    for chosen in (*((layer,) for layer in range(layers)), tuple(range(layers))):
        found = pointing_game(model, examples, kinds, expressions, Look(layers=chosen), resamples=2)
        cells = [
            f"{100 * share:.1f}"
            for kind in kinds
            for share in (found.metrics[kind].value, found.details.habits[kind].often)
        ]
        yield f"| {chosen[0] if len(chosen) == 1 else 'all'} | {' | '.join(cells)} |"


def nearness(pairs: Pairs, rows: list[Pointed]) -> Iterator[str]:
    """Cosines of words with patches that hold a part of a thing, and with those that hold nothing."""
    joint = pairs.joint
    assert joint is not None
    words = F.normalize(joint.tokens[:, : joint.words].float(), dim=-1)
    patches = F.normalize(joint.tokens[:, joint.words :].float(), dim=-1)
    cosines = on_grid(words @ patches.transpose(1, 2))[pairs.words.nonzero(as_tuple=True)]
    side = cosines.shape[-1]
    view, size = pairs.model.processor.view, 8 * side
    shares = torch.stack(
        [F.avg_pool2d(inside_of(in_view(row.candidates, (128, 128), view), size)[None].float(), 8)[0] for row in rows]
    )
    of_word = shares[pairs.words.nonzero()[:, 0]]
    yield (
        f"mean cosine of words with patches of which a third or more is a thing's {cosines[of_word >= 1 / 3].mean():.3f}, with patches "
        f"without one {cosines[of_word == 0].mean():.3f}"
    )


def covered(model: Model, examples: Examples[Pointed], expressions: int) -> Iterator[str]:
    """Occlusion by what is put over the picture."""
    yield f"| | {' | '.join(BASELINES)} |\n{'|---' * (len(BASELINES) + 1)}|"
    found = [
        pointing_game(model, examples, ["occlusion"], expressions, Look(baseline=name), resamples=2).metrics[
            "occlusion"
        ]
        for name in BASELINES
    ]
    yield f"| occlusion | {' | '.join(f'{100 * each.value:.1f}' for each in found)} |"


def main() -> None:
    """Ask, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--expressions", type=int, default=300)
    parser.add_argument("--methods", nargs="+", default=["clip", "albef", "vilt"])
    parser.add_argument("--data", default=WORLD)
    parser.add_argument("--runs", type=Path, default=Path("runs/pointing"))
    asked = parser.parse_args()
    examples = open_examples(f"{asked.data}@test", "grounding", "test")
    rows = [examples.example(number) for number in spread(list(range(len(examples))), asked.expressions)]
    pictures = [examples.pictures.image(row.pictures[0]) for row in rows]
    for method in asked.methods:
        model = load(asked.runs / method)
        pairs = Pairs(model, pictures, [row.text for row in rows])
        print(f"\n{method}\n", flush=True)
        if "compare" in pairs.able and pairs.image.has_embedding:
            print(*likeness(pairs), sep="\n", flush=True)
        if "match_with_maps" in pairs.able:
            with torch.no_grad():
                layers = len(pairs.method.match_with_maps(pairs.image, pairs.text)[1])
            print("", *by_layer(model, examples, asked.expressions, layers), sep="\n", flush=True)
        if pairs.joint is not None:
            print("", *nearness(pairs, rows), sep="\n", flush=True)
        if {"match", "compare"} & set(pairs.able):
            print("", *covered(model, examples, asked.expressions), sep="\n", flush=True)


if __name__ == "__main__":
    main()
