"""Embeddings as a map in two dimensions: UMAP, t-SNE, or principal components.

McInnes, Healy and Melville, UMAP, 2018, arXiv 1802.03426; van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 9, 2008.
What lies together in either was near before; distances between groups, and their sizes, say nothing. Principal components keep the
large distances and lose the near ones.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from multiway.config import ConfigError

__all__ = ["EmbeddingMap", "Layout", "embedding_map", "principal_plane"]

Layout = Literal["auto", "UMAP", "t-SNE", "PCA"]

_FEWEST = 8  # below, there are no neighbourhoods to keep
_NEEDS = {"UMAP": ("umap", "umap-learn", "maps"), "t-SNE": ("sklearn", "scikit-learn", "digits")}


@dataclass(frozen=True)
class EmbeddingMap:
    """Where pictures lie.

    Attributes:
        places: (N, 2) float32.
        kind: `UMAP`, `t-SNE` or `PCA`.
        kept: of PCA, the share of the variance that two dimensions hold; None of the others, which know none.
    """

    places: Tensor
    kind: Literal["UMAP", "t-SNE", "PCA"]
    kept: float | None


def embedding_map(vectors: Tensor, seed: int = 0, kind: Layout = "auto") -> EmbeddingMap:
    """Lay out vectors; the same for the same seed on the same machine.

    Args:
        vectors: (N, D), N >= 1.
        seed: of t-SNE, which starts from the principal plane and is nearly independent of it, and of UMAP.
        kind: `auto` takes t-SNE if scikit-learn is installed and there are vectors enough.

    Raises:
        ValueError: without vectors, with one that is not finite, or for a layout that cannot be had.
    """
    if vectors.ndim != 2 or not len(vectors) or not torch.isfinite(vectors).all():
        raise ValueError(f"given vectors of shape {tuple(vectors.shape)}; expected (N, D), N at least 1, all finite")
    if kind in _NEEDS:
        module, package, extra = _NEEDS[kind]
        if find_spec(module) is None or len(vectors) < _FEWEST:
            raise ConfigError(
                f"{kind} of {len(vectors)} vectors needs {_FEWEST} at least and {package} (pip install 'multiway[{extra}]'); take PCA"
            )
    # All alike, there is nothing to lay out, and t-SNE would divide by zero.
    alike = bool((vectors == vectors[:1]).all())
    if kind == "PCA" or alike or (kind == "auto" and (find_spec("sklearn") is None or len(vectors) < _FEWEST)):
        places, kept = principal_plane(vectors)
        return EmbeddingMap(places, "PCA", kept)
    if kind == "UMAP":
        from umap import UMAP

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a seed means one thread, which is meant
            laid = UMAP(n_neighbors=min(15, len(vectors) - 1), metric="cosine", random_state=seed)
            return EmbeddingMap(torch.from_numpy(laid.fit_transform(vectors.float().numpy())).float(), "UMAP", None)
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
