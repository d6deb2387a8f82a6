"""Maps of which patch a word belongs to, by the features of both: transport (WPA), and FILIP's nearest tokens.

Word-patch alignment (Chen et al., UNITER, 2020, arXiv 1909.11740, section 3.2; Kim et al., ViLT, 2021, arXiv 2102.03334, figure 4)
moves the words' mass onto the patches at least cost, by IPOT (`losses/wpa.py`). With T the plan between N words and M patches, the
map of word n is its mass N T_n, as in ViLT's released demo. Their sum says nothing: every patch receives 1/M, whatever the model. So of
the whole text it is the greatest mass that any one word brings,

    H_m = max_n N T_nm

1/M where all words fit alike, and more where one of them claims the patch. Nor does the words' nearness sum_n T_nm (1 - C_nm) say where
things are, C being the cosine distances: patches that show nothing take up most from other tokens and lie nearest to all words.

FILIP (Yao et al., 2021, arXiv 2111.07783, sections 3.1 and 4.5) compares tokens with tokens: the map of a word is its cosine with
every patch, whose greatest value is what the word adds to the similarity.
"""

from __future__ import annotations

import torch
from torch import Tensor

from multiway.explain.pairs import CannotShow, Found, Pairs, on_grid
from multiway.losses.wpa import cosine_cost, ipot

__all__ = ["token_matches", "word_patch_transport"]


def word_patch_transport(pairs: Pairs) -> Found:
    """The plan between words and patches; of the last layer that reads both, or in the space in which tokens are compared.

    Raises:
        CannotShow: if words and patches are never in one space.
    """
    pairs.require_texts()
    words, patches = _in_one_space(pairs)
    every = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
    with torch.no_grad(), torch.autocast(patches.device.type, enabled=False):
        cost = cosine_cost(words.float(), patches.float(), pairs.words, every)
        plan = ipot(cost, pairs.words, every)
    count = pairs.words.sum(1).clamp(min=1)[:, None, None]
    distance = (plan * cost).sum((1, 2))
    tokens = on_grid(plan * count)
    return Found(tokens.amax(1), tokens, score=distance, score_name="transport distance")


def token_matches(pairs: Pairs) -> Found:
    """Cosines of each token of the text with each patch, and of the text the mean over its words.

    Raises:
        CannotShow: if picture and text are not compared token by token.
    """
    pairs.require_texts()
    if "compare" not in pairs.able or pairs.image.has_embedding:
        raise CannotShow(f"{pairs.method.name} does not compare tokens with tokens, as FILIP does")
    image, text = pairs.image.tokens, pairs.text.tokens
    assert image is not None and text is not None
    with torch.autocast(image.device.type, enabled=False):
        tokens = on_grid(text.float() @ image.float().transpose(1, 2))
    weight = pairs.words.float() / pairs.words.sum(1, keepdim=True).clamp(min=1)
    rows = [
        pairs.method.compare(pairs.image.rows(row), pairs.text.rows(row), "text").flatten()
        for row in torch.arange(len(image), device=image.device)[:, None]
    ]
    heat = (weight[:, :, None, None] * tokens).sum(1)
    return Found(heat, tokens, score=torch.cat(rows).detach(), score_name="similarity")


def _in_one_space(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """(B, L, W) words and (B, M, W) patches, whatever stands before these dropped."""
    if "compare" in pairs.able and not pairs.image.has_embedding:
        words, picture = pairs.text.tokens, pairs.image.tokens
    else:
        joint = pairs.joint
        if joint is None:
            raise CannotShow(f"{pairs.method.name} never has words and patches in one space")
        words, picture = joint.tokens[:, : joint.words], joint.tokens[:, joint.words :]
    assert words is not None and picture is not None
    patches = on_grid(picture.transpose(1, 2)).flatten(2).transpose(1, 2)
    return words, patches
