"""Weights of one run as the start of another: all accounted for, twins made anew, positions interpolated."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from multiway.batch import DataInfo
from multiway.hub.file import WeightsError
from multiway.hub.start import Offer, start_from, start_parts, weights_hash
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.bert import Bert, BertConfig
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.method import Method
from multiway.methods.picture_encoder import PictureEncoder, PictureEncoderConfig
from multiway.methods.vlmo import Vlmo, VlmoConfig
from multiway.nn.multiway import MultiwayConfig
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


def vlmo(seed: int, size: int = 16, context: int = 12) -> Vlmo:
    torch.manual_seed(seed)
    blocks = MultiwayConfig(width=32, layers=2, heads=2, fusion_layers=1)
    method = Vlmo(VlmoConfig(blocks, size=size, patch=4, stem="patch").resolve(replace(INFO, context=context)))
    torch.nn.init.normal_(method.positions.table)
    return method


@torch.no_grad()
def test_relative_positions_of_another_grid_are_interpolated() -> None:
    source, method = vlmo(0), vlmo(1, size=24)
    started = start_from(method, source.state_dict(), "a")
    assert started.resized == ("positions.table",) and started.numbers[0] == started.numbers[1]
    images = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(method.encode_image(images).embedding, source.encode_image(images).embedding)
    back = vlmo(2)
    start_from(back, method.state_dict(), "b")
    near, side = slice(0, 7 * 7), back.positions.table[: 7 * 7].view(7, 7, -1)[2:5, 2:5]
    torch.testing.assert_close(side, source.positions.table[near].view(7, 7, -1)[2:5, 2:5], atol=1e-5, rtol=0)
    with pytest.raises(WeightsError, match=r"of other shapes: .*positions\.table"):
        start_from(vlmo(1), vlmo(0, context=13).state_dict(), "a", ["words"])


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


# --- a part each of several models ---------------------------------------------------------------------------------------


def bert(seed: int, layers: int = 1) -> Bert:
    torch.manual_seed(seed)
    return Bert(BertConfig(replace(TEXT, layers=layers)).resolve(INFO))


def offer(method: Method, source: str) -> Offer:
    return Offer(source, method.state_dict(), method.own_state)


def test_each_part_is_its_sources_and_the_rest_is_untouched() -> None:
    words, pictures, method = bert(0), albef(1), albef(2)
    before = {name: each.clone() for name, each in method.state_dict().items()}
    started = start_parts(method, {"text": offer(words, "b"), "image": offer(pictures, "a")})
    after, theirs = method.state_dict(), {**words.state_dict(), **pictures.state_dict()}
    for name, each in after.items():
        if name.startswith("student.text."):
            assert torch.equal(each, words.state_dict()[name.removeprefix("student.")])
        elif name.startswith("student.image."):
            assert torch.equal(each, theirs[name])
        elif not name.startswith(("twin.", "queue.")):
            assert torch.equal(each, before[name]), name
    assert float(gap([method.twin], [method.student])) == 0.0
    assert started.new == started.left == started.resized == ()
    assert set(started.random) == {
        "temperature", "fusion", "image_projection", "text_projection", "words", "match_head"
    }  # fmt: skip
    parts = sum(each.numel() for n, each in after.items() if n.startswith(("student.text.", "student.image.")))
    assert started.numbers[0] == parts and "not named, so at random: " in str(started) and "fusion" in str(started)


def test_within_a_part_every_tensor_is_accounted_for() -> None:
    with pytest.raises(
        WeightsError, match=r"text of b does not fit Albef; left over: text\.transformer\.blocks\.1\..*--init-except"
    ):
        start_parts(albef(1), {"text": offer(bert(0, layers=2), "b")})
    started = start_parts(albef(1), {"text": offer(bert(0, layers=2), "b")}, [r"blocks\.1\."])
    assert started.left and all("blocks.1." in name for name in started.left) and not started.new
    deep = albef(1, text=replace(TEXT, layers=2))
    with pytest.raises(WeightsError, match=r"missing: student\.text\.transformer\.blocks\.1\."):
        start_parts(deep, {"text": offer(bert(0), "b")})
    wide = albef(1, image=replace(IMAGE, width=36, heads=3))
    with pytest.raises(WeightsError, match=r"image of a does not fit Albef; of other shapes: student\.image"):
        start_parts(wide, {"image": offer(albef(0), "a")})
    large = albef(1, image=replace(IMAGE, size=24))
    assert start_parts(large, {"image": offer(albef(0), "a")}).resized == ("student.image.positions",)


def test_parts_that_are_not_there_are_named_with_those_that_are() -> None:
    with pytest.raises(
        WeightsError, match=r"--init vision=a: Albef has no part 'vision'; there are: .*image, text, fusion"
    ):
        start_parts(albef(1), {"vision": offer(albef(0), "a")})
    with pytest.raises(WeightsError, match=r"--init image=b: b has no part 'image'; there are: text, words"):
        start_parts(albef(1), {"image": offer(bert(0), "b")})
    with pytest.raises(WeightsError, match="Albef has no part 'twin'"):
        start_parts(albef(1), {"twin": offer(albef(0), "a")})


def test_a_network_of_pictures_is_the_same_by_either_name() -> None:
    """`image` of what reads texts too, `backbone` of what reads pictures alone."""
    torch.manual_seed(0)
    pictures, method = PictureEncoder(PictureEncoderConfig(IMAGE)), clip(1)
    started = start_parts(method, {"image": offer(pictures, "a")})
    assert set(started.taken) == {name for name in method.state_dict() if name.startswith("image.")}
    shown = torch.randn(2, 3, 16, 16)
    assert torch.equal(method.image(shown).pooled, pictures.backbone(shown).pooled)
    start_parts(pictures, {"backbone": offer(albef(2), "b")})
    assert torch.equal(pictures.backbone(shown).pooled, albef(2).student.image(shown).pooled)
    with pytest.raises(WeightsError, match="a has no part 'text'; there are: backbone"):
        start_parts(method, {"text": offer(pictures, "a")})
