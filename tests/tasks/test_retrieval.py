"""Retrieval against a slow obvious twin, on models that know all, nothing, or say one thing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tasks.task_fakes import Lookup, Shelf, constant_model, hash_of, random_model, random_vector

from multiway.abilities import Encoded
from multiway.tasks.embed import BadEmbedding, encode_images, encode_texts
from multiway.tasks.retrieval import Gallery, Retrieval

# Picture 7 in two rows; "red" on pictures 7 and 8; "two" said twice of picture 9.
SHELF = Shelf([(7, ["red", "a ball"], -1), (8, ["red"], -1), (7, ["round"], -1), (9, ["two", "two", "cars"], -1)])
KS = (1, 5, 10)


def crowd(pictures=60, seed=0):
    """Pictures with one to five captions; some captions are shared."""
    generator = np.random.default_rng(seed)
    rows = []
    for i in range(pictures):
        for part in range(int(generator.integers(1, 3))):
            rows.append((i, [f"{i} {part} {j}" for j in range(generator.integers(1, 4))], -1))
    rows += [(i, [f"shared {i // 3}"], -1) for i in range(15)]
    return Shelf(rows)


def knowing(noise):
    """A text that begins with a number is near that picture."""

    def of_text(text):
        own = random_vector(int(text.split()[0])) if text[0].isdigit() else torch.zeros(8)
        return own + noise * random_vector(hash_of(text))

    return Lookup(random_vector, of_text)


def slow_recall(model, source, k):
    """R@k both ways by loops over pairs, as the docstring words it."""
    pictures = sorted({source.row(r).image_id for r in range(len(source))})
    said = {
        p: {c for r in range(len(source)) if source.row(r).image_id == p for c in source.row(r).captions}
        for p in pictures
    }
    texts = sorted(set.union(*said.values()))
    v = {
        p: model.encode_image([source.image([source.row(r).image_id for r in range(len(source))].index(p))]).embedding[
            0
        ]
        for p in pictures
    }
    w = {t: model.encode_text([t]).embedding[0] for t in texts}
    to_text = [any(t in said[p] for t in sorted(texts, key=lambda t: -float(v[p] @ w[t]))[:k]) for p in pictures]
    to_image = [any(t in said[p] for p in sorted(pictures, key=lambda p: -float(v[p] @ w[t]))[:k]) for t in texts]
    return np.mean(to_text), np.mean(to_image)


def test_gallery_holds_each_picture_and_each_string_once():
    gallery = Gallery.of(SHELF)
    assert gallery.rows == [0, 1, 3]
    assert gallery.texts == ["red", "a ball", "round", "two", "cars"]
    assert [gallery.texts_of[i].tolist() for i in range(3)] == [[0, 1, 2], [0], [3, 4]]
    assert [gallery.pictures_of[i].tolist() for i in range(5)] == [[0, 1], [0], [0], [2], [2]]


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_recall_agrees_with_the_slow_twin(noise):
    source, model = crowd(), knowing(noise)
    metrics = Retrieval().run(model, source).metrics
    for k in KS:
        to_text, to_image = slow_recall(model, source, k)
        assert metrics[f"text_retrieval/R@{k}"].value == pytest.approx(to_text)
        assert metrics[f"image_retrieval/R@{k}"].value == pytest.approx(to_image)
    both = [metrics[f"{way}_retrieval/R@1"].value for way in ("text", "image")]
    assert metrics["mean/R@1"].value == pytest.approx(np.mean(both))


def test_any_of_its_captions_is_a_hit():
    # Each picture has one caption that is spot on and one that points at the next picture.
    source = Shelf([(i, [f"{i} good", f"{(i + 1) % 20} bad"], -1) for i in range(20)])
    metrics = Retrieval().run(knowing(0.01), source).metrics
    assert metrics["image_retrieval/R@1"].value == pytest.approx(0.5)
    assert metrics["image_retrieval/R@1"].n == 40 and metrics["text_retrieval/R@1"].n == 20
    # "i good" and "i - 1's bad" are equally near to picture i; the good one wins or ties within the noise.
    assert metrics["text_retrieval/R@5"].value == 1.0


def test_a_constant_model_scores_chance():
    result = Retrieval().run(constant_model(), crowd())
    for name, metric in result.metrics.items():
        if "R@" in name:
            assert metric.value == pytest.approx(metric.chance), name
    assert result.metrics["text_retrieval/R@1"].value < 0.1


def test_a_random_model_is_near_chance_and_a_knowing_one_is_not():
    metrics = Retrieval().run(random_model(), crowd(150)).metrics
    for name, metric in metrics.items():
        slack = 0.3 * metric.chance if "rank" in name else 3 * (metric.high - metric.low) / 2
        assert abs(metric.value - metric.chance) <= slack, name
    metrics = Retrieval().run(knowing(0.0), Shelf([(i, [f"{i} it"], -1) for i in range(50)])).metrics
    assert metrics["mean/R@1"].value == 1.0 and metrics["text_retrieval/median_rank"].value == 1.0
    assert metrics["mean/R@1"].low < 1.0  # fifty of fifty is not certainty


def test_shuffling_rows_changes_nothing():
    source = crowd()
    rows = [source.rows[i] for i in np.random.default_rng(1).permutation(len(source))]
    before, after = (Retrieval().run(knowing(1.0), each).metrics for each in (source, Shelf(rows)))
    for name, metric in before.items():
        assert (metric.value, metric.chance) == pytest.approx((after[name].value, after[name].chance)), name


def test_everything_is_encoded_once():
    source, model = crowd(), knowing(0.5)
    details = Retrieval(batch=7).run(model, source).details
    assert sorted(source.opened) == details.gallery.rows
    assert sorted(model.texts) == sorted(details.gallery.texts)


def test_details_show_hits_and_misses():
    source = crowd()
    details = Retrieval().run(knowing(1.0), source).details
    ranking, gallery = details.image_retrieval, details.gallery
    for q in range(len(gallery.texts)):
        assert ranking.right[q] in gallery.pictures_of[q]
        if ranking.rank[q] <= 5:
            assert ranking.top[q, int(ranking.rank[q]) - 1] == ranking.right[q]
        else:
            assert not set(ranking.top[q]) & set(gallery.pictures_of[q])


def test_captions_of_one_picture_are_one_observation():
    alone = Shelf([(i, [f"{i} it"], -1) for i in range(40)])
    often = Shelf([(i, [f"{i} it" + "." * j for j in range(5)], -1) for i in range(40)])
    # Half of the pictures are known; all captions of a picture share its fate.
    model = Lookup(random_vector, lambda text: random_vector(int(text.split()[0]) + 1000 * (int(text.split()[0]) % 2)))
    widths = []
    for source in (alone, often):
        metric = Retrieval().run(model, source).metrics["image_retrieval/R@1"]
        widths.append(metric.high - metric.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_a_diverged_model_is_an_error_not_a_perfect_score():
    model = Lookup(lambda i: random_vector(i) * (float("nan") if i == 3 else 1.0), lambda text: random_vector(1))
    with pytest.raises(BadEmbedding, match="nan or inf for 1 of 60 inputs, the first is number 3"):
        Retrieval().run(model, crowd())


def test_embeddings_are_checked():
    class Odd:
        def encode_text(self, texts, tokens=False):
            return Encoded(torch.ones(len(texts), 4 * (texts[0] != "b")))

        def encode_image(self, images, tokens=False):
            return Encoded(torch.ones(1, 4) / 2)

    with pytest.raises(BadEmbedding, match="lengths 2 to 2; expected 1"):
        encode_texts(Odd(), ["a"])
    with pytest.raises(BadEmbedding, match="neither embeddings nor tokens"):
        encode_texts(Odd(), ["b"])
    with pytest.raises(BadEmbedding, match=r"given 2 inputs and returned \(1, 4\)"):
        encode_images(Odd(), SHELF, [0, 1])
