"""The feature queue against a list that is cut to its last K entries."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.nn.queue import FeatureQueue


def rows(count: int, start: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(start)
    features = F.normalize(torch.randn(count, 3, generator=generator), dim=1)
    return {"image": features, "id": torch.arange(start, start + count)}


@given(size=st.integers(0, 9), pushes=st.lists(st.integers(0, 14), max_size=8))
@settings(max_examples=80, deadline=None)
def test_holds_the_last_rows_whatever_the_batch(size: int, pushes: list[int]) -> None:
    queue = FeatureQueue(size, {"image": 3}, ids=("id",))
    everything: list[tuple[int, torch.Tensor]] = []
    for count in pushes:
        new = rows(count, len(everything))
        queue.push(new)
        everything += list(zip(new["id"].tolist(), new["image"], strict=True))
    last = everything[-size:] if size else []
    kept = queue.read()
    assert len(queue) == len(last)
    assert sorted(kept["id"].tolist()) == [number for number, _ in last]
    by_id = dict(last)
    for number, feature in zip(kept["id"].tolist(), kept["image"], strict=True):
        torch.testing.assert_close(feature, by_id[number])  # ids stay with their features


def test_an_empty_queue_hands_out_nothing_and_never_random_directions() -> None:
    queue = FeatureQueue(5, {"image": 3}, ids=("id",))
    assert queue.read()["image"].shape == (0, 3) and queue.read()["id"].shape == (0,)


def test_features_are_normalised_and_copies_are_handed_out() -> None:
    queue = FeatureQueue(4, {"image": 2})
    queue.push({"image": torch.tensor([[3.0, 4.0]])})
    kept = queue.read()["image"]
    torch.testing.assert_close(kept, torch.tensor([[0.6, 0.8]]))
    queue.push({"image": torch.ones(4, 2)})
    torch.testing.assert_close(kept, torch.tensor([[0.6, 0.8]]))


def test_a_restored_queue_goes_on_where_it_was() -> None:
    first, second = (FeatureQueue(5, {"image": 3}, ids=("id",)) for _ in range(2))
    first.push(rows(7, 0))
    second.load_state_dict(first.state_dict())
    for queue in (first, second):
        queue.push(rows(3, 7))
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


def test_refuses_rows_that_do_not_fit() -> None:
    queue = FeatureQueue(5, {"image": 3}, ids=("id",))
    with pytest.raises(ValueError, match="missing"):
        queue.push({"image": torch.ones(2, 3)})
    with pytest.raises(ValueError, match="equal numbers"):
        queue.push({"image": torch.ones(2, 3), "id": torch.arange(3)})
    with pytest.raises(ValueError, match="-1"):
        FeatureQueue(-1, {"image": 3})
