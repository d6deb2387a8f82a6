"""Where weights come from: whose they were, and what they have learned here. It travels in the header of our weights file.

A list, first to last, of

    {"weights": "hf:somebody/clip", "kind": "CLIPModel", "licence": "mit"}    those of others that they began as
    {"data": "emoji", "recipe": "clip"}                                       what they were trained on here
    {"average": "75% of runs/a and 25% of runs/b"}                            that they are a mean of those before (WiSE-FT)

`licence` is there where the source states one. The list says nothing where nothing is known, as of files that are older than it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from multiway.data.source import DataError
from multiway.data.spec import parts_of

__all__ = ["DATA_LICENCES", "Origin", "data_named", "joined", "licence_of_origin", "of_data", "of_others", "or_unknown"]

Origin = list[dict[str, str]]

# Data that come with multiway: licence as hubs abbreviate it, and what it says.
DATA_LICENCES = {
    "emoji": (
        "ofl-1.1",
        "the pictures of Noto Emoji, SIL Open Font License 1.1, with Unicode's names, Unicode License v3",
    ),
    "scenes": ("apache-2.0", "scenes drawn by multiway itself, Apache License 2.0"),
    "scenes-video": ("apache-2.0", "scenes drawn by multiway itself, Apache License 2.0"),
    "digits": ("bsd-3-clause", "the digits that scikit-learn distributes, BSD 3-Clause"),
}
_NOT_LEGAL = (
    "Whether a licence of data reaches weights that learned from them is not settled; this note says what was used."
)


def of_others(source: str, kind: str, licence: str = "") -> Origin:
    """Weights that somebody else trained."""
    return [{"weights": source, "kind": kind} | ({"licence": licence} if licence else {})]


def of_data(data: str, recipe: str) -> Origin:
    """What a recipe has learned from."""
    return [{"data": data, "recipe": recipe}]


def or_unknown(origin: Origin, source: str, kind: str) -> Origin:
    """The origin, or where it says nothing, that these are the weights of `source`, of which no more is known."""
    return list(origin) or of_others(source, kind)


def joined(*origins: Iterable[dict[str, str]]) -> Origin:
    """One after the other, what is in several of them once."""
    found: Origin = []
    for origin in origins:
        found += [each for each in origin if each not in found]
    return found


def data_named(spec: str) -> list[str]:
    """The names of the data in a recipe's `data`: of `emoji*1 + scenes:easy*3` emoji and scenes."""
    try:
        return [part.name for part in parts_of(spec)]
    except DataError:  # written by another version
        return [spec]


def licence_of_origin(origin: Sequence[dict[str, str]]) -> tuple[str, list[str]]:
    """The licence of weights as hubs abbreviate it, `other` for several, `unknown` where one is not known; and sentences."""
    shorts: list[str] = []
    said: list[str] = []
    for entry in origin:
        if name := entry.get("weights"):
            stated = entry.get("licence", "")
            shorts.append(stated or "unknown")
            what = (
                f"under {stated}, as stated there"
                if stated
                else "whose licence is not stated there: look it up before you publish them"
            )
            said.append(f"These weights began as those of `{name}`, {what}.")
    names = list(dict.fromkeys(name for entry in origin if "data" in entry for name in data_named(entry["data"])))
    known = [DATA_LICENCES[name] for name in names if name in DATA_LICENCES]
    if other := [name for name in names if name not in DATA_LICENCES]:
        shorts.append("unknown")
        said.append(
            f"Trained on `{', '.join(other)}`, whose licence is not known here; say it before you publish these weights."
        )
    if known:
        shorts += [short for short, _ in known]
        said.append(f"Trained on {'; '.join(dict.fromkeys(text for _, text in known))}.")
    said += [_NOT_LEGAL] if names else []
    different = list(dict.fromkeys(shorts))
    short = "unknown" if "unknown" in different or not different else different[0] if len(different) == 1 else "other"
    return short, said
