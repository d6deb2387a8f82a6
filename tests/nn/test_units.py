"""Units of networks: which parts they are, and that computing them twice changes nothing but memory."""

from dataclasses import replace

import pytest
import torch
from multiway_batches import INFO, toy_batch
from torch import nn

from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.blip import Blip, BlipConfig
from multiway.methods.method import Method, Step
from multiway.methods.two_pictures import AlbefTwo
from multiway.nn.backbone import backbone, resnet
from multiway.nn.block import Block, TransformerConfig
from multiway.nn.interleaved import Interleaved
from multiway.nn.swin import Swin, SwinConfig
from multiway.nn.text import TextConfig
from multiway.nn.transformer import Transformer
from multiway.nn.units import NoUnits, is_recomputed, recompute, rounds_nothing, units
from multiway.nn.vit import VisionConfig
from multiway.world import World

VIT = VisionConfig(size=16, patch=8, width=16, layers=2, heads=2)
BERT = TextConfig(width=16, layers=1, heads=2, causal=False, pool="class")
LATE = Step(index=90, epoch=3, progress=0.9)


def albef(kind: type[Method] = Albef) -> Method:
    torch.manual_seed(0)
    return kind(AlbefConfig(VIT, BERT, 2, 8, queue=20).resolve(INFO)).train()


def blip(dropout: float = 0.0) -> Method:
    torch.manual_seed(0)
    text = replace(BERT, layers=2, cross_width=16, dropout=dropout)
    return Blip(BlipConfig(VIT, text, embedding=8, queue=20).resolve(INFO)).train()


def test_blocks_of_student_and_twin_are_units() -> None:
    found = units(albef())
    own = [
        f"{tower}.blocks.{layer}"
        for tower, layers in (("image.transformer", 2), ("text.transformer", 1), ("fusion", 2))
        for layer in range(layers)
    ]
    assert list(found) == [f"{side}.{name}" for side in ("student", "twin") for name in own]
    assert all(isinstance(each, Block) for each in found.values())


def test_blocks_that_a_second_picture_reads_into_are_left_whole() -> None:
    assert not [name for name in units(albef(AlbefTwo)) if "fusion" in name or name.startswith("two")]
    assert [name for name in units(albef(AlbefTwo)) if "image" in name]


def test_stages_are_units_and_shared_blocks_are_not() -> None:
    assert list(units(backbone(resnet(18, "cifar", base=4)))) == [f"stages.{stage}" for stage in range(4)]
    pair = nn.ModuleList([Transformer(TransformerConfig(width=16, layers=2, heads=2)) for _ in range(2)])
    pair[1].blocks[0].mlp = pair[0].blocks[0].mlp
    assert list(units(pair)) == ["0.blocks.1", "1.blocks.1"]
    assert len(units(Interleaved(TransformerConfig(width=16, layers=3, heads=2, cross_width=16)))) == 6


def test_what_autocast_would_not_round_is_told_apart() -> None:
    swin = Swin(SwinConfig(size=16, patch=2, base=8, depths=(2, 2), head_width=4, window=2))
    assert not any(map(rounds_nothing, units(swin).values()))  # tables of displacements are looked up
    assert all(map(rounds_nothing, units(blip()).values()))
    assert all(map(rounds_nothing, units(backbone(resnet(18, "cifar", base=4))).values()))


def gradients(method: Method) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    method(toy_batch(8), World(), LATE).total.backward()
    return {name: each.grad for name, each in method.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("build", [albef, blip, lambda: blip(0.2)], ids=["albef", "blip", "blip with dropout"])
def test_recomputed_blocks_give_the_same_gradient(build) -> None:
    plain, again = build(), build()
    calls = []
    recompute(again)
    for unit in units(again).values():
        assert is_recomputed(unit)
        unit.attention.register_forward_hook(lambda *given: calls.append(1))
    expected, found = gradients(plain), gradients(again)
    assert expected.keys() == found.keys() and calls
    for name, each in expected.items():
        torch.testing.assert_close(found[name], each, rtol=1e-5, atol=1e-7)
    forward = len(calls)
    calls.clear()
    with torch.no_grad():
        torch.manual_seed(3)
        again(toy_batch(8), World(), LATE)
    assert forward > len(calls) > 0  # blocks that learn are run once more


def test_memory_between_the_passes_is_less() -> None:
    def saved(network: Transformer) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.randn(4, 32, 16, requires_grad=True)).sum()
        return sum(sizes.values())

    plain = Transformer(TransformerConfig(width=16, layers=6, heads=2)).train()
    again = Transformer(TransformerConfig(width=16, layers=6, heads=2)).train()
    assert recompute(again) == 6 and recompute(again) == 6
    assert saved(again) < 0.25 * saved(plain)


def test_a_stack_that_recomputes_by_itself_is_left_alone() -> None:
    stack = Transformer(TransformerConfig(width=16, layers=2, heads=2, checkpoint=True))
    assert recompute(stack) == 2 and not any(map(is_recomputed, stack.blocks))


def test_what_cannot_be_recomputed_is_told() -> None:
    with pytest.raises(NoUnits, match="each of its 4 stages has batch normalisation"):
        recompute(backbone(resnet(18, "cifar", base=4)))
    with pytest.raises(NoUnits, match="it has no transformer blocks"):
        recompute(nn.Linear(3, 3))
