"""BERT's masked language model, and so the blind twin of every method that guesses words with a picture.

Devlin, Chang, Lee, Toutanova; NAACL 2019; arXiv 1810.04805. Masked words are guessed from the other words alone (section
3.1). What a model with a picture scores beyond this one, trained on the same captions with the same masks, it has from the
picture; the rest is grammar and habit. The paper's next-sentence prediction is left out: captions have no next sentence,
and RoBERTa (arXiv 1907.11692, section 4.2) showed that nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from multiway.abilities import ABILITIES, Encoded, Fused
from multiway.batch import Batch, DataInfo
from multiway.config import LATER
from multiway.losses.mlm import mlm
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.nn.heads import MaskedWordHead
from multiway.nn.text import BERT_BASE, TextConfig, TextTransformer
from multiway.world import World

__all__ = ["Bert", "BertConfig"]


@dataclass(frozen=True)
class BertConfig:
    """Sizes of BERT.

    Attributes:
        text: the encoder. `tiny` has as many blocks as ALBEF's two halves together.
        head: whether there is a head for masked words. Encoders that others publish often come without; they are read and tuned, and
            cannot be trained on as they are.
    """

    text: TextConfig = TextConfig(context=0, width=128, layers=4, heads=2, causal=False, pool="class")
    head: bool = field(default=True, metadata=LATER)

    def resolve(self, data: DataInfo) -> BertConfig:
        """The config with vocabulary and context filled in from the data; sizes that were given are kept."""
        vocabulary = self.text.vocabulary or data.vocabulary
        return replace(self, text=replace(self.text, vocabulary=vocabulary, context=self.text.context or data.context))

    @classmethod
    def preset(cls, name: str) -> BertConfig:
        """`tiny`, or `base`, the paper's 12 layers of 768 with 30,522 tokens.

        Raises:
            KeyError: for an unknown name, with the names that exist.
        """
        if name == "tiny":
            return cls()
        if name != "base":
            raise KeyError(f"BERT has no preset `{name}`; there are: tiny, base")
        return cls(BERT_BASE)


class Bert(Method):
    """An encoder of text and a head for its masked words."""

    name = "bert"
    config_class = BertConfig
    config: BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        if config.text.vocabulary < 1 or config.text.context < 2:
            raise ValueError("the text encoder has no vocabulary or context yet; call config.resolve(data_info) first")
        self.config = config
        self.text = TextTransformer(config.text)
        self.words: MaskedWordHead | None = None
        if config.head:
            self.words = MaskedWordHead(config.text.width, config.text.vocabulary, config.text.epsilon)

    def abilities(self) -> tuple[str, ...]:
        """Names of what this model can be asked to do; without its head no words are guessed."""
        found = (name for name, kind in ABILITIES.items() if isinstance(self, kind))
        return tuple(name for name in found if self.words is not None or name != "fill_mask")

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """(B, L) token ids -> (B, L, W) tokens; no embedding: there is no picture to share a space with."""
        tokens = self.text(ids, mask).tokens
        return Encoded(tokens.new_zeros(len(tokens), 0), tokens, mask, ids)

    @property
    def fused_width(self) -> int:
        """Of the class token."""
        return self.config.text.width

    def fuse(self, image: Encoded | None, text: Encoded, tokens: bool = False) -> Fused:
        """The text's class token, on which the paper puts its classifiers (section 3.2). A picture, if given, is not looked at."""
        assert text.tokens is not None
        return Fused(text.tokens[:, 0], *((text.tokens, text.mask) if tokens else ()))

    def fill_mask(self, image: Encoded | None, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """(P, V) logits of the words at `at`. A picture, if given, is not looked at.

        Raises:
            ValueError: if these weights have no head for masked words.
        """
        if self.words is None:
            raise ValueError("these weights have no head for masked words; load those of a BertForMaskedLM or the like")
        return self.words(self.text(ids, mask).tokens[at], self.text.embed.words.weight)  # type: ignore[no-any-return]

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Masked words, scored at the masked positions alone."""
        if batch.masked_text is None or batch.masked is None or batch.text is None or batch.text_mask is None:
            raise ValueError("BERT guesses masked words and the batch has none; set the recipe's masking.ratio above 0")
        result = mlm(self.fill_mask(None, batch.masked_text, batch.text_mask, batch.masked), batch.text[batch.masked])
        return Losses(
            {"mlm": Term(result.loss, chance=result.chance, formula=result.formula)},
            report={"mlm_accuracy": result.accuracy},
            counts=result.over("mlm"),
        )

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Nothing: no loss crosses rows."""
        return {}
