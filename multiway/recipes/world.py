"""The world that the small recipes learn from, and how its pictures are best seen."""

from __future__ import annotations

from multiway.batch import ViewSpec

__all__ = ["WORLD", "white_is_zero"]

WORLD = "scenes:easy,objects=1-3"
"""Scenes in which a model of 2 M parameters learns shapes within minutes: one to three plain things on white."""


def white_is_zero(size: int) -> ViewSpec:
    """Pictures normalised so that the white behind all things is 0.

    Centred on grey, white is most of what every patch says, and methods that have no contrast to tell pictures apart learn
    grammar alone for long (measured for ViLT, docs/methods/vilt.md).
    """
    return ViewSpec(size=size, crop="squash", mean=(1.0, 1.0, 1.0), std=(0.5, 0.5, 0.5))
