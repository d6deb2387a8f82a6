"""Questions about a picture, each with the answers of ten people, as VQA v2 has them.

Goyal et al., Making the V in VQA Matter, 2017, arXiv 1612.00837: ten people answer each question, and an answer counts
min(1, how many of the ten gave it / 3). Here all ten say the truth, unless some are made to disagree.

A question is asked only where it has one answer: what it calls `the star` is there, once, and a relation that it asks for
holds for one thing. `yes` and `no` are equally likely in every form that has them, in every world and for any number of
questions: each kind is a finite list, in which every `no` has its `yes`, or a coin decides which way round it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeVar

from multiway.data.scenes.dice import Dice
from multiway.data.scenes.graph import COLOURS, RELATIONS, SHAPES, SIZES, TEXTURES, Scene
from multiway.data.scenes.words import CLASSES, Words, describe, distinguishing, plural, with_article

__all__ = ["ANSWERS", "KINDS", "Kind", "Question", "questions"]

Kind = Literal["attribute", "count", "existence", "relation", "comparison"]
KINDS: tuple[Kind, ...] = ("attribute", "count", "existence", "relation", "comparison")

_COUNTS = ("0", "1", "2", "3", "4")
_TEXTURES = tuple(texture for texture in TEXTURES if texture != "plain")  # no one is asked to say that it is plain

# Answers that are mistaken for one another, by what is asked for.
_ALIKE: tuple[tuple[str, ...], ...] = (("yes", "no"), _COUNTS, tuple(SIZES), tuple(COLOURS), _TEXTURES, SHAPES)

# What else somebody may say and mean the same.
_SYNONYMS = {"small": "little", "large": "big", "striped": "stripy", "dotted": "spotted", "checked": "checkered"}

ANSWERS: tuple[str, ...] = (*(word for group in _ALIKE for word in group), *_SYNONYMS.values())
"""Every answer that can occur, the truth's words first in each group: a closed vocabulary for classifiers."""

_ASKED = {"size": "what size", "colour": "what colour", "texture": "what pattern", "shape": "what shape"}

# Whatever is counted or looked for is told by these words alone. Every world has all of them; a world without large
# things would always answer `0` to how many are large.
_WORDS: dict[str, tuple[str, ...]] = {"colour": tuple(COLOURS), "shape": SHAPES}

Item = TypeVar("Item")


@dataclass(frozen=True)
class Question:
    """A question and its answers.

    Attributes:
        text: the question.
        answer: the true one.
        answers: what ten people said.
        kind: of `KINDS`.
        things: the things that it is about, by place in `scene.things`; empty where it is about kinds of things.
    """

    text: str
    answer: str
    answers: tuple[str, ...]
    kind: Kind
    things: tuple[int, ...]


_Draft = tuple[str, str, tuple[int, ...]]  # text, answer, things


def questions(scene: Scene, number: int, seed: int = 0, disagreement: float = 0.0) -> tuple[Question, ...]:
    """Different questions about a scene, the kinds by turns, beginning with any.

    Args:
        scene: what is asked about.
        number: how many are wanted; fewer where no more can be asked. The first few of many are the few.
        seed: of the choice.
        disagreement: chance with which each of the ten says something else: a synonym, where there is one, as often as
            another word of the kind that was asked for. It does not change what is asked.

    Raises:
        ValueError: if the number is negative or the disagreement is no chance.
    """
    if number < 0:
        raise ValueError(f"{number} questions are asked for; expected 0 or more")
    if not 0.0 <= disagreement <= 1.0:
        raise ValueError(f"disagreement is {disagreement}; expected a chance between 0 and 1, such as 0.1")
    dice = Dice("questions", scene, seed)
    found: dict[str, Question] = {}
    kinds = dice.shuffled(KINDS)
    for kind, (text, answer, things) in _by_turns(_of_kind(kind, scene, dice) for kind in kinds):
        if len(found) >= number:
            break
        if text not in found:
            said = _ten(answer, disagreement, Dice(f"answers {text}", scene, seed)) if disagreement else (answer,) * 10
            found[text] = Question(text, answer, said, kind, things)
    return tuple(found.values())


