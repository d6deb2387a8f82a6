"""Referring expressions: accuracy at half an overlap against counting, chance, and what is chosen among."""

from typing import Any

import numpy as np
import pytest
from tuned_model import TunedModel, numbered

from multiway.data.examples import Pointed
from multiway.data.regions import overlaps, spanned
from multiway.tasks.refer import Refer

REFER = Refer(resamples=30)
HALVES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0))


def expressions() -> Any:
    rows = []
    for n in range(16):
        own = HALVES[: 2 + n % 3] + (((0.0, 0.0, 0.45, 1.0),) if n % 2 else ())
        meant = HALVES[n % 2]
        boxes = () if n == 5 else (meant,)
        rows.append(Pointed(f"r{n}", (n // 2,), f"t{n}", "", "lines" if n < 6 else "others", boxes, own))
    return numbered("pointed", rows)


def rule(picture: int, text: str, box: tuple[float, ...]) -> float:
    return float(np.random.default_rng([picture, *map(ord, text), *(round(100 * each) for each in box)]).random())


def test_accuracy_and_chance_equal_counting() -> None:
    examples = expressions()
    result = REFER.run(TunedModel(rule), examples)
    known = [row for row in examples.examples if row.boxes]
    chosen = {
        row.key: max(row.candidates, key=lambda box, row=row: rule(row.pictures[0], row.text, box)) for row in known
    }
    shares = {row.key: float(overlaps([chosen[row.key]], row.boxes)) for row in known}
    odds = {row.key: float((overlaps(row.candidates, row.boxes) >= 0.5).double().mean()) for row in known}
    for name, own in (("accuracy@0.5", known), ("accuracy@0.5[lines]", [row for row in known if row.group == "lines"])):
        assert result.metrics[name].value == pytest.approx(np.mean([shares[row.key] >= 0.5 for row in own]))
        assert result.metrics[name].chance == pytest.approx(np.mean([odds[row.key] for row in own]))
    assert result.metrics["overlap"].value == pytest.approx(np.mean(list(shares.values())))
    assert result.metrics["best_of_candidates"].value == 1.0 and result.metrics["overlap"].n == 15
    assert dict(zip(result.details.keys, result.details.boxes, strict=True)) | chosen == dict(
        zip(result.details.keys, result.details.boxes, strict=True)
    )
    assert np.isnan(result.details.overlap[5])


def test_who_draws_evenly_scores_chance() -> None:
    rows = [Pointed(str(n), (n % 200,), f"t{n}", boxes=(HALVES[0],), candidates=HALVES) for n in range(600)]
    metric = REFER.run(TunedModel(rule), numbered("pointed", rows)).metrics["accuracy@0.5"]
    assert metric.chance == pytest.approx(0.25) and metric.low < 0.25 < metric.high


def test_padding_is_never_chosen() -> None:
    rows = [
        Pointed("few", (0,), "a", boxes=(HALVES[1],), candidates=HALVES[1:2]),
        Pointed("many", (0,), "b", boxes=(HALVES[0],), candidates=HALVES),
    ]
    prefers_nothing = TunedModel(lambda picture, text, box: float(sum(box) == 0))
    assert REFER.run(prefers_nothing, numbered("pointed", rows)).details.boxes[0] == HALVES[1]


def test_without_candidates_the_rectangles_of_a_grid_are_chosen_among() -> None:
    meant = (0.2, 0.3, 0.7, 0.9)
    rows = [Pointed(str(n), (n,), "a", boxes=(meant,)) for n in range(3)]
    refer = Refer(cells=5, resamples=30)
    knows = TunedModel(lambda picture, text, box: float(overlaps([box], [meant])))
    metrics = refer.run(knows, numbered("pointed", rows)).metrics
    best = float(overlaps(spanned(5), [meant]).max())
    assert best > 0.6
    assert metrics["accuracy@0.5"].value == 1.0 and metrics["overlap"].value == pytest.approx(best, abs=1e-5)
    assert 0 < metrics["accuracy@0.5"].chance < 0.2  # type: ignore[operator]
    assert refer.wanted(()).regions(rows[0]) == spanned(5)  # type: ignore[misc]
    tiny = [Pointed("1", (0,), "a", boxes=((0.0, 0.0, 0.02, 0.02),))]
    lost = refer.run(knows, numbered("pointed", tiny)).metrics
    assert lost["best_of_candidates"].value == 0.0 == lost["accuracy@0.5"].value


def test_withheld_boxes_and_the_submission() -> None:
    rows = [Pointed(f"k{n}", (n,), "a", candidates=HALVES) for n in range(2)]
    result = REFER.run(TunedModel(lambda picture, text, box: box[2] - box[0]), numbered("pointed", rows))
    assert result.metrics == {}
    assert REFER.submission(result) == [{"key": f"k{n}", "box": [0.0, 0.0, 1.0, 0.5]} for n in range(2)]
