"""What "consistent" means in numbers: how old a queue's keys are, and how far their encoder has moved meanwhile."""

import pytest
import torch

from multiway.nn.queue import FeatureQueue
from multiway.nn.twin import follow, gap


def test_a_frozen_student_is_approached_by_m_to_the_t() -> None:
    torch.manual_seed(0)
    student, twin = torch.nn.Linear(3, 3).double(), torch.nn.Linear(3, 3).double()
    start = float(gap([twin], [student]))
    for step in range(1, 257):
        follow([twin], [student], 0.999)
        if step in (1, 100, 256):
            assert float(gap([twin], [student])) == pytest.approx(start * 0.999**step, rel=1e-9)
    # MoCo: a queue of 65536 at batch 256 lives 256 steps, over which its encoder closes 22.6 % of the gap; at 0.9 all of it.
    assert 65536 // 256 == 256 and 1 - float(gap([twin], [student])) / start == pytest.approx(0.226, abs=5e-4)
    for _ in range(256):
        follow([twin], [student], 0.9)
    assert float(gap([twin], [student])) < 1e-10 * start


@pytest.mark.parametrize(("rows", "batch"), [(64, 8), (60, 8)])
def test_a_queue_of_k_rows_lives_k_over_b_steps(rows, batch):
    queue = FeatureQueue(rows, {"key": 2}, ids=("step",))
    for step in range(40):
        queue.push({"key": torch.ones(batch, 2), "step": torch.full((batch,), step)})
    ages = 39 - queue.read()["step"]
    assert int(ages.max()) == -(-rows // batch) - 1 and int(ages.min()) == 0
    if rows % batch == 0:
        assert torch.bincount(ages).tolist() == [batch] * (rows // batch)


def test_size_of_mocos_queue() -> None:
    with torch.device("meta"):
        queue = FeatureQueue(65536, {"key": 128})
    assert queue.get_buffer("key").numel() * 4 == pytest.approx(33.5e6, rel=2e-3)
