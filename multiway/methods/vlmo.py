"""VLMo: Unified Vision-Language Pre-Training with Mixture-of-Modality-Experts.

Bao, Wang, Dong, Liu, Mohammed, Aggarwal, Som, Piao, Wei; NeurIPS 2022; arXiv 2111.02358.

One transformer whose blocks share their attention and have a feed-forward expert for each modality (section 3.1). Fed a
picture or a text alone it is a dual encoder; fed both at once it fuses them: the lower blocks route each token to the expert
of its modality, the top ones have an expert of their own for pairs.

    L = L_itc + L_itm + L_mlm / 4                                                        (section 3.2; weights of the release)

    itc   picture against text by class tokens; the mean of two: with each modality's own experts to the top, and with the
          pairs' experts in the top blocks
    itm   one pair to two wrong ones, found among the rows of *all* ranks by the similarity of the first contrast
    mlm   masked words, by the fused tokens

Pre-training comes in stages (section 3.3): pictures alone by masked patches, texts alone by masked words with attention
and the vision experts frozen, then pairs. `stage` says which of them this run is; `recipes/vlmo.py` chains them.

Departures: rows that share a picture or a caption are never negatives; the word head is tied to the embeddings; negatives
may be annealed from random to hard, as for ALBEF.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import Encoded, Fused
from multiway.batch import Batch, DataInfo
from multiway.losses.itc import itc
from multiway.losses.itm import itm
from multiway.losses.mlm import mlm
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.methods.partners import Lent, draw_partners, meet
from multiway.methods.shared_space import SharedSpace
from multiway.nn.attention import Visibility
from multiway.nn.heads import MaskedWordHead
from multiway.nn.multiway import Multiway, MultiwayConfig
from multiway.nn.picture_embed import PictureEmbed
from multiway.nn.picture_grid import square_grid
from multiway.nn.relative import RelativePositions
from multiway.nn.text import TextConfig, TextEmbed
from multiway.nn.transformer import init_weights
from multiway.nn.visual_tokeniser import VisualTokeniser, VisualTokeniserConfig
from multiway.world import World

__all__ = ["Vlmo", "VlmoConfig"]


@dataclass(frozen=True)
class VlmoConfig:
    """Sizes and schedules of VLMo.

    Attributes:
        blocks: the multiway transformer. `experts=("shared",)` is the comparison with one feed-forward part for all.
        size, patch, stem: of pictures; see `VisionConfig`.
        vocabulary, context: of texts; 0 is left to the data.
        embedding: width of the space in which pictures and texts are compared; 0 for the blocks' width, as released.
        temperature: initial 1 / exp(t) of both contrasts.
        stage: `vision` masked patches of pictures, `language` masked words of texts, `pairs` everything.
        tokeniser: of pictures, for the stage `vision`; taken from the run that `codes` names.
        mlm_weight: of masked words among pairs.
        hard_until: share of training after which all negatives are drawn by similarity; they start evenly drawn. 0 is the
            paper.
    """

    blocks: MultiwayConfig = MultiwayConfig(width=128, layers=4, heads=2, fusion_layers=2, init_std=0.08)
    size: int = 64
    patch: int = 16
    stem: Literal["patch", "conv"] = "conv"
    vocabulary: int = 0
    context: int = 0
    embedding: int = 0
    temperature: float = 0.07
    stage: Literal["vision", "language", "pairs"] = "pairs"
    tokeniser: VisualTokeniserConfig | None = None
    mlm_weight: float = 1.0
    hard_until: float = 0.5

    def resolve(self, data: DataInfo) -> VlmoConfig:
        """The config with vocabulary and context filled in from the data; sizes that were given are kept."""
        return replace(self, vocabulary=self.vocabulary or data.vocabulary, context=self.context or data.context)

    @property
    def text(self) -> TextConfig:
        """The words' embedding: BERT's, with its norm."""
        return TextConfig(self.vocabulary, self.context, self.blocks.width, epsilon=1e-12, embedding_norm=True)

    @classmethod
    def preset(cls, name: str) -> VlmoConfig:
        """`tiny`, or the paper's `base`, `base-plus` and `large` (section 4.1).

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        if name not in _SIZES:
            raise KeyError(f"VLMo has no preset `{name}`; there are: tiny, {', '.join(_SIZES)}")
        width, layers, heads, top = _SIZES[name]
        blocks = MultiwayConfig(
            width=width, layers=layers, heads=heads, fusion_layers=layers - top, layer_scale=0.1, drop_path=0.1
        )
        return cls(
            blocks, size=224, patch=16, stem="patch", vocabulary=30522, context=40, mlm_weight=0.25, hard_until=0.0
        )


