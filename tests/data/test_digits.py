import sys

import numpy as np
import pytest

from multiway.data import digits
from multiway.data.digits import Digits
from multiway.data.source import DataError, Source


def test_splits_part_the_whole_and_every_class_alike() -> None:
    train, test, whole = (Digits.open(split) for split in ("train", "test", "all"))
    assert isinstance(train, Source) and len(whole) == 1797
    keys = [{source.row(i).key for i in range(len(source))} for source in (train, test)]
    assert not keys[0] & keys[1] and len(keys[0] | keys[1]) == 1797
    counts = [np.bincount([s.row(i).label for i in range(len(s))], minlength=10) for s in (test, whole)]
    assert np.allclose(counts[0] / counts[1], 0.2, atol=0.005)
    assert train.fingerprint != test.fingerprint == Digits.open("test").fingerprint


def test_pictures_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    source, bunch = Digits.open("all"), load_digits()
    for index in (0, 500, 1796):
        assert np.allclose(np.asarray(source.image(index)) / 255 * 16, bunch.images[index], atol=0.04)
        assert source.row(index).label == bunch.target[index]
        assert source.row(index).captions[-1] == source.classes[bunch.target[index]]


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="train, test"):
        Digits.open("val")
    digits._load.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"multiway\[digits\]"):
        Digits.open("train")
    monkeypatch.undo()
    digits._load.cache_clear()
