"""A codebook: nearest codes, straight-through gradients, moving averages, revival."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.nn.codebook import Codebook


def vectors(count: int = 60, width: int = 4, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def started(codes: int = 5, **options: float) -> Codebook:
    torch.manual_seed(3)
    book = Codebook(codes, 4, **options)
    book.started.fill_(True)
    return book


def test_the_nearest_code_is_the_nearest_by_distance() -> None:
    book, x = started(), vectors()
    slow = [min(range(5), key=lambda k: float((book.codes[k] - each).norm())) for each in x]
    assert book.assign(x).tolist() == slow


def test_gradients_pass_straight_through() -> None:
    book, x = started(), vectors(6).requires_grad_()
    codes, numbers = book(x)
    assert torch.allclose(codes, book.codes[numbers], atol=1e-6)
    weight = torch.randn(6, 4)
    (codes * weight).sum().backward()
    assert torch.equal(x.grad, weight)


def test_codes_follow_the_mean_of_what_chose_them() -> None:
    book, x = started(decay=0.9, dead=0.0), vectors()
    numbers, before = book.assign(x), book.codes.clone()
    book.follow(x)
    for k in range(5):
        own = x[numbers == k]
        if len(own):
            wanted = F.normalize(0.9 * before[k] + 0.1 * F.normalize(own.sum(0), dim=0), dim=0)
            assert torch.allclose(book.codes[k], wanted, atol=1e-6)
        else:
            assert torch.equal(book.codes[k], before[k])
        assert float(book.share[k]) == pytest.approx(0.9 / 5 + 0.1 * len(own) / 60)


def test_dead_codes_move_to_the_vectors_worst_served() -> None:
    book = started(decay=0.5, dead=0.5)
    book.codes.copy_(F.normalize(torch.tensor([[1.0, 0.1, 0, 0]] * 2 + [[-1.0, 0, 0, 0]] * 3), dim=-1))
    x = torch.cat([F.normalize(torch.tensor([[1.0, 0.1, 0, 0]]), dim=-1).expand(50, 4), torch.tensor([[0, 0, 0, 1.0]])])
    for _ in range(6):
        book.follow(x)
    assert float((book.codes @ x[-1]).max()) == pytest.approx(1.0, abs=1e-4)


def test_the_first_batch_places_the_codes() -> None:
    torch.manual_seed(0)
    centres = F.normalize(torch.randn(4, 4), dim=-1)
    x = F.normalize(centres.repeat_interleave(20, 0) + 0.05 * torch.randn(80, 4), dim=-1)
    book = Codebook(4, 4)
    book.follow(x)
    assert bool(book.started) and float((book.codes @ centres.T).max(0).values.min()) > 0.99


def test_ranks_stay_equal() -> None:
    """Nothing in it is random once it is built."""
    books = [started(decay=0.5, dead=0.9) for _ in range(2)]
    for number in range(4):
        for seed, book in enumerate(books):
            torch.manual_seed(seed)
            book.follow(vectors(seed=number))
    assert all(
        torch.equal(a, b) for a, b in zip(books[0].state_dict().values(), books[1].state_dict().values(), strict=True)
    )


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="2 or more"):
        Codebook(1, 4)
