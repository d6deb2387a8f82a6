"""Zero-shot classification: a picture belongs to the class whose description it is nearest to.

Class c is written into T prompt templates ("a photo of a {}."). Its weight is the average of the T unit embeddings,
brought back to length 1 (Radford et al. 2021, arXiv 2103.00020, section 3.1.4: ensembling in embedding space):

    w_c = normalize( 1/T sum_t text(template_t(c)) ),     prediction = argmax_c <v, w_c>

The weights are computed once, so an ensemble of 80 templates classifies at the price of one.

A model that compares token by token has no embeddings to average. It compares the picture with every prompt, and the mean
of a class's similarities counts (Yao et al., FILIP, 2021, arXiv 2111.07783, on prompts):

    prediction = argmax_c  1/T sum_t s(picture, template_t(c))

Reported are `accuracy/top-1`, `accuracy/top-5` (where there are more than five classes) and `accuracy/balanced`, the
mean of the recalls of the classes, which a model cannot raise by always naming the largest. Chance is the best
constant answer: the share of the largest class (of the five largest), and 1 / K for K classes that have pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from multiway.abilities import Encoded, require
from multiway.data.source import DataError, Source
from multiway.tasks import statistics
from multiway.tasks.classes import labelled_rows
from multiway.tasks.embed import encode_images, encode_texts, encode_texts_in_batches
from multiway.tasks.ranking import Answers, Ranking, rank_scores
from multiway.tasks.task import Metric, Result, collect, require_rows

__all__ = ["Prompts", "ZeroShot", "ZeroShotClassifier", "ZeroShotDetails"]

Prompts = Literal["names", "template", "ensemble"]


class ZeroShotClassifier:
    """A classifier made of words.

    Args:
        model: has `encode_text` and, to classify pictures, `encode_image` and `compare`.
        classes: K names.
        templates: T strings, each with one `{}` for the name; `("{}",)` is the bare name.

    Raises:
        ValueError: without classes or templates, or for a template without exactly one `{}`.
    """

    def __init__(self, model: Any, classes: Sequence[str], templates: Sequence[str] = ("{}",)) -> None:
        if not classes or not templates:
            raise ValueError(
                f"given {len(classes)} classes and {len(templates)} templates; expected at least one of each"
            )
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(
                    f"the template {template!r} has {template.count('{}')} places for a name; write exactly one {{}}"
                )
        self.model = model
        self.classes = tuple(classes)
        self.templates = tuple(templates)

    @property
    def _sentences(self) -> list[str]:
        """K x T, class by class."""
        return [template.replace("{}", name) for name in self.classes for template in self.templates]

    @cached_property
    def weights(self) -> Tensor:
        """(K, D) unit vectors, computed on first use; memory does not grow with the number of templates."""
        total, done = None, 0
        for encoded in encode_texts_in_batches(self.model, self._sentences):
            embedding = encoded.embedding
            if total is None:
                total = embedding.new_zeros(len(self.classes), embedding.shape[1])
            owner = torch.arange(done, done + len(embedding), device=total.device) // len(self.templates)
            total.index_add_(0, owner, embedding)
            done += len(embedding)
        assert total is not None
        return F.normalize(total, dim=1)

    @cached_property
    def prompts(self) -> Encoded:
        """The K x T prompts with their tokens, class by class, for models without embeddings; kept from first use on."""
        return encode_texts(self.model, self._sentences)

    def scores(self, pictures: Encoded) -> Tensor:
        """B pictures as `encode_image` gave them -> (B, K): cosines with the classes, or mean similarities with their
        prompts."""
        if pictures.has_embedding:
            return self.model.compare(pictures, Encoded(self.weights))  # type: ignore[no-any-return]
        similar: Tensor = self.model.compare(pictures, self.prompts)
        return similar.unflatten(1, (len(self.classes), len(self.templates))).mean(2)

    def classify(self, images: Sequence[Any]) -> list[str]:
        """The name of the nearest class of each Pillow picture."""
        best = self.scores(self.model.encode_image(images)).argmax(dim=1)
        return [self.classes[number] for number in best.tolist()]


@dataclass(frozen=True)
class ZeroShotDetails:
    """What became of each picture and each class.

    Attributes:
        classes: K names.
        templates: those that were used.
        rows: (N,) rows of the source that were classified.
        labels: (N,) their classes.
        ranking: classes ranked for each picture.
        unlabelled: rows left out because their class is unknown.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    ranking: Ranking
    unlabelled: int

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) the class that scored best."""
        return self.ranking.top[:, 0]

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K) number of pictures of the row's class that were taken for the column's."""
        k = len(self.classes)
        return np.bincount(self.labels * k + self.predicted, minlength=k * k).reshape(k, k)

    @property
    def per_class(self) -> dict[str, tuple[float, int]]:
        """Recall and number of pictures of each class that has any. Keyed by `number name`: names may repeat."""
        hits = self.ranking.hits(1)
        found = {}
        for number in np.unique(self.labels):
            own = self.labels == number
            found[f"{number} {self.classes[number]}"] = (float(hits[own].mean()), int(own.sum()))
        return found


