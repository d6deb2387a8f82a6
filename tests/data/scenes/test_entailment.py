"""Labels by a reading of the sentence alone, and that the sentence alone does not give the label away."""

import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiway.data.scenes.entailment import LABELS, UNDECIDABLE, triples
from multiway.data.scenes.graph import DIFFICULTIES, Scene, Thing, make_scene
from multiway.data.scenes.words import NUMBERS, Words, words_of

LEVELS = st.sampled_from(sorted(DIFFICULTIES))


def the(scene: Scene, name: str) -> int:
    fit = [place for place, thing in enumerate(scene.things) if words_of(name).fit(thing.words)]
    assert len(fit) == 1, name
    return fit[0]


def verdict(scene: Scene, text: str) -> str:
    """What the picture says to a sentence."""
    for words in UNDECIDABLE:
        if text.endswith(words):
            assert the(scene, text.removesuffix(words)) >= 0
            return "neutral"
    if found := re.fullmatch(rf"there (?:is|are) ({'|'.join(NUMBERS)}) (.*)", text):
        number = sum(words_of(found[2]).fit(thing.words) for thing in scene.things)
        true = NUMBERS.index(found[1]) == number
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
        assert "plain" not in each.hypothesis
    assert all(verdict(scene, each.reason.split(",")[0]) == "entailment" for each in (found[0], found[2]))
    assert found == triples(scene, seed)


def test_four_things_that_differ_in_texture_alone_and_a_lone_thing_have_sentences() -> None:
    def thing(texture: str, x: float) -> Thing:
        return Thing("circle", "red", "small", texture, x, 0.5, 0.1)

    alike = tuple(
        thing(texture, x) for texture, x in zip(("plain", "striped", "dotted", "checked"), (0.1, 0.4, 0.6, 0.9))
    )
    for things in (alike, alike[:1]):
        scene = Scene(things)
        for seed in range(100):
            assert [verdict(scene, each.hypothesis) for each in triples(scene, seed)] == list(LABELS)


def test_what_cannot_be_seen_says_nothing_of_what_can() -> None:
    assert all(words_of(words) == Words() for words in UNDECIDABLE)


def form(text: str) -> str:
    if re.match(rf"there (?:is|are) ({'|'.join(NUMBERS)}) ", text):
        return "count"
    return "there" if text.startswith("there") else "relation" if re.search(" (of|above|below) ", text) else "attribute"


@pytest.mark.parametrize("level", sorted(DIFFICULTIES))
def test_the_sentence_alone_does_not_tell_true_from_false(level: str) -> None:
    """A naive Bayes over words and neighbouring words, trained on 2,000 scenes, on 1,000 others: chance is 50 %."""

    def features(text: str) -> set[str]:
        words = text.split()
        return {*words, *map(" ".join, pairwise(words))}

    said = [
        (each.hypothesis, each.label)
        for n in range(3000)
        for each in triples(make_scene(n, 2, DIFFICULTIES[level]))
        if each.label != "neutral"
    ]
    counts = {label: Counter[str]() for label in ("entailment", "contradiction")}
    for text, label in said[:4000]:
        counts[label].update(features(text))
    right = 0
    for text, label in said[4000:]:
        odds = 1.0
        for feature in features(text):
            odds *= (counts["entailment"][feature] + 1) / (counts["contradiction"][feature] + 1)
        right += label == ("entailment" if odds > 1 else "contradiction")
    assert right / len(said[4000:]) < 0.545  # four standard deviations above chance

    # Forms and words are as frequent among the true as among the false: four and a half standard deviations.
    seen = {label: Counter(form(text).upper() for text, own in said if own == label) for label in counts}
    assert set(seen["entailment"]) == {"ATTRIBUTE", "THERE", "RELATION", "COUNT"}
    for text, label in said:
        seen[label].update(set(text.split()))
    for word in seen["entailment"] | seen["contradiction"]:
        one, other = (seen[label][word] for label in counts)
        assert abs(one - other) < 4.5 * (one + other) ** 0.5, (word, one, other)
