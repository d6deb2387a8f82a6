"""Write tests/tasks/fixtures/captions.json: captions, and what pycocoevalcap makes of them.

    python -m venv VENV && VENV/bin/pip install --no-deps pycocoevalcap==1.2 && VENV/bin/pip install numpy
    VENV/bin/python scripts/caption_fixture.py tests/tasks/fixtures/captions.json

Needs Java, for its tokeniser. The captions are made up here: a grammar of scenes with typing habits of people, and a list of
what tokenisers stumble over.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

ODD = """\
A man's dog can't sit; it won't "stay"!
The U.S. flag flies near St. Mary's church on 5th Ave.
two t-shirts, black-and-white (striped), hang side-by-side...
A 2-year-old eats 1/2 of a pizza at 10:30 a.m.
a stop sign with graffiti that reads 'HAMMER TIME'
it's a bird, it's a plane & they're on the 747
Dogs' toys and cats' beds @ the store; $5 each, 50% off #sale
"A cat," she said, "isn't a dog."
They cannot, gonna, or wanna ride the 1950's bus / tram
I'd've thought there are 1,000 sheep - maybe more -- who knows?
A laptop's screen shows http://www.example.com/a.html and me@example.org
don\u2019t use \u201ccurly\u201d quotes \u2014 or \u2018these\u2019\u2026 please
Caf\u00e9 na\u00efve \u00fcber jalape\u00f1o, \u00bd off, 20\u00b0 \u20ac5 \u00a33
Mr. Smith and Dr. J. Jones of Acme Inc. meet at 7 p.m.
a teddy bear \U0001f43b with a heart \u2764 <b>bold</b> :)
rock 'n' roll in the '70s, y'all! o'clock O'Brien ma'am
A sign says NO PARKING!!! What?? no. 5 vs. no. 6
the letter G. The letter H.
under_score e-mail wi-fi co-op U-turn x-ray 4x4 16-bit i.e. e.g.
   spaces   and\ttabs ,commas ,and.dots
(555) 555-1234 or 12/25/2014, 3.5 in. x 5 in.
AT&T, b&w, R&B, and/or, w/ cheese
[a] {b} (c) <d> ; : ... .. -- --- -----
A
A picture of nothing.
""".splitlines()
WHO = [
    "a man",
    "a woman",
    "two dogs",
    "a group of people",
    "a red bus",
    "the cat",
    "a child in a blue shirt",
    "a giraffe",
]
DOES = ["standing next to", "riding", "sitting on", "looking at", "walking past", "holding", "in front of"]
WHAT = ["a bench", "a skateboard", "a large tree", "the street", "a plate of food", "a wooden table", "an old train"]
ENDS = ["", ".", " .", " in the rain.", " on a sunny day", ", outdoors."]


def caption(draw: random.Random, who: str | None = None, what: str | None = None) -> str:
    """One sentence; the same things are said again in other words if they are given."""
    text = f"{who or draw.choice(WHO)} {draw.choice(DOES)} {what or draw.choice(WHAT)}{draw.choice(ENDS)}"
    return text[0].upper() + text[1:] if draw.random() < 0.8 else text


def main() -> None:
    """Make the captions, ask pycocoevalcap, write both."""
    parser = argparse.ArgumentParser(description="Captions and their scores by pycocoevalcap.")
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out

    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    draw = random.Random(0)
    candidates, references = [], []
    for picture in range(48):
        who, what = draw.choice(WHO), draw.choice(WHAT)
        known = [caption(draw, who, what) for _ in range(1 + picture % 5)]
        written = caption(draw, who, what if picture % 3 else None)
        if picture < len(ODD):
            known.append(ODD[picture])
            if picture % 2:
                written = " ".join(ODD[picture].split()[:9]) + " " + written
        candidates.append("" if picture == 40 else known[0] if picture == 41 else written)
        references.append(known)

    def tokens(texts: dict[int, list[str]]) -> dict[int, list[str]]:
        return PTBTokenizer().tokenize(
            {number: [{"caption": each} for each in known] for number, known in texts.items()}
        )

    known, written = tokens(dict(enumerate(references))), tokens({n: [text] for n, text in enumerate(candidates)})
    bleu, bleu_pictures = Bleu(4).compute_score(known, written, verbose=0)
    rouge, rouge_pictures = Rouge().compute_score(known, written)
    cider, cider_pictures = Cider().compute_score(known, written)
    names = [f"BLEU-{n}" for n in range(1, 5)] + ["ROUGE-L", "CIDEr-D"]
    found = {
        "candidates": candidates,
        "references": references,
        "candidate_tokens": [written[number][0] for number in range(len(candidates))],
        "reference_tokens": [known[number] for number in range(len(candidates))],
        "value": dict(zip(names, map(float, [*bleu, rouge, cider]), strict=True)),
        "pictures": {
            name: [float(score) for score in scores]
            for name, scores in zip(names, [*bleu_pictures, rouge_pictures, cider_pictures], strict=True)
        },
    }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
