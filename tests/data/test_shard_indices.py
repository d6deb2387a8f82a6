"""Indexing many shards: what is said where a worker is killed."""

import os
from pathlib import Path

import pytest

from multiway.data import shard_indices
from multiway.data.shard_indices import indices_of
from multiway.data.source import DataError


def _killed(tar: Path) -> None:
    os._exit(9)


def test_a_killed_worker_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_indices, "_index", _killed)
    with pytest.raises(DataError, match="one of the 2 processes that index shards was ended from outside"):
        list(indices_of([Path("a.tar"), Path("b.tar")], workers=2))
