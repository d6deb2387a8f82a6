"""DeCLIP: Supervision Exists Everywhere, a data efficient contrastive language-image pre-training paradigm.

Li, Liang, Zhao, Cui, Ouyang, Shao, Yu, Yan; ICLR 2022; arXiv 2110.05208. What a pair can teach besides its pairing:

    L = (1 - a - b - c) L_clip  +  a (L_iss + L_tss)  +  b L_mvs  +  c L_nns,          a = b = c = 0.2

- L_iss, within the pictures: SimSiam's loss on two views; L_tss, within the texts: masked words, guessed by the text tower.
- L_mvs, multi-view: two views of the picture and two of the text make four pairs. CLIP's loss has the first, this the mean of the
  other three.
- L_nns, nearest neighbour: both views of the picture against what is nearest to its text in a queue of texts, which is one more
  description of it, InfoNCE from picture to text. No gradient reaches the queue.

The second view of a text is the text with words masked, from which L_tss is read too; the code changes words of the other view by
synonyms, swaps and deletions (EDA), and leaves it as it is here. Its four pairs weigh 0.1 each.

Departures: neighbours are sought among texts of other rows, for the bundled data are seen so often that the nearest would be the
text itself; a row that has another's neighbour is none of its negatives. The head of masked words is BERT's, tied to the
embedding. As in the code the text tower is causal: a word is guessed from those before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.batch import Batch
from multiway.losses.itc import ItcResult, itc
from multiway.losses.mlm import mlm
from multiway.losses.unit import exact
from multiway.methods.clip import PRESETS
from multiway.methods.method import Losses, Pairs, Reps, Step, Term
from multiway.methods.presets import preset_named
from multiway.methods.slip import Slip, SlipConfig, two_views
from multiway.nn.heads import MaskedWordHead
from multiway.nn.mlp_head import MlpHeadConfig
from multiway.nn.queue import FeatureQueue
from multiway.world import World

__all__ = ["DeClip", "DeClipConfig"]

_PROJECTOR = MlpHeadConfig(3, 1024, 1024, output_norm="batch")
_PREDICTOR = MlpHeadConfig(2, 512, 0)


@dataclass(frozen=True)
class DeClipConfig(SlipConfig):
    """Sizes of DeCLIP; for what is not named here see `SlipConfig`.

    Attributes:
        projector, predictor: SimSiam's, on the embedding.
        pair_weight: of CLIP's loss, 1 - a - b - c.
        view_weight, word_weight: a, of pictures and of words.
        multi_view: b.
        neighbours: c.
        queue: texts that neighbours are sought among.
    """

    projector: MlpHeadConfig = MlpHeadConfig(3, 256, 256, output_norm="batch")
    view_loss: Literal["simclr", "simsiam"] = "simsiam"
    pair_weight: float = 0.4
    view_weight: float = 0.2
    word_weight: float = 0.2
    multi_view: float = 0.2
    neighbours: float = 0.2
    queue: int = 2048

    @classmethod
    def preset(cls, name: str) -> DeClipConfig:
        """`tiny`; `vit-b-32` and `rn50`, the paper's.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        presets = {"tiny": cls()}
        for size in ("vit-b-32", "rn50"):
            towers = PRESETS[size]
            presets[size] = cls(
                towers.image, towers.text, towers.embedding, projector=_PROJECTOR, predictor=_PREDICTOR, queue=65_536
            )
        return preset_named(name, presets, "DeCLIP")


