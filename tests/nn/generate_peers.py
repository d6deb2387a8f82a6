"""A tiny causal decoder with cross-attention, ours and `transformers`' BLIP text decoder, with the same random weights."""

import torch
from peer_weights import copy, copy_bert_block, randomise
from torch import Tensor, nn
from transformers import BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel

from multiway.nn.cache import Cache
from multiway.nn.generate import Cached, Recomputed
from multiway.nn.heads import MaskedWordHead
from multiway.nn.text import TextConfig, TextTransformer

# transformers fills with the end token where padding is number 0, which it takes for none.
VOCABULARY, END, PAD, START = 31, 2, 1, 29
TEXT = TextConfig(
    VOCABULARY, 24, 32, 2, 2, causal=True, pool="class", norm="post", epsilon=1e-12, embedding_norm=True, cross_width=20
)


class Writer(nn.Module):
    """Ours: a text transformer and a word head."""

    def __init__(self, text: TextConfig = TEXT) -> None:
        super().__init__()
        self.text = TextTransformer(text)
        self.words = MaskedWordHead(text.width, text.vocabulary)

    def logits(
        self, ids: Tensor, memory: Tensor | None, mask: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """(R, L) -> (R, L, V)."""
        tokens = self.text.embed(ids, past=0 if cache is None else len(cache))
        tokens = self.text.transformer(tokens, None, memory, mask, causal=True, cache=cache)
        return self.words(tokens, self.text.embed.words.weight)

    def cached(self, memory: Tensor, mask: Tensor | None = None) -> Cached:
        def following(ids: Tensor, cache: Cache) -> Tensor:
            seen = (memory, mask) if len(cache) == 0 else (None, None)
            return self.logits(ids, *seen, cache)[:, -1]

        return Cached(following, self.text.config.layers, len(memory), memory.device)

    def recomputed(self, memory: Tensor, mask: Tensor | None = None) -> Recomputed:
        def following(ids: Tensor, rows: Tensor) -> Tensor:
            return self.logits(ids, memory[rows], None if mask is None else mask[rows])[:, -1]

        return Recomputed(following, len(memory), memory.device)


def writers(seed: int = 0, ending: float = 0.0) -> tuple[Writer, BlipTextLMHeadModel]:
    """Ours and theirs; `ending` is added to the bias of the end token, so that texts end at different lengths."""
    config = BlipTextConfig(
        vocab_size=VOCABULARY, hidden_size=32, encoder_hidden_size=20, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=24, bos_token_id=START, sep_token_id=END, eos_token_id=END,
        pad_token_id=PAD, is_decoder=True,
    )  # fmt: skip
    torch.manual_seed(seed)
    theirs = BlipTextLMHeadModel(config)
    randomise(theirs, seed)
    with torch.no_grad():
        theirs.cls.predictions.bias[END] += ending
    ours = Writer().eval()
    embeddings, head = theirs.bert.embeddings, theirs.cls.predictions
    copy(ours.text.embed.words, embeddings.word_embeddings)
    copy(ours.text.embed.norm[0], embeddings.LayerNorm)
    for our, their in zip(ours.text.transformer.blocks, theirs.bert.encoder.layer, strict=True):
        copy_bert_block(our, their)
    copy(ours.words.dense, head.transform.dense)
    copy(ours.words.norm, head.transform.LayerNorm)
    with torch.no_grad():
        ours.text.embed.positions.copy_(embeddings.position_embeddings.weight)
        ours.words.bias.copy_(head.bias)
    return ours, theirs


def pictures(rows: int = 5, seed: int = 3) -> Tensor:
    return torch.randn(rows, 6, 20, generator=torch.Generator().manual_seed(seed)) * 2
