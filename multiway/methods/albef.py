"""ALBEF: Align before Fuse: Vision and Language Representation Learning with Momentum Distillation.

Li, Selvaraju, Gotmare, Joty, Xiong, Hoi; NeurIPS 2021; arXiv 2107.07651.

A ViT reads the picture, the first half of a BERT reads the text, the second half reads the text again while attending to
the picture's tokens. The two are aligned before they are fused, and a momentum twin of everything softens the targets of
noisy pairs (section 3):

    L = L_itc + L_itm + L_mlm

    itc   picture against text, by class tokens, among the twin's features of this batch and of a queue (equations 1-3, 6)
    itm   one pair to two mined negatives, by the fused class token (equation 5)
    mlm   masked words, by the fused tokens (equations 4, 7)

Departures from the paper: rows that share a picture or a caption, in the batch or in the queue, are positives and never
mined as negatives; the queue starts empty instead of random, takes any batch size, and may wait until features are worth
keeping (`queue_from`); negatives may be annealed from random to hard (`hard_from`, `hard_until`), without which the matching
loss stays at its prior for long at small scale.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import Encoded, Fused
from multiway.batch import Batch, DataInfo
from multiway.config import LATER
from multiway.losses.mlm import mlm
from multiway.methods.method import Losses, Pairs, Reps, Step, Term
from multiway.methods.momentum import MomentumContrast, first, judged, matching, pictures_shown
from multiway.methods.partners import Lent
from multiway.nn.heads import MaskedWordHead
from multiway.nn.pool import marked_positions
from multiway.nn.sharded import zero_with_gradients
from multiway.nn.text import BERT_BASE, TextConfig, TextTransformer
from multiway.nn.transformer import Transformer, TransformerConfig
from multiway.nn.vit import VisionConfig, VisionTransformer
from multiway.world import World

__all__ = ["Albef", "AlbefConfig"]


@dataclass(frozen=True)
class AlbefConfig:
    """Sizes and schedules of ALBEF.

    Attributes:
        image: the picture's ViT.
        text: BERT's lower half, which reads the text alone.
        fusion_layers: blocks of the upper half, which attend to the picture; otherwise like `text`.
        embedding: width of the space in which pictures and texts are compared.
        temperature: initial tau; learned, and kept within `temperature_bounds`.
        queue: pairs of twin features kept from earlier steps.
        queue_from: share of training before which the queue is filled and not used. In the first hundreds of steps a model
            moves faster than its twin can follow, and tells candidates by their age instead of by what they show.
        momentum: of the twin.
        alpha: weight of the twin's soft targets (momentum distillation); 0 turns them off.
        alpha_ramp: share of training over which alpha rises from 0 (paper: the first of 30 epochs).
        hard_from, hard_until: shares of training between which negatives go from evenly drawn to `hardness`. Both 0 is
            the paper: hard from the start.
        hardness: share of the negatives drawn by similarity in the end; the others are drawn evenly.
        align: share of training at the start in which the pairs are only aligned: no fused pass, ITC alone.
        negatives: among whose rows they are mined: those of `all` ranks, so that their number changes nothing, or of a `rank`'s own,
            as published.
    """

    image: VisionConfig = VisionConfig(size=64, patch=8, width=128, layers=4, heads=2, stem="conv")
    text: TextConfig = TextConfig(context=0, width=128, layers=2, heads=2, causal=False, pool="class")
    fusion_layers: int = 2
    embedding: int = 128
    temperature: float = 0.07
    temperature_bounds: tuple[float, float] = (0.001, 0.5)
    queue: int = 1024
    queue_from: float = 0.3
    momentum: float = 0.99
    alpha: float = 0.4
    alpha_ramp: float = 0.25
    hard_from: float = 0.0
    hard_until: float = 0.5
    hardness: float = 1.0
    align: float = 0.0
    negatives: Literal["all", "rank"] = field(default="all", metadata=LATER)

    def resolve(self, data: DataInfo) -> AlbefConfig:
        """The config with vocabulary and context filled in from the data; sizes that were given are kept."""
        vocabulary = self.text.vocabulary or data.vocabulary
        return replace(self, text=replace(self.text, vocabulary=vocabulary, context=self.text.context or data.context))

    @property
    def fusion(self) -> TransformerConfig:
        """The upper half of BERT: the lower half's sizes, and attention to the picture's tokens."""
        return replace(TransformerConfig.of(self.text), layers=self.fusion_layers, cross_width=self.image.width)

    @classmethod
    def preset(cls, name: str) -> AlbefConfig:
        """`tiny`, made for a laptop, or `base`, the paper's: ViT-B/16 at 256 pixels, BERT-base split 6 and 6.

        What `tiny` owes to its size is measured in docs/methods/albef.md: convolutions before the blocks, a short queue, and
        negatives that get harder.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        if name != "base":
            raise KeyError(f"ALBEF has no preset `{name}`; there are: tiny, base")
        return cls(
            image=VisionConfig(size=256, patch=16, width=768, layers=12, heads=12),
            text=replace(BERT_BASE, layers=6),
            fusion_layers=6,
            embedding=256,
            queue=65_536,
            queue_from=0.0,
            momentum=0.995,
            alpha_ramp=1 / 30,
            hard_until=0.0,
            negatives="rank",
        )


