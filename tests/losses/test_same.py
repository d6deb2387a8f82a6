"""Sums over groups against the matrix of the relation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.losses.same import Same

ids = st.lists(st.integers(-2, 3), min_size=8, max_size=8)


def relation(image_id, text_id):
    return torch.tensor(
        [
            [i == j or image_id[i] == image_id[j] or text_id[i] == text_id[j] for j in range(len(image_id))]
            for i in range(len(image_id))
        ]
    )


@settings(deadline=None, max_examples=50)
@given(image_id=ids, text_id=ids)
def test_means_counts_and_masks_are_those_of_the_matrix(image_id, text_id):
    matrix = relation(image_id, text_id)
    same = Same(torch.tensor(image_id), torch.tensor(text_id))
    features = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(8, 3, dtype=torch.float64)
    expected = matrix.double() / matrix.sum(1, keepdim=True)
    torch.testing.assert_close(same.mean(features), expected @ features)
    (gradient,) = torch.autograd.grad((same.mean(features) * weights).sum(), features)
    torch.testing.assert_close(gradient, expected.t() @ weights)
    assert torch.equal(same.count, matrix.sum(1))
    assert torch.equal(same.mask(2, 7), matrix[2:7])
    row, column = torch.cartesian_prod(torch.arange(8), torch.arange(8)).unbind(1)
    assert torch.equal(same.contains(row, column), matrix.flatten())


@pytest.mark.parametrize("given_ids", ["image_id", "text_id"])
def test_one_kind_of_id(given_ids):
    same = Same(**{given_ids: torch.tensor([7, 7, 2**62])})
    assert torch.equal(same.mask(0, 3), torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool())
    assert torch.equal(same.mean(torch.tensor([[1.0], [3.0], [5.0]])), torch.tensor([[2.0], [2.0], [5.0]]))


def test_without_duplicates_the_mean_is_the_feature_bit_for_bit():
    features = torch.randn(100, 7)
    same = Same(torch.randperm(100), torch.randperm(100) + 1000)
    assert torch.equal(same.mean(features), features)
    assert Same().mean(features) is features
    assert not Same() and same


def test_refuses_ids_that_are_no_numbers_of_pairs():
    with pytest.raises(ValueError, match="image_id is"):
        Same(torch.zeros(3))
