"""Text to token ids. The work is done by the `tokenizers` library; this file says which tokeniser and what it returns.

Trained on the captions at hand: byte-level BPE on lower-cased text, as CLIP's (Radford et al. 2021, section 2.4), with
a vocabulary as small as the data deserve. Byte-level means that no caption has an unknown character.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from multiway.data.source import DataError

__all__ = ["Tokenizer", "TokenizerSpec", "Tokens"]

# The loader's workers are forked; the library's threads must not be.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Roles of special tokens, and the names under which published tokenisers carry them.
_SPECIAL = {
    "pad": ("[PAD]", "<pad>"),
    "bos": ("[BOS]", "[CLS]", "<|startoftext|>", "<s>"),
    "eos": ("[EOS]", "[SEP]", "<|endoftext|>", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "unknown": ("[UNK]", "<unk>"),
}


# Captions of a small set come again in every epoch, and to cut them into tokens anew is a third of what a batch of small pictures costs.
_KEPT_TEXTS, _KEPT_LENGTH = 1 << 14, 256

CONTEXT_CEILING = 1 << 20
"""Tokens above which a context is taken for damage."""

# Texts that any tokeniser has to survive: common, foreign to it, and none at all.
_TRIAL = ("a red apple, 12", "日本の旗 Ωмега 🍎 \u200d\x00", "")


@dataclass(frozen=True)
class TokenizerSpec:
    """Which tokeniser a run uses.

    Attributes:
        vocabulary: most ids to learn, special tokens and the 256 bytes included.
        context: most tokens of a text, special tokens included; longer texts are cut.
        path: a `tokenizer.json` to load instead of training one.
    """

    vocabulary: int = 2048
    context: int = 32
    path: str = ""


@dataclass
class Tokens:
    """A batch of texts: ids (B, L) int64, mask (B, L) True at real tokens, word_starts (B, L) True at a word's first."""

    ids: Tensor
    mask: Tensor
    word_starts: Tensor


