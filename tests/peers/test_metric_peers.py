"""Overlaps, accuracy at an overlap, recall, ranks and class accuracies equal those of pycocotools, torchmetrics and torchvision.

Skipped where these are missing. scikit-learn's logistic regression, neighbours and class accuracies are compared with in
`tests/tasks/`, caption metrics in `test_pycocoevalcap.py`.
"""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from peers.with_torchvision import ensure_torchvision
from task_fakes import Shelf, random_model
from tuned_model import TunedModel, numbered

from multiway.data.examples import Box, Pointed
from multiway.data.regions import RIGHT, overlaps
from multiway.tasks.ranking import Answers, rank_scores
from multiway.tasks.refer import Refer
from multiway.tasks.zeroshot import ZeroShot

if not ensure_torchvision():  # torchmetrics imports it, too
    pytest.skip("torchvision is not installed here; run `make test-peers`", allow_module_level=True)
pytest.importorskip("pycocotools", reason="pycocotools is not installed here; run `make test-peers`")
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed here; run `make test-peers`")
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.functional.classification import multiclass_accuracy
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_reciprocal_rank
from torchvision.ops import box_iou


def drawn(generator: np.random.Generator, number: int) -> list[Box]:
    """Boxes of eighths, so that many touch, repeat, or lie within one another."""
    found = []
    for _ in range(number):
        (left, right), (top, bottom) = (sorted(generator.choice(9, 2, replace=False) / 8) for _ in range(2))
        found.append((float(left), float(top), float(right), float(bottom)))
    return found


def sized(boxes: list[Box]) -> np.ndarray:
    """Left, top, width, height, as COCO has them."""
    corners = np.array(boxes)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)


@pytest.mark.parametrize("seed", range(5))
def test_overlaps(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ours, theirs = drawn(generator, 23), drawn(generator, 31)
    found = overlaps(ours, theirs)
    coco = mask.iou(sized(ours), sized(theirs), [0] * len(theirs))
    np.testing.assert_allclose(found, coco, atol=1e-12)
    vision = box_iou(torch.tensor(ours, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64))
    torch.testing.assert_close(found, vision, rtol=0, atol=1e-12)
    assert found.max() > 0.5 and found.min() == 0


def coco_format(rows: list[Pointed], chosen: list[Box], scores: list[float]) -> COCOeval:
    """An image for each expression, with what is meant as its objects and the choice as the one detection."""
    meant = [(number, box) for number, row in enumerate(rows) for box in row.boxes]
    images = [{"id": number} for number in range(len(rows))]
    annotations = [
        {
            "id": place + 1, "image_id": number, "category_id": 1, "iscrowd": 0,
            "bbox": sized([box])[0].tolist(), "area": float(np.prod(sized([box])[0, 2:])),
        }
        for place, (number, box) in enumerate(meant)
    ]  # fmt: skip
    found = [
        {"image_id": number, "category_id": 1, "bbox": sized([box])[0].tolist(), "score": score}
        for number, (box, score) in enumerate(zip(chosen, scores, strict=True))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.params.iouThrs, evaluation.params.maxDets = np.array([RIGHT]), [1]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_at_an_overlap_is_recall_of_one_detection(seed: int) -> None:
    """COCO's average recall at IoU 0.5 with one detection an image."""
    generator = np.random.default_rng(seed)
    rows = [
        Pointed(f"r{n}", (n,), "it", boxes=tuple(drawn(generator, 1)), candidates=tuple(drawn(generator, 40)))
        for n in range(150)
    ]

    def rule(picture: int, text: str, box: Box) -> float:
        # A model that sees the overlap through noise.
        noise = np.random.default_rng([seed, picture, *(round(8 * edge) for edge in box)]).normal()
        return float(overlaps([box], rows[picture].boxes).max()) + 0.3 * float(noise)

    result = Refer(resamples=20).run(TunedModel(rule), numbered("pointed", rows))
    evaluation = coco_format(rows, list(result.details.boxes), [1.0] * len(rows))
    metric = result.metrics["accuracy@0.5"]
    assert 0.1 < metric.value < 0.9
    assert evaluation.eval["recall"].item() == pytest.approx(metric.value, abs=1e-12)


def peer_ranking(scores: torch.Tensor, right: list[list[int]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (row, torch.zeros(len(row), dtype=torch.bool).index_fill(0, torch.tensor(some), True))
        for row, some in zip(scores, right, strict=True)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_recall_and_rank(seed: int) -> None:
    """Several right answers of each query, as pictures have captions: recall at k is the share that finds one."""
    generator = np.random.default_rng(seed)
    # Probabilities: torchmetrics takes an item whose score is negative for one that was not retrieved.
    scores = torch.rand(60, 45, generator=torch.Generator().manual_seed(seed))
    right = [generator.choice(45, generator.integers(1, 6), replace=False).tolist() for _ in range(60)]
    ranking = rank_scores(lambda rows: scores[rows], 60, 45, Answers.of(right))
    peers = peer_ranking(scores, right)
    for k in (1, 5, 10, 45):
        theirs = [float(retrieval_hit_rate(row, target, top_k=k)) for row, target in peers]
        np.testing.assert_array_equal(ranking.hits(k), theirs)
    reciprocal = [float(retrieval_reciprocal_rank(row, target)) for row, target in peers]
    np.testing.assert_allclose(1 / ranking.rank, reciprocal, rtol=1e-6)


def test_accuracies_of_classes() -> None:
    """Top 1, top 5, and their mean over classes, of which some have few pictures."""
    names = tuple(f"class {number}" for number in range(9))
    labels = [number * number % 9 for number in range(120)]
    shelf = Shelf([(number, [f"text {number}"], label) for number, label in enumerate(labels)], names)
    model: Any = random_model()
    metrics = ZeroShot(resamples=20).run(model, shelf).metrics
    images = model.encode_image([shelf.image(number) for number in range(120)])
    scores, target = model.compare(images, model.encode_text(names)), torch.tensor(labels)
    for k in (1, 5):
        theirs = multiclass_accuracy(scores, target, num_classes=9, average="micro", top_k=k)
        assert metrics[f"accuracy/top-{k}"].value == pytest.approx(float(theirs), abs=1e-7)
    # torchmetrics leaves classes without a picture or a prediction out of its mean; ours those without a picture.
    each = multiclass_accuracy(scores, target, num_classes=9, average="none")
    present = torch.bincount(target, minlength=9) > 0
    assert metrics["accuracy/balanced"].value == pytest.approx(float(each[present].mean()), abs=1e-6)
