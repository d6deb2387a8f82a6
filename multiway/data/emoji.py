"""The bundled pictures: 3,641 emoji of the Noto Color Emoji font with their Unicode names.

One training set and three test sets held out of it, to be reported apart (docs/data/emoji.md):

- `random`: drawn at random; siblings (another skin tone, say) may have been seen in training.
- `composition`: the concept was seen, this variant of it was not.
- `concept`: no variant of the concept was seen. `concept-strict` is the part of it whose look-alikes (the same thing in
  another colour, direction or state) were not seen either.

What a picture is labelled with is chosen by `classes`: one of Unicode's nine groups, one of their 99 parts, or its concept.

`scripts/build_emoji.py` builds the tar from Debian's packages and fixes the splits. Licences: assets/LICENSES.txt.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from multiway.data.source import BadRow, DataError, Row, stable_id

__all__ = ["CLASSES", "GROUPS", "SPLITS", "SUBSETS", "TEMPLATES", "Emoji"]

ASSETS = Path(__file__).parent / "assets"
SPLITS = ("train", "random", "composition", "concept")
SUBSETS = ("concept-strict",)
CLASSES = ("group", "subgroup", "concept")

# Unicode's own groups, and what their pictures are called in prompts.
GROUPS = {
    "Smileys & Emotion": "face or heart",
    "People & Body": "person or body part",
    "Animals & Nature": "animal or plant",
    "Food & Drink": "food or drink",
    "Travel & Places": "place or vehicle",
    "Activities": "sport, game or celebration",
    "Objects": "tool or thing",
    "Symbols": "symbol or sign",
    "Flags": "flag",
}
TEMPLATES = ("{}", "a picture of a {}", "an emoji of a {}", "{}, symbol", "a small drawing of a {}")


@dataclass(frozen=True)
class _Sample:
    """One member pair of the tar: what its JSON says, and its picture still encoded."""

    key: str
    about: dict[str, Any]
    picture: bytes


@lru_cache(maxsize=1)
def _samples() -> tuple[_Sample, ...]:
    """All samples in the order of the tar, read once per process; 12 MB."""
    path = ASSETS / "emoji.tar"
    if not path.is_file():
        raise DataError(f"{path} is missing; reinstall multiway, or rebuild it with `make data`")
    samples = []
    with tarfile.open(path) as tar:
        about: dict[str, Any] = {}
        for member in tar:
            file = tar.extractfile(member)
            data = file.read() if file is not None else b""
            if member.name.endswith(".json"):
                about = json.loads(data)
            else:
                samples.append(_Sample(member.name.partition(".")[0], about, data))
    return tuple(samples)


@lru_cache(maxsize=1)
def _seen_kin() -> frozenset[str]:
    """Every concept, look-alikes taken together, of which training shows something."""
    return frozenset(sample.about["kin"] for sample in _samples() if sample.about["split"] == "train")


def _subset(sample: _Sample) -> str:
    strict = sample.about["split"] == "concept" and sample.about["kin"] not in _seen_kin()
    return "concept-strict" if strict else ""


@lru_cache(maxsize=1)
def _languages() -> dict[str, dict[str, str]]:
    """Names in other languages by key and language."""
    return json.loads(gzip.decompress((ASSETS / "emoji-languages.json.gz").read_bytes()))  # type: ignore[no-any-return]


@lru_cache
def _class_names(kind: str) -> dict[str, str]:
    """What the classes of a kind are called, in order; of all splits, so that every split has the same."""
    if kind == "group":
        return GROUPS
    found: dict[str, str] = {}
    for sample in _samples():
        about = sample.about
        # A concept is known by its code points; the name of its first picture says more.
        found.setdefault(about[kind], about["names"][0] if kind == "concept" else about[kind].replace("-", " "))
    return found


def _phrases(keywords: list[str]) -> list[str]:
    """What people type: the keywords one by one, by twos in either order, and all of them."""
    few = keywords[:4]  # all pairs of more would be too many
    pairs = [f"{one} {other}" for one in few for other in few if one != other]
    return [*few, *pairs, *([", ".join(keywords)] if len(keywords) > 1 else [])]


class Emoji:
    """One split of the emoji; satisfies `Source`."""

    classes: tuple[str, ...] = tuple(GROUPS.values())  # unless others are asked for
    templates: tuple[str, ...] = TEMPLATES

    def __init__(self, split: str, samples: tuple[_Sample, ...], language: str, classes: str = "group") -> None:
        names = _class_names(classes)
        self.name = "emoji" if classes == "group" else f"emoji:classes={classes}"
        self.classes = tuple(names.values())
        self.split = split
        self.language = language
        self._samples = samples
        numbers = {each: number for number, each in enumerate(names)}
        self._rows = [self._row(sample, numbers[sample.about[classes]]) for sample in samples]
        # The pictures count too: a rebuilt tar with other drawings is other data.
        total = "\n".join(f"{row.key} {'|'.join(row.captions)}" for row in self._rows)
        total += "" if classes == "group" else classes
        self.fingerprint = f"{stable_id(total + str([stable_id(sample.picture) for sample in samples])):016x}"

    @classmethod
    def open(cls, split: str = "train", language: str = "en", classes: str = "group") -> Emoji:
        """One split, or `all`.

        Args:
            split: `train`, `random`, `composition`, `concept`, its subset `concept-strict`, or `all`.
            language: of the captions; pictures without a name in it are left out.
            classes: what labels are: `group` (9), `subgroup` (99) or `concept` (1,621, most of them of one picture).

        Raises:
            DataError: for a split, language or kind of classes that does not exist, with those that do.
        """
        if classes not in CLASSES:
            raise DataError(f"emoji has no classes={classes}; it has {', '.join(CLASSES)}")
        if split not in (*SPLITS, *SUBSETS, "all"):
            raise DataError(f"emoji has no split {split!r}; it has {', '.join((*SPLITS, *SUBSETS))}, and `all`")
        samples = tuple(s for s in _samples() if split in ("all", s.about["split"], _subset(s)))
        if language != "en":
            known = sorted({each for names in _languages().values() for each in names})
            if language not in known:
                raise DataError(f"emoji has no names in {language!r}; it has en, {', '.join(known)}")
            samples = tuple(sample for sample in samples if language in _languages()[sample.key])
        return cls(split, samples, language, classes)

    def _row(self, sample: _Sample, label: int) -> Row:
        """The row's words. Training also sees the keywords; a test set is asked for the name alone."""
        about = sample.about
        name, image_id = about["names"][0], stable_id(f"emoji {sample.key}")
        where = f"emoji.tar, {sample.key}"
        if self.language != "en":
            return Row(sample.key, image_id, (_languages()[sample.key][self.language],), label, where)
        captions = [name]
        if self.split == "train":
            phrases = _phrases([word for word in about["keywords"] if word != name])
            # A name half of the time, because it is what is asked for; else words that somebody might search by.
            captions = about["names"] * max(1, len(phrases) // len(about["names"])) + phrases
        return Row(sample.key, image_id, tuple(captions), label, where)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        """Words, picture id and class of one picture."""
        return self._rows[index]

    def image(self, index: int) -> Image.Image:
        """The picture, 64 x 64, RGBA."""
        sample = self._samples[index]
        try:
            return Image.open(io.BytesIO(sample.picture)).convert("RGBA")
        except OSError as error:
            raise BadRow(f"emoji.tar, {sample.key}: {error}; reinstall multiway") from error

    def encoded(self, index: int) -> bytes:
        """The picture's WebP as it is stored."""
        return self._samples[index].picture

    def picture(self, index: int) -> str:
        """A name of the picture that shards which were written of it know too."""
        return f"{self._rows[index].image_id} {zlib.crc32(self._samples[index].picture)}"

    def about(self, index: int) -> dict[str, Any]:
        """Everything known of a picture: emoji, names, keywords, group, subgroup, concept, split."""
        return dict(self._samples[index].about)
