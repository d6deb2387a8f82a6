"""From what the command line says to annotated examples: `name:folder[@split]`, or `scenes[:options][@split]`.

vqa:data/vqa@val         a benchmark's original files, one of its splits
scenes:hard@test         the bundled world; the task that asks decides which of its annotations
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal, get_args

from multiway.data.annotated.scenes import ANNOTATIONS, open_scenes
from multiway.data.examples import Examples, Kind
from multiway.data.files import split_name
from multiway.data.plugins import PluginError, load_plugin, offered, where
from multiway.data.scenes.source import SPLITS as SCENE_SPLITS
from multiway.data.source import DataError, SourceSpec
from multiway.data.spec import is_mixed

__all__ = ["ENTRY_POINTS", "READERS", "Opener", "Reader", "names_examples", "open_examples", "parse_examples"]

ENTRY_POINTS = "multiway.examples"
"""Group of entry points under which other packages name readers of their own: `name = "package.module:function"`."""

Opener = Callable[[Path, str, Path | None], Examples[Any]]
"""A reader: (folder of the annotations, split, folder of the pictures or None) -> examples."""


@dataclass(frozen=True)
class Reader:
    """A benchmark whose original files can be read.

    Attributes:
        function: where its `Opener` is, as `module:name`; imported when it is needed.
        about: a line on it.
        kind: of its examples; empty where it is not known before they are read.
        splits: name of the table in that module whose keys are its splits.
    """

    function: str
    about: str
    kind: Kind | Literal[""] = ""
    splits: str = "SPLITS"

    def load(self) -> tuple[Opener, tuple[str, ...]]:
        """The function, and the names of the splits; none where the module does not list them."""
        module, _, name = self.function.partition(":")
        found = import_module(module)
        return getattr(found, name), tuple(getattr(found, self.splits, ()))


_HERE = "multiway.data.annotated"

READERS: dict[str, Reader] = {
    "vqa": Reader(f"{_HERE}.vqa:open_vqa", "VQAv2: questions with ten answers", "asked"),
    "gqa": Reader(f"{_HERE}.gqa:open_gqa", "GQA: compositional questions with one answer", "asked"),
    "vg": Reader(f"{_HERE}.visual_genome:open_visual_genome", "Visual Genome: questions with one answer", "asked"),
    "snli-ve": Reader(f"{_HERE}.snli_ve:open_snli_ve", "SNLI-VE: visual entailment", "judged"),
    "nlvr2": Reader(f"{_HERE}.nlvr2:open_nlvr2", "NLVR2: statements about two photographs", "judged"),
    "vcr": Reader(f"{_HERE}.vcr:open_vcr", "VCR: four answers to a question, and four reasons; people drawn", "chosen"),
    "vcr-plain": Reader(f"{_HERE}.vcr:open_vcr_plain", "VCR without boxes drawn into the stills", "chosen"),
    "refcoco": Reader(f"{_HERE}.refcoco:open_refcoco", "RefCOCO: words that mean one thing of a picture", "pointed"),
    "refcoco+": Reader(
        f"{_HERE}.refcoco:open_refcoco_plus", "RefCOCO+: words that do not say where it lies", "pointed"
    ),
    "refcocog": Reader(f"{_HERE}.refcoco:open_refcocog", "RefCOCOg: longer expressions", "pointed", "SPLITS_G"),
    "flickr30k-entities": Reader(
        f"{_HERE}.flickr30k_entities:open_flickr30k_entities", "Flickr30k Entities: phrases of captions", "pointed"
    ),
    "winoground": Reader(f"{_HERE}.pairs:open_winoground", "Winoground: two pictures and two captions", "judged"),
    "aro": Reader(f"{_HERE}.pairs:open_aro", "ARO: captions with two things exchanged", "chosen", "SPLITS_ARO"),
    "sugarcrepe": Reader(
        f"{_HERE}.pairs:open_sugarcrepe", "SugarCrepe: captions changed in one fact", "chosen", "SPLITS_SUGARCREPE"
    ),
}
"""Readers that come with multiway, by the name that the command line has for them."""

# What one benchmark calls a split that another spells otherwise.
_ALIASES = {"testdev": "test-dev", "test-dev": "testdev", "test1": "test"}


def parse_examples(spec: str) -> SourceSpec:
    """Take a specification apart: the first `:` ends the name; the last `@` begins the split unless a `/` follows it.

    Raises:
        DataError: if it names nothing that can be read.
    """
    text = spec.strip()
    name, colon, path = text.partition(":")
    if not colon:
        name, at, split = text.partition("@")
        path = ""
    else:
        folder, at, split = path.rpartition("@")
        if not at or "/" in split or Path(path).expanduser().exists():
            at, split = "", ""
        else:
            path = folder
    if at and not split:
        raise DataError(
            f"{spec!r} ends in `@` without a split; write for example {name}:{path}@val, or leave out the `@`"
        )
    if name != "scenes" and name not in _readers():
        raise DataError(f"there are no annotated data {name!r} ({spec!r}); {_known()}")
    if name != "scenes" and not path:
        raise DataError(f"{spec!r} does not say where its files are; write {name}:FOLDER@{split or 'val'}")
    return SourceSpec(name, path, split)


def names_examples(spec: str) -> bool:
    """Whether a specification begins with the name of a benchmark and a colon, as `vqa:data/vqa` does."""
    name, colon, _ = spec.strip().partition(":")
    return bool(colon) and name in _readers()


def open_examples(spec: str, wanted: str = "", default_split: str = "val", images: str | Path = "") -> Examples[Any]:
    """Open one split of a benchmark.

    Args:
        spec: `name:folder[@split]`, see `parse_examples`.
        wanted: what they are for: a task (`vqa`, `nlvr2`), one of the scenes' `ANNOTATIONS`, or a `Kind`. Scenes need it to
            know which of their annotations are meant; of other data it is checked that they are of that kind.
        default_split: if `spec` names none.
        images: folder of the pictures, if it is not that of the annotations.

    Raises:
        DataError: if the data cannot be used, are of another kind, or have no such split; then listing those that exist.
        PluginError: if the reader is another package's, and broken.
    """
    if is_mixed(spec):
        raise DataError(f"{spec!r} mixes several sources, which is for pictures with captions; name one benchmark")
    parsed = parse_examples(spec)
    split = split_name(parsed.split or default_split)
    if parsed.name == "scenes":
        if split not in SCENE_SPLITS:
            raise DataError(f"scenes have no split {split!r}; they have {', '.join(SCENE_SPLITS)}")
        if not wanted:
            raise DataError(f"{spec}: scenes have several annotations; say which: {', '.join(ANNOTATIONS)}")
        return open_scenes(_of_kind(wanted), split, parsed.path)
    reader, kind = _readers()[parsed.name], _kind_of(wanted)
    _check_kind(spec, reader.kind, kind, wanted)
    opener, known = reader.load()
    if known and split not in known:
        split = _ALIASES.get(split, split)
        if split not in known:
            raise DataError(f"{parsed.name} has no split {split!r}; it has {', '.join(known)}")
    found = opener(Path(parsed.path).expanduser(), split, Path(images).expanduser() if images else None)
    _check_kind(spec, found.kind, kind, wanted)
    return found


def _check_kind(spec: str, found: str, needed: str, wanted: str) -> None:
    if found and needed and found != needed:
        raise DataError(f"{spec} holds examples of the kind `{found}`; {wanted} needs `{needed}`: name other data")


@dataclass(frozen=True)
class _Offered(Reader):
    """A reader of another package.

    Attributes:
        entry: point that names it.
    """

    entry: EntryPoint | None = None

    def load(self) -> tuple[Opener, tuple[str, ...]]:
        assert self.entry is not None
        function = load_plugin(self.entry)
        if not callable(function):
            raise PluginError(
                f"{where(self.entry)} is {type(function).__name__}, expected a function (folder, split, images or None) -> Examples"
            )
        return function, tuple(getattr(import_module(self.entry.module), self.splits, ()))


def _readers() -> dict[str, Reader]:
    """Those of multiway, and those that other packages offer; a name that multiway has stays its own."""
    taken = {*READERS, "scenes"}
    others = {
        name: _Offered(each.value, f"from {each.value}", entry=each)
        for name, each in offered(ENTRY_POINTS, taken).items()
    }
    return {**READERS, **others}


def _known() -> str:
    lines = [f"scenes ({', '.join(ANNOTATIONS)})", *(f"{name}:FOLDER" for name in _readers())]
    return f"expected one of {', '.join(lines)}, each with an optional @split"


def _kind_of(wanted: str) -> str:
    """The kind of examples that a task needs; empty if it is not known here."""
    if wanted in get_args(Kind):
        return wanted
    return next((one.kind for name, one in ANNOTATIONS.items() if wanted in (name, *one.tasks)), "")


def _of_kind(wanted: str) -> str:
    """The annotation that is meant by a kind: the first of it."""
    return next((name for name, one in ANNOTATIONS.items() if one.kind == wanted), wanted)