# name -> width, layers, heads, first block with a fusion expert
_SIZES = {"base": (768, 12, 12, 10), "base-plus": (544, 24, 16, 21), "large": (1024, 24, 16, 21)}


class Vlmo(SharedSpace, Method):
    """The multiway transformer, its embeddings and its heads."""

    name = "vlmo"
    config_class = VlmoConfig
    config: VlmoConfig
    own_state: ClassVar[tuple[str, ...]] = ("tokeniser.", "code_head.")
    rests: ClassVar[bool] = True
    lends: ClassVar[Lent] = {"text_of_image": ("batch.text", "batch.text_mask"), "image_of_text": ("image_tokens",)}
    watched: ClassVar[dict[str, tuple[float, float]]] = {"temperature_scale": (1.0, 100.0)}

    def __init__(self, config: VlmoConfig) -> None:
        super().__init__()
        if config.vocabulary < 1 or config.context < 2:
            raise ValueError("there is no vocabulary or context yet; call config.resolve(data_info) first")
        self.config = config
        width = config.blocks.width
        self.shared = config.blocks.experts == ("shared",)
        self.pictures = PictureEmbed(config.size, config.patch, width, config.stem, positions=False)
        self.words = TextEmbed(config.text)
        init_weights(self.words, config.blocks.init_std)
        self.types = nn.Embedding(2, width)  # of a text, of a picture
        self.positions = RelativePositions(
            config.blocks.layers, config.blocks.heads, self.pictures.grid, config.context
        )
        self.blocks = Multiway(config.blocks)

        shared_space = config.embedding or width
        # Two contrasts, each with projections and a temperature of its own: `own` experts, and the `fusion` ones on top.
        kinds = ("own", "fusion") if config.blocks.fusion_layers else ("own",)
        self.image_projection = nn.ModuleDict({kind: nn.Linear(width, shared_space, bias=False) for kind in kinds})
        self.text_projection = nn.ModuleDict({kind: nn.Linear(width, shared_space, bias=False) for kind in kinds})
        self.log_scale = nn.ParameterDict(
            {kind: nn.Parameter(-torch.tensor(config.temperature).log()) for kind in kinds}
        )
        self.pooler = nn.Linear(width, width)
        self.match_head = nn.Linear(width, 2)
        self.word_head = MaskedWordHead(width, config.vocabulary)
        for part in (self.types, self.image_projection, self.text_projection, self.pooler, self.match_head):
            init_weights(part)
        if config.stage == "vision":
            if config.tokeniser is None:
                raise ValueError(
                    "masked patches are guessed as codes and there is no image tokeniser; name one: --codes RUN"
                )
            self.tokeniser = VisualTokeniser(config.tokeniser).requires_grad_(False)
            if self.tokeniser.image.grid != self.pictures.grid:
                raise ValueError(
                    f"the image tokeniser sees {self.tokeniser.image.grid} patches and the model {self.pictures.grid}; they must "
                    "agree: set --method.patch to the tokeniser's"
                )
            self.code_head = nn.Linear(width, config.tokeniser.codes)
            init_weights(self.code_head)

    # Section 3.1: embeddings, and the blocks in their three modes.

    def embed_image(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(B, 3, H, W), and (B, N) bool patches to hide -> (B, 1 + N, W) what enters the blocks."""
        return self.pictures(images, hidden) + self.types.weight[1]  # type: ignore[no-any-return]

    def embed_text(self, ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, W) what enters the blocks."""
        return self.words(ids) + self.types.weight[0]  # type: ignore[no-any-return]

    def _alone(
        self, tokens: Tensor, expert: str, visibility: Visibility, bias: Tensor, first: bool = True
    ) -> dict[str, Tensor]:
        """One modality through the blocks: with its own experts to the top, and with the fusion experts there.

        The blocks below the fusion layers are run once for both.
        """
        own = (("shared" if self.shared else expert, tokens.shape[1]),)
        top = self.blocks.top
        lower = self.blocks(tokens, own, visibility, bias=bias, stop=top)
        found = {"own": self.blocks(lower, own, visibility, bias=bias, start=top, first=first)}
        if "fusion" in self.log_scale:
            pairs = (("fusion", tokens.shape[1]),)
            found["fusion"] = self.blocks(lower, pairs, visibility, bias=bias, start=top, first=first)
        return found

    def _image(self, embedded: Tensor, grid: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """Unit vectors (B, D) of pictures, by kind of contrast."""
        found = self._alone(embedded, "vision", Visibility(), self.positions.image(grid))
        return {kind: F.normalize(self.image_projection[kind](x[:, 0]).float(), dim=-1) for kind, x in found.items()}

    def _text(self, embedded: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Unit vectors (B, D) of texts, by kind of contrast."""
        length = embedded.shape[1]
        visibility = Visibility.of(mask, length, embedded.device)
        found = self._alone(embedded, "language", visibility, self.positions.text(length))
        return {kind: F.normalize(self.text_projection[kind](x[:, 0]).float(), dim=-1) for kind, x in found.items()}

    def _fused(
        self, text: Tensor, mask: Tensor, image: Tensor, *, first: bool = False, record: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Embedded texts (B, L, W) and pictures (B, N, W), as pairs -> (B, L + N, W), or the text's class token alone.

        `record` receives the attention of words over patches.
        """
        length, patches = text.shape[1], image.shape[1]
        tokens = torch.cat([text, image], 1)
        seen = torch.cat([mask, mask.new_ones(mask.shape[0], patches)], 1)
        visibility = Visibility.of(seen, length + patches, tokens.device)
        together = length + patches
        run = partial(self.blocks, bias=self.positions.pair(length, square_grid(image)), record=record)
        run = partial(run, visibility=visibility, split=None if record is None else length)
        apart = (("language", length), ("vision", patches)) if not self.shared else (("shared", together),)
        if not self.config.blocks.fusion_layers:
            return run(tokens, apart, first=first)
        lower = run(tokens, apart, stop=self.blocks.top)
        return run(lower, (("fusion", together),), start=self.blocks.top, first=first)

    def _match(self, text: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        """(B, 2) logits, no and yes, from the fused class token of the text."""
        return self.match_head(self._pool(self._fused(text, mask, image, first=True)))  # type: ignore[no-any-return]

    def _pool(self, fused: Tensor) -> Tensor:
        """(B, ..., W) fused tokens -> (B, W): a layer and tanh on the first, the text's class token."""
        return torch.tanh(self.pooler(fused[:, 0]))

    def _guess(self, text: Tensor, mask: Tensor, image: Tensor | None, at: Tensor) -> Tensor:
        """(P, V) logits of the words at `at`; without a picture by the language experts alone."""
        if image is None:
            visibility = Visibility.of(mask, text.shape[1], text.device)
            own = (("shared" if self.shared else "language", text.shape[1]),)
            tokens = self.blocks(text, own, visibility, bias=self.positions.text(text.shape[1]))
        else:
            tokens = self._fused(text, mask, image)[:, : text.shape[1]]
        return self.word_head(tokens[at], self.words.words.weight)  # type: ignore[no-any-return]

    # What a trained model can be asked.

    def encode_image(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) -> embedding (B, D), and as tokens what the fused mode starts from: (B, 1 + N, W) patches."""
        embedded = self.embed_image(images)
        return Encoded(self._image(embedded, self.pictures.patches.grid(images))["own"], embedded)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) -> embedding (B, D), and as tokens what the fused mode starts from: (B, L, W) words."""
        embedded = self.embed_text(ids)
        return Encoded(self._text(embedded, mask)["own"], embedded, mask, ids)

    def image_to_fuse(self, images: Tensor) -> Encoded:
        """(B, 3, H, W) -> the tokens alone: the fused mode starts from patches, and no block is run for them before."""
        return Encoded(images.new_empty(images.shape[0], 0), self.embed_image(images))

    def text_to_fuse(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) -> the tokens alone: the fused mode starts from words."""
        return Encoded(torch.empty(ids.shape[0], 0, device=ids.device), self.embed_text(ids), mask, ids)

    def match(self, image: Encoded, text: Encoded) -> Tensor:
        """(B,) log-odds that picture i and text i are a pair: the two logits' difference."""
        logits = self.match_head(self.fuse(image, text).pooled)
        return logits[:, 1] - logits[:, 0]  # type: ignore[no-any-return]

    def match_with_maps(self, image: Encoded, text: Encoded) -> tuple[Tensor, list[Tensor]]:
        """`match`, and from every block the attention of words over patches within the joint one: (B, heads, L, 1 + N), in the graph."""
        assert image.tokens is not None and text.tokens is not None and text.mask is not None
        record: dict[str, Tensor] = {}
        logits = self.match_head(self._pool(self._fused(text.tokens, text.mask, image.tokens, record=record)))
        return logits[:, 1] - logits[:, 0], [record[f"blocks.{i}.attention"] for i in range(self.config.blocks.layers)]

    @property
    def fused_width(self) -> int:
        """Of the pooler."""
        return self.config.blocks.width

    def fuse(self, image: Encoded, text: Encoded, tokens: bool = False) -> Fused:
        """Pairs by the pooler's output, from the text's class token, as they are matched and as the paper classifies (3.4).

        Raises:
            ValueError: for two pictures in a row: the paper reads them one by one, both vectors side by side (NLVR2).
        """
        assert image.tokens is not None and text.tokens is not None and text.mask is not None
        fused = self._fused(text.tokens, text.mask, image.tokens, first=not tokens)
        words = (fused[:, : text.tokens.shape[1]], text.mask) if tokens else ()
        return Fused(self._pool(fused), *words)

    def fill_mask(self, image: Encoded | None, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """(P, V) logits of the words at `at`, with the picture or from the words alone."""
        return self._guess(self.embed_text(ids), mask, None if image is None else image.tokens, at)

    # Section 3.2: the training step.

    def hardness(self, step: Step) -> float:
        """Share of the negatives that are drawn by similarity."""
        return 1.0 if step.progress >= self.config.hard_until else step.progress / self.config.hard_until

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Both modalities alone: embedded, and as unit vectors of each contrast."""
        if self.config.stage != "pairs":
            return {}
        assert batch.images is not None and batch.text is not None and batch.text_mask is not None
        image, text = self.embed_image(batch.images), self.embed_text(batch.text)
        reps = {"image_tokens": image, "text_tokens": text}
        seen = self._image(image, self.pictures.patches.grid(batch.images))
        reps |= {f"image_{kind}": found for kind, found in seen.items()}
        reps |= {f"text_{kind}": found for kind, found in self._text(text, batch.text_mask).items()}
        return reps

    def mine(self, reps: Reps, batch: Batch, world: World, step: Step) -> Pairs:
        """Hard negatives among the rows of all ranks, by the similarity of the first contrast."""
        if self.config.stage != "pairs":
            return {}
        temperature = (-self.log_scale["own"]).exp()
        return draw_partners(reps["image_own"], reps["text_own"], temperature, batch, world, self.hardness(step))

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Contrast twice, matching, masked words; in the stages before masked patches or masked words alone."""
        if self.config.stage == "vision":
            return self._patches(batch)
        if batch.masked_text is None or batch.masked is None or batch.text is None or batch.text_mask is None:
            raise ValueError("VLMo guesses masked words and the batch has none; set the recipe's masking.ratio above 0")
        alone = self.config.stage == "language"
        guesses = self._guess(
            self.embed_text(batch.masked_text), batch.text_mask, None if alone else reps["image_tokens"], batch.masked
        )
        guessed = mlm(guesses, batch.text[batch.masked])
        weight = 1.0 if alone else self.config.mlm_weight
        words = Term(guessed.loss, weight, chance=guessed.chance, formula=guessed.formula)
        report = {"mlm_accuracy": guessed.accuracy}
        if alone:
            return Losses({"mlm": words}, report=report, counts=guessed.over("mlm"))

        ids = {"image_id": batch.image_id, "text_id": batch.text_id}
        contrasts = {
            kind: itc(reps[f"image_{kind}"], reps[f"text_{kind}"], scale.exp(), world, **ids)  # type: ignore[arg-type]
            for kind, scale in self.log_scale.items()
        }
        aligned = contrasts["own"]
        loss = torch.stack([each.loss for each in contrasts.values()]).mean()
        matched = itm(self._against(*meet(reps, pairs, batch, world, self.lends)), pairs["found"])
        terms = {
            "itc": Term(loss, chance=aligned.chance, formula=aligned.formula),
            "itm": Term(matched.loss, chance=matched.chance, formula=matched.formula),
            "mlm": words,
        }
        report |= {
            "temperature_scale": self.log_scale["own"].detach().exp(),
            "image_to_text_accuracy": aligned.image_to_text_accuracy,
            "text_to_image_accuracy": aligned.text_to_image_accuracy,
            "itm_accuracy": matched.accuracy,
            "match_positive": matched.positive,
            "match_negative": matched.negative,
            "hardness": torch.tensor(self.hardness(step)),
        }
        features = {"image": reps["image_own"].detach(), "text": reps["text_own"].detach()}
        return Losses(terms, report=report, features=features, counts=guessed.over("mlm"))

    def _patches(self, batch: Batch) -> Losses:
        """Masked patches as codes (section 3.3, as BEiT)."""
        assert batch.images is not None
        hidden = batch.patch_mask
        if hidden is None:
            raise ValueError(
                "VLMo's first stage guesses masked patches and the batch has none; set patches.ratio above 0"
            )
        embedded = self.embed_image(batch.images, hidden)
        own = (("shared" if self.shared else "vision", embedded.shape[1]),)
        tokens = self.blocks(embedded, own, bias=self.positions.image(self.pictures.patches.grid(batch.images)))
        found = mlm(self.code_head(tokens[:, 1:][hidden]), self.tokeniser.tokenise(batch.images)[hidden])
        term = Term(found.loss, chance=found.chance, formula=found.formula)
        return Losses({"mim": term}, report={"mim_accuracy": found.accuracy}, counts=found.over("mim"))

    def _against(self, reps: Reps, pairs: Pairs, batch: Batch) -> Tensor:
        """(3B, 2) logits of the pairs, of pictures with wrong texts, and of texts with wrong pictures; see `partners.meet`."""
        assert batch.text is not None and batch.text_mask is not None
        rows, wrong_text = len(pairs["found"]), pairs["text_of_image"]
        own, images, mask = reps["text_tokens"], reps["image_tokens"], batch.text_mask
        # Texts of other ranks may be longer than this one's.
        own = F.pad(own, (0, 0, 0, mask.shape[1] - own.shape[1]))
        image, own_mask = images[:rows], mask[:rows]
        return self._match(
            torch.cat([own, self.embed_text(batch.text[wrong_text]), own]),
            torch.cat([own_mask, mask[wrong_text], own_mask]),
            torch.cat([image, image, images[pairs["image_of_text"]]]),
        )

    @torch.no_grad()
    def after_step(self, step: Step, updates: object) -> None:
        """The temperatures' bound, as CLIP's: exp(t) is kept at or below 100."""
        for scale in self.log_scale.values():
            scale.clamp_(max=4.6052)
