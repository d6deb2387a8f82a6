"""BLIP: Bootstrapping Language-Image Pre-training for Unified Vision-Language Understanding and Generation.

Li, Li, Xiong, Hoi; ICML 2022; arXiv 2201.12086.

One text transformer works in three modes, told apart by the first token (section 3.1, figure 2): [CLS] reads the text alone;
[ENC] reads it with attention to the picture's tokens; [DEC] writes it, word by word, with attention to the picture. Reading
and writing share everything but self-attention, which looks both ways in one and back in the other. Section 3.2:

    L = L_itc + L_itm + L_lm

    itc   picture against text, by class tokens, as ALBEF: a twin, a queue, soft targets
    itm   one pair to two mined negatives, by the [ENC] token
    lm    every word from those before it and the picture, with label smoothing

Where ALBEF fuses what its text encoder gave, BLIP's fused pass begins at the words again.

Departures from the paper: those of `methods/albef.py` (rows that share a picture or a caption are never negatives; the queue
begins empty; schedules for small scale, which the paper's presets leave off). CapFilt is a workflow over trained models, not
part of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import ABILITIES, CaptionScores, Encoded, Fused
from multiway.batch import Batch, DataInfo
from multiway.config import LATER, ConfigError
from multiway.losses.lm import lm
from multiway.methods.method import Losses, Pairs, Reps, Step, Term
from multiway.methods.momentum import MomentumContrast, first, judged, matching, pictures_shown
from multiway.methods.partners import Lent
from multiway.methods.writing import Writing, begin_with, caption_scores, to_be_written, write
from multiway.nn.cache import Cache
from multiway.nn.decoder import SharedDecoder, Sharing
from multiway.nn.generate import Cached, Generation, Texts
from multiway.nn.text import BERT_BASE, TextConfig, TextTransformer
from multiway.nn.units import is_recomputed
from multiway.nn.vit import VisionConfig, VisionTransformer
from multiway.world import World

__all__ = ["LOSSES", "Blip", "BlipConfig"]

LOSSES = ("itc", "itm", "lm")
"""The three losses, in the order of section 3.2."""


@dataclass(frozen=True)
class BlipConfig:
    """Sizes and schedules of BLIP.

    Attributes:
        image: the picture's ViT.
        text: the text transformer in its three modes. Its vocabulary counts two ids that no tokeniser has, the last but one
            for [DEC] and the last for [ENC], in the released model's order.
        sharing: what writing shares with reading.
        losses: of `LOSSES`; a captioner is fine-tuned with `lm` alone, a filter with `itc` and `itm` (section 3.3). Nothing is
            computed for one that is left out.
        smoothing: of the words' targets.
        lacks: abilities that the weights were never trained for, and that are therefore hidden: a converted checkpoint has
            the weights of one or two modes.
        end, pad: ids of the tokeniser's end token and padding; -1 is left to the data.
        embedding, temperature, temperature_bounds, queue, queue_from, momentum, alpha, alpha_ramp, hard_from, hard_until,
            hardness, negatives: as in `AlbefConfig`; alpha weighs the twin's targets of the contrast alone.
    """

    image: VisionConfig = VisionConfig(size=64, patch=8, width=128, layers=4, heads=2, stem="conv")
    text: TextConfig = TextConfig(context=0, width=128, layers=3, heads=2, causal=False, pool="class", cross_width=128)
    sharing: Sharing = "all-but-self-attention"
    losses: tuple[str, ...] = ("itc", "itm", "lm")
    smoothing: float = 0.1
    lacks: tuple[str, ...] = ()
    end: int = -1
    pad: int = -1
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
    negatives: Literal["all", "rank"] = field(default="all", metadata=LATER)

    def __post_init__(self) -> None:
        unknown = [name for name in self.losses if name not in LOSSES]
        if unknown or not self.losses or len(set(self.losses)) < len(self.losses):
            raise ConfigError(
                f"BLIP's losses are {', '.join(LOSSES)}; given {', '.join(self.losses) or 'none'}: name one or more, once each"
            )

    def resolve(self, data: DataInfo) -> BlipConfig:
        """The config with vocabulary, context and special ids filled in from the data; what was given is kept."""
        text = replace(
            self.text,
            vocabulary=self.text.vocabulary or data.vocabulary + 2,
            context=self.text.context or data.context,
            cross_width=self.image.width,
        )
        end = data.special.get("eos", 0) if self.end < 0 else self.end
        return replace(self, text=text, end=end, pad=data.special.get("pad", end) if self.pad < 0 else self.pad)

    @property
    def start_decode(self) -> int:
        """Id of [DEC]."""
        return self.text.vocabulary - 2

    @property
    def start_encode(self) -> int:
        """Id of [ENC]."""
        return self.text.vocabulary - 1

    @classmethod
    def preset(cls, name: str) -> BlipConfig:
        """`tiny`, made for a laptop; `base` and `large`, the paper's: ViT-B/16 or ViT-L/16 at 224 pixels beside BERT-base.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        vits = {"base": (768, 12, 12), "large": (1024, 24, 16)}
        if name not in vits:
            raise KeyError(f"BLIP has no preset `{name}`; there are: tiny, {', '.join(vits)}")
        width, layers, heads = vits[name]
        return cls(
            image=VisionConfig(size=224, patch=16, width=width, layers=layers, heads=heads),
            # The released code: BERT's ids, [DEC] and [ENC]; no segment types.
            text=replace(BERT_BASE, vocabulary=30524, types=0, cross_width=width),
            end=102,
            pad=0,
            embedding=256,
            queue=57_600,
            queue_from=0.0,
            momentum=0.995,
            alpha_ramp=2 / 20,
            hard_until=0.0,
            negatives="rank",
        )


