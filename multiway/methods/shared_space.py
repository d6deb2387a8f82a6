"""For methods that map pictures and texts into one space: what it means to compare them there."""

from __future__ import annotations

from torch import Tensor

from multiway.abilities import Encoded, Query

__all__ = ["SharedSpace"]


class SharedSpace:
    """A base beside `Method`, for those whose `encode_image` and `encode_text` give unit vectors of one space."""

    def compare(self, image: Encoded, text: Encoded, query: Query = "image") -> Tensor:
        """s_ij = <v_i, w_j>: (Bi, D) and (Bt, D) -> (Bi, Bt) cosines, the same whoever asks."""
        return image.embedding @ text.embedding.T
