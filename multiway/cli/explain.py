"""`multiway explain RUN --image cat.png`: what a picture network sees, as PNG files and one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multiway.cli.output import print_json
from multiway.config import ConfigError
from multiway.data.decode import decode
from multiway.data.open import open_source
from multiway.data.source import Source
from multiway.engine.run import Run
from multiway.hub.load import load
from multiway.workflows.explain import Asked, explain, write_explanation
from multiway.workflows.explain_map import spread_rows
from multiway.workflows.report import held_out_splits

__all__ = ["Explain", "run"]


@dataclass(frozen=True)
class Explain:
    """Look into what a picture network sees: attention, rollout, positions, filters, reconstructions, words, neighbours.

    Attributes:
        model: run folder, weights file, or `hf:` name or folder.
        image: pictures to look at; by default some of the data.
        text: words to look for in them, for models that read any.
        data: `name[:path][@split]`, whose embeddings are mapped and among which neighbours are looked for; of a run by default the
            first split of its own data that it was not trained on; `none` for no map.
        images: folder that a caption file's paths are relative to.
        image_column, caption_column: of a caption file, where their names are unusual.
        count: pictures that are taken from the data where none is named.
        rows: pictures of the data that are embedded, at most.
        block: whose attention is shown, from 0, or from the last if negative.
        mass: share of a head's attention that the patches hold which are kept.
        ratio: share of patches that is hidden, to be filled in.
        seed: of the map, and of what is hidden.
        out: folder for the figures and the page; by default RUN/explain.
        device: `cpu`, `cuda`, ...
        json: print one JSON object.
    """

    model: Annotated[str, tyro.conf.Positional]
    image: tuple[str, ...] = ()
    text: str = ""
    data: str = ""
    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    count: int = 4
    rows: int = 500
    block: int = -1
    mass: float = 0.6
    ratio: float = 0.75
    seed: int = 0
    out: str = ""
    device: str = "cpu"
    json: bool = False


def run(args: list[str]) -> int:
    """Look, write, and say where."""
    asked = tyro.cli(Explain, args=args, prog="multiway explain")
    if asked.count < 1:
        raise ConfigError(f"--count is {asked.count}; at least 1 picture has to be looked at")
    what = Asked(asked.text.strip(), asked.block, asked.mass, asked.ratio, asked.rows, asked.seed)
    folder = Path(asked.model)
    if not asked.out and not folder.is_dir():
        raise ConfigError("a weights file has no folder for what is found; name one with --out")
    # Pictures are opened before the model, so that a mistyped name costs no time.
    pictures = [(Path(name).name, decode(name, "--image")) for name in asked.image]
    source = _source(asked, folder)
    own: list[int] = []
    if not pictures:
        if source is None:
            raise ConfigError(
                "there is no picture to look at; name some with --image, or data to take some from with --data"
            )
        own = spread_rows(source, asked.count)
        pictures = [(source.row(row).key, source.image(row)) for row in own]
    model = load(asked.model, asked.device)
    found = explain(model, pictures, what, source, own)
    described = model.describe()
    about = f"{model.name}, {described['parameters'] / 1e6:.1f} M parameters, pictures of {described['size']} pixels"
    title = folder.resolve().name if folder.is_dir() else folder.name
    page = write_explanation(found, Path(asked.out) if asked.out else folder / "explain", title, about)
    files = [figure.file for section in found.sections for figure in section.figures]
    if asked.json:
        data = f"{source.name}@{source.split}" if source is not None else ""
        print_json(
            {"task": "explain", "data": data, "pictures": [name for name, _ in pictures], "page": str(page),
             "files": files, "absent": found.absent, "numbers": found.numbers}
        )  # fmt: skip
        return 0
    print(page)
    for reason in found.absent:
        print(f"not shown: {reason}")
    return 0


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
