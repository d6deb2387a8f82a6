"""A number for each row of a source: how long its captions are, or what a file says of it.

Files are JSON Lines, `{"key": "000012", "score": 0.31}`, as `multiway score` writes them; a `.npz` with the arrays `keys` and
`scores`; or what CapFilt's filter wrote, `OUT/records`, of which the mean match of the captions that came with a picture counts.
Nothing is unpickled.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multiway.data.source import DataError, Source, stable_id

__all__ = ["LENGTH", "read_scores", "scores_digest", "scores_of", "write_scores"]

LENGTH = "length"
"""The name of the score that needs no file: words of a caption, the mean of the row's."""


def scores_of(source: Source, what: str) -> np.ndarray:
    """(rows,) float64: the score of every row.

    Args:
        source: whose rows are told by their keys.
        what: `length`, or the path of a file or a folder of them.

    Raises:
        DataError: if there is no such file, it cannot be read, or it has no score for some row.
    """
    if what == LENGTH:
        return np.array([_words(source.row(index).captions) for index in range(len(source))])
    found = read_scores(Path(what))
    keys = [source.row(index).key for index in range(len(source))]
    missing = [key for key in keys if key not in found]
    if missing:
        raise DataError(
            f"{what} has no score for {len(missing):,} of the {len(keys):,} rows of {source.name}@{source.split}, the first: "
            f"{missing[0]!r}; its keys are like {next(iter(found))!r}. Score these data: multiway score RUN --data ... --out {what}"
        )
    return np.array([found[key] for key in keys])


def scores_digest(scores: np.ndarray) -> str:
    """Names the scores: with others, a run has other batches."""
    return f"{stable_id(np.ascontiguousarray(scores, dtype='<f8').tobytes()):016x}"


def read_scores(path: Path) -> dict[str, float]:
    """Key -> score of a file, or of all `*.jsonl` in a folder.

    Raises:
        DataError: naming the file and the line.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not all(each.is_file() for each in files):
        raise DataError(
            f"{path} does not exist or holds no *.jsonl; name a file of scores, or `{LENGTH}`. `multiway score` writes one"
        )
    found: dict[str, float] = {}
    for file in files:
        for where, key, score in _arrays(file) if file.suffix == ".npz" else _lines(file):
            if key in found:
                raise DataError(f"{where}: key {key!r} has a score already; leave one of them")
            if not np.isfinite(score):
                raise DataError(f"{where}: the score of {key!r} is {score}; expected a finite number")
            found[key] = score
    if not found:
        raise DataError(f"{path} holds no score")
    return found


def write_scores(path: Path, scored: Iterable[Mapping[str, Any]]) -> int:
    """Write `{"key": ..., "score": ...}` lines aside, then rename: a file that is there is whole.

    Returns:
        How many.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, count = path.with_name(f".{path.name}.part"), 0
    with aside.open("w", encoding="utf-8") as file:
        for each in scored:
            file.write(json.dumps(each, ensure_ascii=False) + "\n")
            count += 1
    aside.replace(path)
    return count


def _words(captions: Iterable[str]) -> float:
    counts = [len(caption.split()) for caption in captions]
    return sum(counts) / len(counts)


def _lines(file: Path) -> Iterator[tuple[str, str, float]]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{file}, line {number}"
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                key, score = str(value["key"]), _score(value)
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(
                    f'{where} is no score: {line.strip():.80}; expected {{"key": "...", "score": 0.5}}'
                ) from error
            if score is not None:
                yield where, key, score


def _score(value: Mapping[str, Any]) -> float | None:
    """Of a line; None for a picture that CapFilt could not read, which training does not have either."""
    if "score" in value or "captions" not in value:
        if isinstance(value["score"], bool) or not isinstance(value["score"], int | float):
            raise TypeError("a score is a number")
        return float(value["score"])
    matches = [float(each["match"]) for each in value["captions"] if each["origin"] == "web"]
    return sum(matches) / len(matches) if matches else None


def _arrays(file: Path) -> Iterator[tuple[str, str, float]]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            keys, scores = arrays["keys"], arrays["scores"].astype(np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: {error}; expected the arrays `keys` (text) and `scores` (numbers)") from error
    if keys.ndim != 1 or keys.shape != scores.shape:
        raise DataError(f"{file}: keys are {keys.shape} and scores {scores.shape}; expected two rows of equal length")
    for number, (key, score) in enumerate(zip(keys, scores, strict=True)):
        yield f"{file}, entry {number}", str(key), float(score)
