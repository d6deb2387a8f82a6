"""Build `multiway/data/assets/emoji.tar`: pictures of the Noto Color Emoji font with their Unicode names.

    python scripts/build_emoji.py [OUT]

Needs Debian's packages fonts-noto-color-emoji (the pictures), unicode-data (which emoji there are, and their names) and
unicode-cldr-core (keywords, and names in other languages), and a Pillow with Raqm, which shapes sequences: flags, skin
tones and joined emoji are ligatures of the font. The same packages give the same bytes.

Each sample is a `KEY.webp` (64 x 64, transparent, lossless, with 5 bits a colour and 4 of alpha, so that all fit into
12 MB) and a `KEY.json`; see `multiway/data/emoji.py` for the fields and docs/data/emoji.md for what each split holds out and why.
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
from pathlib import Path
from typing import Any

import numpy as np
from emoji_concepts import Sample, concept, kin, split
from PIL import Image, ImageDraw, ImageFont, features

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI = Path("/usr/share/unicode/emoji/emoji-test.txt")
CLDR = Path("/usr/share/unicode/cldr/common")
PACKAGES = {FONT: "fonts-noto-color-emoji", EMOJI: "unicode-data", CLDR: "unicode-cldr-core"}
LANGUAGES = ("de", "fr", "es", "it", "pt", "ru", "ar", "hi", "zh", "ja", "ko")
GLYPH = (136, 128)  # the font's own bitmaps
SQUARE = (4, 0, 132, 128)  # what of it the drawings fill


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


def unblend(black: Image.Image, white: Image.Image) -> Image.Image:
    """The transparent picture that looks like `black` on black and like `white` on white."""
    dark, light = (np.asarray(canvas, dtype=np.int32) for canvas in (black, white))
    alpha = 255 - (light - dark).max(axis=2, keepdims=True)
    colour = np.where(alpha > 0, (dark * 255 + alpha // 2) // np.maximum(alpha, 1), 0).clip(0, 255)
    return Image.fromarray(np.concatenate([colour, alpha], axis=2).astype(np.uint8))


def draw(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """The font's picture; None if it has no single glyph for the whole sequence."""
    if font.getlength(emoji) > GLYPH[0] + 4:  # several glyphs side by side: the ligature is lacking
        return None
    # Text drawn on a transparent canvas is blended, so that its alpha comes out squared; on black, and opaque white as the
    # mask, colour and alpha are the font's own.
    black, white = (Image.new("RGB", GLYPH, grey) for grey in ("black", "white"))
    for canvas in (black, white):
        ImageDraw.Draw(canvas).text((0, 0), emoji, font=font, embedded_color=True)
    picture = unblend(black, white)
    return picture if picture.getchannel("A").getextrema()[1] > 0 else None


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
        sample = Sample(points, emoji, name, group, subgroup, picture.crop(SQUARE))
        sample.names = [name]
        sample.keywords = tables["en"][1].get(plain, [])
        sample.languages = {
            language: tables[language][0][plain] for language in LANGUAGES if plain in tables[language][0]
        }
        sample.concept = concept(points, group)
        sample.kin = kin(sample)
        samples[digest] = sample
    return list(samples.values()), counts


def reduced(picture: Image.Image) -> Image.Image:
    """Half the size, 5 bits a colour and 4 of alpha."""
    half = np.asarray(picture.resize((64, 64), Image.Resampling.BOX), dtype=np.int32)
    levels = np.array([31, 31, 31, 15])
    return Image.fromarray(((half * levels + 127) // 255 * 255 // levels).astype(np.uint8))


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
            reduced(sample.picture).save(picture, format="WEBP", lossless=True, quality=80, method=4, exact=True)
            about: dict[str, Any] = {
                "emoji": sample.text, "names": sample.names, "keywords": sample.keywords, "group": sample.group,
                "subgroup": sample.subgroup, "concept": sample.concept, "kin": sample.kin, "split": sample.split,
            }  # fmt: skip
            text = json.dumps(about, ensure_ascii=False, separators=(",", ":")).encode()
            tar.addfile(*member(f"{sample.key}.json", text))
            tar.addfile(*member(f"{sample.key}.webp", picture.getvalue()))
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
