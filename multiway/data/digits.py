"""Handwritten digits that come with scikit-learn: 1,797 grey pictures of 8 x 8 pixels, ten classes.

Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998; scikit-learn bundles its test part.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from multiway.data.draws import permutation
from multiway.data.source import DataError, Row, stable_id

__all__ = ["Digits"]

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_CAPTIONS = ("the digit {}", "a handwritten {}", "the number {}", "{}")
_TEST_SHARE = 5  # every fifth picture of each class is held out


@lru_cache(maxsize=1)
def _load() -> tuple[np.ndarray, np.ndarray]:
    """(N, 8, 8) uint8 ink from 0 to 255, and (N,) labels."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise DataError("the data set `digits` comes with scikit-learn: pip install 'multiway[digits]'") from error
    bunch = load_digits()
    return np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target.astype(int)


class Digits:
    """One split of the digits; satisfies `Source`.

    Classes are the words `zero` to `nine`. Every class is held out in the same proportion.
    """

    name = "digits"
    classes: tuple[str, ...] = _WORDS
    templates: tuple[str, ...] = _CAPTIONS

    def __init__(self, split: str, rows: list[int]) -> None:
        self.split = split
        self._rows = rows
        self._ink, self._labels = _load()
        self.fingerprint = f"{stable_id(self._ink[rows].tobytes() + self._labels[rows].tobytes()):016x}"

    @classmethod
    def open(cls, split: str = "train") -> Digits:
        """`train` (1,433), `test` (364), or `all`.

        Raises:
            DataError: for another split, or without scikit-learn.
        """
        if split not in ("train", "test", "all"):
            raise DataError(f"digits has no split {split!r}; it has train, test, and `all`")
        _, labels = _load()
        held_out = np.zeros(len(labels), dtype=bool)
        for label in range(len(_WORDS)):
            own = np.flatnonzero(labels == label)
            held_out[own[permutation(0, label, len(own))[::_TEST_SHARE]]] = True
        chosen = {"train": ~held_out, "test": held_out, "all": np.ones_like(held_out)}[split]
        return cls(split, np.flatnonzero(chosen).tolist())

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        """Four ways of naming the digit, the last one bare."""
        number = self._rows[index]
        word = _WORDS[self._labels[number]]
        captions = tuple(caption.format(word) for caption in _CAPTIONS)
        return Row(
            f"{number:04}",
            stable_id(f"digits {number}"),
            captions,
            int(self._labels[number]),
            f"digits, picture {number}",
        )

    def image(self, index: int) -> Image.Image:
        """8 x 8, grey; ink is light on dark, as scikit-learn has it."""
        return Image.fromarray(self._ink[self._rows[index]])
