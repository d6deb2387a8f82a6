"""CoCa: Contrastive Captioners are Image-Text Foundation Models.

Yu, Wang, Vasudevan, Yeung, Seyedhosseini, Wu; TMLR 2022; arXiv 2205.01917.

One pass over a picture and one over its caption serve two losses (section 3.2, figure 2). The text decoder is cut in two: its
lower half reads the words alone, each from those before it, and a [CLS] token after the last of them sums the text up; its
upper half goes on from the words, looks at the picture, and guesses the next. Of the picture, attentional poolers make what
either loss wants: 256 tokens for the caption, one for the contrast.

    L = l_con L_con + l_cap L_cap,    l_con = 1, l_cap = 2

    L_con   picture against text, symmetric, over the batch
    L_cap   - sum_t log P(y_t | y_<t, x): every word, from those before it and the picture

Departures from the paper: rows that share a picture or a caption are positives of one another, never negatives; [CLS] has a
position of its own, so that padding changes nothing. `pooler="single"`, `cross="after"` and `class_mask="legacy"` are
`open_clip`'s, whose released weights need them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.abilities import CaptionScores, Encoded, Fused
from multiway.batch import Batch, DataInfo
from multiway.losses.itc import itc
from multiway.losses.lm import lm
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.methods.shared_space import SharedSpace
from multiway.methods.writing import Cached, Writing, caption_scores, resolved, to_be_written, write
from multiway.nn.cache import Cache
from multiway.nn.generate import Generation, Texts
from multiway.nn.hidden_patches import shown
from multiway.nn.image_pools import ImagePools, PoolerForm
from multiway.nn.interleaved import Interleaved
from multiway.nn.pool import last_positions, take
from multiway.nn.text import TextConfig
from multiway.nn.text_halves import ClassMask, ReadingHalf
from multiway.nn.transformer import Transformer, TransformerConfig
from multiway.nn.vit import VisionConfig, VisionTransformer
from multiway.world import World

__all__ = ["Coca", "CocaConfig"]


@dataclass(frozen=True)
class CocaConfig:
    """Sizes of CoCa.

    Attributes:
        image: the picture's ViT; its tokens are pooled, so that it needs no class token of its own.
        text: the unimodal half, N_uni layers; the multimodal half has its width, heads and activation.
        multimodal_layers: N_multi (section 3.2: as many as N_uni).
        pooler: `cascade` pools the one contrastive token from the caption's tokens, `parallel` from the picture's;
            `single` is `open_clip`'s one pooler, whose first query is the contrastive one.
        queries: of the caption's pooler (section 3.2: 256); `single` counts the contrastive one.
        pooler_heads: of the poolers' attention.
        class_token: where the text's [CLS] stands in the causal order: `last`, or `first`, where it sees no word.
        class_mask: `exact`, [CLS] sees the words and itself; `legacy`, see `nn/text_halves.py`.
        cross: attention to the picture `within` each block of the multimodal half, or in blocks of its own `after` them.
        embedding: width of the shared space.
        contrast, caption: l_con and l_cap (section 3.2, equation 4; table 8b).
        temperature: initial value of the contrast's, learned.
        start, end, pad: ids of the tokeniser's start and end tokens and of padding; -1 is left to the data.
    """

    image: VisionConfig = VisionConfig(size=64, patch=8, width=128, layers=4, heads=2, pool="mean", stem="conv")
    text: TextConfig = TextConfig(context=0, width=128, layers=2, heads=2, causal=True, pool="last")
    multimodal_layers: int = 2
    pooler: PoolerForm = "cascade"
    queries: int = 32
    pooler_heads: int = 2
    class_token: Literal["last", "first"] = "last"
    class_mask: ClassMask = "exact"
    cross: Literal["within", "after"] = "within"
    embedding: int = 128
    contrast: float = 1.0
    caption: float = 2.0
    temperature: float = 0.07
    start: int = -1
    end: int = -1
    pad: int = -1

    def resolve(self, data: DataInfo) -> CocaConfig:
        """The config with vocabulary, context and special ids filled in from the data; what was given is kept."""
        return resolved(self, data)

    @classmethod
    def preset(cls, name: str) -> CocaConfig:
        """`tiny`; `base`, `large` and `giant`, the paper's CoCa-Base, CoCa-Large and CoCa (table 1): 288 pixels, patch 18.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        # width, heads, the ViT's layers and hidden width, layers of each half of the text.
        sizes = {"base": (768, 12, 12, 3072, 12), "large": (1024, 16, 24, 4096, 12), "giant": (1408, 16, 40, 6144, 18)}
        if name not in sizes:
            raise KeyError(f"CoCa has no preset `{name}`; there are: tiny, {', '.join(sizes)}")
        width, heads, layers, hidden, half = sizes[name]
        return cls(
            image=VisionConfig(
                size=288, patch=18, width=width, layers=layers, heads=heads, mlp_ratio=hidden / width, pool="mean"
            ),
            text=TextConfig(vocabulary=64_000, context=64, width=width, layers=half, heads=heads, pool="last"),
            multimodal_layers=half,
            queries=256,
            pooler_heads=heads,
            embedding=width,
        )

    @property
    def decoder(self) -> TransformerConfig:
        """Blocks of the multimodal half."""
        blocks = replace(TransformerConfig.of(self.text), layers=self.multimodal_layers, causal=True)
        return replace(blocks, cross_width=self.text.width)


