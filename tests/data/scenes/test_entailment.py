"""Labels by a reading of the sentence alone, and that the sentence alone does not give the label away."""

import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from multiway.data.scenes.entailment import LABELS, UNDECIDABLE, triples
from multiway.data.scenes.graph import DIFFICULTIES, Scene, make_scene
from multiway.data.scenes.words import NUMBERS, words_of

LEVELS = st.sampled_from(sorted(DIFFICULTIES))


def the(scene: Scene, name: str) -> int:
    fit = [place for place, thing in enumerate(scene.things) if words_of(name).fit(thing.words)]
    assert len(fit) == 1, name
    return fit[0]


def verdict(scene: Scene, text: str) -> str:
    """What the picture says to a sentence."""
    for words in UNDECIDABLE:
        if text.endswith(words):
            if not text.startswith("one of the shapes"):
                the(scene, text.removesuffix(words))
            return "neutral"
    if found := re.fullmatch(r"there (?:is|are) (one|two|three|four) shapes?", text):
        true = NUMBERS.index(found[1]) == len(scene.things)
    elif found := re.fullmatch(r"there is an? (.*)", text):
        true = any(words_of(found[1]).fit(thing.words) for thing in scene.things)
    elif found := re.fullmatch(r"the (.*) is (left of|right of|above|below) the (.*)", text):
        asked = (the(scene, found[1]), found[2], the(scene, found[3]))
        true = asked in {(each.subject, each.name, each.object) for each in scene.relations}
    else:
        found = re.fullmatch(r"the (.*) is (.*)", text)
        assert found, text
        true = words_of(found[2]).fit(scene.things[the(scene, found[1])].words)
    return "entailment" if true else "contradiction"


@given(st.integers(0, 10**6), LEVELS, st.integers(0, 5))
def test_labels_are_what_the_picture_says(number: int, level: str, seed: int) -> None:
    scene = make_scene(number, 1, DIFFICULTIES[level])
    found = triples(scene, seed)
    assert tuple(each.label for each in found) == LABELS
    for each in found:
        assert verdict(scene, each.hypothesis) == each.label, each
        assert each.reason
    assert found == triples(scene, seed)


def test_the_sentence_alone_does_not_tell_true_from_false() -> None:
    """A naive Bayes over the sentences' words, trained on 3,000 scenes, on 1,000 others: chance is 50 %."""
    counts = {label: Counter[str]() for label in ("entailment", "contradiction")}

    def pairs(numbers: range) -> list[tuple[str, str]]:
        return [
            (each.hypothesis, each.label)
            for n in numbers
            for each in triples(make_scene(n, 2, DIFFICULTIES["medium"]))
            if each.label != "neutral"
        ]

    for text, label in pairs(range(3000)):
        counts[label].update(text.split())
    right = total = 0
    for text, label in pairs(range(3000, 4000)):
        odds = 1.0
        for word in text.split():
            odds *= (counts["entailment"][word] + 1) / (counts["contradiction"][word] + 1)
        right += ("entailment" if odds > 1 else "contradiction") == label
        total += 1
    assert total == 2000 and right / total < 0.6
