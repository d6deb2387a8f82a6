"""Weights of one run as the start of another: all accounted for, twins made anew, positions interpolated."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from multiway.batch import DataInfo
from multiway.hub.file import WeightsError
from multiway.hub.start import start_from, weights_hash
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.method import Method
from multiway.nn.text import TextConfig
from multiway.nn.twin import gap
from multiway.nn.vit import VisionConfig

IMAGE = VisionConfig(size=16, patch=4, width=24, layers=2, heads=2)
TEXT = TextConfig(width=24, layers=1, heads=2, causal=False, pool="class")
INFO = DataInfo(vocabulary=60, context=12)


def albef(seed: int, **changes: object) -> Albef:
    torch.manual_seed(seed)
    config = AlbefConfig(image=IMAGE, text=TEXT, fusion_layers=1, embedding=20, queue=8, momentum=0.5)
    return Albef(replace(config, **changes).resolve(INFO))


def clip(seed: int) -> Clip:
    torch.manual_seed(seed)
    return Clip(ClipConfig(image=IMAGE, text=replace(TEXT, causal=True, pool="last"), embedding=20).resolve(INFO))


def test_the_same_method_takes_everything_but_twin_and_queue() -> None:
    source, method = albef(0), albef(1)
    with torch.no_grad():
        for parameter in source.student.parameters():
            parameter.add_(0.1)  # the source's twin lags behind
    source.queue.push(
        {"image": torch.ones(3, 20), "text": torch.ones(3, 20), "image_id": torch.arange(3), "text_id": torch.arange(3)}
    )
    started = start_from(method, source.state_dict(), "a", own=source.own_state)
    for name, tensor in source.student.state_dict().items():
        assert torch.equal(method.student.state_dict()[name], tensor)
    assert float(gap([method.twin], [method.student])) == 0.0 and float(gap([source.twin], [source.student])) > 0
    assert len(method.queue) == 0
    assert started.new == started.left == started.resized == () and started.numbers[0] == started.numbers[1]


def test_a_renamed_tensor_is_an_error_that_names_both_sides() -> None:
    state = {name.replace("fusion", "fused"): tensor for name, tensor in albef(0).state_dict().items()}
    with pytest.raises(WeightsError, match=r"missing: student\.fusion.*left over: student\.fused.*--init-except"):
        start_from(albef(1), state, "a", own=Albef.own_state)


def test_another_method_part_by_part() -> None:
    source, method = clip(0), albef(1)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    state = source.state_dict()
    with pytest.raises(WeightsError, match="missing"):
        start_from(method, state, "clip", own=source.own_state)
    method = albef(1)
    rest = ["text", "fusion", "words", "match", "temperature", "projection", "scale"]
    rest = [each for each in rest if any(each in name for name in (*state, *before))]
    started = start_from(method, state, "clip", rest, source.own_state)
    after = method.state_dict()
    assert set(started.taken) == {name for name in before if name.startswith("student.image.")}
    for name, tensor in state.items():
        if name.startswith("image.") and "projection" not in name:
            assert torch.equal(after[f"student.{name}"], tensor)
    for name in started.new:
        assert torch.equal(after[name], before[name])
    assert float(gap([method.twin], [method.student])) == 0.0
    assert all(any(each in name for each in rest) for name in (*started.new, *started.left))


def test_positions_of_another_grid_are_interpolated() -> None:
    source, method = albef(0), albef(1, image=replace(IMAGE, size=24))
    started = start_from(method, source.state_dict(), "a", own=source.own_state)
    assert started.resized == ("student.image.positions",)
    grid = source.student.image.positions.T.reshape(1, 24, 4, 4)
    slow = F.interpolate(grid, size=(6, 6), mode="bicubic").reshape(24, 36).T
    torch.testing.assert_close(method.student.image.positions, slow)
    assert "1 resized" in str(started)


def test_other_shapes_are_refused_and_may_be_excepted() -> None:
    source, method = albef(0), albef(1, embedding=16)
    with pytest.raises(
        WeightsError, match=r"of other shapes: student\.image_projection\.weight \(20, 24\) instead of \(16, 24\)"
    ):
        start_from(method, source.state_dict(), "a", own=source.own_state)
    started = start_from(method, source.state_dict(), "a", ["_projection"], source.own_state)
    assert len(started.new) == len(started.left) == 4


@pytest.mark.parametrize(("pattern", "says"), [("decoder", "fits no tensor"), ("(", "no regular expression")])
def test_expressions_that_cannot_be_meant(pattern: str, says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        start_from(albef(1), albef(0).state_dict(), "a", [pattern], Albef.own_state)


def test_the_hash_is_of_values_names_and_shapes() -> None:
    state = {"a": torch.arange(6.0), "b": torch.zeros(2, dtype=torch.bfloat16)}
    same = {name: state[name].clone() for name in ("b", "a")}
    assert weights_hash(state) == weights_hash(same) and len(weights_hash(state)) == 16
    for other in (
        {**state, "a": state["a"] + 1e-6},
        {**state, "a": state["a"].view(2, 3)},
        {"c": state["a"], "b": state["b"]},
    ):
        assert weights_hash(other) != weights_hash(state)


def test_methods_without_a_twin_need_no_hook() -> None:
    class Plain(Method):
        pass

    assert Plain.own_state == ()
    Plain().started()