@dataclass(frozen=True)
class ZeroShot:
    """Classifies pictures by class names in words, without training on the classes.

    Attributes:
        prompts: `names` uses the bare class names, `template` the source's first template, `ensemble` all of them. A
            source without templates is asked by bare names under `ensemble`; the details say which were used.
        templates: used in place of the source's.
        batch: pictures decoded and encoded at a time.
        resamples, seed: of the bootstrap.
    """

    name: ClassVar[str] = "zeroshot"
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "encode_text", "compare")

    prompts: Prompts = "ensemble"
    templates: tuple[str, ...] = ()
    batch: int = 256
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def run(self, model: Any, source: Source) -> Result:
        """Classify every labelled picture once.

        Raises:
            LacksAbility: if the model does not encode pictures and texts, or cannot compare them.
            DataError: if the source has no rows, class names or labels, or lacks a template that was asked for.
        """
        require(model, self.needs, self.name)
        require_rows(self.name, source)
        found = labelled_rows(self.name, source)
        rows, labels, unlabelled = found.rows.tolist(), found.labels.tolist(), found.unlabelled
        classifier = ZeroShotClassifier(model, source.classes, self.choose_templates(source))
        pictures = encode_images(model, source, rows, self.batch)

        def scores(some: slice) -> Tensor:
            return classifier.scores(pictures.rows(torch.arange(some.start, some.stop)))

        answers = Answers.of([[label] for label in labels])
        ranking = rank_scores(scores, len(rows), len(classifier.classes), answers)
        details = ZeroShotDetails(
            classifier.classes, classifier.templates, np.asarray(rows), np.asarray(labels), ranking, unlabelled
        )
        return collect(self, source, self.metrics(details), details)

    def choose_templates(self, source: Source) -> tuple[str, ...]:
        """The templates that `prompts` means for this source."""
        given = self.templates or source.templates
        if self.prompts == "names":
            return ("{}",)
        if self.prompts == "template":
            if not given:
                raise DataError(
                    f"{source.name} brings no prompt template; give `templates`, or ask by bare names with prompts=names"
                )
            return given[:1]
        return given or ("{}",)

    def metrics(self, details: ZeroShotDetails) -> Iterator[Metric]:
        """All numbers, from the ranking."""
        options = {"resamples": self.resamples, "seed": self.seed}
        n = len(details.labels)
        shares = np.sort(np.bincount(details.labels) / n)[::-1]
        for k in (1, 5):
            if k < max(2, len(details.classes)):
                interval = statistics.mean(details.ranking.hits(k), details.rows, **options)
                yield Metric(f"accuracy/top-{k}", *interval, n=n, chance=float(shares[:k].sum()))
        balanced = statistics.balanced_mean(details.ranking.hits(1), details.labels, **options)
        yield Metric("accuracy/balanced", *balanced, n=n, chance=1.0 / int((shares > 0).sum()))
