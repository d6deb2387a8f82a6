"""Tasks on models that have no shared space: compared by tokens, or only ever read together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tasks.task_fakes import Shelf, hash_of, random_model, random_vector
from tasks.without_space import ByTokens, OnlyMatches

from multiway.abilities import Encoded, LacksAbility
from multiway.tasks import TASKS
from multiway.tasks.matching import Matching
from multiway.tasks.rerank import Rerank
from multiway.tasks.retrieval import Retrieval
from multiway.tasks.zeroshot import ZeroShot, ZeroShotClassifier

PICTURES = Shelf([(i, [f"{i} one", f"{i} two"], i % 3) for i in range(12)], classes=("a", "b", "c"))


def model(kind: type[ByTokens]) -> ByTokens:
    """A text that begins with a number is near that picture, not too near."""
    return kind(
        random_vector,
        lambda text: (
            0.6 * random_vector(int(text.split()[0]) if text[0].isdigit() else 0) + random_vector(hash_of(text))
        ),
    )


def test_each_query_is_ranked_by_its_own_similarity() -> None:
    fake = model(ByTokens)
    result = Retrieval(resamples=50).run(fake, PICTURES)
    image = fake.encode_image([PICTURES.image(i) for i in range(12)])
    text = fake.encode_text([caption for _, captions, _ in PICTURES.rows for caption in captions])
    asked_by_image, asked_by_text = fake.compare(image, text), fake.compare(image, text, "text").T
    there = np.mean([int(row.argmax()) // 2 == i for i, row in enumerate(asked_by_image)])
    back = np.mean([int(row.argmax()) == t // 2 for t, row in enumerate(asked_by_text)])
    assert result.metrics["text_retrieval/R@1"].value == pytest.approx(there)
    assert result.metrics["image_retrieval/R@1"].value == pytest.approx(back)
    assert there != back and 0.1 < there < 1


def test_zeroshot_averages_similarities_over_prompts() -> None:
    fake, templates = model(ByTokens), ("{}.", "the {}", "{}")
    classifier = ZeroShotClassifier(fake, PICTURES.classes, templates)
    pictures = fake.encode_image([PICTURES.image(i) for i in range(12)])
    wanted = torch.stack(
        [
            sum(fake.compare(pictures, fake.encode_text([each.replace("{}", name)]))[:, 0] for each in templates) / 3
            for name in PICTURES.classes
        ],
        1,
    )
    assert torch.allclose(classifier.scores(pictures), wanted, atol=1e-6)
    result = ZeroShot(templates=templates, resamples=50).run(fake, PICTURES)
    labels = torch.arange(12) % 3
    assert result.metrics["accuracy/top-1"].value == pytest.approx(float((wanted.argmax(1) == labels).float().mean()))


def test_full_fusion_needs_no_cosine_and_reranking_does() -> None:
    fake = model(OnlyMatches)
    result = TASKS["fusion"].run(fake, PICTURES)
    assert result.details.dual is None and result.details.matched == 12 * 24
    assert not any(name.startswith("dual") or name.endswith("gain") for name in result.metrics)
    # It matches as `ByTokens` compares: pictures' own ranking is the same.
    alike = Retrieval(resamples=50).run(model(ByTokens), PICTURES)
    assert result.metrics["text_retrieval/R@1"].value == alike.metrics["text_retrieval/R@1"].value
    for task in (TASKS["rerank"], Rerank(top=0, mix=1.0), TASKS["retrieval"], TASKS["zeroshot"]):
        with pytest.raises(LacksAbility, match="compare"):
            task.run(fake, PICTURES)


def test_matching_has_no_hard_kind_without_similarities() -> None:
    result = Matching(resamples=50).run(model(OnlyMatches), PICTURES)
    assert set(result.metrics) == {"random/loss", "random/accuracy"}
    assert result.metrics["random/loss"].chance == pytest.approx(0.6365, abs=1e-4)


def test_a_model_with_neither_embedding_nor_tokens_is_named() -> None:
    class Nothing(ByTokens):
        def encode_image(self, images, tokens: bool = False) -> Encoded:
            return Encoded(torch.empty(len(images), 0))

    with pytest.raises(ValueError, match="neither embeddings nor tokens"):
        Retrieval().run(model(Nothing), PICTURES)


def test_nan_in_tokens_is_an_error() -> None:
    fake = random_model(kind=ByTokens)
    fake.of_image = lambda i: random_vector(i) * (float("nan") if i == 3 else 1.0)
    with pytest.raises(ValueError, match="nan or inf for 1 of 12 inputs, the first is number 3"):
        Retrieval().run(fake, PICTURES)
