"""`explain.html`: what a picture network sees, as figures and as one page without links to anywhere.

Whatever a model can show is shown (`explain/`), and of the rest it is said why not. Nothing here knows a method: attention is there
if a transformer ran while the picture was encoded, reconstructions if the method reconstructs, words if it reads any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multiway.config import ConfigError
from multiway.data.source import Source
from multiway.explain.attention import grid_of
from multiway.explain.embedding_map import Layout
from multiway.explain.pairs import Look, chosen_layers
from multiway.explain.seen import Seen, see
from multiway.hub.model import Model
from multiway.workflows.encoded_once import EncodedOnce
from multiway.workflows.explain_evidence import class_section, reconstruction_section
from multiway.workflows.explain_kinds import kind_sections
from multiway.workflows.explain_map import map_sections
from multiway.workflows.explain_sections import (
    Given,
    Section,
    attention_section,
    distance_section,
    features_section,
    filters_section,
    positions_section,
)
from multiway.workflows.run_page import environment

__all__ = ["Asked", "Explained", "explain", "write_explanation"]

_AT_ONCE = 8
"""Pictures whose attention is kept at a time: 22 MB each with ViT-B/16 at 224."""


@dataclass(frozen=True)
class Asked:
    """What is looked at, and how.

    Attributes:
        texts: to look for in the pictures, each in each; empty for none.
        kinds: names of maps (`explain/kinds.py`); where some are named nothing else is looked at, else all maps of the texts that the
            model has.
        look: layers, heads, and what occlusion covers with.
        mass: share of a head's attention that the patches hold which are kept.
        ratio: share of patches that is hidden, to be filled in.
        rows: pictures of the data that are embedded, at most.
        seed: of the map, and of what is hidden.
        layout: how embeddings are laid out: `auto`, `UMAP`, `t-SNE` or `PCA`.

    Raises:
        ConfigError: for a share or number that means nothing.
    """

    texts: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    look: Look = Look()
    mass: float = 0.6
    ratio: float = 0.75
    rows: int = 500
    seed: int = 0
    layout: Layout = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.mass <= 1 or not 0 < self.ratio < 1 or self.rows < 2 or self.seed < 0:
            raise ConfigError(
                f"given mass {self.mass}, ratio {self.ratio}, rows {self.rows} and seed {self.seed}; expected a mass in (0, 1], a ratio "
                "in (0, 1), 2 rows at least and a seed that is not negative"
            )


@dataclass
class Explained:
    """What was seen.

    Attributes:
        sections: in order.
        absent: what the model has nothing to show for, and why.
        arrays: maps by name, as `maps.npz` has them.
    """

    sections: list[Section] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, found: Section | str) -> None:
        """A section; a reason why there is none; or an empty string, where nobody would expect one."""
        if isinstance(found, Section):
            self.sections.append(found)
        elif found:
            self.absent.append(found)

    @property
    def numbers(self) -> dict[str, Any]:
        """Those behind all figures."""
        return {name: value for section in self.sections for name, value in section.numbers.items()}


def explain(
    model: Model,
    pictures: Sequence[tuple[str, Image.Image]],
    asked: Asked = Asked(),
    source: Source | None = None,
    own: Sequence[int] = (),
    once: EncodedOnce | None = None,
) -> Explained:
    """Look.

    Args:
        model: with `encode_image`.
        pictures: (name, picture), at least one.
        asked: what to look at.
        source: whose embeddings are mapped, and among whose pictures neighbours are looked for; None for neither.
        own: rows of the pictures, where they are of that split.
        once: what was encoded of that split before.

    Raises:
        ConfigError: without pictures, or for a layer or head that there is not.
        CannotShow: if the model has nothing to show of a kind that was named.
        LacksAbility: if the model reads no pictures.
        DataError: if the data cannot be used.
    """
    if not pictures:
        raise ConfigError(
            "there is no picture to look at; name some with --image, or data to take some from with --data"
        )
    view, method = model.processor.view, model.method
    given = [Given.of(name, picture, view) for name, picture in pictures]
    found = Explained()
    if asked.kinds:
        _maps(found, model, given, asked)
        return found
    images = model.processor.images([one.picture for one in given]).to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=model.precision == "bf16"):
        seen = see(method, images[:1])
        if seen.attends:
            _attention(found, model, given, images, asked)
            found.add(positions_section(seen.positions))
        elif seen.features is not None:
            features = torch.cat([_features(model, some) for some in images.split(_AT_ONCE)])
            found.add("attention, rollout, attention distance and positions: a convolutional network has none")
            found.add(features_section(given, features))
        else:
            found.add(_why_blind(seen))
            found.add(positions_section(seen.positions))
        found.add(filters_section(seen))
        found.add(class_section(model, given, images))
        if asked.texts:
            _maps(found, model, given, asked)
        found.add(reconstruction_section(model, given, images, asked.ratio, asked.seed))
    if source is None:
        found.add("embeddings and neighbours: there is no data; name some with --data")
    elif seen.attends or seen.features is not None or seen.encoded.has_embedding:
        for section in map_sections(model, given, source, asked.rows, asked.seed, own, asked.layout, once):
            found.add(section)
    return found


def _maps(found: Explained, model: Model, given: Sequence[Given], asked: Asked) -> None:
    shown = kind_sections(model, given, asked.texts, asked.kinds or None, asked.look)
    found.sections += shown.sections
    found.absent += shown.absent
    found.arrays |= shown.arrays


def _why_blind(seen: Seen) -> str:
    if seen.encoded.has_embedding:
        return (
            "attention and strength of features: this network reads a picture in pieces, none of which sees the others"
        )
    return "attention and embeddings of a picture by itself: this model reads it together with a text only"


def _features(model: Model, images: Tensor) -> Tensor:
    features = see(model.method, images).features
    assert features is not None
    return features.float().cpu()


def _attention(found: Explained, model: Model, given: Sequence[Given], images: Tensor, asked: Asked) -> None:
    parts = [see(model.method, some) for some in images.split(_AT_ONCE)]
    count = len(parts[0].blocks)
    block = chosen_layers(asked.look.layers[:1], count, (count - 1,))[0]
    try:
        grid_of(parts[0].blocks[0].shape[-1])
    except ValueError as error:
        found.add(f"attention: {error}")
        return
    joined = [
        attention_section(given[start : start + _AT_ONCE], part, block, asked.mass, start)
        for start, part in zip(range(0, len(given), _AT_ONCE), parts, strict=True)
    ]
    found.add(Section(joined[0].title, joined[0].text, [figure for section in joined for figure in section.figures]))
    blocks = [torch.cat([part.blocks[number].float().cpu() for part in parts]) for number in range(count)]
    found.add(distance_section(blocks, images.shape[-1], len(given)))


def write_explanation(found: Explained, folder: Path, title: str, about: str) -> Path:
    """Write every figure as PNG, maps as `maps.npz`, and the page.

    Args:
        found: what was seen.
        folder: made if it is missing.
        title: of the page: the model's name.
        about: a line under it.

    Returns:
        Where the page is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for section in found.sections:
        for figure in section.figures:
            (folder / figure.file).write_bytes(figure.png)
    if found.arrays:
        np.savez_compressed(folder / "maps.npz", **found.arrays)  # type: ignore[arg-type]
    templates = environment()
    page = folder / "explain.html"
    text = templates.get_template("explain.html.j2").render(
        title=title, about=about, sections=found.sections, absent=found.absent
    )
    page.write_text(text, encoding="utf-8")
    return page
