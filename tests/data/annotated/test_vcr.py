"""VCR: tokens as words, choices with reasons, and the regions they name, told and drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
from annotated import miniatures_regions as mini
from annotated.compared import drawn_alike, same
from annotated.miniatures import all_of, few
from PIL import Image

from multiway.data.annotated.open import open_examples
from multiway.data.annotated.vcr import named_in, open_vcr, open_vcr_plain, words_of
from multiway.data.annotated.vcr_regions import colour_of, draw_regions
from multiway.data.examples import Box, Chosen
from multiway.data.source import BadRow, DataError


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_vcr(split: str, tmp_path: Path) -> None:
    written = few("choices", split=split)
    wanted = mini.write_vcr(tmp_path, split, written)
    found = open_vcr(tmp_path, split)
    same(found, wanted, "questions")
    plain = open_examples(f"vcr-plain:{tmp_path}@{split}")
    same(plain, wanted, "questions")
    drawn_alike(plain, written, all_of(written))
    assert plain.fingerprint != found.fingerprint, "other pictures are other data"
    assert (found.example(0).label == -1) == (found.example(0).reason == -1) == (split == "test")


def test_vcr_regions_are_where_the_scene_has_them(tmp_path: Path) -> None:
    written = few("choices")
    mini.write_vcr(tmp_path, "val", written)
    found = open_vcr(tmp_path, "val", tmp_path / "vcr1images")
    for number, each in enumerate(all_of(written)):
        things = written.pictures.scene(each.pictures[0]).things
        regions = found.regions(number)
        assert [one.name for one in regions] == [f"{thing.shape} {place}" for place, thing in enumerate(things, 1)]
        assert np.allclose([one.box for one in regions], [thing.box for thing in things])
        left, top, right, bottom = regions[0].box
        assert np.allclose(regions[0].polygons[0], [(left, top), (right, top), (right, bottom)])


@pytest.mark.parametrize("change", ["gone", "no json", "fewer boxes", "outside", "no polygon"])
def test_vcr_regions_that_do_not_fit_have_an_address(change: str, tmp_path: Path) -> None:
    mini.write_vcr(tmp_path)
    found = open_vcr(tmp_path)
    path = found.metadata[0][0]
    values = json.loads(path.read_text())
    if change == "gone":
        path.unlink()
    elif change == "no json":
        path.write_text("{")
    else:
        values["boxes"] = values["boxes"][1:] if change == "fewer boxes" else values["boxes"]
        values["boxes"][:1] = [[900, 0, 950, 5, 0.5]] if change == "outside" else values["boxes"][:1]
        values["segms"][0] = 3 if change == "no polygon" else values["segms"][0]
        path.write_text(json.dumps(values))
    with pytest.raises(BadRow, match=r"val\.jsonl, line 1: .*still@"):
        found.regions(0)
    with pytest.raises(BadRow, match="still@"):
        found.pictures.image(found.example(0).pictures[0])


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["Does", [2], "feel", "comfortable", "?"], "Does person 3 feel comfortable?"),
        ([[0, 1], "are", "n't", "here", "."], "person 1 and dog 2 aren't here."),
        ([[0, 1, 2], "'s", "car", "(", "red", ")"], "person 1, dog 2 and person 3's car (red)"),
    ],
)
def test_vcr_tokens_as_words(tokens: list, text: str) -> None:
    assert words_of(tokens, ["person", "dog", "person"]) == text


@pytest.mark.parametrize("tokens", [[[3]], [[-1]], [[True]], [[]], [7], [None], [], "a word", [["0"]], [["dog"]]])
def test_vcr_tokens_that_mean_nothing(tokens: object) -> None:
    with pytest.raises(BadRow, match="row"):
        words_of(tokens, ["person", "dog", "person"])


def test_what_the_words_name_is_drawn_and_nothing_else(tmp_path: Path) -> None:
    """Two questions about one still that name different objects see different boxes, each in the colour of its number."""
    written = few("choices", world="medium,objects=3-3")
    mini.write_vcr(tmp_path, "val", written)
    path = tmp_path / "val.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    two = [row for row in rows if row["img_fn"] == rows[0]["img_fn"]][:2]
    for row, named in zip(two, (0, 2), strict=True):
        row["question"] = [[named], "is", "where", "?"]
        row["answer_choices"] = row["rationale_choices"] = [[word] for word in "abcd"]
    two[1]["rationale_choices"][3] = [[1], "is", "near"]
    path.write_text("".join(json.dumps(row) + "\n" for row in two))
    found, plain = open_vcr(tmp_path), open_vcr_plain(tmp_path)
    assert len(found.pictures) == 2 and len(plain.pictures) == 1
    bare = np.asarray(plain.pictures.image(0)).astype(int)
    for number, shown in enumerate(({0}, {1, 2})):
        drawn = np.asarray(found.pictures.image(found.example(number).pictures[0])).astype(int)
        regions, outside = found.regions(number), np.ones(bare.shape[:2], dtype=bool)
        named = {int(word.rstrip(",.?")) for word in _words(found.example(number)) if word.rstrip(",.?").isdecimal()}
        assert named == {each + 1 for each in shown}, "the numbers in the words are those of the boxes"
        for each in shown:
            assert regions[each].name.endswith(f" {each + 1}")
            left, top, right, bottom = (round(32 * edge, 6) for edge in regions[each].box)
            rows_, columns = slice(int(top), int(np.ceil(bottom))), slice(int(left), int(np.ceil(right)))
            outside[rows_, columns] = False
        smallest = min(shown, key=lambda each: _area(regions[each].box))
        left, top = (int(32 * edge) for edge in regions[smallest].box[:2])
        assert tuple(drawn[top, left]) == colour_of(smallest), "drawn last, and seen whole"
        assert outside.any() and np.array_equal(drawn[outside], bare[outside])
        assert (drawn[~outside] != bare[~outside]).any(-1).mean() > 0.8


def test_a_box_is_tinted_and_outlined() -> None:
    picture = Image.new("L", (300, 150), 200)
    drawn = np.asarray(draw_regions(picture, {0: (0.1, 0.2, 0.5, 0.8)}))
    red = np.array(colour_of(0))
    assert tuple(red) == (255, 0, 0)
    assert (drawn[30, 30:150] == red).all() and (drawn[30:120, 149] == red).all()
    assert np.abs(drawn[31:119, 31:149] - (0.875 * 200 + 0.125 * red)).max() <= 1
    assert (drawn[:30] == 200).all() and (drawn[:, 150:] == 200).all() and (drawn[120:] == 200).all()
    # Whole pictures and slivers are boxes, too.
    assert (np.asarray(draw_regions(picture, {3: (0, 0, 1, 1)}))[-1, -1] == colour_of(3)).all()
    assert (np.asarray(draw_regions(picture, {3: (0.999, 0.999, 1, 1)}))[-1, -1] == colour_of(3)).all()


def test_colours_of_forty_objects_can_be_told_apart() -> None:
    colours = np.array([colour_of(number) for number in range(40)])
    apart = np.abs(colours[:, None] - colours).sum(-1) + 1000 * np.eye(40)
    assert apart.min() >= 20 and apart[:8, :8].min() >= 100


def test_without_the_files_of_boxes_there_is_a_plain_way(tmp_path: Path) -> None:
    mini.write_vcr(tmp_path)
    for path in tmp_path.rglob("*.json"):
        path.unlink()
    with pytest.raises(DataError, match=r"says where the people are; .*vcr-plain:FOLDER"):
        open_vcr(tmp_path)
    assert len(open_vcr_plain(tmp_path)) > 3


def test_named_in() -> None:
    assert named_in([["Why", [2, 0], "?"], [[1]], ["no"]]) == {0, 1, 2} and named_in([]) == set()


def _words(example: Chosen) -> list[str]:
    return " ".join((example.text, *example.choices, *example.reasons)).split()


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