def _of_kind(kind: Kind, scene: Scene, dice: Dice) -> Iterator[tuple[Kind, _Draft]]:
    yield from ((kind, draft) for draft in _MAKERS[kind](scene, dice))  # nothing is made before its turn comes


def _by_turns(lists: Iterable[Iterable[Item]]) -> Iterator[Item]:
    """The first of each, the second of each, ...; those that end are passed over."""
    left = [iter(each) for each in lists]
    while left:
        for each in tuple(left):
            try:
                yield next(each)
            except StopIteration:
                left.remove(each)


def _ten(answer: str, disagreement: float, dice: Dice) -> tuple[str, ...]:
    """What ten people say."""

    def one() -> str:
        if dice.draw() >= disagreement:
            return answer
        if answer in _SYNONYMS and dice.draw() < 0.5:
            return _SYNONYMS[answer]
        return dice.pick([word for group in _ALIKE if answer in group for word in group if word != answer])

    return tuple(one() for _ in range(10))


def _names(scene: Scene, without: str = "") -> dict[int, str]:
    """Things that can be told without some class of words, and how: `star`, or `red shape` without its shape."""
    kinds = tuple(kind for kind in CLASSES if kind != without)
    find = _without_shape if without == "shape" else lambda scene, place: distinguishing(scene.things, place, kinds)
    told = ((place, find(scene, place)) for place in range(len(scene.things)))
    return {place: describe(scene.things[place], words) for place, words in told if words is not None}


def _without_shape(scene: Scene, place: int) -> tuple[str, ...] | None:
    """The fewest adjectives that fit one thing alone."""
    thing = scene.things[place]
    kinds = [kind for kind in ("colour", "size", "texture") if getattr(thing, kind) != "plain"]
    for count in range(1, len(kinds) + 1):
        for chosen in combinations(kinds, count):
            words = Words(**{kind: getattr(thing, kind) for kind in chosen})
            if sum(words.fit(other.words) for other in scene.things) == 1:
                return chosen
    return None


def _attributes(scene: Scene, dice: Dice) -> Iterator[_Draft]:
    """What size, colour, pattern and shape a thing is, called by the rest of its words."""

    def of_class(kind: str) -> Iterator[_Draft]:
        for place, name in dice.shuffled(tuple(_names(scene, kind).items())):
            word = getattr(scene.things[place], kind)
            if word != "plain":
                yield f"{_ASKED[kind]} is the {name}?", word, (place,)

    return _by_turns(of_class(kind) for kind in dice.shuffled(CLASSES))


def _absent(scene: Scene, words: Words, dice: Dice) -> Words:
    """What is said, but for one word that makes it true of nothing in the scene."""
    kind = dice.pick([kind for kind in _WORDS if getattr(words, kind) is not None])
    while True:  # at least four of the eight colours, and of the eight shapes, are not there
        changed = words._replace(**{kind: dice.pick(_WORDS[kind])})
        if not _number(scene, changed):
            return changed


def _number(scene: Scene, words: Words) -> int:
    """How many things there are of a colour, a shape, or both."""
    return sum(words.colour in (None, each.colour) and words.shape in (None, each.shape) for each in scene.things)


def _said(words: Words) -> str:
    return " ".join(filter(None, (words.colour, words.shape or "shape")))


def _counts(scene: Scene, dice: Dice) -> Iterator[_Draft]:
    """The numbers that occur by turns: most kinds of things are there once, and `1` would be right too often."""
    said = {Words(): None}  # sets that keep their order
    for thing in scene.things:
        said |= dict.fromkeys([Words(colour=thing.colour), Words(shape=thing.shape)])
        said |= {Words(colour=thing.colour, shape=thing.shape): None}
    said |= {_absent(scene, words, dice): None for words in tuple(said) if words != Words()}
    numbers: dict[int, list[str]] = {}
    for words in dice.shuffled(tuple(said)):
        *adjectives, noun = _said(words).split()
        numbers.setdefault(_number(scene, words), []).append(" ".join([*adjectives, plural(noun)]))
    turns = dice.shuffled(sorted(numbers.items()))
    return _by_turns(
        [(f"how many {name} are there?", _COUNTS[number], ()) for name in names] for number, names in turns
    )


