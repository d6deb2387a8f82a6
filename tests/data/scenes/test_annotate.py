"""Everything of a row at once, and the sheet that shows it."""

import numpy as np

from multiway.cli.data import run
from multiway.data.scenes.annotate import annotate
from multiway.data.scenes.draw import draw_scenes
from multiway.data.scenes.sheet import annotated_sheet
from multiway.data.scenes.source import Scenes


def test_every_row_of_every_world_has_all_annotations() -> None:
    for world in ("easy", "medium", "hard"):
        source = Scenes.open("val", f"{world},gallery=40")
        for row in range(40):
            known = annotate(source, row)
            assert known == annotate(source, row)
            assert known.scene == source.scene(row) and known.captions == source.row(row).captions
            assert len(known.questions) == 4 and len(known.triples) == 3 and len(known.video.frames) == 8
            assert known.choices and known.counterfactuals and len(known.statements) >= 2
            beside = source.scene((row + 1) % 40)
            assert (known.statements[0].left, known.statements[0].right) == (known.scene, beside)


def test_the_sheet_shows_the_pictures_themselves(tmp_path, capsys) -> None:
    source = Scenes.open("val", "hard,gallery=8")
    sheet = np.asarray(annotated_sheet(source, [3]))
    assert sheet.shape[2] == 3 and sheet.shape[1] > 1500
    known = annotate(source, 3)
    first = draw_scenes([known.video.frames[0]], 76)[0]
    # The first frame of the strip, somewhere in the left half, to the pixel.
    places = [
        (y, x)
        for y in range(sheet.shape[0] - 75)
        for x in (10,)
        if np.array_equal(sheet[y : y + 76, x : x + 76], first)
    ]
    assert len(places) == 1
    assert run(["show", "scenes:easy,gallery=9@val", "--out", str(tmp_path / "a.png"), "--rows", "2"]) == 0
    assert (tmp_path / "a.png").stat().st_size > 10_000 and "2 of 9 rows" in capsys.readouterr().out
