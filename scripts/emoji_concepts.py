"""Which emoji are variants of one another, and which of them each test set holds out; used by build_emoji.py."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field

from PIL import Image

RANDOM, COMPOSITION, CONCEPT = 400, 300, 297  # pictures held out by each test set
LARGEST_HELD_OUT_CONCEPT = 12


@dataclass
class Sample:
    """One distinct picture."""

    points: list[int]
    text: str
    name: str
    group: str
    subgroup: str
    picture: Image.Image
    names: list[str] = field(default_factory=list)
    keywords: list[str] = field(default_factory=list)
    languages: dict[str, str] = field(default_factory=dict)
    concept: str = ""
    kin: str = ""
    split: str = "train"

    @property
    def key(self) -> str:
        """Code points joined by hyphens: `1f469-200d-2695-fe0f`."""
        return "-".join(f"{point:x}" for point in self.points)


_TONES = set(range(0x1F3FB, 0x1F400))
_HAIR = set(range(0x1F9B0, 0x1F9B4))
_SIGNS = {0x2640, 0x2642, 0xFE0F, 0x200D}  # left out of sequences; alone they are emoji of their own
_ADULTS = {0x1F468, 0x1F469, 0x1F9D1}
_CHILDREN = {0x1F466, 0x1F467, 0x1F9D2}
_COLOURS = "red|pink|orange|yellow|green|blue|light blue|purple|brown|black|grey|white"
# Things that come in several colours, directions, hours or states, by name: the first pattern that fits the whole name.
_FAMILIES = {
    rf"hollow red circle|({_COLOURS}) circle": "circle",
    rf"({_COLOURS})( large| medium| medium-small| small)? square( button)?": "square",
    r"(large|small) (orange|blue) diamond": "diamond",
    r"red triangle pointed (up|down)": "triangle",
    r"(closed|open|green|blue|orange) book|books": "book",
    r"globe .*": "globe",
    r".* moon( face)?|.* moon face": "moon",
    r"(.*-.* |up |down |left |right )arrow.*": "arrow",
    r"(backhand )?index pointing .*": "pointing finger",
    r"(leftwards|rightwards) (pushing )?hand|palm (up|down) hand": "sideways hand",
    r"raised hand|raised back of hand|hand with fingers splayed|waving hand": "raised hand",
    r"thumbs (up|down)": "thumb",
    r"(raised|oncoming|left-facing|right-facing) fist": "fist",
    r".*\bcat\b.*": "cat",
    r".*\bmonkey\b.*": "monkey",
    r"(two-hump )?camel": "camel",
    r"(polar )?bear": "bear",
    r"(guide |service )?dog|dog face|poodle": "dog",
    r"(black )?bird": "bird",
    r"(.* )?baby chick|hatching chick": "chick",
    r"(spouting )?whale": "whale",
    r"(tropical )?fish": "fish",
    r"(mouse|rabbit|tiger|horse|cow|pig|dragon)( face)?": "",
    r"(red|green) apple": "apple",
    r"(oncoming )?(bus|taxi|automobile|police car)": "",
    r"(small )?airplane( departure| arrival)?": "airplane",
    r"(horizontal|vertical) traffic light": "traffic light",
    r"(manual|motorized) wheelchair": "wheelchair",
    r".*umbrella( on ground| with rain drops)?": "umbrella",
    r"cloud.*|sun behind .*": "cloud",
    r"(.* )?star": "star",
    r"(closed|open) mailbox .*": "mailbox",
    r".* banknote": "banknote",
    r"(1st|2nd|3rd) place medal|(sports|military) medal": "medal",
    r"(muted )?speaker.*": "speaker",
    r"(low )?battery": "battery",
    r"bell( with slash)?": "bell",
    r"(un)?locked.*": "lock",
    r"magnifying glass tilted .*": "magnifying glass",
    r"(tear-off |spiral )?calendar": "calendar",
    r"chart .*": "chart",
    r"hourglass .*": "hourglass",
    r"camera( with flash)?": "camera",
    r"mobile phone( with arrow| off)?": "mobile phone",
    r"(linked )?paperclips?": "paperclip",
    r"(round )?pushpin": "pushpin",
    r"(incoming )?envelope( with arrow)?|e-mail|love letter": "envelope",
    r"(in|out)box tray": "tray",
    r"(open )?file folder": "file folder",
    r"(snow-capped )?mountain": "mountain",
    r"houses?|(derelict )?house|house with garden": "house",
    r"(Japanese )?post office": "post office",
    r"(clinking )?beer mugs?": "beer mug",
    r"input .*": "input",
    r"(A|B|AB|O) button .*": "blood type",
    r".*(question|exclamation) mark.*": "exclamation or question mark",
    r"(smiling|angry) face with horns": "face with horns",
    r"heart hands": "heart hands",
    r"anatomical heart": "anatomical heart",
}

# Code points that are one concept in several genders or forms.
_SAME = {
    0x1F474: "elder", 0x1F475: "elder", 0x1F9D3: "elder",
    0x1F934: "royalty", 0x1F478: "royalty", 0x1FAC5: "royalty",
    0x1F385: "claus", 0x1F936: "claus",
    0x1F483: "dancing", 0x1F57A: "dancing",
    0x1F930: "pregnant", 0x1FAC3: "pregnant", 0x1FAC4: "pregnant",
    0x1F46B: "holding hands", 0x1F46C: "holding hands", 0x1F46D: "holding hands",
    0x1F51F: "keycap", 0x1F91D: "handshake", 0x1F931: "feeding baby", 0x1F9D4: "adult", 0x1F471: "adult",
    0x2640: "gender sign", 0x2642: "gender sign", 0x26A7: "gender sign",
    0x1F46A: "family", 0x1F48F: "kiss", 0x1F491: "couple with heart",
}  # fmt: skip


def kin(sample: Sample) -> str:
    """The concept with its look-alikes: things that differ in colour, direction or state alone, judged by their names."""
    plain = sample.name.partition(":")[0]
    if sample.subgroup == "heart" and plain != "love letter":
        return "heart"
    for pattern, family in _FAMILIES.items():
        if re.fullmatch(pattern, plain):
            return family or re.sub("^oncoming | face$", "", plain)
    return sample.concept


def concept(points: list[int], group: str) -> str:
    """What the picture is of, by Unicode's own modifiers: tone, gender, hair and the hour of a clock are left out."""
    if group == "Flags":
        return "flag " + "-".join(f"{point:x}" for point in points if point != 0xFE0F)
    if 0x20E3 in points:
        return "keycap"
    if len(points) == 1 and 0x1F550 <= points[0] <= 0x1F567:
        return "clock face"
    if 0x1FAF1 in points and 0x1FAF2 in points:
        return "handshake"
    rest = [point for point in points if point not in _TONES | _HAIR | _SIGNS]
    if not rest:
        rest = [points[0]]
    if len(rest) == 1:
        if rest[0] in _ADULTS:
            return "adult"
        if rest[0] in _CHILDREN:
            return "child"
        return _SAME.get(rest[0], f"{rest[0]:x}")
    people = [point for point in rest if point in _ADULTS | _CHILDREN]
    if people == rest:
        return "family"
    if 0x1F48B in rest and people:
        return "kiss"
    if 0x2764 in rest and people:
        return "couple with heart"
    if 0x1F91D in rest and people:
        return "holding hands"
    if rest[1:] == [0x1F384]:
        return "claus"
    if people and rest[1:] == [0x1F37C]:
        return "feeding baby"
    return "-".join("person" if point in _ADULTS else f"{point:x}" for point in rest)