class DeClip(Slip):
    """CLIP's towers, SimSiam's heads, BERT's head, and a queue of texts."""

    name = "declip"
    config_class = DeClipConfig  # type: ignore[assignment]
    config: DeClipConfig
    own_state = ("queue.",)

    def __init__(self, config: DeClipConfig) -> None:
        super().__init__(config)
        self.words = MaskedWordHead(config.text.width, config.text.vocabulary) if config.word_weight > 0 else None
        self.queue = FeatureQueue(config.queue, {"text": config.embedding}, ("image_id", "text_id"))

    @property
    def view_width(self) -> int:
        """SimSiam's heads stand on the embedding, before it is brought to length 1."""
        return self.config.embedding

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Embeddings of both views of picture and text, heads of the pictures, tokens of the masked text.

        Returns:
            `image`, `image_other`, `text`, `text_other` (B, D) on the unit sphere; `projected/v`, `predicted/v`; `words` (B, L, W).
        """
        assert batch.text is not None and batch.text_mask is not None
        first, second = two_views(batch, self.name)
        images = [self.image_projection(self.image(view, tokens=False)[0]) for view in (first, second)]
        texts = [self.text(batch.text, batch.text_mask, tokens=False)[0]]
        reps: dict[str, Tensor] = {}
        if self._asks_masked_text:
            if batch.masked_text is None or batch.masked is None:
                raise ValueError(
                    "DeCLIP's second view of a text has words masked and the batch has none; set the recipe's masking.ratio above 0"
                )
            pooled, tokens = self.text(batch.masked_text, batch.text_mask)
            texts.append(pooled)
            reps["words"] = tokens
        for name, each in zip(("image", "image_other"), images, strict=True):
            reps[name] = F.normalize(each.float(), dim=-1)
        for name, each in zip(("text", "text_other"), texts, strict=False):
            reps[name] = F.normalize(self.text_projection(each).float(), dim=-1)
        return reps | (self.project(images) if self.projector is not None else {})

    @property
    def _asks_masked_text(self) -> bool:
        config = self.config
        return config.word_weight > 0 or config.multi_view > 0 or config.neighbours > 0

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """All kinds of supervision."""
        config = self.config
        found = super().losses(reps, pairs, batch, world, step)  # CLIP's and SimSiam's
        found.terms["itc"] = replace(found.terms["itc"], weight=config.pair_weight)
        if config.multi_view > 0:
            others = [("image_other", "text"), ("image", "text_other"), ("image_other", "text_other")]
            scored = [self._pairs(reps[image], reps[text], batch, world) for image, text in others]
            value = torch.stack([each.loss for each in scored]).mean()
            found.terms["multi_view"] = Term(value, config.multi_view, scored[0].chance, scored[0].formula)
        if self.words is not None:
            assert batch.masked is not None and batch.text is not None
            logits = self.words(reps["words"][batch.masked], self.text.embed.words.weight)
            guessed = mlm(logits, batch.text[batch.masked])
            found.terms["mlm"] = Term(guessed.loss, config.word_weight, guessed.chance, guessed.formula)
            found.report["mlm_accuracy"] = guessed.accuracy
            found.counts |= guessed.over("mlm")
        if config.neighbours > 0:
            self._add_neighbours(found, reps, batch, world)
        return found

    def _pairs(self, image: Tensor, text: Tensor, batch: Batch, world: World) -> ItcResult:
        ids, config = (batch.image_id, batch.text_id), self.config
        return itc(image, text, self.log_scale.exp(), world, *ids, same=config.same, chunk=config.chunk)

    def _add_neighbours(self, found: Losses, reps: Reps, batch: Batch, world: World) -> None:
        """Pictures against the nearest text in the queue to each of their texts, and what the queue is to be given."""
        assert batch.image_id is not None and batch.text_id is not None
        kept, terms, cosines = self.queue.read(), [], []
        chance, formula = None, "the queue is empty"
        if len(self.queue):
            for name in ("text", "text_other"):
                nearest, cosine, place = nearest_text(reps[name], batch.image_id, batch.text_id, kept)
                cosines.append(cosine)
                for image in ("image", "image_other"):
                    # Rows that found the same neighbour share it as if it were their caption.
                    scored = itc(
                        reps[image], nearest, self.log_scale.exp(), world, batch.image_id, place,
                        same="ignore", chunk=self.config.chunk,
                    )  # fmt: skip
                    terms.append(scored.image_to_text)
                    chance, formula = scored.chance, scored.formula
            found.report["neighbour_cosine"] = torch.stack(cosines).mean()
        # Without a queue yet: zero, with a graph, so that every step has the same terms.
        value = torch.stack(terms).mean() if terms else 0.0 * reps["image"].sum()
        found.terms["neighbours"] = Term(value, self.config.neighbours, chance, formula)
        found.updates |= {
            "text": world.turns(world.gather(reps["text"].detach())),
            "image_id": world.turns(world.gather(batch.image_id)),
            "text_id": world.turns(world.gather(batch.text_id)),
        }

    @torch.no_grad()
    def after_step(self, step: Step, updates: object) -> None:
        """CLIP's clamp; then the new texts enter the queue and the oldest leave."""
        super().after_step(step, updates)
        if isinstance(updates, Mapping) and "text" in updates:
            self.queue.push({name: updates[name] for name in ("text", "image_id", "text_id")})


@torch.no_grad()
def nearest_text(
    text: Tensor, image_id: Tensor, text_id: Tensor, kept: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """What in a queue is nearest to each text and is neither this text nor of this picture.

    Args:
        text: (B, D) on the unit sphere.
        image_id, text_id: (B,) int64.
        kept: of the queue: `text` (K, D), `image_id` and `text_id` (K,), K of 1 or more.

    Returns:
        (B, D) neighbours, the mean cosine with them, and (B,) int64 their places in the queue. A text to which the queue has
        no other is its own neighbour, with a place of its own, below 0.
    """
    with exact(text):
        cosine = text @ kept["text"].t().to(text.dtype)
    own = (image_id[:, None] == kept["image_id"]) | (text_id[:, None] == kept["text_id"])
    best, place = cosine.masked_fill(own, -torch.inf).max(1)
    alone = best.isinf()
    neighbours = torch.where(alone[:, None], text, kept["text"][place].to(text.dtype))
    rest = -1 - text_id.abs()
    return neighbours, (text * neighbours).sum(1).mean(), torch.where(alone, rest, place)
