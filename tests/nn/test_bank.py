"""The memory bank: rows mix, stay on the sphere, and are found again."""

import pytest
import torch
import torch.nn.functional as F

from multiway.nn.bank import MemoryBank
from multiway.world import World


def test_only_written_rows_move_and_by_the_mix() -> None:
    bank = MemoryBank(10, 4, mix=0.5)
    before, new = bank.features.clone(), 5 * torch.randn(3, 4)
    index = torch.tensor([7, 0, 4])
    bank.write(index, new)
    for row, feature in zip(index.tolist(), new, strict=True):
        torch.testing.assert_close(
            bank.features[row], F.normalize(0.5 * before[row] + 0.5 * F.normalize(feature, dim=0), dim=0)
        )
    rest = [row for row in range(10) if row not in index.tolist()]
    assert torch.equal(bank.features[rest], before[rest])
    torch.testing.assert_close(bank.features.norm(dim=1), torch.ones(10))


def test_a_row_that_comes_twice_gets_the_mean_in_any_order() -> None:
    torch.manual_seed(0)
    first = MemoryBank(4, 3)
    second = MemoryBank(4, 3)
    second.load_state_dict(first.state_dict())
    index, new = torch.tensor([2, 1, 2]), F.normalize(torch.randn(3, 3), dim=1)
    old = first.features[2].clone()
    first.write(index, new)
    order = torch.tensor([2, 0, 1])
    second.write(index[order], new[order])
    torch.testing.assert_close(first.features, second.features)
    both = F.normalize(new[0] + new[2], dim=0)
    torch.testing.assert_close(first.features[2], F.normalize(old + both, dim=0))


def test_mix_of_zero_replaces_and_an_unmoving_encoder_is_reached_geometrically() -> None:
    bank, target = MemoryBank(3, 4, mix=0.0), F.normalize(torch.randn(1, 4), dim=1)
    bank.write(torch.tensor([1]), target)
    torch.testing.assert_close(bank.read(torch.tensor([1])), target)
    slow = MemoryBank(1, 4, mix=0.5)
    gaps = []
    for _ in range(12):
        slow.write(torch.tensor([0]), target)
        gaps.append(float((slow.features - target).norm()))
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 1e-3


def test_reading_copies_and_drawing_covers_all_rows() -> None:
    bank = MemoryBank(5, 2)
    read = bank.read(torch.tensor([[0, 1], [4, 4]]))
    assert read.shape == (2, 2, 2) and len(bank) == 5 and not list(bank.parameters())
    bank.write(torch.tensor([0]), torch.ones(1, 2))
    assert not torch.equal(read[0, 0], bank.features[0])
    torch.manual_seed(1)
    drawn = bank.draw(3, World(), 1000)
    counts = torch.bincount(drawn.flatten(), minlength=5)
    assert drawn.shape == (1000, 3) and int(counts.min()) > 500 and int(counts.max()) < 700


def test_size_of_imagenets_bank() -> None:
    with torch.device("meta"):
        bank = MemoryBank(1_281_167, 128)
    assert bank.features.numel() * 4 == pytest.approx(656e6, rel=1e-3)


def test_refusals() -> None:
    bank = MemoryBank(5, 2)
    with pytest.raises(ValueError, match="sample_index 5 is no row of a bank of 5"):
        bank.write(torch.tensor([5]), torch.ones(1, 2))
    with pytest.raises(ValueError, match="sample_index -1"):
        bank.read(torch.tensor([-1]))
    with pytest.raises(ValueError, match=r"expected \(B,\)"):
        bank.write(torch.tensor([1]), torch.ones(1, 3))
    with pytest.raises(ValueError, match="below 1"):
        MemoryBank(5, 2, mix=1.0)
