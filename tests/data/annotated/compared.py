"""Comparisons that the tests of several readers share."""

import dataclasses

import numpy as np
from annotated.miniatures import SIDE, all_of, said

from multiway.data.examples import Examples, HasNotes


def same(found: Examples, wanted: list, noun: str) -> None:
    assert isinstance(found, Examples) and isinstance(found, HasNotes)
    assert not found.rejected
    assert len(found) == len(wanted) > 3
    for one, other in zip(said(all_of(found)), wanted, strict=True):
        rounded = dataclasses.asdict(one), dataclasses.asdict(other)
        for boxes in ("boxes", "candidates"):
            pair = [each.pop(boxes, ()) for each in rounded]
            assert np.allclose(np.array(pair[0]), np.array(pair[1]), atol=1e-9)
        assert rounded[0] == rounded[1]
    [note] = found.notes
    assert f" of {note.split(' of ')[1].split()[0]} {noun}" in note


def drawn_alike(found: Examples, written: Examples, sources: list) -> None:
    """Each example's pictures are those of the scene it was written from, but for JPEG's loss."""
    for one, other in zip(all_of(found), sources, strict=True):
        for here, there in zip(one.pictures, other.pictures, strict=True):
            drawn = written.pictures.squares(np.array([there]), SIDE)[0].astype(int)
            assert np.abs(np.asarray(found.pictures.image(here)).astype(int) - drawn).mean() < 6
