"""Zero-shot classification: weights against averaging by hand, scores against scikit-learn, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tasks.task_fakes import Lookup, Shelf, constant_model, hash_of, random_model, random_vector

from multiway.data.source import DataError
from multiway.tasks.zeroshot import ZeroShot, ZeroShotClassifier

CLASSES = ("cat", "dog", "owl", "fox", "eel", "bat", "cow")
TEMPLATES = ("a {}.", "the {} here", "{}")


def unbalanced(n=240, classes=CLASSES, templates=TEMPLATES, seed=0):
    shares = np.array([0.4, 0.3, 0.1, 0.1, 0.05, 0.03, 0.02])
    labels = np.random.default_rng(seed).choice(len(CLASSES), n, p=shares)
    return Shelf([(i, ["it"], int(label)) for i, label in enumerate(labels)], classes, templates)


def seeing(source, noise):
    """Knows the class of each picture, up to noise."""
    labels = {image_id: label for image_id, _, label in source.rows}

    def of_text(text):
        number = next(i for i, name in enumerate(CLASSES) if name in text)
        return random_vector(number) + 0.3 * random_vector(hash_of(text))

    return Lookup(lambda i: random_vector(labels[i]) + noise * random_vector(1000 + i), of_text)


def test_weights_are_the_normalised_average_of_unit_embeddings():
    model = random_model()
    weights = ZeroShotClassifier(model, CLASSES, TEMPLATES).weights
    for number, name in enumerate(CLASSES):
        units = torch.stack([model.encode_text([t.replace("{}", name)]).embedding[0] for t in TEMPLATES])
        assert torch.allclose(weights[number], F.normalize(units.mean(0), dim=0), atol=1e-6)


def test_weights_are_computed_once_and_in_batches(monkeypatch):
    model = random_model()
    whole = ZeroShotClassifier(model, CLASSES, TEMPLATES).weights
    model.texts.clear()
    monkeypatch.setattr("multiway.tasks.embed.encode_texts_in_batches.__defaults__", (4,))
    classifier = ZeroShotClassifier(model, CLASSES, TEMPLATES)
    assert torch.allclose(classifier.weights, whole, atol=1e-6)
    source = unbalanced(4)
    for row in range(4):
        classifier.classify([source.image(row)])
    assert len(model.texts) == len(CLASSES) * len(TEMPLATES)
    assert classifier.weights.shape == (7, 8)


def test_scores_agree_with_scikit_learn():
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

    source = unbalanced()
    model = seeing(source, 0.8)
    result = ZeroShot().run(model, source)
    labels = np.array([label for _, _, label in source.rows])
    classifier = ZeroShotClassifier(model, CLASSES, TEMPLATES)
    scores = classifier.scores(model.encode_image([source.image(i) for i in range(len(source))])).numpy()
    value = {name: metric.value for name, metric in result.metrics.items()}
    assert value["accuracy/top-1"] == pytest.approx(accuracy_score(labels, scores.argmax(1)))
    assert value["accuracy/top-5"] == pytest.approx(top_k_accuracy_score(labels, scores, k=5))
    assert value["accuracy/balanced"] == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))
    assert 0.3 < value["accuracy/top-1"] < 1.0
    assert (result.details.confusion == confusion_matrix(labels, scores.argmax(1), labels=range(7))).all()
    recall, n = result.details.per_class["1 dog"]
    assert (recall, n) == (pytest.approx((scores[labels == 1].argmax(1) == 1).mean()), (labels == 1).sum())


def test_chance_is_the_best_constant_answer():
    source = unbalanced()
    shares = np.sort(np.bincount([label for _, _, label in source.rows], minlength=7) / len(source))[::-1]
    # Every picture looks like the largest class, then like the others in the order of their numbers.
    constant = Lookup(
        lambda i: torch.arange(7, 0, -1.0), lambda text: F.one_hot(torch.tensor(CLASSES.index(text)), 7).float()
    )
    metrics = ZeroShot(prompts="names").run(constant, source).metrics
    assert metrics["accuracy/top-1"].value == pytest.approx(shares[0]) == metrics["accuracy/top-1"].chance
    assert metrics["accuracy/top-5"].chance == pytest.approx(shares[:5].sum()) == metrics["accuracy/top-5"].value
    assert metrics["accuracy/balanced"].value == pytest.approx(1 / 7) == metrics["accuracy/balanced"].chance


def test_a_model_without_any_preference_gains_nothing():
    metrics = ZeroShot().run(constant_model(), unbalanced()).metrics
    assert metrics["accuracy/top-1"].value == pytest.approx(1 / 7)
    assert metrics["accuracy/top-5"].value == pytest.approx(5 / 7)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (ZeroShot(prompts="names"), ("{}",)),
        (ZeroShot(prompts="template"), ("a {}.",)),
        (ZeroShot(), TEMPLATES),
        (ZeroShot(templates=("one {}",)), ("one {}",)),
    ],
)
def test_which_prompts_are_asked(task, expected):
    source = unbalanced(30)
    model = seeing(source, 0.1)
    assert task.run(model, source).details.templates == expected
    assert sorted(model.texts) == sorted(t.replace("{}", name) for t in expected for name in CLASSES)


def test_a_source_without_templates():
    source = unbalanced(30, templates=())
    assert ZeroShot().choose_templates(source) == ("{}",)
    with pytest.raises(DataError, match="brings no prompt template; give `templates`"):
        ZeroShot(prompts="template").run(random_model(), source)


def test_unlabelled_rows_and_repeated_pictures_are_left_out():
    rows = [(1, ["it"], 0), (1, ["again"], 0), (2, ["it"], -1), (3, ["it"], 1)]
    source = Shelf(rows, ["cat", "dog", "owl"])
    result = ZeroShot().run(seeing(source, 0.0), source)
    assert result.details.rows.tolist() == [0, 3] == source.opened
    assert result.details.unlabelled == 1
    assert "accuracy/top-5" not in result.metrics  # three classes: always right
    assert result.metrics["accuracy/balanced"].chance == 1 / 2  # no owl in these data


def test_errors_name_what_is_missing():
    model = random_model()
    with pytest.raises(DataError, match="shelf@test has no class names"):
        ZeroShot().run(model, Shelf([(1, ["it"], 0)]))
    with pytest.raises(DataError, match=r"all 2 rows of shelf@test have label -1"):
        ZeroShot().run(model, Shelf([(1, ["it"], -1), (2, ["it"], -1)], ["cat"]))
    with pytest.raises(DataError, match=r"shelf.jsonl, row 1 has label 2, but shelf names only 2 classes"):
        ZeroShot().run(model, Shelf([(1, ["it"], 0), (2, ["it"], 2)], ["cat", "dog"]))
    with pytest.raises(ValueError, match="'a photo' has 0 places"):
        ZeroShotClassifier(model, ["cat"], ["a photo"])
    with pytest.raises(ValueError, match="given 0 classes"):
        ZeroShotClassifier(model, [])