class _Towers(nn.Module):
    """All that has a momentum twin: the encoders, their projections, and the fused half with its word head."""

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__()
        self.image = VisionTransformer(config.image)
        self.text = TextTransformer(config.text)
        self.fusion = Transformer(config.fusion)
        self.image_projection = nn.Linear(config.image.width, config.embedding)
        self.text_projection = nn.Linear(config.text.width, config.embedding)
        self.words = MaskedWordHead(config.text.width, config.text.vocabulary, config.text.epsilon)

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> (B, D) on the unit sphere, and (B, N, W) tokens."""
        pooled, tokens = self.image(images)
        return F.normalize(self.image_projection(pooled).float(), dim=-1), tokens

    def encode_text(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) -> (B, D) on the unit sphere, and (B, L, W) tokens of the lower half."""
        pooled, tokens = self.text(ids, mask)
        return F.normalize(self.text_projection(pooled).float(), dim=-1), tokens

    def guess(self, text: Tensor, mask: Tensor, image: Tensor | None, at: Tensor) -> Tensor:
        """Logits (P, V) of the words at the P masked positions, from the lower half's tokens and the picture's."""
        places, real = marked_positions(at)  # the last block need not compute the others
        fused = self.fusion(text, mask, image, at=places)[real]
        return self.words(fused, self.text.embed.words.weight)  # type: ignore[no-any-return]