class Coca(SharedSpace, Method):
    """An image encoder, two poolers, and a text decoder in two halves."""

    name = "coca"
    config_class = CocaConfig
    config: CocaConfig
    watched: ClassVar[dict[str, tuple[float, float]]] = {"temperature_scale": (1.0, 100.0)}

    def __init__(self, config: CocaConfig) -> None:
        super().__init__()
        text = config.text
        if text.vocabulary < 1 or text.context < 2 or min(config.start, config.end, config.pad) < 0:
            raise ValueError("the text decoder lacks vocabulary, context or ids; call config.resolve(data_info) first")
        if text.norm != "pre" or text.embedding_norm or text.types:
            raise ValueError(
                "CoCa's text decoder has norms before its parts and plain embeddings; leave them at their defaults"
            )
        if text.buckets > 1:
            raise ValueError(
                f"text.buckets is {text.buckets}: CoCa's decoder is read in halves and whole batches; set text.buckets=1"
            )
        if not config.contrast and not config.caption:
            raise ValueError("contrast and caption both weigh 0, so that there is nothing to learn; raise one of them")
        self.config = config
        # With one loss alone, the other's pooler and projections have no gradient.
        self.rests = not (config.contrast and config.caption)  # type: ignore[misc]
        self.image = VisionTransformer(config.image)
        self.image.transformer.norm = nn.Identity()  # the poolers norm what they read
        self.pools = ImagePools(
            config.image.width, text.width, config.queries, config.pooler_heads, config.pooler, text.epsilon
        )
        self.unimodal = ReadingHalf(text, config.class_token, config.class_mask, config.pad)
        self.multimodal = (Transformer if config.cross == "within" else Interleaved)(config.decoder)
        self.vocabulary = nn.Linear(text.width, text.vocabulary, bias=False)
        self.image_projection = nn.Linear(text.width, config.embedding, bias=False)
        self.text_projection = nn.Linear(text.width, config.embedding, bias=False)
        for projection in (self.vocabulary, self.image_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=text.width**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(1.0 / config.temperature).log())

    # Section 3.2: attentional poolers, and the decoupled text decoder.

    def encode_image(self, images: Tensor, hidden: Tensor | None = None) -> Encoded:
        """(B, 3, H, W) normalised pixels -> embedding (B, D), and the caption's tokens (B, queries, W).

        Of pictures with patches `hidden` (B, N), as a training batch may have them (FLIP), the poolers read the others alone.
        """
        one, tokens = self.pools(self.image(images, shown(self.image, images, hidden)).tokens)
        return Encoded(F.normalize(self.image_projection(one).float(), dim=-1), tokens)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids -> embedding (B, D), read at [CLS], and the words (B, L, W) as the multimodal half takes them."""
        one, words = self.unimodal(ids, mask)
        return Encoded(F.normalize(self.text_projection(one).float(), dim=-1), words, mask, ids)

    @property
    def fused_width(self) -> int:
        """Of the multimodal half."""
        return self.config.text.width

    def fuse(self, image: Encoded, text: Encoded, tokens: bool = False) -> Fused:
        """Pairs by the multimodal half's output at the last token of the text, which has seen the others and the picture.

        As in the paper (section 4.2, appendix B) the text goes into the decoder and classifiers stand on its outputs. There a
        new attentional pooler with one query sums the outputs up; it is the classifier's, and reads `tokens`. [CLS] is no part
        of it: the multimodal half never sees that token. The picture's pooled tokens are a memory: of two pictures the order
        makes no difference.
        """
        assert image.tokens is not None and text.tokens is not None and text.mask is not None
        last = last_positions(text.mask)
        if not tokens:
            return Fused(self.multimodal(text.tokens, memory=image.tokens, at=last)[:, 0])
        words = self.multimodal(text.tokens, memory=image.tokens)
        return Fused(take(words, last), words, text.mask)

    def caption_likelihood(self, image: Encoded, ids: Tensor, mask: Tensor) -> CaptionScores:
        """What is said of each token of (B, L) given captions, by those before it and the picture."""
        assert image.tokens is not None
        _, words = self.unimodal(ids, mask)
        return caption_scores(self._guess(words, mask, image.tokens), ids, mask)

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
            prompts, prompt_mask: (B, L) ids to go on from, the start token first, and (B, L) bool; None for that alone.
        """
        return write(self.writing(image), settings, prompts, prompt_mask, generator)

    def writing(self, image: Encoded) -> Writing:
        """Texts about to be written about B pictures, tokens kept."""
        assert image.tokens is not None
        config, memory = self.config, image.tokens

        def next_logits(ids: Tensor, cache: Cache) -> Tensor:
            seen = None if cache.seen else memory
            lower, upper = self.unimodal.layers, config.multimodal_layers
            words = self.unimodal.read_on(ids, _part(cache, 0, lower))
            at = torch.full(ids.shape[:1], ids.shape[1] - 1, device=ids.device) if ids.shape[1] > 1 else None
            last = self.multimodal(words, memory=seen, cache=_part(cache, lower, lower + upper), at=at)
            return self.vocabulary(last[:, 0])  # type: ignore[no-any-return]

        layers = self.unimodal.layers + config.multimodal_layers
        decoding = Cached(next_logits, layers, memory.shape[0], memory.device)
        return Writing(decoding, config.start, config.end, config.pad, config.text.context)

    def _guess(self, words: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        """(P, V) logits of every token but the first of each text, in the order of `to_be_written(mask).nonzero()`.

        Nothing follows the last token of a text, so that the multimodal half has no use for it.
        """
        last = self.multimodal(words[:, :-1], memory=image)
        return self.vocabulary(last[mask[:, 1:]])  # type: ignore[no-any-return]

    # Section 3.2, equation 4: one forward pass, two losses.

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Both embeddings, the picture's pooled tokens and the words: each is read once, for both losses."""
        assert batch.images is not None and batch.text is not None and batch.text_mask is not None
        image = self.encode_image(batch.images, batch.patch_mask)
        text = self.encode_text(batch.text, batch.text_mask)
        reps = {"image": image.embedding, "text": text.embedding}
        if self.config.caption:
            assert image.tokens is not None and text.tokens is not None
            reps |= {"image_tokens": image.tokens, "words": text.tokens}
        return reps

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """The contrast over the rows of all ranks, and the captions of this one's."""
        assert batch.text is not None and batch.text_mask is not None
        config, scale = self.config, self.log_scale.exp()
        terms: dict[str, Term] = {}
        report, counts = {"temperature_scale": scale.detach()}, {}
        if config.contrast:
            near = itc(reps["image"], reps["text"], scale, world, image_id=batch.image_id, text_id=batch.text_id)
            terms["itc"] = Term(near.loss, config.contrast, near.chance, near.formula)
            report["image_to_text_accuracy"] = near.image_to_text_accuracy
            report["text_to_image_accuracy"] = near.text_to_image_accuracy
        if config.caption:
            guesses = self._guess(reps["words"], batch.text_mask, reps["image_tokens"])
            said = lm(guesses, batch.text[to_be_written(batch.text_mask)])
            terms["lm"] = Term(said.loss, config.caption, said.chance, said.formula)
            report["lm_accuracy"], counts = said.accuracy, said.over("lm")
        features = {"image": reps["image"].detach(), "text": reps["text"].detach()}
        return Losses(terms, report=report, features=features, counts=counts)

    @torch.no_grad()
    def after_step(self, step: Step, updates: object) -> None:
        """The scale may not exceed 100, as CLIP's."""
        self.log_scale.clamp_(max=float(torch.tensor(100.0).log()))


def _part(cache: Cache, start: int, stop: int) -> Cache:
    """The cache of some of the blocks; they are the same objects."""
    part = Cache(0)
    part.blocks = cache.blocks[start:stop]
    return part
