"""Caption metrics equal pycocoevalcap's, its Java tokeniser included, on captions made here. Skipped where it or Java is missing."""

import random
import shutil

import numpy as np
import pytest

pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed here; run `make test-peers`")
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from multiway.tasks.caption_metrics import bleu, cider_d, rouge_l, tokenise

WORDS = """
a the man dog red woman's dogs' it's don't can't cannot black-and-white t-shirt 2 10 3.5 1,000 10:30 5pm 1950s '50s
o'clock y'all rock 'n' roll St. Mr. U.S. a.m. vs. etc. no. No. and/or w/ b&w AT&T 50% #1 @ $5 \xbd 1/2 3rd 2-year-old
mid-air TV's they're i've won't gonna wanna caf\xe9 na\xefve 'hello hello' "quoted" \u201ccurly\u201d \u2018one\u2019
don\u2019t \u2013 \u2014 \u2026 - -- ... .. ! ? !! ?! ; : , . ( ) [ ] { } / & + = ' '' ` 5' 6" http://a.com/b.html
x.com a@b.c :) <3 Inc. Co. Dr. e.g. Fig. 3 A I 'em O'Hare half- -pre 12/25/2014 555-1234 100 200 4x4 photo.jpg U-turn
Ave. oz. 18th-century \xa35 \u20ac5 \xb0 \U0001f600
"""


def lines(number: int, seed: int) -> list[str]:
    draw, words = random.Random(seed), WORDS.split()
    return [
        "".join(draw.choice(words) + draw.choice([" ", " ", " ", " ", ""]) for _ in range(draw.randint(1, 8))).strip()
        for _ in range(number)
    ]


@pytest.mark.skipif(shutil.which("java") is None, reason="the tokeniser that is compared with needs Java")
def test_tokens() -> None:
    texts = lines(4000, seed=0)
    # What follows a caption in its file has a say in whether a last full stop is its end; most captions begin with "A".
    between = {n: [{"caption": text}] for n, text in enumerate(each for text in texts for each in (text, "A cat"))}
    theirs = [tokens[0] for tokens in PTBTokenizer().tokenize(between).values()][::2]
    assert [tokenise(text) for text in texts] == theirs


@pytest.mark.parametrize("seed", range(4))
def test_scores(seed: int) -> None:
    draw = random.Random(seed)
    pictures = draw.choice([1, 7, 60])
    vocabulary = ["a", "man", "dog", "on", "the", "street", "red", "two", "cats", "sitting", "with", "of", "bus"][
        : draw.choice([3, 12])
    ]

    def text() -> str:
        return " ".join(draw.choices(vocabulary, k=draw.randint(0, 12)))

    written = {n: [text()] for n in range(pictures)}
    known = {n: [text() for _ in range(draw.randint(1, 5))] for n in range(pictures)}
    ours, theirs = [each[0] for each in written.values()], list(known.values())
    scores, each = Bleu(4).compute_score(known, written, verbose=0)
    found = [*bleu(ours, theirs), rouge_l(ours, theirs), cider_d(ours, theirs)]
    expected = [
        *zip(scores, each, strict=True),
        Rouge().compute_score(known, written),
        Cider().compute_score(known, written),
    ]
    for metric, (value, parts) in zip(found, expected, strict=True):
        assert metric.value == pytest.approx(value, abs=1e-9), metric.name
        np.testing.assert_allclose(metric.pictures, parts, rtol=1e-9, atol=1e-9)
