"""Writing texts with a decoder: greedy, beam search, nucleus sampling. A file per way; any decoder can use them."""

from __future__ import annotations

from multiway.nn.generate.decoding import Cached, Decoding, Recomputed
from multiway.nn.generate.settings import Generation
from multiway.nn.generate.texts import Prompts, Texts
from multiway.nn.generate.write import generate

__all__ = ["Cached", "Decoding", "Generation", "Prompts", "Recomputed", "Texts", "generate"]
