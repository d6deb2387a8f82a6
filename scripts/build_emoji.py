"""Build `multiway/data/assets/emoji.tar`: pictures of the Noto Color Emoji font with their Unicode names.

    python scripts/build_emoji.py [OUT]

Needs Debian's packages fonts-noto-color-emoji (the pictures), unicode-data (which emoji there are, and their names) and
unicode-cldr-core (keywords, and names in other languages), and a Pillow with Raqm, which shapes sequences: flags, skin
tones and joined emoji are ligatures of the font. The same packages give the same bytes.

Each sample is a `KEY.png` (transparent, 72 pixels wide, 64 colours of its own, so that all fit into 12 MB) and a
`KEY.json`; see `multiway/data/emoji.py` for the fields and docs/data/emoji.md for what each split holds out and why.
Names in other languages go into `emoji-languages.json.gz` beside the tar.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, features

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI = Path("/usr/share/unicode/emoji/emoji-test.txt")
CLDR = Path("/usr/share/unicode/cldr/common")
PACKAGES = {FONT: "fonts-noto-color-emoji", EMOJI: "unicode-data", CLDR: "unicode-cldr-core"}
LANGUAGES = ("de", "fr", "es", "it", "pt", "ru", "ar", "hi", "zh", "ja", "ko")
GLYPH = (136, 128)  # the font's own bitmaps
STORED = (72, 68)
COLOURS = 64
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
    split: str = "train"

    @property
    def key(self) -> str:
        """Code points joined by hyphens: `1f469-200d-2695-fe0f`."""
        return "-".join(f"{point:x}" for point in self.points)


# --- reading ---------------------------------------------------------------------------------------------------------


def listed() -> list[tuple[str, str, str, str]]:
    """(emoji, name, group, subgroup) of every fully qualified emoji, in Unicode's order."""
    rows, group, subgroup = [], "", ""
    for line in EMOJI.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        found = re.match(r"[0-9A-F ]+; fully-qualified +# (\S+) E[\d.]+ (.+)", line)
        if found:
            rows.append((found[1], found[2], group, subgroup))
    return rows


