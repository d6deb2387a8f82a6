"""GPT's language model of captions, and so the blind twin of every method that writes them with a picture.

Radford, Narasimhan, Salimans, Sutskever: Improving Language Understanding by Generative Pre-Training; OpenAI, 2018. Each
token is guessed from those before it (section 3.1, equations 1 and 2), with h the last tokens of a causal transformer and
E the word embeddings:

    L = mean over tokens of - log p(y_t | y_<t),        p = softmax(h_{t-1} E^T)

What a model with a picture scores beyond this one, trained on the same captions, it has from the picture; the rest is
grammar and habit. The paper's fine-tuning (section 3.2) is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.abilities import CaptionScores, Encoded, Fused
from multiway.batch import Batch, DataInfo
from multiway.losses.lm import lm
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.methods.writing import Cached, Writing, caption_scores, resolved, to_be_written, write
from multiway.nn.cache import Cache
from multiway.nn.generate import Generation, Texts
from multiway.nn.pool import last_positions, take
from multiway.nn.text import TextConfig, TextTransformer
from multiway.world import World

__all__ = ["Gpt", "GptConfig"]


@dataclass(frozen=True)
class GptConfig:
    """Sizes of the language model.

    Attributes:
        text: the transformer. `tiny` has as many blocks as the two halves of CoCa's together.
        start, end, pad: ids of the tokeniser's start and end tokens and of padding; -1 is left to the data.
    """

    text: TextConfig = TextConfig(context=0, width=128, layers=4, heads=2, causal=True, pool="last")
    start: int = -1
    end: int = -1
    pad: int = -1

    def resolve(self, data: DataInfo) -> GptConfig:
        """The config with vocabulary, context and special ids filled in from the data; what was given is kept."""
        return resolved(self, data)

    @classmethod
    def preset(cls, name: str) -> GptConfig:
        """`tiny`, or `base`, the paper's (section 4.1): 12 layers of 768, norms after, 40,478 tokens (as released).

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        if name != "base":
            raise KeyError(f"GPT has no preset `{name}`; there are: tiny, base")
        return cls(
            TextConfig(
                vocabulary=40478,
                context=512,
                width=768,
                layers=12,
                heads=12,
                activation="gelu_tanh",
                causal=True,
                pool="last",
                norm="post",
                dropout=0.1,
                attention_dropout=0.1,
            )
        )


class Gpt(Method):
    """A causal transformer over captions. Pictures, if given, are not looked at."""

    name = "gpt"
    config_class = GptConfig
    config: GptConfig

    def __init__(self, config: GptConfig) -> None:
        super().__init__()
        if config.text.vocabulary < 1 or config.text.context < 2 or min(config.start, config.end, config.pad) < 0:
            raise ValueError(
                "the language model lacks vocabulary, context or ids; call config.resolve(data_info) first"
            )
        self.config = config
        self.text = TextTransformer(config.text)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids -> (B, L, W) tokens, each of those up to it; no embedding: there is no picture to share a space with."""
        tokens = self.text(ids).tokens
        return Encoded(tokens.new_zeros(tokens.shape[0], 0), tokens, mask, ids)

    @property
    def fused_width(self) -> int:
        """Of the tokens."""
        return self.config.text.width

    def fuse(self, image: Encoded | None, text: Encoded, tokens: bool = False) -> Fused:
        """The text's last token, as the paper's classifiers (section 3.2). A picture, if given, is not looked at."""
        assert text.tokens is not None and text.mask is not None
        last = take(text.tokens, last_positions(text.mask))
        return Fused(last, *((text.tokens, text.mask) if tokens else ()))

    def caption_likelihood(self, image: Encoded | None, ids: Tensor, mask: Tensor) -> CaptionScores:
        """What is said of each token of (B, L) given captions by those before it alone."""
        return caption_scores(self._guess(ids, mask), ids, mask)

    def generate(
        self,
        image: Encoded | None,
        settings: Generation,
        prompts: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Texts:
        """Write texts; see `nn.generate.generate`.

        Args:
            image: how many are written, a text for each picture; None for a text for each prompt, or one.
            prompts, prompt_mask: (B, L) ids to go on from, the start token first, and (B, L) bool; None for that alone.
        """
        rows = len(prompts) if prompts is not None else 1 if image is None else len(image.embedding)
        return write(self.writing(rows), settings, prompts, prompt_mask, generator)

    def writing(self, rows: int) -> Writing:
        """So many texts, about to be written."""
        words = self.text.embed.words.weight

        def next_logits(ids: Tensor, cache: Cache) -> Tensor:
            at = torch.full(ids.shape[:1], ids.shape[1] - 1, device=ids.device) if ids.shape[1] > 1 else None
            embedded = self.text.embed(ids, past=cache.length)
            return F.linear(self.text.transformer(embedded, cache=cache, at=at)[:, 0], words)

        config, decoding = self.config, Cached(next_logits, self.config.text.layers, rows, words.device)
        return Writing(decoding, config.start, config.end, config.pad, config.text.context)

    def _guess(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(P, V) logits of every token but the first of each text. Padding comes after a text, so that no token sees it."""
        tokens = self.text(ids[:, :-1]).tokens
        return F.linear(tokens[mask[:, 1:]], self.text.embed.words.weight)

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Every word from those before it."""
        assert batch.text is not None and batch.text_mask is not None
        result = lm(self._guess(batch.text, batch.text_mask), batch.text[to_be_written(batch.text_mask)])
        return Losses(
            {"lm": Term(result.loss, chance=result.chance, formula=result.formula)},
            report={"lm_accuracy": result.accuracy},
            counts=result.over("lm"),
        )

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Nothing: no loss crosses rows."""
        return {}
