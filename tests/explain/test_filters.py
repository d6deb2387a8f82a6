"""Principal components of filters, against scikit-learn and against what they were made of."""

import numpy as np
import torch
from sklearn.decomposition import PCA

from multiway.explain.filters import as_pictures, principal_filters


def test_as_scikit_learn_finds_them() -> None:
    filters = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    components, shares = principal_filters(filters, 6)
    pca = PCA(6, svd_solver="full").fit(filters.flatten(1).double().numpy())
    np.testing.assert_allclose(shares.numpy(), pca.explained_variance_ratio_, rtol=1e-4)
    cosines = (components.flatten(1).numpy() * pca.components_).sum(1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-4)


def test_filters_of_two_patterns_have_two_components() -> None:
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(2, 3, 4, 4, generator=generator)
    weights = torch.randn(50, 2, generator=generator)
    components, shares = principal_filters(torch.einsum("fp,pcij->fcij", weights, patterns) + 5.0)
    assert shares[:2].sum() > 0.9999
    basis = torch.linalg.qr(patterns.flatten(1).T)[0]
    for each in components[:2].flatten(1):
        assert torch.allclose(basis @ (basis.T @ each), each, atol=1e-4)  # lies in their plane
        assert each[each.abs().argmax()] > 0
    assert len(principal_filters(torch.randn(5, 3, 4, 4))[0]) == 5


def test_mid_grey_is_zero() -> None:
    filters = torch.zeros(2, 3, 2, 2)
    filters[0, 1, 0, 1] = -2.0
    drawn = as_pictures(filters)
    assert drawn.shape == (2, 2, 2, 3) and drawn[0, 0, 1, 1] == 0 and drawn[0, 0, 0, 0] == 0.5
    assert torch.equal(drawn[1], torch.full((2, 2, 3), 0.5))
