"""Classification by a tuned head: against scikit-learn's scores, and other classes refused."""

from __future__ import annotations

import pytest
import torch
from tasks.task_fakes import Lookup, Shelf, random_vector
from tasks.test_knn import CLASSES, labelled, seeing

from multiway.abilities import LacksAbility
from multiway.data.source import DataError
from multiway.tasks.classification import Classification


class Sorts(Lookup):
    """Scores classes by cosine with a vector of each."""

    classes = CLASSES

    def classify(self, image):
        return image.embedding @ torch.stack([random_vector(c) for c in range(7)]).T


def tuned(shelf: Shelf, noise: float = 1.5) -> Sorts:
    return Sorts(seeing(shelf, noise=noise).of_image, lambda text: random_vector(0))


def test_scores_agree_with_scikit_learn():
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

    shelf = labelled(0, 200, "test")
    result = Classification(batch=33, resamples=50).run(tuned(shelf), shelf)
    labels = [c for _, _, c in shelf.rows]
    scores = tuned(shelf).classify(tuned(shelf).encode_image([shelf.image(i) for i in range(200)])).numpy()
    value = {name: metric.value for name, metric in result.metrics.items()}
    assert value["accuracy/top-1"] == pytest.approx(accuracy_score(labels, scores.argmax(1)))
    assert value["accuracy/top-5"] == pytest.approx(top_k_accuracy_score(labels, scores, k=5))
    assert value["accuracy/balanced"] == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))
    assert 0.2 < value["accuracy/top-1"] < 1.0
    assert (result.details.confusion == confusion_matrix(labels, scores.argmax(1), labels=range(7))).all()


def test_rows_without_a_label_are_left_out():
    shelf = labelled(0, 50, "test")
    more = Shelf([*shelf.rows, (700, ["it"], -1)], CLASSES)
    one, two = (Classification(resamples=50).run(tuned(shelf), each) for each in (shelf, more))
    assert one.metrics == two.metrics and two.details.test.unlabelled == 1 and 50 not in more.opened


def test_other_classes_and_untuned_models_are_refused():
    shelf = labelled(0, 10, "test", classes=(*CLASSES[:5], "cow", "bat"))
    with pytest.raises(
        DataError, match="tuned for 7 classes and shelf@test has 7, which differ first in 'bat' and 'cow'"
    ):
        Classification().run(tuned(shelf), shelf)
    shelf = labelled(0, 10, "test", classes=(*CLASSES, "pig"))
    with pytest.raises(DataError, match="7 classes and shelf@test has 8, which differ first in the number"):
        Classification().run(tuned(shelf), shelf)
    with pytest.raises(LacksAbility, match="`classification` needs classify"):
        Classification().run(seeing(shelf), shelf)
