"""Pickles are data or are refused; nothing in them is run."""

import pickle
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiway.data.annotated.plain_pickle import read_pickle
from multiway.data.source import DataError


class _Evil:
    def __reduce__(self):
        return (eval, ("__import__('pathlib').Path('harm').touch()",))


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_asks_for_a_class_is_refused_before_it_runs(protocol: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps([{"ref_id": 1}, _Evil()], protocol))
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: this pickle asks for (__builtin__|builtins)\.eval"):
        read_pickle(path, list)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_every_protocol(protocol: int, tmp_path: Path) -> None:
    value = [{"ref_id": 2**40, "sent": "ünï", "box": [1.5, None, True], "ids": (1, 2)}]
    (tmp_path / "a.p").write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(tmp_path / "a.p", list) == value
    with pytest.raises(DataError, match="holds a list; expected a dict"):
        read_pickle(tmp_path / "a.p", dict)


def test_an_index_that_would_fill_memory_does_not(tmp_path: Path) -> None:
    """LONG_BINPUT with the greatest index there is: in the C interpreter, 32 GiB."""
    (tmp_path / "a.p").write_bytes(b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b".")
    assert read_pickle(tmp_path / "a.p", list) == []


@given(st.binary(max_size=200))
def test_any_bytes_are_a_plain_pickle_or_refused(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.p"
    path.write_bytes(data)
    try:
        assert isinstance(read_pickle(path, list), list)
    except DataError as error:
        assert "any.p" in str(error)
