"""Embeddings as a map in two dimensions: t-SNE, or principal components.

van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 9, 2008. What lies together in t-SNE was near before; distances
between groups, and their sizes, say nothing. Principal components keep the large distances and lose the near ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

__all__ = ["EmbeddingMap", "embedding_map", "principal_plane"]

_FEWEST = 8  # below, t-SNE has no neighbourhoods to keep


@dataclass(frozen=True)
class EmbeddingMap:
    """Where pictures lie.

    Attributes:
        places: (N, 2) float32.
        kind: `t-SNE` or `PCA`.
        kept: of PCA, the share of the variance that two dimensions hold; None of t-SNE, which knows none.
    """

    places: Tensor
    kind: Literal["t-SNE", "PCA"]
    kept: float | None


def embedding_map(vectors: Tensor, seed: int = 0, kind: Literal["auto", "t-SNE", "PCA"] = "auto") -> EmbeddingMap:
    """Lay out vectors; the same for the same seed on the same machine.

    Args:
        vectors: (N, D), N >= 1.
        seed: of t-SNE, which starts from the principal plane and is nearly independent of it.
        kind: `auto` takes t-SNE if scikit-learn is installed and there are vectors enough.

    Raises:
        ValueError: without vectors, with one that is not finite, or for t-SNE where it cannot be had.
    """
    if vectors.ndim != 2 or not len(vectors) or not torch.isfinite(vectors).all():
        raise ValueError(f"given vectors of shape {tuple(vectors.shape)}; expected (N, D), N at least 1, all finite")
    installed = find_spec("sklearn") is not None
    if kind == "t-SNE" and (not installed or len(vectors) < _FEWEST):
        raise ValueError(
            f"t-SNE of {len(vectors)} vectors needs {_FEWEST} at least and scikit-learn (pip install 'multiway[digits]'); take PCA"
        )
    # All alike, there is nothing to lay out, and t-SNE would divide by zero.
    alike = bool((vectors == vectors[:1]).all())
    if kind == "PCA" or (kind == "auto" and (not installed or len(vectors) < _FEWEST or alike)):
        places, kept = principal_plane(vectors)
        return EmbeddingMap(places, "PCA", kept)
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed, n_jobs=1)
    return EmbeddingMap(torch.from_numpy(tsne.fit_transform(vectors.double().numpy())).float(), "t-SNE", None)


def principal_plane(vectors: Tensor) -> tuple[Tensor, float]:
    """(N, D) onto the two directions of largest variance: (N, 2), and the share of the variance that they hold.

    The sign of a direction is arbitrary: its largest coefficient is positive.
    """
    centred = vectors.double() - vectors.double().mean(0)
    _, strengths, rows = torch.linalg.svd(centred, full_matrices=False)
    rows = rows[:2] * torch.where(rows[:2].gather(1, rows[:2].abs().argmax(1, keepdim=True)) < 0, -1.0, 1.0)
    places = centred @ rows.T
    if places.shape[1] < 2:
        places = torch.cat([places, places.new_zeros(len(places), 2 - places.shape[1])], 1)
    return places.float(), float((strengths[:2] ** 2).sum() / (strengths**2).sum().clamp(min=1e-30))
