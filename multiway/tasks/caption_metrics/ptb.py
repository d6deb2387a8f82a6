"""Parting captions into words as the COCO caption evaluation does: Penn Treebank style, lower case, most punctuation dropped.

The evaluation calls Stanford's PTBTokenizer (CoreNLP 3.4.1, 2014) in Java and then drops a list of tokens. What matters of it:

- contractions are parted: `can't` -> `ca n't`, `man's` -> `man 's`, `cannot` -> `can not`, `gonna` -> `gon na`;
- hyphenated words, numbers, times, fractions and web addresses are one word: `black-and-white`, `1,000`, `10:30`, `and/or`;
- abbreviations and initials keep their full stop (`st.`, `u.s.`), other full stops are dropped;
- straight and curly quotes, dashes and ellipses are dropped; brackets are meant to be, but what is dropped is spelled `-LRB-` and
  what is written is `-lrb-`: they stay. So do `!!!`, `&`, `%`, `/`, `#`. Published figures have all this in them, so it is kept;
- emoji, control characters and whatever else the lexer does not know vanish.

At each place the longest match among the rules (`ptb_rules.py`) wins, the first of equally long ones; what must follow counts as length.
Scripts other than Latin, Greek and Cyrillic are letters here too, but were not compared in depth.
"""

from __future__ import annotations

import re

from multiway.tasks.caption_metrics.abbreviations import CASED, EVER, PLAIN
from multiway.tasks.caption_metrics.ptb_rules import RULES, SPACES

__all__ = ["DROPPED", "LONGEST", "split", "tokenise"]

DROPPED = frozenset(["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:;-", "--", "..."])
"""Tokens that the evaluation removes."""

LONGEST = 20_000


# Nearly all of a caption: words of letters alone, before another word or at the end, which only the first rules can part and
# only abbreviations can lengthen. What is taken here needs no rule.
_SIMPLE = re.compile(r"([A-Za-z]+),?(?= [A-Za-z])")
_END = re.compile(r"([A-Za-z]{2,})[ .]*\n\Z")
_PARTED = frozenset(["cannot", "gonna", "gotta", "lemme", "gimme", "wanna"])
_KEEPS_STOP = PLAIN | EVER | {word.lower() for word in CASED} | {"miss"}
_SPACE_RUN = re.compile(rf"{SPACES}+")


def split(text: str) -> list[str]:
    """The words of a text in lower case, before those in `DROPPED` are dropped; some of these are missing already."""
    line = text.replace("\n", " ") + "\n"
    words: list[str] = []
    place = 0
    while place < len(line):
        found = _SIMPLE.match(line, place)
        if found is None and (last := _END.match(line, place)) and last[1].lower() not in _KEEPS_STOP:
            found = last
        if found and found[1].lower() not in _PARTED:
            words.append(found[1].lower())
            place = found.end()
        elif space := _SPACE_RUN.match(line, place):
            place = space.end()
        else:
            place = _by_rules(line, place, words)
    return words


def _by_rules(line: str, place: int, words: list[str]) -> int:
    """Add the words of the longest match at `place`; returns where the next one begins."""
    length, end, token, written = 0, place + 1, "", None  # what no rule reads is left out, letter by letter
    for pattern, act in RULES:
        found = pattern.match(line, place)
        if found and found.end() - place > length:
            length, end, token, written = found.end() - place, found.end(1), found[1], act
    if written:
        words += [word.lower() for word in written(token) if word]
    return end


def tokenise(text: str) -> str:
    """A caption as the caption metrics take it: words in lower case parted by single spaces, punctuation dropped.

    Raises:
        ValueError: for a text of more than `LONGEST` characters, which is no caption and could take minutes.
    """
    if len(text) > LONGEST:
        raise ValueError(
            f"a caption of {len(text):,} characters begins with {text[:40]!r}; expected at most {LONGEST:,}. Check that the file "
            f"has one caption in each row"
        )
    return " ".join(word for word in split(text) if word not in DROPPED)
