"""Nearest neighbours against a loop over pairs and against scikit-learn; what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.task_fakes import Lookup, Shelf, random_vector

from multiway.abilities import Encoded, LacksAbility
from multiway.data.source import DataError
from multiway.tasks.frozen import picture_features, teach
from multiway.tasks.knn import Knn, nearest, votes

CLASSES = ("cat", "dog", "owl", "fox", "eel", "bat", "cow")


def labelled(first: int, count: int, split: str, seed: int = 0, classes=CLASSES) -> Shelf:
    """Pictures numbered from `first`, of classes of unequal size."""
    shares = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05])
    labels = np.random.default_rng(seed + first).choice(7, count, p=shares)
    return Shelf([(first + i, ["it"], int(label)) for i, label in enumerate(labels)], classes, split=split)


def seeing(*shelves: Shelf, noise: float = 1.0) -> Lookup:
    """Knows the class of each picture, up to noise."""
    labels = {image_id: label for shelf in shelves for image_id, _, label in shelf.rows}
    return Lookup(lambda i: random_vector(labels[i]) + noise * random_vector(1000 + i), lambda text: random_vector(0))


TRAIN, TEST = labelled(0, 150, "train"), labelled(5000, 80, "test")
MODEL = seeing(TRAIN, TEST)


def slow_votes(query, bank, labels, k, temperature):
    """As the docstring words it: a list of (cosine, class), the k greatest, and a dictionary of sums."""
    query = query.double()
    pairs = [
        (float(query @ each.double() / query.norm() / each.double().norm()), int(c)) for each, c in zip(bank, labels)
    ]
    found = dict.fromkeys(range(7), 0.0)
    for cosine, label in sorted(pairs, reverse=True)[:k]:
        found[label] += math.exp(cosine / temperature)
    return [found[c] / sum(found.values()) for c in range(7)]


@pytest.mark.parametrize("k", [1, 10, 20])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_votes_equal_the_loop(k, temperature, monkeypatch):
    monkeypatch.setattr("multiway.tasks.knn._CHUNK", 150 * 7)
    torch.manual_seed(0)
    bank, queries, labels = torch.randn(150, 6), 3 * torch.randn(20, 6), torch.randint(0, 7, (150,))
    cosines, numbers = nearest(queries, bank, k)
    found = votes(cosines, labels[numbers], 7, temperature)
    want = torch.tensor([slow_votes(q, bank, labels, k, temperature) for q in queries])
    torch.testing.assert_close(found, want.double(), rtol=1e-4, atol=1e-6)


def test_the_task_counts_what_the_loop_votes_for():
    result = Knn(ks=(5, 20), resamples=50).taught(TRAIN).run(MODEL, TEST)
    bank = torch.stack([MODEL.of_image(i) for i, _, _ in TRAIN.rows])
    for k in (5, 20):
        voted = [
            int(np.argmax(slow_votes(MODEL.of_image(i), bank, [c for _, _, c in TRAIN.rows], k, 0.07)))
            for i, _, _ in TEST.rows
        ]
        labels = np.array([c for _, _, c in TEST.rows])
        hits = np.array(voted) == labels
        assert result.metrics[f"accuracy/top-1[k={k}]"].value == pytest.approx(hits.mean())
        balanced = np.mean([hits[labels == c].mean() for c in np.unique(labels)])
        assert result.metrics[f"accuracy/balanced[k={k}]"].value == pytest.approx(balanced)
    assert 0.3 < result.metrics["accuracy/top-1[k=20]"].value < 1.0
    assert result.metrics["accuracy/top-1[k=5]"].chance == np.bincount(labels).max() / 80


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 30))
def test_equal_weights_are_scikit_learns(seed, k):
    from sklearn.neighbors import KNeighborsClassifier

    generator = torch.Generator().manual_seed(seed)
    bank, queries = (torch.randn(n, 5, generator=generator) for n in (40, 12))
    labels = torch.arange(40) % 4
    cosines, numbers = nearest(queries, bank, k)
    peer = KNeighborsClassifier(k, weights="uniform", metric="cosine", algorithm="brute").fit(
        bank.numpy(), labels.numpy()
    )
    np.testing.assert_allclose(
        votes(cosines, labels[numbers], 4, math.inf), peer.predict_proba(queries.numpy()), atol=1e-9
    )


def test_length_does_not_count_and_a_tiny_temperature_does_not_overflow():
    bank, queries = torch.randn(30, 4), torch.randn(6, 4)
    scaled = nearest(queries * 7, bank * torch.rand(30, 1).add(0.5), 5)
    torch.testing.assert_close(scaled[0], nearest(queries, bank, 5)[0])
    assert torch.equal(scaled[1], nearest(queries, bank, 5)[1])
    sharp = votes(scaled[0], scaled[1] % 3, 3, 1e-4)
    torch.testing.assert_close(sharp, torch.eye(3, dtype=torch.float64)[scaled[1][:, 0] % 3])


def test_a_constant_model_scores_chance():
    result = (
        Knn(ks=(20,), resamples=50)
        .taught(Shelf([(i, ["it"], i % 7) for i in range(21)], CLASSES))
        .run(
            Lookup(lambda i: random_vector(0), lambda text: random_vector(0)),
            Shelf([(900 + i, ["it"], i % 7) for i in range(70)], CLASSES),
        )
    )
    # The same neighbours vote for everyone: the same class, or classes, are named for all.
    assert result.metrics["accuracy/balanced[k=20]"].value == pytest.approx(1 / 7)


def test_each_picture_is_encoded_once_and_five_of_three_votes_are_not_counted():
    train, test = labelled(0, 40, "train"), labelled(5000, 30, "test")
    result = Knn(ks=(3, 10), batch=7, resamples=50).taught(train).run(seeing(train, test), test)
    assert sorted(train.opened) == list(range(40)) and sorted(test.opened) == list(range(30))
    assert "accuracy/top-5[k=10]" in result.metrics and "accuracy/top-5[k=3]" not in result.metrics


def test_pooled_features_are_the_mean_of_real_tokens():
    tokens, mask = torch.randn(4, 3, 5), torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1]]).bool()

    class Bare:
        def encode_image(self, images, tokens=False):
            rows = torch.tensor([image.getpixel((0, 0))[2] for image in images])
            return Encoded(torch.zeros(len(rows), 0), self.tokens[rows], mask[rows])

    model = Bare()
    model.tokens = tokens
    source = Shelf([(i, ["it"], 0) for i in range(4)], ("a",))
    want = torch.stack([tokens[i][mask[i]].mean(0) for i in range(4)])
    for which in ("auto", "pooled"):
        torch.testing.assert_close(picture_features(model, source, range(4), which, batch=3), want)
    with pytest.raises(LacksAbility, match=r"no embedding.*features=pooled"):
        picture_features(model, source, range(4), "embedding")
    # Where there is both, `auto` takes the embedding.
    assert torch.equal(picture_features(MODEL, TRAIN, range(4)), picture_features(MODEL, TRAIN, range(4), "embedding"))


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(DataError, match="`knn` learns from a training split, and was given none"):
        Knn().run(MODEL, TEST)
    with pytest.raises(DataError, match=r"80 of 80 pictures of shelf@test are in shelf@test too.*--train"):
        Knn().taught(TEST).run(MODEL, TEST)
    with pytest.raises(DataError, match="20 neighbours cannot be found among 12 labelled pictures"):
        Knn().taught(labelled(0, 12, "train")).run(MODEL, TEST)
    with pytest.raises(DataError, match="has 2 classes and shelf@test 7"):
        Knn().taught(Shelf([(0, ["it"], 1)], ("a", "b"), split="train")).run(MODEL, TEST)
    with pytest.raises(DataError, match=r"no class names.*`knn` is about classes"):
        Knn().taught(Shelf([(0, ["it"], -1)])).run(MODEL, Shelf([(1, ["it"], -1)]))
    with pytest.raises(DataError, match="shelf@test, which has no rows"):
        Knn().run(MODEL, Shelf([], CLASSES))
    with pytest.raises(DataError, match="all 1 rows of shelf@test have label -1"):
        Knn().taught(TRAIN).run(MODEL, Shelf([(9999, ["it"], -1)], CLASSES))
    with pytest.raises(DataError, match="row 0 has label 9, but shelf names only 7"):
        Knn().taught(TRAIN).run(MODEL, Shelf([(9999, ["it"], 9)], CLASSES))
    with pytest.raises(ValueError, match="ks of at least 1 and a temperature above 0"):
        Knn(temperature=0.0).taught(TRAIN).run(MODEL, TEST)


def test_the_training_split_is_of_the_same_data():
    asked = []
    teach(Knn(), "emoji@random", lambda name: asked.append(name) or TRAIN)
    teach(Knn(train="val"), "coco:data/coco@test", lambda name: asked.append(name) or TRAIN)
    teach(Knn(train="digits@train"), "digits", lambda name: asked.append(name) or TRAIN)
    assert asked == ["emoji@train", "coco:data/coco@val", "digits@train"]
    from multiway.tasks.retrieval import Retrieval

    plain = Retrieval()
    assert teach(plain, "emoji", lambda name: pytest.fail("nothing is opened")) is plain
