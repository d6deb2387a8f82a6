"""`multiway explain RUN --image cat.png`: what a picture network sees, as PNG files and one page."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from multiway.cli.output import print_json, print_result
from multiway.config import ConfigError
from multiway.data.annotated.open import open_examples
from multiway.data.decode import decode
from multiway.data.open import open_source
from multiway.data.source import Source
from multiway.engine.run import Run
from multiway.explain.kinds import named
from multiway.explain.pairs import Look, Score
from multiway.hub.load import load
from multiway.tasks.task import Metric, Result
from multiway.workflows.explain import Asked, Explained, explain, write_explanation
from multiway.workflows.explain_map import spread_rows
from multiway.workflows.explain_pointing import pointing_section
from multiway.workflows.pointing import pointing_game
from multiway.workflows.report import held_out_splits

__all__ = ["Explain", "run"]


@dataclass(frozen=True)
class Explain:
    """Look into what a model sees: maps of what it looks at and why, and which of them to believe.

    Attributes:
        model: run folder, weights file, or `hf:` name or folder.
        image: pictures to look at; by default some of the data.
        text: what to look for in them, each in each picture.
        kind: maps by name, and nothing else: attention, rollout, cross-attention, grad-cam, itc-cam, class-cam, wpa, filip,
            occlusion; by default all those of the text that the model has, and all else that there is to be seen.
        layer: layers whose attention is looked at, from 0, or from the last if negative; by default those that each kind takes.
        head: heads of it; by default all.
        window: of occlusion, in pixels of what the model sees; 0 for a quarter of its side.
        stride: by which the window is moved; 0 for half of it.
        baseline: what occlusion covers with: mean (of the picture), border (the mean of its outermost pixels), blur (the picture out of
            focus), black, grey, white, or #rrggbb.
        score: what occlusion asks for: match (picture and text read together), similarity (each by itself) or caption (how likely the
            text is as its caption); auto is the first of these that the model has.
        against: other texts that could be meant: maps of a score (occlusion, itc-cam) then show what speaks for the text rather than for
            these; the mean of their scores is subtracted.
        pointing: data with boxes, `scenes@test`: how often each map points at what words mean, beside a random point and the centre.
        samples: expressions of it that are asked about, at most.
        data: `name[:path][@split]`, whose embeddings are mapped and among which neighbours are looked for; of a run by default the
            first split of its own data that it was not trained on; `none` for no map.
        images: folder that a caption file's paths are relative to.
        image_column, caption_column: of a caption file, where their names are unusual.
        count: pictures that are taken from the data where none is named.
        rows: pictures of the data that are embedded, at most.
        map: how embeddings are laid out: auto, UMAP, t-SNE or PCA; auto is t-SNE where scikit-learn is installed.
        mass: share of a head's attention that the patches hold which are kept.
        ratio: share of patches that is hidden, to be filled in.
        seed: of the map, and of what is hidden.
        out: folder for the figures, the arrays and the page; by default RUN/explain.
        device: `cpu`, `cuda`, ...
        json: print one JSON object.
    """

    model: Annotated[str, tyro.conf.Positional]
    image: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    layer: tuple[int, ...] = ()
    head: tuple[int, ...] = ()
    window: int = 0
    stride: int = 0
    baseline: str = "mean"
    score: Score = "auto"
    against: tuple[str, ...] = ()
    pointing: str = ""
    samples: int = 500
    data: str = ""
    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    count: int = 4
    rows: int = 500
    map: Literal["auto", "UMAP", "t-SNE", "PCA"] = "auto"
    mass: float = 0.6
    ratio: float = 0.75
    seed: int = 0
    out: str = ""
    device: str = "cpu"
    json: bool = False

    @property
    def asked(self) -> Asked:
        """What the page is made of.

        Raises:
            ConfigError: for a name, share or number that means nothing.
        """
        named(self.kind)
        look = Look(self.layer, self.head, self.window, self.stride, self.baseline, self.score, against=self.against)
        texts = tuple(text.strip() for text in self.text if text.strip())
        return Asked(texts, self.kind, look, self.mass, self.ratio, self.rows, self.seed, self.map)


def run(args: list[str]) -> int:
    """Look, write, and say where."""
    asked = tyro.cli(Explain, args=args, prog="multiway explain")
    if asked.count < 1:
        raise ConfigError(f"--count is {asked.count}; at least 1 picture has to be looked at")
    what = asked.asked
    folder = Path(asked.model)
    if not asked.out and not folder.is_dir():
        raise ConfigError("a weights file has no folder for what is found; name one with --out")
    # Pictures and boxes are opened before the model, so that a mistyped name costs no time.
    pictures = [(Path(name).name, decode(name, "--image")) for name in asked.image]
    boxes = open_examples(asked.pointing, "grounding", "test", asked.images) if asked.pointing else None
    source, own = None, []
    # Who only asks which map to believe wants no other.
    looking = bool(pictures or what.texts or boxes is None)
    if looking:
        source = _source(asked, folder)
    if looking and not pictures:
        if source is None:
            raise ConfigError(
                "there is no picture to look at; name some with --image, or data to take some from with --data"
            )
        own = spread_rows(source, asked.count)
        pictures = [(source.row(row).key, source.image(row)) for row in own]
    model = load(asked.model, asked.device)
    found = explain(model, pictures, what, source, own) if looking else Explained()
    played = None
    if boxes is not None:
        kinds = what.kinds or None
        played = pointing_game(model, boxes, kinds, asked.samples, what.look, seed=asked.seed, say=_say)
        found.sections.insert(0, pointing_section(model, boxes, played, kinds, what.look))
        # Named where it was not said already of the pictures.
        found.absent += [f"{kind}: {why}" for kind, why in played.details.absent.items() if not what.texts]
    described = model.describe()
    about = f"{model.name}, {described['parameters'] / 1e6:.1f} M parameters, pictures of {described['size']} pixels"
    title = folder.resolve().name if folder.is_dir() else folder.name
    page = write_explanation(found, Path(asked.out) if asked.out else folder / "explain", title, about)
    files = [figure.file for section in found.sections for figure in section.figures]
    files += ["maps.npz"] if found.arrays else []
    if asked.json:
        data = f"{source.name}@{source.split}" if source is not None else ""
        print_json(
            {"task": "explain", "data": data, "pictures": [name for name, _ in pictures], "page": str(page),
             "files": files, "absent": found.absent, "numbers": found.numbers,
             "pointing": None if played is None else played.to_json()}
        )  # fmt: skip
        return 0
    if played is not None:
        print_result(replace(played, metrics=_whole(played)), Console())
    print(page)
    for reason in found.absent:
        print(f"not shown: {reason}")
    return 0


def _whole(result: Result) -> dict[str, Metric]:
    """Without groups of expressions, which `--json` has: a map is believed or not."""
    return {name: metric for name, metric in result.metrics.items() if "[" not in name}


def _say(text: str) -> None:
    """On the error stream, so that `--json` stays one object."""
    print(text, file=sys.stderr)


def _source(asked: Explain, folder: Path) -> Source | None:
    """The data that are asked for, or a run's own; None where there are none."""
    if asked.data == "none":
        return None
    column, captions = asked.image_column, asked.caption_column
    if asked.data:
        return open_source(asked.data, asked.images, "test", column or None, captions or None)
    if not folder.is_dir():
        return None
    config = Run.read(folder).config
    held = held_out_splits(config)
    if not held:
        return None
    column, captions = column or config["image_column"], captions or config["caption_column"]
    return open_source(held[0], asked.images or config["images"], "test", column or None, captions or None)