class Tokenizer:
    """A `tokenizers.Tokenizer` with its context, padding to the longest text of the batch."""

    def __init__(self, backend: Backend, context: int) -> None:
        self.backend = backend
        self.context = context
        self.special = {
            role: token_id
            for role, names in _SPECIAL.items()
            for token_id in [next((i for i in map(backend.token_to_id, names) if i is not None), None)]
            if token_id is not None
        }
        if "eos" not in self.special:
            raise DataError(
                f"the tokeniser has none of {', '.join(_SPECIAL['eos'])}; an end token is needed to pool a text"
            )
        self.pad = self.special.get("pad", self.special["eos"])
        self._ids = _number_of_ids(backend)
        added = backend.num_special_tokens_to_add(False)
        if type(context) is not int or not added < context <= CONTEXT_CEILING:
            raise DataError(
                f"the context is {context!r:.40} tokens; expected {added + 1} (special tokens and one more) to {CONTEXT_CEILING:,}"
            )
        backend.enable_truncation(context)
        backend.no_padding()
        self._read: dict[str, tuple[list[int], list[int]]] = {}

    @classmethod
    def train(cls, captions: Iterable[str], spec: TokenizerSpec) -> Tokenizer:
        """Learn a byte-level BPE from captions; the same captions in any order give the same tokeniser."""
        backend = Backend(models.BPE())
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        # Words, numbers digit by digit, and punctuation, each with the space before it.
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=spec.vocabulary,
            # The end token must not be number 2: transformers takes that number for a legacy CLIP and pools elsewhere.
            special_tokens=["[PAD]", "[MASK]", "[BOS]", "[EOS]"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(sorted(captions), trainer)
        backend.post_processor = processors.TemplateProcessing(
            single="[BOS] $A [EOS]",
            special_tokens=[("[BOS]", backend.token_to_id("[BOS]")), ("[EOS]", backend.token_to_id("[EOS]"))],
        )
        return cls(backend, spec.context)

    @classmethod
    def from_json(cls, text: str, context: int) -> Tokenizer:
        """From the text of a `tokenizer.json`."""
        try:
            backend = Backend.from_str(text)
            found = cls(backend, context)
            found(_TRIAL)  # a model without the token for what it does not know fails on the first such text only
        except (DataError, KeyboardInterrupt):
            raise
        except (
            BaseException
        ) as error:  # the library raises plain Exception, and where it panics one that is not even that
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise DataError(f"this is not a tokenizer.json: {error!s:.300}") from error
        return found

    @classmethod
    def open(cls, spec: TokenizerSpec, captions: Iterable[str]) -> Tokenizer:
        """The tokeniser of a spec: loaded from its path, else trained on `captions`."""
        if not spec.path:
            return cls.train(captions, spec)
        path = Path(spec.path)
        if not path.is_file():
            raise DataError(f"tokeniser file {path} does not exist; give the path of a tokenizer.json")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), spec.context)
        except (OSError, ValueError) as error:
            raise DataError(
                f"tokeniser file {path}: {error}; give a tokenizer.json that a library has saved"
            ) from error

    def of_context(self, context: int) -> Tokenizer:
        """The same tokeniser, cutting texts to another number of tokens."""
        return Tokenizer(Backend.from_str(self.to_json()), context)

    def __len__(self) -> int:
        """How many rows an embedding of its ids has."""
        return self._ids

    def to_json(self) -> str:
        """The text of a `tokenizer.json`, which other programs read too."""
        return self.backend.to_str()

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Token ids of `texts`, padded to the longest of them."""
        read = self._reading(texts)
        counts = np.array([len(ids) for ids, _ in read], dtype=np.int64)
        mask = np.arange(counts.max(initial=0)) < counts[:, None]
        ids = np.full(mask.shape, self.pad, dtype=np.int64)
        ids[mask] = [number for own, _ in read for number in own]
        words = np.full(mask.shape, -1, dtype=np.int64)
        words[mask] = [word for _, own in read for word in own]
        starts = words >= 0
        starts[:, 1:] &= words[:, 1:] != words[:, :-1]
        return Tokens(torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(starts))

    def _reading(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Of each text its ids and the words that they belong to.

        Words are numbered within their text, and a new number begins a word; special tokens belong to none, -1.
        """
        read = {text: self._read.get(text) for text in texts}  # asked once: other threads may empty what is kept
        new = [text for text, own in read.items() if own is None]
        fresh = {
            text: (each.ids, [-1 if word is None else word for word in each.word_ids])
            for text, each in zip(new, self.backend.encode_batch(new), strict=True)
        }
        if len(self._read) + len(fresh) > _KEPT_TEXTS:
            self._read.clear()
        kept = [text for text in new if len(text) <= _KEPT_LENGTH][:_KEPT_TEXTS]
        self._read.update((text, fresh[text]) for text in kept)
        return [read[text] or fresh[text] for text in texts]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, its special ones and those that are cut off included: above `context`, something is."""
        own = self.backend.num_special_tokens_to_add(False)
        found = self.backend.encode_batch(list(texts))
        return [len(each.ids) + sum(len(more.ids) - own for more in each.overflowing) for each in found]

    def decode(self, ids: Sequence[int]) -> str:
        """Ids back to text, special tokens left out."""
        return self.backend.decode(list(ids)).strip()


def _number_of_ids(backend: Backend) -> int:
    """One more than the highest id, which exceeds the number of tokens where the ids have gaps.

    Raises:
        DataError: if there are no tokens, or so few for such ids that an embedding of them would be nearly all waste.
    """
    vocabulary = backend.get_vocab()
    ids = 1 + max(vocabulary.values(), default=-1)
    if not vocabulary or ids > 4 * len(vocabulary) + 1000:
        raise DataError(
            f"the tokeniser has {len(vocabulary):,} tokens and ids up to {ids - 1:,}; number its tokens from 0 on without large gaps"
        )
    return ids
