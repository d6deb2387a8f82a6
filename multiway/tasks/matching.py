"""Matching: does the fused encoder tell a pair from near misses?

As image-text matching is trained (Li et al., ALBEF, 2021, arXiv 2107.07651, equation 5), on held-out data: each pair beside its
picture with a wrong text, and its text with a wrong picture, so one yes to two noes.

- `hard/loss`, `hard/accuracy`: the wrong partners are sampled by the softmax of cosines over the temperature, among the
  rows of a batch of `rows`, as in training.
- `random/loss`, `random/accuracy`: they are drawn evenly.

A model that cannot `compare` before it has read a picture and a text together (ViLT) has no cosines to sample by, and is
asked the random kind only.

Chance: 0.6365 = H(1/3) and 2/3, by always saying no with probability 2/3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.abilities import Encoded, abilities_of, require
from multiway.data.source import Source, stable_id
from multiway.losses.chance import binary
from multiway.losses.itm import hard_negatives
from multiway.losses.same import Same
from multiway.tasks import statistics
from multiway.tasks.embed import encode_images, encode_texts
from multiway.tasks.task import Metric, Result, collect, require_rows

__all__ = ["Matching"]


@dataclass(frozen=True)
class Matching:
    """Tells pairs from near misses.

    Attributes:
        rows: of a batch within which wrong partners are found.
        temperature: of the softmax by which hard ones are sampled.
        seed: of the sampling, and of the bootstrap.
        resamples: of the bootstrap.
    """

    name: ClassVar[str] = "matching"
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "encode_text", "match")

    rows: int = 128
    temperature: float = 0.05
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def run(self, model: Any, source: Source) -> Result:
        """Encode once, sample wrong partners, match.

        Raises:
            LacksAbility: if the model does not match.
            DataError: if the source has no rows.
        """
        require(model, self.needs, self.name)
        require_rows(self.name, source)
        captions = [source.row(row).captions[0] for row in range(len(source))]
        pictures = encode_images(model, source, range(len(source)), tokens=True)
        texts = encode_texts(model, captions, tokens=True)
        ids = torch.tensor([source.row(row).image_id for row in range(len(source))])
        same = torch.tensor([stable_id(caption) for caption in captions])
        kinds = {"hard": 1.0, "random": 0.0} if "compare" in abilities_of(model) else {"random": 0.0}
        odds = {kind: self._odds(model, pictures, texts, ids, same, hardness) for kind, hardness in kinds.items()}
        return collect(self, source, self.metrics(odds), odds)

    def metrics(self, odds: dict[str, Tensor]) -> Iterator[Metric]:
        """Loss and accuracy from the log-odds, (N, 3): the pair, the wrong text, the wrong picture; nan where none."""
        for kind, values in odds.items():
            # log(1 + exp(-odds)) for the pair, log(1 + exp(odds)) for the others.
            signed = values * torch.tensor([-1.0, 1.0, 1.0])
            counts = ~values.isnan()
            rows = torch.arange(len(values))[:, None].expand_as(values)[counts].numpy()
            share = float(counts[:, 0].sum() / counts.sum())
            for name, each, chance in (
                ("loss", F.softplus(signed), binary(share).value),
                ("accuracy", (signed < 0).float(), max(share, 1 - share)),
            ):
                interval = statistics.mean(
                    each[counts].numpy().astype(np.float64), rows, resamples=self.resamples, seed=self.seed
                )
                yield Metric(f"{kind}/{name}", *interval, n=int(counts.sum()), chance=chance)

    def _odds(
        self, model: Any, pictures: Encoded, texts: Encoded, image_id: Tensor, text_id: Tensor, hardness: float
    ) -> Tensor:
        """(N, 3) log-odds."""
        found = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for start in range(0, len(image_id), self.rows):
                own = torch.arange(start, min(start + self.rows, len(image_id)))
                similarity = torch.zeros(len(own), len(own))
                if hardness > 0:
                    similarity = model.compare(pictures.rows(own), texts.rows(own)) / self.temperature
                wrong = hard_negatives(similarity, Same(image_id[own], text_id[own]), hardness)
                pairs = [(own, own), (own, own[wrong.text_of_image]), (own[wrong.image_of_text], own)]
                odds = torch.stack([model.match(pictures.rows(i), texts.rows(t)) for i, t in pairs], 1)
                odds[~wrong.found, 1:] = torch.nan
                found.append(odds)
        return torch.cat(found)
