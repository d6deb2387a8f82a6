"""ViLT: Vision-and-Language Transformer Without Convolution or Region Supervision.

Kim, Son, Kim; ICML 2021; arXiv 2102.03334. Earlier models spent most of their time on looking at the picture: a detector,
or a convolutional network. ViLT cuts it into patches and projects each by one matrix, as cheap as looking up a word; one
transformer does the rest, over words and patches together (section 3.1):

    z = Transformer([ word + position + modality 0 ;  patch W + position + modality 1 ])
    L = L_itm + L_mlm + 0.1 L_wpa   ( + L_mpp, an ablation without gain)

    itm   does the picture belong to the text, from the pooled first token; half of the rows have another's picture
    mlm   masked whole words, from the words' tokens
    wpa   words transported onto patches: cheap for pairs, dear for wrong pairs
    mpp   mean colours of hidden patches

As in the released code these are separate passes: `mlm` masks the text and has the true picture; `itm` and `wpa` share one
with the text as it is; `mpp` hides patches. Departures: a picture is projected once for all of them, and one sample of its
patches serves them all; rows that share a picture or a caption are never each other's wrong pairs; pictures of a batch have
one shape; the word head's matrix is the word embedding's by default, as `transformers` has it (`tied_words`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import Encoded, Fused
from multiway.batch import Batch
from multiway.losses.itm_random import itm_random
from multiway.losses.mlm import mlm
from multiway.losses.mpp import LEVELS, mpp, patch_colours
from multiway.losses.wpa import inner_words, transport_distance, wpa
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.methods.partners import Lent, draw_any, meet
from multiway.methods.vilt_config import ViltConfig
from multiway.nn.heads import MaskedWordHead
from multiway.nn.patch import ConvStem, PatchEmbed
from multiway.nn.pool import marked_positions
from multiway.nn.segments import run_with_segment_maps
from multiway.nn.task_heads import Classifier
from multiway.nn.text import TextEmbed
from multiway.nn.transformer import Transformer, TransformerConfig, init_weights
from multiway.world import World

__all__ = ["Vilt", "ViltConfig"]


class Vilt(Method):
    """Embeddings of words and patches, one transformer, and a head for each loss."""

    name = "vilt"
    config_class = ViltConfig
    config: ViltConfig
    lends: ClassVar[Lent] = {"image_of_text": ("image",)}

    def __init__(self, config: ViltConfig) -> None:
        super().__init__()
        if config.vocabulary < 1 or config.context < 2:
            raise ValueError("the text has no vocabulary or context yet; call config.resolve(data_info) first")
        if config.size % config.patch:
            raise ValueError(f"size {config.size} is not divisible by patch {config.patch}; change one of them")
        self.config = config
        width = config.width
        # Section 3.1: words as BERT embeds them; patches as ViT does, and nothing more.
        self.text = TextEmbed(config.text)
        self.patches = (PatchEmbed if config.stem == "patch" else ConvStem)(config.patch, width)
        self.class_token = nn.Parameter(torch.empty(width))
        self.class_position = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(config.grid[0] * config.grid[1], width))
        self.modalities = nn.Embedding(config.modalities, width)
        self.transformer = Transformer(TransformerConfig.of(config))
        self.pooler = nn.Linear(width, width)
        # Section 3.2: heads.
        self.match_head = nn.Linear(width, 2) if config.matching else None
        self.word_head = MaskedWordHead(width, config.vocabulary, config.epsilon) if config.words else None
        self.word_matrix = None if config.tied_words or not config.words else nn.Embedding(config.vocabulary, width)
        # Section 4.3: classifiers, whose hidden layer is 2W wide; that of two pictures reads both of their vectors.
        self.answer_head = Classifier(width, len(config.answers), 2 * width) if config.answers else None
        self.judge_head = Classifier(2 * width, len(config.verdicts), 2 * width) if config.verdicts else None
        if config.verdicts and config.modalities != 3:
            raise ValueError(
                f"a second picture has a modality of its own and there are {config.modalities}; set modalities=3 where there are verdicts"
            )
        self.hidden_patch = self.colour_head = None
        if config.mpp > 0:
            self.hidden_patch = nn.Parameter(torch.zeros(width))
            norm = nn.LayerNorm(width, config.epsilon)
            self.colour_head = nn.Sequential(nn.Linear(width, width), nn.GELU(), norm, nn.Linear(width, 3 * LEVELS))
        for name, part in self.named_children():
            if name != "patches" or config.stem == "patch":  # convolutions start as they should
                init_weights(part, config.init_std)
        for parameter in (self.class_token, self.class_position, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)

    # What a trained model can be asked.

    def abilities(self) -> tuple[str, ...]:
        """Those whose heads are there. There is no space that pictures and texts share, so nothing to `compare`."""
        matches = ("match", "match_with_maps") if self.match_head is not None else ()
        guesses = ("fill_mask",) if self.word_head is not None else ()
        answers = ("answer",) if self.answer_head is not None else ()
        judges = ("judge",) if self.judge_head is not None else ()
        return ("encode_image", "encode_text", *matches, "fuse", *guesses, *answers, *judges)

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) normalised pixels -> tokens (B, 1 + N, W) that enter the blocks; an embedding of width 0."""
        return _embedded(self._image_tokens(self._project(images), self.patches.grid(images)))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids -> tokens (B, L, W) that enter the blocks; an embedding of width 0."""
        return _embedded(self._text_tokens(ids), mask, ids)

    def match(self, image: Encoded, text: Encoded) -> Tensor:
        """(B,) log-odds that picture i and text i are a pair: the two logits' difference."""
        return self._odds(self.fuse(image, text).pooled)

    def match_with_maps(self, image: Encoded, text: Encoded) -> tuple[Tensor, list[Tensor]]:
        """`match`, and from every block the attention of words over patches within the joint one: (B, heads, L, 1 + N).

        The maps are part of the graph. A word's row sums to less than 1: the rest is on the other words.
        """
        assert image.tokens is not None and text.tokens is not None
        tokens, mask = _joined(text.tokens, text.mask, image.tokens)
        fused, maps = run_with_segment_maps(self.transformer, tokens, mask, text.tokens.shape[1])
        return self._odds(self.pool(fused)), maps

    @property
    def fused_width(self) -> int:
        """Of the pooler."""
        return self.config.width

    def fuse(self, image: Encoded, text: Encoded, tokens: bool = False) -> Fused:
        """Pairs by the pooler's output, from which the paper matches and classifies (sections 3.1 and 4.3).

        A picture here is a first one. The paper reads two one by one, the second with a modality of its own (`judge`).
        """
        assert image.tokens is not None and text.tokens is not None
        fused = self._fuse(text.tokens, text.mask, image.tokens, first=not tokens)
        words = (fused[:, : text.tokens.shape[1]], text.mask) if tokens else ()
        return Fused(self.pool(fused), *words)

    def fill_mask(self, image: Encoded | None, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """(P, V) logits of the words at `at`, with the picture's tokens in the sequence or without them."""
        return self._guess(self._text_tokens(ids), mask, None if image is None else image.tokens, at)

    @property
    def answers(self) -> tuple[str, ...]:
        """The list of answers."""
        return self.config.answers

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Names of the verdicts."""
        return self.config.verdicts

    def judge(self, images: Sequence[Encoded], text: Encoded) -> Tensor:
        """(B, verdicts) on a text and two pictures, each read with the text, both pooled vectors side by side (section 4.3).

        Raises:
            ValueError: for another number of pictures, or if the model has no verdicts.
        """
        if self.judge_head is None or len(images) != 2:
            raise ValueError(
                f"{len(images)} pictures and {len(self.verdicts)} verdicts; a ViLT judges two pictures, with config.verdicts"
            )
        left, right = images
        assert right.tokens is not None
        other = replace(right, tokens=right.tokens + (self.modalities.weight[2] - self.modalities.weight[1]))
        return self.judge_head(torch.cat([self.fuse(left, text).pooled, self.fuse(other, text).pooled], 1))  # type: ignore[no-any-return]

    def answer(self, image: Encoded, text: Encoded) -> Tensor:
        """(B, answers) from the pooled token of picture and question (section 4.3).

        Raises:
            ValueError: if the model has no answers.
        """
        if self.answer_head is None:
            raise ValueError("this ViLT has no answer head; build it with config.answers, the names of the answers")
        return self.answer_head(self.fuse(image, text).pooled)  # type: ignore[no-any-return]

    # Section 3.1: the model.

    def _fuse(
        self, text: Tensor, mask: Tensor | None, image: Tensor | None, *, first: bool = False, at: Tensor | None = None
    ) -> Tensor:
        """The transformer over words (B, L, W), real where (B, L) `mask` is True, and patches (B, 1 + N, W), if any.

        Returns:
            (B, L + 1 + N, W), words first; (B, 1, W) with `first`, the first token; (B, P, W) with `at`, positions (B, P).
        """
        tokens, mask = _joined(text, mask, image)
        if first:
            at = torch.zeros(tokens.shape[0], dtype=torch.int64, device=tokens.device)
        return self.transformer(tokens, mask, at=at)  # type: ignore[no-any-return]

    def pool(self, fused: Tensor) -> Tensor:
        """(B, ..., W) fused tokens -> (B, W): a layer and tanh on the first, which is the text's class token."""
        return self.pooler(fused[:, 0]).tanh()  # type: ignore[no-any-return]

    def _text_tokens(self, ids: Tensor) -> Tensor:
        return self.text(ids) + self.modalities.weight[0]  # type: ignore[no-any-return]

    def _project(self, images: Tensor) -> Tensor:
        """(B, N, W) patches without positions; all that is done for a picture by itself."""
        return self.patches(images)  # type: ignore[no-any-return]

    def _image_tokens(self, patches: Tensor, grid: tuple[int, int], kept: Tensor | None = None) -> Tensor:
        """(B, K, W) projected patches, of which `kept` (B, K) are the numbers -> (B, 1 + K, W)."""
        positions = _interpolated(self.positions, self.config.grid, grid)
        tokens = patches + (positions if kept is None else positions[kept])
        first = (self.class_token + self.class_position).to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        tokens = torch.cat([first, tokens], 1)
        return F.dropout(tokens, self.config.dropout, self.training) + self.modalities.weight[1]

    def _odds(self, pooled: Tensor) -> Tensor:
        if self.match_head is None:
            raise ValueError("this ViLT has no matching head; build it with config.matching=True")
        logits = self.match_head(pooled)
        return logits[:, 1] - logits[:, 0]  # type: ignore[no-any-return]

    def _guess(self, text: Tensor, mask: Tensor | None, image: Tensor | None, marked: Tensor) -> Tensor:
        """(P, V) logits at the P positions that (B, L) bool marks; see `_fuse`."""
        if self.word_head is None:
            raise ValueError("this ViLT has no word head; build it with config.words=True")
        at, real = marked_positions(marked)
        tokens = self._fuse(text, mask, image, at=at)[real]
        matrix = self.text.words.weight if self.word_matrix is None else self.word_matrix.weight
        return self.word_head(tokens, matrix)  # type: ignore[no-any-return]

    # Section 3.2: the training step.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Tokens that enter the blocks: of the text, of the masked text, of the picture, and of the picture with holes."""
        assert batch.images is not None and batch.text is not None
        if not self.config.matching and not self.config.words:
            raise ValueError("this ViLT has no head to train; build it with config.matching or config.words")
        grid, patches = self.patches.grid(batch.images), self._project(batch.images)
        kept = None
        if 0 < self.config.keep < patches.shape[1]:
            chance = torch.rand(patches.shape[:2], device=patches.device)
            kept = chance.argsort(1)[:, : self.config.keep].sort(1).values
            patches = patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[2]))
        reps = {"image": self._image_tokens(patches, grid, kept), "text": self._text_tokens(batch.text)}
        if self.config.words:
            if batch.masked_text is None:
                raise ValueError("ViLT guesses masked words and the batch has none; set masking.ratio above 0")
            reps["masked"] = self._text_tokens(batch.masked_text)
        if self.hidden_patch is not None:
            asked = torch.rand(patches.shape[:2], device=patches.device) < self.config.hidden
            # Of those asked about, a fifth stay visible, as in the released code.
            covered = asked & (torch.rand(patches.shape[:2], device=patches.device) < 0.8)
            holes = torch.where(covered[..., None], self.hidden_patch.to(patches.dtype), patches)
            colours = patch_colours(batch.images, self.config.patch, self.config.mean, self.config.std)
            if kept is not None:
                colours = colours.gather(1, kept[..., None].expand(-1, -1, 3))
            reps |= {"holes": self._image_tokens(holes, grid, kept), "asked": asked, "colours": colours}
        return reps

    def mine(self, reps: Reps, batch: Batch, world: World, step: Step) -> Pairs:
        """Half of the texts keep their picture; the others get one drawn at random from all ranks' batch."""
        return draw_any(batch, len(reps["text"]), world, reps["text"].device)

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Matching and alignment in one pass over the text as it is, masked words and hidden patches in one each."""
        found = Losses({})
        if self.match_head is not None:
            self._pairs(found.terms, found.report, *meet(reps, pairs, batch, world, self.lends))
        if self.word_head is not None:
            assert batch.text is not None and batch.masked is not None
            guesses = self._guess(reps["masked"], batch.text_mask, reps["image"], batch.masked)
            guessed = mlm(guesses, batch.text[batch.masked])
            found.terms["mlm"] = Term(guessed.loss, chance=guessed.chance, formula=guessed.formula)
            found.report["mlm_accuracy"] = guessed.accuracy
            found.counts |= guessed.over("mlm")
        if self.colour_head is not None:
            fused = self._fuse(reps["text"], batch.text_mask, reps["holes"])
            patches = fused[:, reps["text"].shape[1] + 1 :]
            coloured = mpp(self.colour_head(patches[reps["asked"]]), reps["colours"][reps["asked"]])
            found.terms["mpp"] = Term(coloured.loss, self.config.mpp, coloured.chance, coloured.formula)
            found.report["mpp_error"] = coloured.error
        return found

    def _pairs(self, terms: dict[str, Term], report: dict[str, Tensor], reps: Reps, pairs: Pairs, batch: Batch) -> None:
        """Matching, and what it costs to move the words onto the patches, over the same fused tokens."""
        assert self.match_head is not None and batch.text_mask is not None
        aligning = self.config.wpa > 0
        image, matched = reps["image"].index_select(0, pairs["image_of_text"]), pairs["matched"]
        fused = self._fuse(reps["text"], batch.text_mask, image, first=not aligning)
        result = itm_random(self.match_head(self.pool(fused)), matched)
        terms["itm"] = Term(result.loss, chance=result.chance, formula=result.formula)
        report["itm_accuracy"] = result.accuracy
        report["match_positive"], report["match_negative"] = result.positive, result.negative
        if aligning:
            length = batch.text_mask.shape[1]
            words, patches = fused[:, :length], fused[:, length + 1 :]
            every = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
            moved = wpa(transport_distance(words, patches, inner_words(batch.text_mask), every), matched)
            terms["wpa"] = Term(moved.loss, self.config.wpa, moved.chance, moved.formula)
            report["wpa_positive"], report["wpa_negative"] = moved.positive, moved.negative


def _embedded(tokens: Tensor, mask: Tensor | None = None, ids: Tensor | None = None) -> Encoded:
    return Encoded(tokens.new_zeros(tokens.shape[0], 0), tokens, mask, ids)


def _joined(text: Tensor, mask: Tensor | None, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Words and patches in one sequence, and the padding mask over both; every patch is real."""
    if image is None:
        return text, mask
    tokens = torch.cat([text, image.to(text.dtype)], 1)
    if mask is None:
        return tokens, None
    return tokens, torch.cat([mask, mask.new_ones(mask.shape[0], image.shape[1])], 1)


def _interpolated(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """(N, W) positions of one grid at another: bilinear, with the corners of both on each other (released code)."""
    if old == new:
        return positions
    grid = positions.T.reshape(1, -1, *old).float()
    grid = F.interpolate(grid, size=new, mode="bilinear", align_corners=True)
    return grid.reshape(positions.shape[1], -1).T.to(positions.dtype)
