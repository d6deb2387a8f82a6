"""Each expression means one thing, by a reading of its words that knows nothing of how it was made."""

from hypothesis import given
from hypothesis import strategies as st

from multiway.data.scenes.expressions import expression, expressions
from multiway.data.scenes.graph import DIFFICULTIES, Scene, Thing, make_scene
from multiway.data.scenes.words import words_of

NUMBERS, LEVELS = st.integers(0, 10**6), st.sampled_from(sorted(DIFFICULTIES))
ORDER = ("small", "medium", "large")


def called(thing: Thing, text: str) -> bool:
    """Whether a thing may be called so: what is said of it is so."""
    return words_of(text).fit(thing.words)


def meant(scene: Scene, text: str) -> list[int]:
    """The things an expression may mean, from its words alone."""
    words = text.split()
    assert words[0] == "the"
    every = range(len(scene.things))
    for relation in ("left of", "right of", "above", "below"):
        if f" {relation} the " in text:
            one, other = text.split(f" {relation} the ")
            anchors = [i for i in every if called(scene.things[i], other)]
            assert len(anchors) == 1
            anchor = scene.things[anchors[0]]
            axis, sign = (
                ("x" if relation in ("left of", "right of") else "y"),
                (-1 if relation in ("left of", "above") else 1),
            )
            return [
                i
                for i in every
                if i != anchors[0]
                and called(scene.things[i], one)
                and sign * (getattr(scene.things[i], axis) - getattr(anchor, axis)) > 0
            ]
    keys = {
        "largest": lambda t: ORDER.index(t.size),
        "smallest": lambda t: -ORDER.index(t.size),
        "leftmost": lambda t: -t.x,
        "rightmost": lambda t: t.x,
        "topmost": lambda t: -t.y,
        "bottommost": lambda t: t.y,
    }
    key, rest = keys.get(words[1]), text
    if key is not None:
        rest = " ".join(words[2:])
    fit = [i for i in every if called(scene.things[i], rest)]
    if key is not None:
        best = max(key(scene.things[i]) for i in fit)
        fit = [i for i in fit if key(scene.things[i]) == best]
    return fit


@given(NUMBERS, LEVELS, st.booleans())
def test_an_expression_means_its_thing_and_no_other(number: int, level: str, places: bool) -> None:
    scene = make_scene(number, 0, DIFFICULTIES[level])
    for each in expressions(scene, places):
        assert meant(scene, each.text) == [each.thing], each.text
        assert each.box == scene.things[each.thing].box
        if not places:
            assert each.kind != "place"
            said = set(each.text.split())
            assert not said & {"left", "right", "above", "below", "leftmost", "rightmost", "topmost", "bottommost"}


def twins(*places: tuple[float, float], sizes: tuple[str, ...] = ()) -> Scene:
    sizes = sizes or ("small",) * len(places)
    radius = {"small": 0.09, "medium": 0.14, "large": 0.2}
    return Scene(
        tuple(Thing("circle", "red", s, "plain", x, y, radius[s]) for (x, y), s in zip(places, sizes, strict=True))
    )


def test_the_kinds_come_in_order() -> None:
    assert expression(twins((0.2, 0.5)), 0).text == "the circle"
    by_size = twins((0.2, 0.5), (0.7, 0.5), sizes=("small", "large"))
    # One of two sizes is told by its own word; of three the middle one as well.
    assert expression(by_size, 1).text == "the large circle"
    by_place = twins((0.2, 0.5), (0.7, 0.5))
    assert [expression(by_place, i).text for i in (0, 1)] == ["the leftmost circle", "the rightmost circle"]
    assert expression(by_place, 0, places=False) is None
    anchored = Scene((*by_place.things, Thing("star", "blue", "small", "plain", 0.45, 0.5, 0.09)))
    assert expression(anchored, 0).text == "the circle left of the star"
    assert expression(anchored, 2).kind == "attributes"


def test_most_things_can_be_told() -> None:
    for level, least in (("easy", 0.99), ("medium", 0.99), ("hard", 0.97)):
        scenes = [make_scene(n, 3, DIFFICULTIES[level]) for n in range(300)]
        told = sum(len(expressions(scene)) for scene in scenes) / sum(len(scene.things) for scene in scenes)
        assert told > least


def test_a_plain_thing_beside_its_striped_twin_is_told_by_place_alone() -> None:
    plain, striped = (Thing("ring", "blue", "small", t, x, 0.5, 0.09) for t, x in (("plain", 0.2), ("striped", 0.8)))
    scene = Scene((plain, striped))
    assert expression(scene, 1).text == "the striped ring"
    assert expression(scene, 0).text == "the ring left of the striped ring"
    assert expression(scene, 0, places=False) is None
