"""Bounds on what a header may describe: no model of ours is refused its own file, and nothing large is made for a stranger's."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from multiway.batch import DataInfo
from multiway.hub.bounds import ROOM, Bounds, TooLarge, numbers_in, odd_sizes
from multiway.methods import method_class

INFO = DataInfo(vocabulary=300, context=16, samples=50, special={"pad": 0, "unk": 1, "bos": 2, "eos": 3, "mask": 4})
# Tables of positions, sines, queues, banks, twins, poolers with queries of their own, orthogonal halves, batch norms.
KINDS = ["albef-two", "blip", "clip", "dino", "filip", "instdisc", "mae", "moco", "moco-v3", "siglip", "swav", "vlmo"]


@pytest.mark.parametrize("name", KINDS)
def test_every_model_is_within_the_bounds_of_its_own_file(name: str) -> None:
    cls = method_class(name)
    method = cls(cls.config_class.preset("tiny").resolve(INFO))
    shapes = [tuple(each.shape) for each in method.state_dict().values()]
    with Bounds(shapes):
        again = cls.from_config_json(method.config_json())
    assert shapes == [tuple(each.shape) for each in again.state_dict().values()]


LARGE = 1 << 13  # its square is above what there is room for
CALLS: dict[str, Callable[[], object]] = {
    "empty": lambda: torch.empty(LARGE, LARGE),
    "zeros of a shape": lambda: torch.zeros((LARGE, LARGE)),
    "full": lambda: torch.full((LARGE, LARGE), 7),
    "randint": lambda: torch.randint(3, (LARGE, LARGE)),
    "arange": lambda: torch.arange(ROOM * 4),
    "linspace": lambda: torch.linspace(0, 1, ROOM * 4),
    "eye": lambda: torch.eye(LARGE),
    "broadcasting": lambda: torch.arange(LARGE)[:, None] - torch.arange(LARGE)[None],
    "a product": lambda: torch.ones(LARGE, 1) @ torch.ones(1, LARGE),
    "outer": lambda: torch.outer(torch.ones(LARGE), torch.ones(LARGE)),
    "repeating": lambda: torch.ones(LARGE).repeat(LARGE),
    "one hot": lambda: nn.functional.one_hot(torch.zeros(LARGE, dtype=torch.int64), LARGE),
    "like another": lambda: torch.ones(1).new_zeros(LARGE, LARGE),
    "a layer": lambda: nn.Linear(LARGE, LARGE),
    "an embedding": lambda: nn.Embedding(ROOM, 8),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_is_too_large_is_refused_before_it_is_made(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Bounds([(2, 3)]),
        pytest.raises(TooLarge, match=r"needs a tensor of [\d,]+ numbers; all tensors of the file have 6"),
    ):
        CALLS[call]()


def test_many_small_ones_are_counted() -> None:
    with Bounds([(2, 3)]), pytest.raises(TooLarge, match="1,005 parameters and buffers or more"):
        nn.ModuleList(nn.LayerNorm(1) for _ in range(2000))
    with Bounds([(2, 3)]), pytest.raises(TooLarge, match="numbers; all tensors of the file have 6"):
        nn.ModuleList(nn.Linear(1 << 11, 1 << 12) for _ in range(9))
    nn.ModuleList(nn.LayerNorm(1) for _ in range(2000))  # and outside nothing is


def test_what_is_within_is_left_alone() -> None:
    with Bounds([(2, 3)]):
        assert torch.tensor([70_000, 80_000, 90_000]).sum().item() == 240_000  # values are no sizes
        assert torch.full((2,), 1 << 40)[0].item() == 1 << 40
        assert torch.randint(0, 1 << 40, (3,)).shape == (3,)
        assert torch.linspace(0, 1e9, 5).shape == (5,)
        nn.Linear(64, 64).weight.data.copy_(torch.ones(64, 64))


def test_the_numbers_of_a_configuration() -> None:
    tree = {"a": 1, "b": {"c": [2, 0.5, True, None, "3"]}, "d": 0, "e": -4}
    assert list(numbers_in(tree, "x")) == [("x.a", 1), ("x.b.c[0]", 2), ("x.b.c[1]", 0.5), ("x.d", 0), ("x.e", -4)]
    assert odd_sizes(tree) == "config.d is 0, config.e is -4"
