"""Options in the data's name: what stands between `scenes:` and `@`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

from multiway.data.scenes.graph import DIFFICULTIES, SIZES, Difficulty
from multiway.data.scenes.noise import KINDS, NoiseShares
from multiway.data.source import DataError

__all__ = ["CLASSED", "SAMPLES_LIMIT", "SceneOptions"]

SAMPLES_LIMIT = 100_000_000
"""Most scenes in an epoch: the order of an epoch is held in memory."""

CLASSED = ("shape", "colour")
"""What of a picture's only thing can be its class."""

_SIZES = tuple(SIZES)
_GALLERY_LIMIT = 100_000
_MOST = 4  # objects; the graph's places and the captions are made for as many


@dataclass(frozen=True)
class SceneOptions:
    """Which world of scenes, how much of it, and what is said of it.

    Attributes:
        difficulty: of `DIFFICULTIES`.
        objects: fewest and most things in a picture; None for the difficulty's own.
        sizes: the smallest and the largest of `graph.SIZES`; None for the difficulty's own.
        classes: what of a picture's only thing is the picture's class, of `CLASSED`. Where it is said, val and test may show equal
            contents twice, which classes do not mind and captions do. If empty, the shape.
        samples: scenes in an epoch of training.
        gallery: scenes in val, and in test.
        seed: of the world.
        captions: `full`, or `all` for partial ones too in training.
        noise: shares of training rows with wrong captions.
    """

    difficulty: str = "medium"
    objects: tuple[int, int] | None = None
    sizes: tuple[str, str] | None = None
    classes: str = ""
    samples: int = 1_000_000
    gallery: int = 1000
    seed: int = 0
    captions: str = "full"
    noise: NoiseShares = field(default_factory=NoiseShares)

    @property
    def world(self) -> Difficulty:
        """The difficulty, with the number of objects asked for."""
        own = DIFFICULTIES[self.difficulty]
        if self.sizes is not None:
            own = replace(own, smallest=_SIZES.index(self.sizes[0]), sizes=_SIZES.index(self.sizes[1]) + 1)
        return own if self.objects is None else replace(own, objects=self.objects)

    @classmethod
    def parse(cls, text: str) -> SceneOptions:
        """From `hard,objects=2-3,swap=0.4`; a difficulty may stand by its name alone.

        Raises:
            DataError: naming what is wrong and what there is.
        """
        found: dict[str, object] = {}
        shares: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = (each.strip() for each in part.partition("="))
            if not equals:
                name, value = "difficulty", name
            if name in found or name in shares:
                raise DataError(f"scenes:{text} gives {name} twice; give it once")
            if name in KINDS:
                shares[name] = _share(name, value)
            elif name in _READERS:
                found[name] = _READERS[name](name, value)
            else:
                raise DataError(f"scenes have no option {part!r}; {_listing()}")
        try:
            return cls(**found, noise=NoiseShares(**shares))  # type: ignore[arg-type]
        except ValueError as error:
            raise DataError(f"scenes:{text}: {error}") from error

    def said(self, training: bool) -> str:
        """The options that differ from the defaults, as `parse` reads them; without those that do not change the split."""
        own = (
            ("difficulty", "objects", "sizes", "classes", "seed", "samples", "captions")
            if training
            else ("difficulty", "objects", "sizes", "classes", "seed", "gallery")
        )
        parts = []
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in own and value != each.default:
                text = "-".join(map(str, dict.fromkeys(value))) if isinstance(value, tuple) else str(value)
                parts.append(text if each.name == "difficulty" else f"{each.name}={text}")
        if training:
            parts += [f"{kind}={share:g}" for kind in KINDS if (share := getattr(self.noise, kind))]
        return ",".join(parts)


def _listing() -> str:
    return (
        f"there are: a difficulty ({', '.join(DIFFICULTIES)}), objects=1-{_MOST}, sizes={_SIZES[0]}-{_SIZES[-1]}, "
        f"classes={' or '.join(CLASSED)}, samples=, gallery=, seed=, "
        f"captions=full or all, and shares of noise from 0 to 1: {', '.join(f'{kind}=' for kind in KINDS)}"
    )


def _difficulty(name: str, value: str) -> str:
    if value not in DIFFICULTIES:
        raise DataError(f"scenes have no difficulty or option {value!r}; {_listing()}")
    return value


def _captions(name: str, value: str) -> str:
    if value not in ("full", "all"):
        raise DataError(f"scenes have no captions {value!r}; expected captions=full or captions=all")
    return value


def _sizes(name: str, value: str) -> tuple[str, str]:
    smallest, dash, largest = value.partition("-")
    names = (smallest, largest if dash else smallest)
    if any(each not in _SIZES for each in names) or _SIZES.index(names[0]) > _SIZES.index(names[1]):
        raise DataError(f"scenes:sizes={value} cannot be; expected for example sizes=large or sizes=small-medium")
    return names


def _classes(name: str, value: str) -> str:
    if value not in CLASSED:
        raise DataError(f"scenes have no classes {value!r}; expected classes={' or classes='.join(CLASSED)}")
    return value


def _whole(low: int, high: int) -> Callable[[str, str], int]:
    def read(name: str, value: str) -> int:
        digits = value.replace("_", "")
        if not (digits.isascii() and digits.isdigit() and low <= int(digits) <= high):
            raise DataError(
                f"scenes:{name}={value} cannot be; expected {name}= a whole number from {low:,} to {high:,}"
            )
        return int(digits)

    return read


def _objects(name: str, value: str) -> tuple[int, int]:
    fewest, dash, most = value.partition("-")
    numbers = (fewest, most if dash else fewest)
    if not all(each in map(str, range(1, _MOST + 1)) for each in numbers) or numbers[0] > numbers[1]:
        raise DataError(
            f"scenes:objects={value} cannot be; expected for example objects=2 or objects=1-3, at most {_MOST}"
        )
    return int(numbers[0]), int(numbers[1])


def _share(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise DataError(f"scenes:{name}={value} cannot be; expected {name}= a share of the rows from 0 to 1") from None


_READERS: dict[str, Callable[[str, str], object]] = {
    "difficulty": _difficulty,
    "objects": _objects,
    "sizes": _sizes,
    "classes": _classes,
    "samples": _whole(1, SAMPLES_LIMIT),
    "gallery": _whole(1, _GALLERY_LIMIT),
    "seed": _whole(0, 2**63 - 1),
    "captions": _captions,
}