def order(text: str) -> int:
    """A fixed, arbitrary order."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split(samples: list[Sample]) -> None:
    """Hold out concepts, then variants, then pictures at random; each from what the one before has left.

    Flags are not held out as concepts: which country a flag belongs to cannot be known without having seen it, so such a
    test would measure nothing. They do occur in `random`, 39 of 400.
    """
    families: dict[str, list[Sample]] = {}
    for sample in samples:
        families.setdefault(sample.concept, []).append(sample)
    held = 0
    for name in sorted(families, key=lambda name: order(f"concept {name}")):
        family = families[name]
        if (
            family[0].group == "Flags"
            or any(len(s.names) > 1 for s in family)
            or len(family) > min(LARGEST_HELD_OUT_CONCEPT, CONCEPT - held)
        ):
            continue
        for sample in family:
            sample.split = "concept"
        held += len(family)
    # Hours and keys are no attributes that other concepts share, so nothing could be composed of them.
    left = [
        s for s in samples
        if s.split == "train" and s.group == "People & Body" and len(families[s.concept]) >= 4 and len(s.names) == 1
    ]  # fmt: skip
    taken: Counter[str] = Counter()
    for sample in sorted(left, key=lambda s: order(f"composition {s.key}")):
        if taken.total() < COMPOSITION and taken[sample.concept] < min(8, len(families[sample.concept]) // 4):
            sample.split = "composition"
            taken[sample.concept] += 1
    # A picture with several names has no one right answer: it stays in training.
    left = [s for s in samples if s.split == "train" and len(s.names) == 1]
    for sample in sorted(left, key=lambda s: order(f"random {s.key}"))[:RANDOM]:
        sample.split = "random"
    for family in families.values():
        # A variant is only a fair test if its concept is still trained on.
        if not any(s.split == "train" for s in family):
            for sample in family:
                if sample.split == "composition":
                    sample.split = "train"
