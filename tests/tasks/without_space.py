"""Models without a shared space: one that compares by tokens, and one that only matches."""

from __future__ import annotations

import torch
from tasks.task_fakes import Lookup

from multiway.abilities import Encoded


class ByTokens(Lookup):
    """Two tokens a picture, one a text; pictures look for the mean of their cosines, texts for the greatest."""

    def _bare(self, encoded: Encoded, tokens: torch.Tensor) -> Encoded:
        return Encoded(encoded.embedding[:, :0], tokens)

    def encode_image(self, images, tokens: bool = False) -> Encoded:
        unit = super().encode_image(images)
        return self._bare(unit, torch.stack([unit.embedding, unit.embedding.roll(1, 1)], 1))

    def encode_text(self, texts, tokens: bool = False) -> Encoded:
        unit = super().encode_text(texts)
        return self._bare(unit, unit.embedding[:, None])

    def compare(self, image: Encoded, text: Encoded, query: str = "image") -> torch.Tensor:
        cosines = torch.einsum("ind,jd->ijn", image.tokens, text.tokens[:, 0])
        return cosines.mean(2) if query == "image" else cosines.amax(2)


class OnlyMatches(ByTokens):
    """Knows nothing before it has seen both; then it is `ByTokens` as pictures ask."""

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image", "encode_text", "match")

    def match(self, image: Encoded, text: Encoded) -> torch.Tensor:
        return 20 * super().compare(image, text).diagonal()

    def compare(self, image: Encoded, text: Encoded, query: str = "image") -> torch.Tensor:
        raise AssertionError("a task compared with a model that cannot")
