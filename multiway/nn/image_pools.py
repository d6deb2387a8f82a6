"""What CoCa makes of a picture's tokens: many for the caption, one for the contrast.

Yu et al., CoCa, 2022, arXiv 2205.01917, section 3.2 (attentional poolers) and figure 2; `single` is `open_clip`'s default.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from multiway.nn.pooler import AttentionalPooler

__all__ = ["ImagePools", "PoolerForm"]

PoolerForm = Literal["cascade", "parallel", "single"]


class ImagePools(nn.Module):
    """Attentional poolers with a norm of what comes out of each (figure 2: `layer_norm(out)`).

    Args:
        memory_width: of the picture's tokens.
        width: W, of what comes out.
        queries: n of the caption; `single` has the contrastive query among them, the first.
        heads: of the attention.
        form: `cascade` pools the contrastive token over the caption's, `parallel` over the picture's tokens; `single` has one
            pooler for both.
        epsilon: of the norms.

    Raises:
        ValueError: if `single` leaves no query for the caption, or the form is unknown.
    """

    def __init__(
        self, memory_width: int, width: int, queries: int, heads: int, form: PoolerForm, epsilon: float = 1e-5
    ) -> None:
        super().__init__()
        if form not in ("cascade", "parallel", "single") or (form == "single" and queries < 2):
            raise ValueError(
                f"poolers of form {form!r} with {queries} queries; expected cascade, parallel, or single with at least 2: one "
                "for the contrast, the rest for the caption"
            )
        self.form = form
        # CoCa's own output norm; `open_clip` calls it the ViT's last norm.
        self.caption = AttentionalPooler(
            width, queries, heads, memory_width=memory_width, output_norm=True, epsilon=epsilon
        )
        self.contrast: AttentionalPooler | None = None
        if form != "single":
            below = width if form == "cascade" else memory_width
            self.contrast = AttentionalPooler(width, 1, heads, memory_width=below, output_norm=True, epsilon=epsilon)
        # Scores of unit size. With a transformer's 0.02 all queries begin as the mean of the tokens, and stay together: of a
        # small model's captions, colours are then unlearned after 28,800 scenes.
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=part.in_features**-0.5)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, memory_width) -> (B, W) for the contrast and (B, n, W) for the caption (n - 1 where `single`)."""
        pooled = self.caption(tokens)
        if self.contrast is None:
            return pooled[:, 0], pooled[:, 1:]
        return self.contrast(pooled if self.form == "cascade" else tokens)[:, 0], pooled