class _Encoders(nn.Module):
    """All that has a momentum twin: the ViT, the text transformer, and the projections of their class tokens."""

    def __init__(self, config: BlipConfig) -> None:
        super().__init__()
        self.image = VisionTransformer(config.image)
        self.text = TextTransformer(config.text)
        self.image_projection = nn.Linear(config.image.width, config.embedding)
        self.text_projection = nn.Linear(config.text.width, config.embedding)

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> (B, D) on the unit sphere, and (B, N, W) tokens."""
        pooled, tokens = self.image(images)
        return F.normalize(self.image_projection(pooled).float(), dim=-1), tokens

    def encode_text(self, ids: Tensor, mask: Tensor, tokens: bool = True) -> tuple[Tensor, Tensor]:
        """(B, L), beginning with [CLS] -> (B, D) on the unit sphere, and (B, L, W) tokens; the first alone without `tokens`."""
        pooled, last = self.text(ids, mask, tokens=tokens)
        return F.normalize(self.text_projection(pooled).float(), dim=-1), last


class Blip(MomentumContrast):
    """BLIP's three modes of one text transformer, and its three losses."""

    name = "blip"
    lends: ClassVar[Lent] = {"text_of_image": ("batch.text", "batch.text_mask"), "image_of_text": ("image_tokens",)}
    two_pictures: ClassVar[str] = "blip-two"
    config_class = BlipConfig
    config: BlipConfig
    student: _Encoders
    twin: _Encoders
    least_weight: ClassVar[float] = 1e-4

    def __init__(self, config: BlipConfig) -> None:
        if config.text.vocabulary < 3 or config.text.context < 2 or config.end < 0 or config.pad < 0:
            raise ValueError(
                "the text transformer lacks vocabulary, context or ids; call config.resolve(data_info) first"
            )
        if config.text.cross_width != config.image.width:
            raise ValueError(
                f"text.cross_width is {config.text.cross_width} and the picture's tokens are {config.image.width} wide; make "
                "them equal, or let config.resolve do it"
            )
        super().__init__(_Encoders(config), config)
        self.decoder = SharedDecoder(config.text, config.sharing)
        self.match_head = nn.Linear(config.text.width, 2)
        nn.init.trunc_normal_(self.match_head.weight, std=0.02)
        nn.init.zeros_(self.match_head.bias)
        # Without one of the losses, what is trained by it alone gets no gradient.
        self.rests = len(config.losses) < len(LOSSES)  # type: ignore[misc]

    def abilities(self) -> tuple[str, ...]:
        """Names of what this model can be asked to do. Fusing and matching are the same pass: one is lacking with the other."""
        lacks = self.config.lacks + (("fuse",) if "match" in self.config.lacks else ())
        return tuple(name for name, kind in ABILITIES.items() if isinstance(self, kind) and name not in lacks)

    # Section 3.1: the three modes, and what a trained model can be asked.

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) normalised pixels -> embedding (B, D), tokens (B, N, W)."""
        return Encoded(*self.student.encode_image(images))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids -> embedding (B, D), tokens (B, L, W) of the text alone, and the ids, which matching reads."""
        return Encoded(*self.student.encode_text(ids, mask), mask, ids)

    def text_to_fuse(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids -> the ids: with a picture they are read anew, from the first block. Tokens are (B, L, 0)."""
        nothing = torch.zeros(*ids.shape, 0, device=ids.device)
        return Encoded(nothing[:, 0], nothing, mask, ids)

    def match(self, image: Encoded, text: Encoded) -> Tensor:
        """(B,) log-odds that picture i and text i are a pair: the two logits' difference."""
        logits = self.match_head(self.fuse(image, text).pooled)
        return logits[:, 1] - logits[:, 0]  # type: ignore[no-any-return]

    def match_with_maps(self, image: Encoded, text: Encoded) -> tuple[Tensor, list[Tensor]]:
        """`match`, and per block (B, heads, L, N) the cross-attention it came from, in the graph."""
        assert image.tokens is not None and text.ids is not None
        record: dict[str, Tensor] = {}
        ids = begin_with(text.ids, self.config.start_encode)
        fused = self.student.text(ids, text.mask, image.tokens, record=record).tokens
        logits = self.match_head(fused[:, 0])
        return logits[:, 1] - logits[:, 0], [record[f"blocks.{i}.cross"] for i in range(self.config.text.layers)]

    @property
    def fused_width(self) -> int:
        """Of the [ENC] token."""
        return self.config.text.width

    def fuse(self, image: Encoded, text: Encoded, tokens: bool = False) -> Fused:
        """Pairs by the [ENC] token of the text that is read with the picture (section 5.4: NLVR2's classifier).

        The picture is a memory, a set of tokens with positions in them: of two pictures the order makes no difference. The
        paper's VQA writes its answers (section 5.3), from the tokens.
        """
        assert image.tokens is not None and text.ids is not None
        fused = self._fuse(image.tokens, text.ids, text.mask, first=not tokens)
        return Fused(fused[:, 0], *((fused, text.mask) if tokens else ()))

    def caption_likelihood(self, image: Encoded, ids: Tensor, mask: Tensor) -> CaptionScores:
        """What the decoder says of each token of (B, L) given captions, by those before it and the picture."""
        assert image.tokens is not None
        return caption_scores(self._write(image.tokens, ids, mask), ids, mask)

    def generate(
        self,
        image: Encoded,
        settings: Generation,
        prompts: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Texts:
        """Write captions; see `nn.generate.generate`.

        Args:
            image: B pictures, tokens kept.
            prompts: (B, L) ids to go on from, beginning with any start token, [DEC] takes its place; None for [DEC] alone.
            prompt_mask: (B, L) bool.
        """
        if prompts is not None:
            prompts = begin_with(prompts, self.config.start_decode)
        return write(self.writing(image), settings, prompts, prompt_mask, generator)

    def writing(self, image: Encoded) -> Writing:
        """Texts about to be written about B pictures, tokens kept."""
        assert image.tokens is not None
        config, memory = self.config, image.tokens

        def next_logits(ids: Tensor, cache: Cache) -> Tensor:
            seen = (None, None) if cache.seen else (memory, image.mask)
            at = None
            if ids.shape[1] > 1:
                at = torch.full(ids.shape[:1], ids.shape[1] - 1, device=ids.device)
            return self.decoder.guess(
                self.student.text, self.decoder(self.student.text, ids, *seen, cache=cache, at=at)[:, 0]
            )

        decoding = Cached(next_logits, config.text.layers, memory.shape[0], memory.device)
        return Writing(decoding, config.start_decode, config.end, config.pad, config.text.context)

    def _match(
        self,
        image: Tensor,
        ids: Tensor,
        mask: Tensor | None,
        rows: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """(B, 2) logits, no and yes, from the [ENC] token; see `_fuse`."""
        return self.match_head(self._fuse(image, ids, mask, rows, cache)[:, 0])  # type: ignore[no-any-return]

    def _fuse(
        self,
        image: Tensor,
        ids: Tensor,
        mask: Tensor | None,
        rows: Tensor | None = None,
        cache: Cache | None = None,
        first: bool = True,
    ) -> Tensor:
        """(B, 1, W) the [ENC] token, or (B, L, W) all; `rows` says which picture belongs to each text."""
        embedded = self.student.text.embed(begin_with(ids, self.config.start_encode))
        at = torch.zeros(ids.shape[0], dtype=torch.int64, device=ids.device) if first else None
        return self.student.text.transformer(embedded, mask, image, memory_rows=rows, at=at, cache=cache)  # type: ignore[no-any-return]

    def _write(self, image: Tensor, ids: Tensor, mask: Tensor, cache: Cache | None = None) -> Tensor:
        """(P, V) logits of every token but the first of each text, in the order of `to_be_written(mask).nonzero()`."""
        # Nothing follows the last token, so that it is not read.
        tokens = self.decoder(self.student.text, begin_with(ids, self.config.start_decode)[:, :-1], image, cache=cache)
        return self.decoder.guess(self.student.text, tokens[mask[:, 1:]])

    # Section 3.2: the training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """The student's features and the picture's tokens, and the twin's features: each picture is read once by either."""
        assert batch.images is not None and batch.text is not None and batch.text_mask is not None
        reps: dict[str, Tensor] = {}
        reps["image"], reps["image_tokens"] = self.student.encode_image(batch.images)
        if self._reads:
            reps["text"], _ = self.student.encode_text(batch.text, batch.text_mask, tokens=False)
        if "itc" in self.config.losses:
            with torch.no_grad():
                reps["twin_image"], _ = self.twin.encode_image(batch.images)
                reps["twin_text"], _ = self.twin.encode_text(batch.text, batch.text_mask, tokens=False)
        return reps

    def mine(self, reps: Reps, batch: Batch, world: World, step: Step) -> Pairs:
        """Negatives for ITM; see `MomentumContrast.mine`."""
        return super().mine(reps, batch, world, step) if "itm" in self.config.losses else {}

    def across(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """ITC among the twin's features."""
        found = Losses({}, features={name: reps[name].detach() for name in ("image", "text") if name in reps})
        if "itc" in self.config.losses:
            contrast = self.contrast(reps, batch, world, step)
            found = replace(found, terms={"itc": contrast.term}, report=contrast.report, updates=contrast.updates)
        if "itm" in self.config.losses:
            found.report |= self.mined_health(reps, pairs, world, step)
        return found

    def within(self, reps: Reps, pairs: Pairs, batch: Batch, step: Step, rows: int) -> Losses:
        """With the picture's tokens ITM over three texts a row and LM over one, whichever are asked for."""
        assert batch.text is not None and batch.text_mask is not None
        images, ids, mask = reps["image_tokens"], batch.text, batch.text_mask
        own_ids, own_mask = first(ids, rows), first(mask, rows)
        wanted, found, cache = self.config.losses, Losses({}), None
        if "itm" in wanted:
            wrong_text = pairs["text_of_image"]
            images, shown = pictures_shown(images, pairs["image_of_text"], rows)
            # Partners' pictures are matched and not written about: what is kept for both passes would have too many rows.
            cache = self._seen() if "lm" in wanted and len(images) == rows else None
            logits = self._match(
                images,
                torch.cat([own_ids, ids[wrong_text], own_ids]),
                torch.cat([own_mask, mask[wrong_text], own_mask]),
                shown,
                cache,
            )
            found = matching(logits, pairs)
        if "lm" in wanted:
            guesses = self._write(first(images, rows), own_ids, own_mask, cache)
            written = lm(guesses, own_ids[to_be_written(own_mask)], self.config.smoothing)
            found.terms["lm"] = Term(written.loss, chance=written.chance, formula=written.formula)
            found.report |= {"lm_nats": written.hard, "lm_accuracy": written.accuracy}
        return found

    def counts(self, pairs: Pairs, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Judged pairs, and words that are to be written."""
        assert batch.text_mask is not None
        words = to_be_written(batch.text_mask).sum()
        found = dict.fromkeys(("lm", "lm_nats", "lm_accuracy"), words)
        return found | judged(pairs) if "itm" in self.config.losses else found

    @torch.no_grad()
    def after_step(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """As `MomentumContrast.after_step`; without contrast there is no twin to lead and no queue to fill."""
        if "itc" in self.config.losses:
            super().after_step(step, updates)

    @property
    def _reads(self) -> bool:
        """Whether a loss asks for the text by itself: the contrast, or the search for negatives."""
        return "itc" in self.config.losses or "itm" in self.config.losses

    def _seen(self) -> Cache | None:
        """A place for the pictures' keys and values, which reading and writing project alike: once for both."""
        shared = self.config.sharing in ("all", "all-but-self-attention")
        recomputed = self.config.text.checkpoint or any(map(is_recomputed, self.student.text.transformer.blocks))
        return Cache(self.config.text.layers, grows=False) if shared and not recomputed else None
