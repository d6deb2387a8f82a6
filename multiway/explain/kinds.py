"""Every kind of map by name: what `--kind` takes, and `multiway.explain(..., kinds=...)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from multiway.config import ConfigError
from multiway.explain.across import cross_attention, match_cam
from multiway.explain.alignment import token_matches, word_patch_transport
from multiway.explain.alone import class_cam, own_attention, own_rollout, similarity_cam
from multiway.explain.occlusion import occlusion
from multiway.explain.pairs import Found, Pairs

__all__ = ["KINDS", "Kind", "named"]


@dataclass(frozen=True)
class Kind:
    """One kind of map.

    Attributes:
        name: on the command line.
        show: from B pairs to their maps; raises `CannotShow` where a model has none.
        asks: whether it depends on the text.
        spreads: whether an uninteresting patch gets something too, as in attention: what is drawn is then what exceeds the median.
        says: what is seen, and whose idea it is, for people.
    """

    name: str
    show: Callable[[Pairs], Found]
    asks: bool
    spreads: bool
    says: str


KINDS: dict[str, Kind] = {
    each.name: each
    for each in (
        Kind(
            "attention", own_attention, False, True,
            "Where the picture's own token looks (DINO, arXiv 2104.14294). It knows nothing of the text.",
        ),
        Kind(
            "rollout", own_rollout, False, True,
            "Attention followed through all layers, half of each being what a token was before (arXiv 2005.00928). Of a picture that "
            "is read by itself it knows nothing of the text; where picture and text are one sequence (ViLT, VLMo, BEiT-3) it is the text's.",
        ),
        Kind(
            "cross-attention", cross_attention, True, True,
            "Where words look in the picture while the two are read together: mean over layers and heads.",
        ),
        Kind(
            "grad-cam", match_cam, True, False,
            "Cross-attention where more of it would raise the score that picture and text match (ALBEF, arXiv 2107.07651, section 5.3).",
        ),
        Kind(
            "itc-cam", similarity_cam, True, False,
            "Grad-CAM (arXiv 1610.02391) of the similarity of picture and text, each read by itself.",
        ),
        Kind(
            "class-cam", class_cam, False, False,
            "Grad-CAM (arXiv 1610.02391) of the class that a tuned classifier gives. It knows nothing of the text.",
        ),
        Kind(
            "wpa", word_patch_transport, True, True,
            "Word-patch alignment by transport (IPOT; UNITER, arXiv 1909.11740; ViLT, arXiv 2102.03334): where each word's mass goes. "
            "Of the whole text: the most that any one word moves to a patch.",
        ),
        Kind(
            "filip", token_matches, True, True,
            "Cosine of each word with each patch (FILIP, arXiv 2111.07783): the greatest is what the word adds to the similarity.",
        ),
        Kind(
            "occlusion", occlusion, True, False,
            "By how much the score falls where the picture is covered (Zeiler and Fergus, arXiv 1311.2901).",
        ),
    )
}  # fmt: skip


def named(kinds: Iterable[str] | None) -> tuple[Kind, ...]:
    """Kinds by their names, all by default.

    Raises:
        ConfigError: for an unknown name, with those that there are.
    """
    names = tuple(KINDS) if kinds is None else tuple(dict.fromkeys(kinds))
    for name in names:
        if name not in KINDS:
            raise ConfigError(f"there is no kind of map {name!r}; there are: {', '.join(KINDS)}")
    return tuple(KINDS[name] for name in names)
