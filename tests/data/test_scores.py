import json
from pathlib import Path

import numpy as np
import pytest
from toy import ToySource

from multiway.data.scores import LENGTH, read_scores, scores_digest, scores_of, write_scores
from multiway.data.source import DataError
from multiway.workflows.capfilt_scores import Caption, Scored
from multiway.workflows.capfilt_scores import write_scores as write_records


def test_length_is_the_mean_number_of_words() -> None:
    source = ToySource(3)
    assert scores_of(source, LENGTH).tolist() == [(4 + 4) / 2] * 3  # `red on the left`, `the left is red`


def test_files_are_read_by_key_in_any_order(tmp_path: Path) -> None:
    source, wanted = ToySource(4), [0.5, -1.0, 2.0, 0.25]
    rows = [{"key": str(key), "score": wanted[key]} for key in (2, 0, 3, 1)]
    lines, arrays = tmp_path / "a.jsonl", tmp_path / "a.npz"
    assert write_scores(lines, [*rows, {"key": "of another split", "score": 9}]) == 5
    np.savez(arrays, keys=np.array([each["key"] for each in rows]), scores=np.array([each["score"] for each in rows]))
    for path in (lines, arrays):
        assert scores_of(source, str(path)).tolist() == wanted
    assert scores_digest(np.array(wanted)) != scores_digest(np.array(wanted[::-1]))
    assert not list(tmp_path.glob(".*"))  # nothing half-written is left


def test_what_capfilt_wrote_is_taken_as_it_is(tmp_path: Path) -> None:
    """The mean match of the captions that came with a picture; of what was written for it nothing."""
    web = tuple(Caption("a", "web", match) for match in (0.2, 0.6))
    scored = [Scored(0, "0", captions=(*web, Caption("b", "synthetic", 0.99))), Scored(1, "1", unreadable="cut off")]
    write_records(tmp_path / "000000.jsonl", scored)
    write_records(tmp_path / "000001.jsonl", [Scored(2, "2", captions=web[:1])])
    assert read_scores(tmp_path) == {"0": pytest.approx(0.4), "2": pytest.approx(0.2)}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"key": "0"}', "line 1 is no score"),
        ('{"key": "0", "score": true}', "line 1 is no score"),
        ('{"key": "0", "score": "high"}', "line 1 is no score"),
        ("[1, 2]", "line 1 is no score"),
        ('{"key": "0", "score": 1}\n\n{"key": "0", "score": 1}', "line 3: key '0' has a score already"),
        ('{"key": "0", "score": NaN}', "the score of '0' is nan"),
        ("", "holds no score"),
        (
            '{"key": "x", "score": 1}',
            r"no score for 2 of the 2 rows of toy@train, the first: '0'; its keys are like 'x'",
        ),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=complaint):
        scores_of(ToySource(2), str(path))


def test_arrays_of_objects_and_what_is_not_there_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", keys=np.array([{"a": 1}], dtype=object), scores=np.zeros(1))
    np.savez(tmp_path / "b.npz", keys=np.array(["a"]), scores=np.zeros(2))
    (tmp_path / "c.npz").write_text(json.dumps({}))
    for name, complaint in (
        ("a", "expected the arrays"),
        ("b", "two rows of equal length"),
        ("c", "expected the arrays"),
    ):
        with pytest.raises(DataError, match=complaint):
            read_scores(tmp_path / f"{name}.npz")
    for gone in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match="does not exist or holds no"):
            read_scores(gone)