def _existence(scene: Scene, dice: Dice) -> Iterator[_Draft]:
    """Whether what is there is there, and whether what differs from it in one word is: as many of either."""
    there = {Words(colour=thing.colour, shape=thing.shape): place for place, thing in enumerate(scene.things)}
    yes: list[_Draft] = []
    no: list[_Draft] = []
    for words, place in dice.shuffled(tuple(there.items())):
        yes.append((_is_there(words), "yes", (place,) if _number(scene, words) == 1 else ()))
        taken = {text for text, _, _ in no}
        while (text := _is_there(_absent(scene, words, dice))) in taken:
            pass  # two things may lack the same; three cannot use up what a fourth lacks
        no.append((text, "no", ()))
    return _by_turns(dice.shuffled((yes, no)))


def _is_there(words: Words) -> str:
    return f"is there {with_article(_said(words))}?"


def _relations(scene: Scene, dice: Dice) -> Iterator[_Draft]:
    """Whether one thing lies so to another, and what the thing is that does."""
    names = _names(scene)
    known = dice.shuffled([each for each in scene.relations if each.object in names])

    def whether() -> Iterator[_Draft]:
        for each in known:
            if each.subject in names:
                # The opposite, not merely another: what is above may be a little to the left as well.
                said, answer = (each.name, "yes") if dice.draw() < 0.5 else (RELATIONS[each.name], "no")
                text = f"is the {names[each.subject]} {said} the {names[each.object]}?"
                yield text, answer, (each.subject, each.object)

    def what() -> Iterator[_Draft]:
        for each in known:
            if _on_that_side(scene, each.name, each.object) == [each.subject]:
                kind = dice.pick(("shape", "colour"))
                text = f"{_ASKED[kind]} is the thing {each.name} the {names[each.object]}?"
                yield text, getattr(scene.things[each.subject], kind), (each.subject, each.object)

    return _by_turns(form() for form in dice.shuffled((whether, what)))


def _on_that_side(scene: Scene, name: str, anchor: int) -> list[int]:
    """Things that lie on that side of another at all, be it ever so little: only a lone one may be asked for."""
    axis, sign = {"left of": ("x", -1), "right of": ("x", 1), "above": ("y", -1), "below": ("y", 1)}[name]
    limit = getattr(scene.things[anchor], axis)
    return [place for place, thing in enumerate(scene.things) if sign * (getattr(thing, axis) - limit) > 0]


def _comparisons(scene: Scene, dice: Dice) -> Iterator[_Draft]:
    """Two sizes, or two numbers of things; a coin decides which of the two is said to be the greater."""
    coin = lambda: dice.draw() < 0.5  # noqa: E731
    rank = tuple(SIZES).index

    def larger() -> Iterator[_Draft]:
        for one, other in dice.shuffled(tuple(combinations(_names(scene, "size").items(), 2))):
            great, little = sorted((one, other), key=lambda each: -rank(scene.things[each[0]].size))
            if scene.things[great[0]].size != scene.things[little[0]].size:
                (a, first), (b, second), answer = (great, little, "yes") if coin() else (little, great, "no")
                yield f"is the {first} larger than the {second}?", answer, (a, b)

    def more() -> Iterator[_Draft]:
        for kind, word in dice.shuffled([(kind, getattr(t, kind)) for kind in _WORDS for t in scene.things]):
            own = [getattr(thing, kind) for thing in scene.things]
            others = [each for each in _WORDS[kind] if own.count(each) != own.count(word)]
            present = [each for each in others if each in own]
            other = dice.pick(present if present and coin() else others)
            many, few = sorted((word, other), key=own.count, reverse=True)
            first, second, answer = (many, few, "yes") if coin() else (few, many, "no")
            said = [f"{each} shapes" if kind == "colour" else plural(each) for each in (first, second)]
            yield f"are there more {said[0]} than {said[1]}?", answer, ()

    return _by_turns(form() for form in dice.shuffled((larger, more)))


_MAKERS: dict[Kind, Callable[[Scene, Dice], Iterable[_Draft]]] = {
    "attribute": _attributes,
    "count": _counts,
    "existence": _existence,
    "relation": _relations,
    "comparison": _comparisons,
}