def annotations(language: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Name and keywords of each emoji in a language; CLDR writes emoji without their variation selectors."""
    names: dict[str, str] = {}
    keywords: dict[str, list[str]] = {}
    for folder in ("annotations", "annotationsDerived"):
        for entry in ElementTree.parse(CLDR / folder / f"{language}.xml").iter("annotation"):
            emoji, text = (entry.get("cp") or "").replace("\ufe0f", ""), entry.text or ""
            if entry.get("type") == "tts":
                names[emoji] = text.strip()
            else:
                keywords[emoji] = [word.strip() for word in text.split("|")]
    return names, keywords


def draw(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """The font's picture; None if it has no single glyph for the whole sequence."""
    if font.getlength(emoji) > GLYPH[0] + 4:  # several glyphs side by side: the ligature is lacking
        return None
    picture = Image.new("RGBA", GLYPH, (255, 255, 255, 0))
    ImageDraw.Draw(picture).text((0, 0), emoji, font=font, embedded_color=True)
    return picture if picture.getchannel("A").getextrema()[1] > 0 else None


# --- concepts --------------------------------------------------------------------------------------------------------

_TONES = set(range(0x1F3FB, 0x1F400))
_HAIR = set(range(0x1F9B0, 0x1F9B4))
_SIGNS = {0x2640, 0x2642, 0xFE0F, 0x200D}
_ADULTS = {0x1F468, 0x1F469, 0x1F9D1}
_CHILDREN = {0x1F466, 0x1F467, 0x1F9D2}
# Code points that are one concept in several genders or forms.
_SAME = {
    0x1F474: "elder", 0x1F475: "elder", 0x1F9D3: "elder",
    0x1F934: "royalty", 0x1F478: "royalty", 0x1FAC5: "royalty",
    0x1F385: "claus", 0x1F936: "claus",
    0x1F483: "dancing", 0x1F57A: "dancing",
    0x1F930: "pregnant", 0x1FAC3: "pregnant", 0x1FAC4: "pregnant",
    0x1F46B: "holding hands", 0x1F46C: "holding hands", 0x1F46D: "holding hands",
    0x1F46A: "family", 0x1F48F: "kiss", 0x1F491: "couple with heart",
}  # fmt: skip


def concept(points: list[int], group: str) -> str:
    """What the picture is of, whoever does it: tone, gender, hair and the hour of a clock are left out."""
    if group == "Flags":
        return "flag " + "-".join(f"{point:x}" for point in points if point != 0xFE0F)
    if 0x20E3 in points:
        return "keycap"
    if len(points) == 1 and 0x1F550 <= points[0] <= 0x1F567:
        return "clock face"
    rest = [point for point in points if point not in _TONES | _HAIR | _SIGNS]
    if not rest:
        return "component"
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
    return "-".join("person" if point in _ADULTS else f"{point:x}" for point in rest)


# --- splits ----------------------------------------------------------------------------------------------------------


def order(text: str) -> int:
    """A fixed, arbitrary order."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split(samples: list[Sample]) -> None:
    """Hold out concepts, then variants, then pictures at random; each from what the one before has left.

    Flags are not held out as concepts: which country a flag belongs to cannot be known without having seen it, so such a
    test would measure nothing. They do occur in `random`, at their share of about seven per cent.
    """
    families: dict[str, list[Sample]] = {}
    for sample in samples:
        families.setdefault(sample.concept, []).append(sample)
    held = 0
    for name in sorted(families, key=lambda name: order(f"concept {name}")):
        family = families[name]
        if family[0].group == "Flags" or len(family) > min(LARGEST_HELD_OUT_CONCEPT, CONCEPT - held):
            continue
        for sample in family:
            sample.split = "concept"
        held += len(family)
    left = [s for s in samples if s.split == "train" and len(families[s.concept]) >= 4]
    for sample in sorted(left, key=lambda s: order(f"composition {s.key}"))[:COMPOSITION]:
        sample.split = "composition"
    left = [s for s in samples if s.split == "train"]
    for sample in sorted(left, key=lambda s: order(f"random {s.key}"))[:RANDOM]:
        sample.split = "random"
    for family in families.values():
        # A variant is only a fair test if its concept is still trained on.
        if not any(s.split == "train" for s in family):
            for sample in family:
                if sample.split == "composition":
                    sample.split = "train"


# --- writing ---------------------------------------------------------------------------------------------------------


def collect() -> tuple[list[Sample], Counter[str]]:
    """Every distinct picture, and how many emoji were left out or joined."""
    font = ImageFont.truetype(str(FONT), 109, layout_engine=ImageFont.Layout.RAQM)
    tables = {language: annotations(language) for language in ("en", *LANGUAGES)}
    samples: dict[str, Sample] = {}
    counts: Counter[str] = Counter()
    for emoji, name, group, subgroup in listed():
        counts["listed"] += 1
        picture = draw(emoji, font)
        if picture is None:
            counts["not in the font"] += 1
            continue
        digest = hashlib.sha256(picture.tobytes()).hexdigest()
        if digest in samples:
            samples[digest].names.append(name)
            counts["same picture as another"] += 1
            continue
        plain = emoji.replace("\ufe0f", "")
        points = [ord(character) for character in emoji]
        sample = Sample(points, emoji, name, group, subgroup, picture.resize(STORED, Image.Resampling.LANCZOS))
        sample.names = [name]
        sample.keywords = tables["en"][1].get(plain, [])
        sample.languages = {
            language: tables[language][0][plain] for language in LANGUAGES if plain in tables[language][0]
        }
        sample.concept = concept(points, group)
        samples[digest] = sample
    return list(samples.values()), counts


def member(name: str, data: bytes) -> tuple[tarfile.TarInfo, io.BytesIO]:
    """A tar member without anything that differs between machines."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o644, 0
    return info, io.BytesIO(data)


def write(samples: list[Sample], out: Path) -> None:
    """The shard: samples in the order of their keys."""
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in sorted(samples, key=lambda s: s.key):
            picture = io.BytesIO()
            palette = sample.picture.quantize(
                COLOURS, method=Image.Quantize.FASTOCTREE
            )  # the one that keeps transparency
            palette.save(picture, format="PNG", optimize=True)
            about: dict[str, Any] = {
                "emoji": sample.text, "names": sample.names, "keywords": sample.keywords, "group": sample.group,
                "subgroup": sample.subgroup, "concept": sample.concept, "split": sample.split,
            }  # fmt: skip
            text = json.dumps(about, ensure_ascii=False, separators=(",", ":")).encode()
            tar.addfile(*member(f"{sample.key}.json", text))
            tar.addfile(*member(f"{sample.key}.png", picture.getvalue()))
    languages = {sample.key: sample.languages for sample in sorted(samples, key=lambda s: s.key)}
    text = json.dumps(languages, ensure_ascii=False, separators=(",", ":")).encode()
    out.with_name("emoji-languages.json.gz").write_bytes(gzip.compress(text, mtime=0))


def main() -> None:
    """Build, and say what was built."""
    missing = sorted({package for path, package in PACKAGES.items() if not path.exists()})
    if missing:
        sys.exit(f"install Debian's {', '.join(missing)} first: apt-get install {' '.join(missing)}")
    if not features.check("raqm"):
        sys.exit("this Pillow has no Raqm, which shapes emoji sequences; install Pillow from its wheels")
    default = Path(__file__).resolve().parent.parent / "multiway" / "data" / "assets" / "emoji.tar"
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    samples, counts = collect()
    split(samples)
    write(samples, out)
    for what, count in counts.items():
        print(f"{count:5} {what}")
    for name, count in Counter(sample.split for sample in samples).most_common():
        print(f"{count:5} {name}")
    print(
        f"{out}: {len(samples)} pictures, {len({s.concept for s in samples})} concepts, {out.stat().st_size / 1e6:.2f} MB"
    )


if __name__ == "__main__":
    main()
