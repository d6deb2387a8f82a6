"""Winoground, ARO and SugarCrepe."""

from pathlib import Path

import numpy as np
import pytest
from annotated import miniatures_pairs as mini
from annotated.compared import same
from annotated.miniatures import SIDE, all_of, few

from multiway.data.annotated.pairs import open_aro, open_sugarcrepe, open_winoground
from multiway.data.source import BadRow


def test_winoground(tmp_path: Path) -> None:
    wanted = mini.write_winoground(tmp_path)
    found = open_winoground(tmp_path)
    same(found, wanted, "examples")
    assert found.labels == ("false", "true")
    scores = {}
    for each in all_of(found):
        scores.setdefault(each.twin, []).append(each.label)
    assert set(map(tuple, scores.values())) == {(1, 0, 0, 1)}, "the order that a Winoground score is computed from"


def test_a_row_of_winoground_is_used_whole_or_not_at_all(tmp_path: Path) -> None:
    mini.write_winoground(tmp_path, few("counterfactuals", 20))
    (tmp_path / "images" / "ex_1_img_1.png").unlink()
    found = open_winoground(tmp_path)
    assert not [each for each in all_of(found) if each.twin == "1"] and len(found.rejected) == 4
    assert len(found.pictures) == len({each.pictures[0] for each in all_of(found)}) + 1


@pytest.mark.parametrize("split", ["relation", "attribution"])
def test_aro_shows_the_part_that_is_meant(split: str, tmp_path: Path) -> None:
    written = few("counterfactuals", 6)
    wanted = mini.write_aro(tmp_path, split, written)
    found = open_aro(tmp_path, split)
    same(found, wanted, "pairs")
    for each, pair in zip(all_of(found), mini._pairs(written), strict=True):
        drawn = written.pictures.squares(np.array(pair[0].pictures), SIDE)[0].astype(int)
        shown = np.asarray(found.pictures.image(each.pictures[0])).astype(int)
        assert shown.shape == (SIDE, SIDE // 2, 3) and np.abs(shown - drawn[:, SIDE // 2 :]).mean() < 6


def test_a_part_outside_its_picture_is_a_bad_row(tmp_path: Path) -> None:
    mini.write_aro(tmp_path)
    path = tmp_path / "visual_genome_relation.json"
    path.write_text(path.read_text().replace(f'"bbox_x": {SIDE // 2}', '"bbox_x": 5000'))
    found = open_aro(tmp_path)
    with pytest.raises(BadRow, match="outside its 32 x 32 pixels"):
        found.pictures.image(0)


def test_sugarcrepe(tmp_path: Path) -> None:
    wanted = mini.write_sugarcrepe(tmp_path, few("counterfactuals", 12))
    for split, examples in wanted.items():
        same(open_sugarcrepe(tmp_path, split), examples, "pairs")
    everything = open_sugarcrepe(tmp_path, "test", tmp_path / "val2017")
    assert [each.key for each in all_of(everything)] == [each.key for several in wanted.values() for each in several]
    assert {each.group for each in all_of(everything)} == set(wanted)
    right = [each.label for each in all_of(everything)]
    assert 0.3 < sum(right) / len(right) < 0.7, "a model that always takes the first has no chance"
