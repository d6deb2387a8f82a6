"""Maps of embeddings: clusters stay apart, the same twice, and few or equal vectors are no trouble."""

import sys

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from multiway.config import ConfigError
from multiway.explain import embedding_map as module
from multiway.explain.embedding_map import embedding_map, principal_plane


def clusters(each: int = 20, dimensions: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.eye(3, dimensions)
    labels = torch.arange(3).repeat_interleave(each)
    return centres[labels] + 0.3 * torch.randn(3 * each, dimensions, generator=generator), labels


@pytest.mark.parametrize("kind", ["t-SNE", "PCA"])
def test_clusters_that_lie_apart_stay_apart(kind: str) -> None:
    vectors, labels = clusters()
    found = embedding_map(vectors, seed=1, kind=kind)
    assert found.kind == kind and (found.kept is None) == (kind == "t-SNE")
    distances = torch.cdist(found.places, found.places)
    same = labels[:, None] == labels[None]
    assert distances[same].max() < distances[~same].min()


@pytest.mark.slow  # what it is compiled by takes longer than all else here
def test_clusters_stay_apart_in_umap() -> None:
    pytest.importorskip("umap")
    vectors, labels = clusters()
    found = embedding_map(vectors, seed=1, kind="UMAP")
    assert (
        found.kind == "UMAP"
        and found.kept is None
        and torch.equal(found.places, embedding_map(vectors, 1, "UMAP").places)
    )
    distances = torch.cdist(found.places, found.places)
    same = labels[:, None] == labels[None]
    assert distances[same].max() < distances[~same].min()


def test_the_same_twice() -> None:
    vectors, _ = clusters(8)
    assert torch.equal(embedding_map(vectors, 3).places, embedding_map(vectors, 3).places)


def test_the_principal_plane_is_scikit_learns() -> None:
    vectors, _ = clusters()
    places, kept = principal_plane(vectors)
    pca = PCA(2, svd_solver="full")
    expected = pca.fit_transform(vectors.double().numpy())
    np.testing.assert_allclose(np.abs(places.numpy()), np.abs(expected), atol=1e-4)
    assert kept == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-6)


@pytest.mark.parametrize("vectors", [torch.ones(1, 4), torch.ones(20, 4), torch.arange(3.0)[:, None]])
def test_few_or_equal_vectors(vectors: torch.Tensor) -> None:
    found = embedding_map(vectors)
    assert found.kind == "PCA" and found.places.shape == (len(vectors), 2) and torch.isfinite(found.places).all()


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    vectors, _ = clusters(5)
    assert embedding_map(vectors).kind == "PCA"
    with pytest.raises(ValueError, match=r"multiway\[digits\]"):
        embedding_map(vectors, kind="t-SNE")
    with pytest.raises(ConfigError, match=r"umap-learn \(pip install 'multiway\[maps\]'\)"):
        embedding_map(vectors, kind="UMAP")


def test_bad_vectors() -> None:
    for vectors in (torch.ones(0, 4), torch.full((9, 2), torch.nan), torch.ones(4)):
        with pytest.raises(ValueError, match="all finite"):
            embedding_map(vectors)