class Albef(MomentumContrast):
    """ALBEF's student, its twin, its queue and its three losses."""

    name = "albef"
    lends: ClassVar[Lent] = {"text_of_image": ("text_tokens", "batch.text_mask"), "image_of_text": ("image_tokens",)}
    two_pictures: ClassVar[str] = "albef-two"
    config_class = AlbefConfig
    config: AlbefConfig
    student: _Towers
    twin: _Towers

    def __init__(self, config: AlbefConfig) -> None:
        if config.text.vocabulary < 1 or config.text.context < 2:
            raise ValueError("the text encoder has no vocabulary or context yet; call config.resolve(data_info) first")
        super().__init__(_Towers(config), config)
        self.match_head = nn.Linear(config.text.width, 2)
        nn.init.trunc_normal_(self.match_head.weight, std=0.02)
        nn.init.zeros_(self.match_head.bias)

    # Section 3.1: the encoders, and what a trained model can be asked.

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) normalised pixels -> embedding (B, D), tokens (B, N, W)."""
        return Encoded(*self.student.encode_image(images))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids -> embedding (B, D), tokens (B, L, W) of the lower half."""
        return Encoded(*self.student.encode_text(ids, mask), mask, ids)

    def match(self, image: Encoded, text: Encoded) -> Tensor:
        """(B,) log-odds that picture i and text i are a pair: the two logits' difference."""
        logits = self.match_head(self.fuse(image, text).pooled)
        return logits[:, 1] - logits[:, 0]  # type: ignore[no-any-return]

    def match_with_maps(self, image: Encoded, text: Encoded) -> tuple[Tensor, list[Tensor]]:
        """`match`, and the cross-attention it came from: per fused block (B, heads, L, N), of tokens over picture tokens.

        The maps are part of the graph, so that the log-odds can be differentiated by them (Grad-CAM, section 5.3).
        """
        assert image.tokens is not None and text.tokens is not None
        record: dict[str, Tensor] = {}
        fused = self.student.fusion(text.tokens, text.mask, image.tokens, record=record)
        logits = self.match_head(fused[:, 0])
        return logits[:, 1] - logits[:, 0], [record[f"blocks.{i}.cross"] for i in range(self.config.fusion_layers)]

    @property
    def fused_width(self) -> int:
        """Of the fused class token."""
        return self.config.text.width

    def fuse(self, image: Encoded, text: Encoded, tokens: bool = False) -> Fused:
        """Pairs by the fused class token, on which the paper puts its classifiers (section 5: SNLI-VE, NLVR2; its VQA writes).

        The picture is a memory, a set of tokens with positions in them: of two pictures the order makes no difference.
        """
        assert image.tokens is not None and text.tokens is not None
        fused = self._fuse(image.tokens, text.tokens, text.mask, first=not tokens)
        return Fused(fused[:, 0], *((fused, text.mask) if tokens else ()))

    def fill_mask(self, image: Encoded | None, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """(P, V) logits of the words at `at`, with the picture or, without its attention, from the words alone."""
        _, tokens = self.student.encode_text(ids, mask)
        return self.student.guess(tokens, mask, None if image is None else image.tokens, at)

    def _match(self, image: Tensor, text: Tensor, mask: Tensor | None, shown: Tensor, read: Tensor) -> Tensor:
        """(B, 2) logits, no and yes, from the fused class token, of pictures `shown` with texts `read`, (B,) rows of either."""
        at = torch.zeros_like(read)
        fused = self.student.fusion(text, mask, image, memory_rows=shown, rows=read, at=at)
        return self.match_head(fused[:, 0])  # type: ignore[no-any-return]

    def _fuse(self, image: Tensor, text: Tensor, mask: Tensor | None, first: bool = True) -> Tensor:
        """(B, 1, W) the fused class token, or (B, L, W) all."""
        at = torch.zeros(text.shape[0], dtype=torch.int64, device=text.device) if first else None
        return self.student.fusion(text, mask, image, at=at)  # type: ignore[no-any-return]

    # Schedules.

    def aligning(self, step: Step) -> bool:
        """Whether training is still in its contrastive beginning."""
        return step.progress < self.config.align

    # Section 3.2: the training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """The student's features and tokens, and the twin's: each picture is read once by either."""
        assert batch.images is not None and batch.text is not None and batch.text_mask is not None
        fusing = not self.aligning(step)
        ids, mask = batch.text, batch.text_mask
        if fusing:
            if batch.masked_text is None:
                raise ValueError(
                    "ALBEF guesses masked words and the batch has none; set the recipe's masking.ratio above 0"
                )
            # The text as it is, and with words masked, in one pass of the lower half.
            ids, mask = torch.cat([ids, batch.masked_text]), torch.cat([mask, mask])
        reps: dict[str, Tensor] = {}
        reps["image"], images = self.student.encode_image(batch.images)
        text, tokens = self.student.encode_text(ids, mask)
        rows = len(batch.text)
        reps["text"] = text[:rows]
        if fusing:
            reps |= {"image_tokens": images, "text_tokens": tokens[:rows], "masked_tokens": tokens[rows:]}
        with torch.no_grad():
            reps["twin_image"], twin_images = self.twin.encode_image(batch.images)
            reps["twin_text"], _ = self.twin.encode_text(batch.text, batch.text_mask)
            if fusing and self.alpha(step) > 0:
                assert batch.masked_text is not None
                reps["twin_image_tokens"] = twin_images
                _, reps["twin_masked_tokens"] = self.twin.encode_text(batch.masked_text, batch.text_mask)
        return reps

    def mine(self, reps: Reps, batch: Batch, world: World, step: Step) -> Pairs:
        """Negatives for ITM; see `MomentumContrast.mine`. While pairs are only aligned there is no use for them."""
        return {} if self.aligning(step) else super().mine(reps, batch, world, step)

    def across(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """ITC among the twin's features."""
        contrast = self.contrast(reps, batch, world, step)
        term, report = contrast.term, contrast.report
        if self.aligning(step):
            # DDP waits for the gradient of every parameter; those of the fused half are zero for now, on one rank as on many.
            idle = (self.student.fusion, self.student.words, self.match_head)
            term = replace(term, value=term.value + zero_with_gradients(p for part in idle for p in part.parameters()))
        else:
            report |= self.mined_health(reps, pairs, world, step)
        return Losses({"itc": term}, report, contrast.updates, contrast.features)

    def within(self, reps: Reps, pairs: Pairs, batch: Batch, step: Step, rows: int) -> Losses:
        """Over the fused tokens ITM and MLM: equations 4, 5 and 7.

        The fused half is run over three texts a row for ITM and one for MLM; the towers are not run again.
        """
        if self.aligning(step):
            return Losses({})
        assert batch.text is not None and batch.text_mask is not None and batch.masked is not None
        texts, mask, wrong_text = reps["text_tokens"], batch.text_mask, pairs["text_of_image"]
        # Three texts look at each picture's tokens, on average; they are projected to keys and values once.
        images, shown = pictures_shown(reps["image_tokens"], pairs["image_of_text"], rows)
        own = torch.arange(rows, device=texts.device)
        logits = self._match(images, texts, mask, shown, torch.cat([own, wrong_text, own]))

        own_mask = first(mask, rows)
        alpha, at = self.alpha(step), first(batch.masked, rows)
        read = own_mask[:, : at.shape[1]]  # without what partners of other ranks are longer by
        teacher = None
        if alpha > 0:
            with torch.no_grad():
                told, seen = first(reps["twin_masked_tokens"], rows), first(reps["twin_image_tokens"], rows)
                teacher = self.twin.guess(told, read, seen, at)
        guesses = self.student.guess(first(reps["masked_tokens"], rows), read, first(images, rows), at)
        guessed = mlm(guesses, first(batch.text, rows)[at], teacher, alpha)
        words = {"mlm": Term(guessed.loss, chance=guessed.chance, formula=guessed.formula)}
        return matching(logits, pairs).beside(Losses(words, {"mlm_accuracy": guessed.accuracy}))

    def counts(self, pairs: Pairs, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Judged pairs, and masked words."""
        if self.aligning(step):
            return {}
        assert batch.masked is not None
        words = batch.masked.sum()
        return {"mlm": words, "mlm_accuracy": words, **judged(pairs)}
