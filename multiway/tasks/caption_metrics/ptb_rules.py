"""The rules of the Penn Treebank tokeniser that COCO's caption evaluation uses: what makes one token, and how it is written.

Each rule has a pattern for the token, one for what must follow it, and what becomes of the text: usually itself. Case does not
count unless a pattern says so. They restate what Stanford's PTBTokenizer (CoreNLP 3.4.1) was seen to do with captions and with
technical prose; `docs/tasks/caption-metrics.md` says how far the two were compared. Soft hyphens vanish inside words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from multiway.tasks.caption_metrics.abbreviations import BEFORE_NUMBERS, CASED, EVER, OPENING, PLAIN

__all__ = ["RULES", "SPACES", "Rule"]

Written = Callable[[str], list[str]]
Rule = tuple[re.Pattern[str], Written]
"""A pattern whose first group is the token, with what must follow behind it; and the words that the token becomes."""

SPACES = r"[ \t\r\n\u00a0\u2000-\u200a\u2028\u2029\u3000\u000b\u000c\u0085]"

_DIGIT = r"[\d\u07c0-\u07c9]"
_NUMERAL = r"\u00b2\u00b3\u00b9\u00bc-\u00be\u2070\u2074-\u2079\u2080-\u2089\u2150-\u2182\u2185-\u218b\u2460-\u249b\u24ea-\u24ff\u2776-\u2793\u3007"
_LETTER = rf"[^\W\d_{_NUMERAL}]"
_ALNUM = rf"[^\W_{_NUMERAL}]"
# Inside words: accents that stand apart, vowel points, and the HTML names of accented vowels.
_IN_WORD = rf"(?:{_LETTER}|&[aeiou](?:acute|grave|uml);|[\u00ad\u0300-\u036f\u0375\u0384\u0385\u03f6\u0483-\u0487\u0591-\u05bd\u064b-\u065e])"
_WORD = rf"{_IN_WORD}(?:{_IN_WORD}|{_DIGIT})*(?:[.!?]{_IN_WORD}(?:{_IN_WORD}|{_DIGIT})*)*"
_NUMBER = rf"(?:{_DIGIT}+|(?=[.:,\u00ad\u066b\u066c]{_DIGIT}))(?:[.:,\u00ad\u066b\u066c]{_DIGIT}+)*"
_INSIDE = "[,;:\u3001]"  # punctuation inside sentences

# Apostrophes, and what looks like one: right quotes end words, any may stand within them.
_RIGHT = r"(?:['\u0092\u2019]|&apos;)"
_ANY = r"(?:['\u0092\u2019`\u0091\u2018\u201b]|&apos;)"
_CLITIC = rf"{_RIGHT}(?:[msd]|re|ve|ll)"
_NOT = rf"n{_RIGHT}t"
_WITH_APOSTROPHE = (
    rf"{_RIGHT}(?:n{_RIGHT}?|em|till?|cause|[2-9]0s)|(?:[ldj]|ol|dunkin|somethin){_RIGHT}|o{_ANY}o|cap{_RIGHT}n|c{_RIGHT}est"
    r"|c'mon|e'er|ev'ry|li'l|nat'l|nor'easter|s'mores|cont'd\.?"
    rf"|(?-i:[A-HJ-XZn]){_ANY}{_LETTER}{{2,}}|{_LETTER}+[aeiouy]{_ANY}(?-i:[aeiouA-Z]){_LETTER}*"
)

_COUNTRY = r"(?:canada|sino|korean|eu|japan|non)-u\.s|u\.s\.-(?:u\.s\.s\.r|u\.k)"
_ACRONYM = rf"(?:{_COUNTRY}|[a-z](?:\.[a-z])*)"
_HYPHENATED = rf"[a-z0-9][a-z0-9.,\u00ad]*(?:-(?:(?:{_COUNTRY}|[a-z](?:\.[a-z])+)\.|[a-z0-9\u00ad]+))+"
_PART = rf"(?:[dol]{_ANY}{_ALNUM})?{_ALNUM}+"
_JOINED = rf"{_PART}(?:[-_\u058a\u2010\u2011]{_PART})*"  # d'Artagnan, under_score, café-bar
_SLASHED = r"[a-z0-9]+(?:-[a-z]+){0,2}"

_ATTRIBUTE = r"[a-z][\w:.-]*(?: *= *(?:'[^']*'|\"[^\"]*\"))?"
_TAG = rf"<(?:[!?][a-z-][^>\r\n]*|[a-z][\w:.-]*(?: +{_ATTRIBUTE})* */?|/[a-z][\w:.-]*) *>"
_NO_URL = r" \t\n\f\r\"<>|()"
_PATH = rf"[^{_NO_URL}{{}}]+[^{_NO_URL}{{}}.!?,-]"
# In bare names of sites digits and capitals don't count as part of the name.
_SITE = rf"(?:www\.(?:[^{_NO_URL}{{}}.!?,]+\.)+[a-z]{{2,4}}|(?-i:(?:[^{_NO_URL}{{}}!?`'$,-_]+\.)+)(?:com|net|org|edu))(?:/{_PATH})?"
_MAIL = (
    rf"(?:&lt;|<)?[a-z0-9][^{_NO_URL}{{}}\u00a0]*@[^{_NO_URL}{{}}\u00a0.]+(?:\.[^{_NO_URL}{{}}\u00a0.]+)*(?:&gt;|>)?"
)
_FILE = rf"(?:{_IN_WORD}|{_DIGIT})+(?:\.(?:{_IN_WORD}|{_DIGIT})+)*\.(?:bat|bmp|class|cgi|cpp|c|dll|docx?|exe|gif|gz|html?|h|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|pptx?|ps|py|sql|tar|txt|wav|xml|x|zip)"
_PHONE = r"(?:\(\d{2,3}\)[ \u00a0]?|\+{0,2}(?:\d{2,4}[- \u00a0])?\d{2,4}[- \u00a0])\d{3,4}[- \u00a0]?\d{3,5}"
_SYMBOL = (
    r"[+%&~^|\\\u00a6-\u00a9\u00ac\u00ae-\u00ba\u00d7\u00f7\u0387\u2016\u2017\u2020-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044"
    r"\u207a-\u207f\u208a-\u208e\u2100-\u214f\u2190-\u2bff\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]"
)


def _any_of(words: Iterable[str]) -> str:
    """The longest first, since the first that fits is taken."""
    return "(?:" + "|".join(re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word))) + ")"


_CAPITAL = "(?:" + "|".join(f"(?-i:{word[0]}){word[1:]}" for word in sorted(CASED)) + ")"
_PLAIN = rf"(?:{_any_of(PLAIN)}|{_CAPITAL})\."
_EVER = rf"(?:{_ACRONYM}|{_any_of(EVER)})"


def _self(text: str) -> list[str]:
    return [text.replace("\u00ad", "")]


def _nothing(text: str) -> list[str]:
    return []


def _straight(text: str) -> list[str]:
    return [re.sub(_ANY, "'", text)]


def _ampersand(text: str) -> list[str]:
    return [text.replace("&amp;", "&")]


def _as(spelling: dict[str, str]) -> Written:
    """Characters of the token that are spelled in another way."""
    table = str.maketrans(spelling)
    return lambda text: [text.translate(table)]


_SPACED = {" ": "\u00a0"}  # a token with a space inside keeps it, as a space that does not part words
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}
_ROUND = {"(": "-lrb-", ")": "-rrb-", **_SPACED}
_FRACTIONS = {"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
_MONEY = {"\u00a2": "cents", "\u00a3": "#", "\u00a4": "$", "\u0080": "$", "\u20a0": "$", "\u20ac": "$"}
# A mark alone, or two of a kind, becomes a mark of the Treebank's, which is dropped; two that differ become a word that is not.
_QUOTES = {
    **dict.fromkeys("\u2018\u201b\u0091\u2039", "`"),
    **dict.fromkeys("\u2019\u0092\u203a", "'"),
    **dict.fromkeys("\u201c\u0093\u00ab", "``"),
    **dict.fromkeys("\u201d\u0094\u00bb", "''"),
}

_SOURCE: list[tuple[str, str, Written]] = [
    # words
    (r"c\+\+|[cf]#", "", _self),
    (r"can", "not", _self),
    (r"gon|wan", "na", _self),
    (r"got", "ta", _self),
    (r"lem|gim", "me", _self),
    (r"'t", "was|is", _self),
    (_TAG, "", _as(_SPACED)),
    (r"&(?:md|mdash|ndash);|[\u0096\u0097\u2013-\u2015]", "", _nothing),
    (r"&amp;", "", _ampersand),
    (r"&(?:ht|tl|ur|lr|qc|ql|qr|odq|cdq|#[0-9]+);", "", _self),
    (_WORD, _CLITIC, _self),
    (r"[a-z\u00ad]*[a-mo-z]\u00ad*", _NOT, _self),
    (_WORD, "", _self),
    (_WITH_APOSTROPHE, "", _self),
    (rf"y{_RIGHT}", _LETTER, _self),
    (rf"https?://{_PATH}", "", _self),
    (_SITE, "", _self),
    (_MAIL, "", _self),
    (rf"@[a-z_][a-z_0-9]*|#{_IN_WORD}+", "", _self),
    (_CLITIC, "[^A-Za-z]", _straight),
    (_NOT, "", _straight),
    # numbers
    (rf"{_DIGIT}{{1,2}}[-/]{_DIGIT}{{1,2}}[-/]{_DIGIT}{{2,4}}", "", _self),
    (rf"[-+]?{_NUMBER}", "", _self),
    (r"[\u207a\u207b\u208a\u208b]?(?:[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+|[\u2080-\u2089]+)", "", _self),
    (rf"(?:{_DIGIT}{{1,4}}[- \u00a0])?{_DIGIT}{{1,4}}(?:\\?/|\u2044){_DIGIT}{{1,4}}", "", _as(_SPACED)),
    (r"[\u00bc-\u00be\u2153-\u215e]", "", _as(_FRACTIONS)),
    (rf"{_SLASHED}(?:\\?/{_SLASHED}){{1,2}}", "", _self),
    (r"(?-i:[A-Z])*\$|#", "", _self),
    (r"[\u00a2-\u00a5\u0080\u20a0\u20a4\u20ac\u060b\u0e3f\uffe0\uffe1\uffe5\uffe6]", "", _as(_MONEY)),
    # abbreviations: where the full stop ends the sentence besides, the second one would be dropped in any case
    (_PLAIN, r"[\s\S]{0,2}", _self),
    (r"[a-z]", rf"\.{SPACES}+(?:\Z|(?-i:{_any_of(OPENING)}){SPACES})", _self),
    (rf"{_EVER}\.|(?-i:M)iss\.", "", _self),
    (_EVER, SPACES, _self),
    (rf"{_any_of(BEFORE_NUMBERS)}\.", rf"[ \t\u00a0]?{_DIGIT}", _self),
    (rf"{_RIGHT}[0-9][0-9]", SPACES, _self),
    (_FILE, rf"{SPACES}|[.?!,]", _self),
    (rf"{_WORD}\.", _INSIDE, _self),
    (_PHONE, "", _as(_ROUND)),
    # marks
    (r"''|\"|&quot;", "[A-Za-z0-9$]", _nothing),
    (r"\"|&quot;", "", _nothing),
    (r"<|&lt;", "", lambda text: ["<"]),
    (r">|&gt;", "", lambda text: [">"]),
    (r"[<>]?[:;=](?-i:[-o*']?[()DPdpO\\{@|\[\]])", "[^A-Za-z0-9]", _as(_ROUND)),
    (r"\([-^x=~<>'][_.]?[-^x=~<>']\)|[-^x=~<>']_[-^x=~<>']", "", _as(_ROUND)),  # faces: (^_^)
    (r"(?:\\\*){1,3}|-[lr][rcs]b-", "", _self),
    (r"[(){}\[\]]", "", _as(_BRACKETS)),
    (r"-+", "", lambda text: [text] if len(text) > 4 else []),
    (r"\.{3,5}|(?:\.[ \u00a0]){2,4}\.|[\u0085\u2026]", "", _nothing),
    (r"@+|#+|_+|\*+|[?!]+", "", _self),
    (_INSIDE, "", _self),
    (r"[.=/\u00a1\u00bf\u037e\u0589\u061f\u06d4\u0700-\u0702\u07fa\u3002]", "", _self),
    # words with hyphens and the like
    (_HYPHENATED, "", _self),
    (rf"{_HYPHENATED}\.", _INSIDE, _self),
    (_JOINED, "", _self),
    (rf"{_JOINED}\.", _INSIDE, _self),
    (r"(?-i:[A-Z])+(?:(?:[+&]|&amp;)(?-i:[A-Z])+)+", "", _ampersand),
    # what is left
    (rf"''|[`\u2018-\u201f\u0091-\u0094\u2039\u203a\u00ab\u00bb]{{1,2}}|{_ANY}", "", _as(_QUOTES)),
    ("'", r"[A-Za-z][^ \t\n\r\u00a0]", _nothing),
    (_CLITIC, "", _straight),
    (r"&nbsp;", "", _nothing),
    (r"<<|>>", "", _self),
    (_SYMBOL, "", _self),
]

RULES: list[Rule] = [
    (re.compile(f"({token})(?:{follow})", re.IGNORECASE), written) for token, follow, written in _SOURCE
]
