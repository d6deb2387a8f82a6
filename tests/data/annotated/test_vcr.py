"""VCR: tokens as words, choices with reasons, and the regions they name."""

import json
from pathlib import Path

import numpy as np
import pytest
from annotated import miniatures_b as mini
from annotated.compared import drawn_alike, same
from annotated.miniatures import all_of, few

from multiway.data.annotated.vcr import open_vcr, words_of
from multiway.data.source import BadRow


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_vcr(split: str, tmp_path: Path) -> None:
    written = few("choices", split=split)
    wanted = mini.write_vcr(tmp_path, split, written)
    found = open_vcr(tmp_path, split)
    same(found, wanted, "questions")
    drawn_alike(found, written, all_of(written))
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
    path = tmp_path / "vcr1images" / found.metadata[0][0]
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
