"""BEiT-3's foreign names without the libraries: every tensor there and back, what is left over, files; the peers' own
numbers are in tests/peers.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peer_weights import randomise
from safetensors.torch import load_file, save_file

from multiway.batch import ViewSpec
from multiway.cli.main import main
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub import timm_beit3 as vision
from multiway.hub.file import WeightsError, write_model
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.torchscale_beit3 import (
    beit3_config,
    from_torchscale,
    ours_to_theirs,
    theirs_to_ours,
    to_torchscale,
)
from multiway.methods.beit3 import Beit3, Beit3Config
from multiway.nn.multiway import MultiwayConfig

BLOCKS = MultiwayConfig(
    32, 3, 2, mlp_ratio=3.0, epsilon=1e-5, attention="decoupled", key_bias=True, sub_norm=True
)  # fmt: skip
SMALL = Beit3Config(BLOCKS, size=16, patch=4, stem="patch", vocabulary=40, context=10, word_head="linear")
SMALL_ITC = replace(SMALL, objective="itc")
OBJECTIVES = pytest.mark.parametrize("objective", ["itc", "caption"])


def build(objective: str = "itc", **more: object) -> Beit3:
    return randomise(Beit3(replace(SMALL, objective=objective, **more)))


def model(objective: str, tokenizer: Tokenizer | None = None, **more: object) -> Model:
    view = ViewSpec(size=16, crop="squash", mean=(0.5,) * 3, std=(0.5,) * 3)
    return Model(build(objective, **more), Processor(view, tokenizer))


@OBJECTIVES
def test_there_and_back_is_exact_to_the_bit(objective: str) -> None:
    ours = build(objective)
    theirs = ours_to_theirs(ours.state_dict(), ours.config)
    back, report = theirs_to_ours(theirs, ours.config)
    assert len(report.matched) + len(report.renamed) == len(theirs) and report.filled == len(back)
    assert set(back) == set(ours.state_dict())
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back[name], tensor), name
    assert (
        sum(each.numel() for each in theirs.values())
        == sum(each.numel() for each in ours.state_dict().values()) + 4 * 32
    )  # two unread rows in each of their two tables of positions
    for branch in "AB":
        assert not theirs[f"beit3.encoder.embed_positions.{branch}.weight"][:2].any()


def test_a_is_vision_and_b_language() -> None:
    ours = build().state_dict()
    theirs = ours_to_theirs(ours, SMALL_ITC)
    query, key, value = ours["blocks.blocks.1.projection.experts.language.weight"].chunk(3)
    for name, weight in {"q": query, "k": key, "v": value}.items():
        assert torch.equal(theirs[f"beit3.encoder.layers.1.self_attn.{name}_proj.B.weight"], weight)
    up = ours["blocks.blocks.2.mlp.experts.vision.up.weight"]
    assert torch.equal(theirs["beit3.encoder.layers.2.ffn.A.fc1.weight"], up)
    assert theirs["beit3.vision_embed.proj.weight"].shape == (32, 3, 4, 4)
    assert theirs["beit3.encoder.embed_positions.A.weight"].shape == (2 + 1 + 16, 32)


@OBJECTIVES
def test_nothing_is_left_over_or_missing_in_silence(objective: str) -> None:
    ours = build(objective)
    theirs = ours_to_theirs(ours.state_dict(), ours.config)
    with pytest.raises(WeightsError, match=r"does not: beit3\.surprise"):
        theirs_to_ours({**theirs, "beit3.surprise": torch.zeros(1)}, ours.config)
    for name in theirs:
        with pytest.raises(WeightsError, match="lacks the tensor"):
            theirs_to_ours({other: tensor for other, tensor in theirs.items() if other != name}, ours.config)


@OBJECTIVES
def test_the_config_is_read_off_the_shapes(objective: str) -> None:
    ours = build(objective)
    theirs = ours_to_theirs(ours.state_dict(), ours.config)
    assert beit3_config(theirs, head_width=16) == ours.config
    with pytest.raises(WeightsError, match="heads of 64"):
        beit3_config(theirs)
    with pytest.raises(WeightsError, match=r"objective cannot be told.*neither"):
        beit3_config({name: tensor for name, tensor in theirs.items() if name.startswith("beit3.")})
    with pytest.raises(WeightsError, match=r"lacks the tensor beit3\.text_embed\.weight"):
        beit3_config({"mlm_head.weight": torch.zeros(1), "mlm_head.bias": torch.zeros(1)})


@pytest.mark.parametrize(
    "preset, size, objective, published",
    [
        ("base", 384, "itc", 222),
        ("base", 480, "caption", 271),
        ("large", 384, "itc", 675),
        ("large", 480, "caption", 739),
    ],
)
def test_the_presets_have_the_parameters_that_the_release_lists(
    preset: str, size: int, objective: str, published: int
) -> None:
    """Millions, of the models tuned on COCO, heads included (README of microsoft/unilm's beit3)."""
    with torch.device("meta"):
        ours = Beit3(replace(Beit3Config.preset(preset), size=size, objective=objective))
        theirs = ours_to_theirs(ours.state_dict(), ours.config)
    config, width = ours.config, ours.config.blocks.width
    norms, linear = 2 * 3 * width + 2 * 4 * width, 4 * (width**2 + width)
    feed_forward = 8 * width**2 + 5 * width
    encoder = 2 * config.blocks.layers * (norms + linear + feed_forward) + 2 * 2 * width
    pictures = width * (3 * 16 * 16 + 1) + 2 * width + width * (2 + 1 + (size // 16) ** 2)
    words = width * (64_010 + 1024)
    head = 2 * width**2 + 1 if objective == "itc" else (width + 1) * 64_010
    total = sum(each.numel() for each in theirs.values())
    assert total == encoder + pictures + words + head
    assert abs(total / 1e6 - published) < 1, total
    assert beit3_config(theirs) == replace(config, blocks=replace(config.blocks, drop_path=0.0))


@OBJECTIVES
@torch.no_grad()
def test_a_file_goes_out_and_in(objective: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["a red apple", "a green pear"] * 3, TokenizerSpec(vocabulary=300, context=10))
    ids = {
        "start_id": tokenizer.special["bos"],
        "end_id": tokenizer.special["eos"],
        "mask_id": tokenizer.special["mask"],
    }
    before = model(objective, tokenizer, vocabulary=len(tokenizer), **ids)
    to_torchscale(before, tmp_path / "theirs.safetensors")
    after = from_torchscale(tmp_path / "theirs.safetensors", head_width=16)
    assert after.method.config == before.method.config and after.abilities() == before.abilities()
    for name, tensor in before.method.state_dict().items():
        assert torch.equal(after.method.state_dict()[name], tensor), name
    assert after.processor.view == before.processor.view
    words, images = before.processor.texts(["a red pear", "a green apple"]), torch.randn(2, 3, 16, 16)
    assert after.processor.texts(["a red pear", "a green apple"]).ids.equal(words.ids)
    if objective == "caption":  # with a word head of its own, which nothing ties
        assert not torch.equal(before.method.word_head.weight, before.method.words.words.weight)
        scores = [
            each.method.caption_likelihood(each.method.encode_image(images), words.ids, words.mask)
            for each in (before, after)
        ]
        assert torch.equal(scores[0].logp, scores[1].logp) and scores[0].logp.std() > 0.05


def test_a_released_file_is_read_by_load(tmp_path: Path) -> None:
    """A `.pth` with everything in an entry `model`, and 64 wide heads."""
    wide = replace(SMALL_ITC, blocks=replace(BLOCKS, width=64, heads=1))
    ours = randomise(Beit3(wide))
    torch.save({"model": ours_to_theirs(ours.state_dict(), wide), "epoch": 3}, tmp_path / "beit3.pth")
    read = load(f"hf:{tmp_path / 'beit3.pth'}")
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(read.method.encode_image(images).embedding, ours.encode_image(images).embedding)
    assert read.processor.view == ViewSpec(size=16, crop="squash", mean=(0.5,) * 3, std=(0.5,) * 3)
    torch.save({"model": {}, "args": object}, tmp_path / "more.pth")
    with pytest.raises(WeightsError, match=r"more\.pth cannot be read as tensors alone"):
        from_torchscale(tmp_path / "more.pth")
    with pytest.raises(WeightsError, match="does not exist"):
        from_torchscale(tmp_path / "none.pth")


def test_an_encoder_tuned_for_something_else_is_taken_when_its_heads_are_named(tmp_path: Path) -> None:
    ours = build()
    theirs = ours_to_theirs(ours.state_dict(), ours.config)
    for head in ("vision_head.weight", "language_head.weight", "logit_scale"):
        del theirs[head]
    theirs |= {"pooler.dense.weight": torch.zeros(2), "head.0.weight": torch.zeros(2)}
    apart = {name: tensor.clone().contiguous() for name, tensor in theirs.items()}
    save_file(apart, tmp_path / "vqa.safetensors")
    with pytest.raises(WeightsError, match="objective cannot be told"):
        from_torchscale(tmp_path / "vqa.safetensors", head_width=16)
    with pytest.raises(WeightsError, match=r"does not: head\.0\.weight, pooler\.dense\.weight"):
        from_torchscale(tmp_path / "vqa.safetensors", "itc", head_width=16)
    with pytest.raises(WeightsError, match=r"leave='decoder\.' fits no tensor"):
        from_torchscale(tmp_path / "vqa.safetensors", "itc", leave=("decoder.",), head_width=16)
    read = from_torchscale(tmp_path / "vqa.safetensors", "itc", leave=("pooler.", "head."), head_width=16)
    for name, tensor in ours.state_dict().items():
        new = name in ("image_projection.weight", "text_projection.weight", "log_scale")
        assert torch.equal(read.method.state_dict()[name], tensor) != new, name
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        from_torchscale(tmp_path / "vqa.safetensors", "caption", leave=("pooler.", "head."), head_width=16)


def test_what_has_no_counterpart_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    for change in (
        {"blocks": replace(BLOCKS, attention="shared")},
        {"blocks": replace(BLOCKS, epsilon=1e-6)},
        {"stem": "conv"},
        {"embedding": 8},
    ):
        with pytest.raises(WeightsError, match="this model differs"):
            to_torchscale(model("itc", **change), file)
    with pytest.raises(WeightsError, match="word_head='linear'"):
        to_torchscale(model("caption", word_head="tied"), file)
    with pytest.raises(WeightsError, match=r"\.safetensors"):
        to_torchscale(model("itc"), tmp_path / "x.pth")
    assert not file.exists()


def test_vision_alone_there_and_back_and_the_rest_named() -> None:
    for objective, normed in (("itc", True), ("caption", False)):
        ours = build(objective)
        theirs = vision.ours_to_theirs(ours.state_dict(), ours.config, normed=normed)
        found = vision.theirs_to_ours(theirs, ours.config)
        lacking = vision.lacking(ours.state_dict(), normed=normed)
        assert set(found).isdisjoint(lacking) and set(found) | set(lacking) == set(ours.state_dict())
        assert ("blocks.norm.experts.vision.weight" in found) == normed
        other = randomise(Beit3(ours.config), seed=5)
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        kept = vision.read_vision(other, {**theirs, "head.weight": torch.zeros(2)}, leave=("head.",))
        assert kept == lacking
        for name, tensor in other.state_dict().items():
            assert torch.equal(tensor, (before if name in kept else ours.state_dict())[name]), name


def test_vision_with_a_tensor_too_many_or_too_few() -> None:
    ours = build()
    theirs = vision.ours_to_theirs(ours.state_dict(), ours.config)
    with pytest.raises(WeightsError, match=r"does not: fc_norm\.weight, head\.weight"):
        vision.theirs_to_ours({**theirs, "fc_norm.weight": torch.zeros(1), "head.weight": torch.zeros(1)}, SMALL_ITC)
    for name in theirs:
        if name != "norm.weight":
            with pytest.raises(WeightsError, match="lacks the tensor"):
                vision.theirs_to_ours({n: tensor for n, tensor in theirs.items() if n != name}, SMALL_ITC)
    with pytest.raises(WeightsError, match=r"does not: norm\.bias"):
        vision.theirs_to_ours({n: tensor for n, tensor in theirs.items() if n != "norm.weight"}, SMALL_ITC)
    with pytest.raises(WeightsError, match="released one"):
        vision.ours_to_theirs({}, replace(SMALL, blocks=replace(BLOCKS, epsilon=1e-6)))
    small = Beit3(replace(SMALL_ITC, size=8))
    with pytest.raises(WeightsError, match=r"pictures\.positions \(16, 32\) instead of \(4, 32\)"):
        vision.read_vision(small, theirs)


def test_files_hold_their_names_alone(tmp_path: Path) -> None:
    to_torchscale(model("itc"), tmp_path / "x.safetensors")
    names = set(load_file(tmp_path / "x.safetensors"))
    assert {name for name in names if not name.startswith("beit3.")} == {
        "vision_head.weight", "language_head.weight", "logit_scale"
    }  # fmt: skip


def test_the_command_writes_it_with_a_card(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["a red apple", "a green pear"] * 3, TokenizerSpec(vocabulary=300, context=10))
    ids = {
        "start_id": tokenizer.special["bos"],
        "end_id": tokenizer.special["eos"],
        "mask_id": tokenizer.special["mask"],
    }
    ours = model("itc", tokenizer, vocabulary=len(tokenizer), **ids)
    write_model(tmp_path / "ours.safetensors", ours.method, ours.processor, [{"data": "emoji", "recipe": "beit3"}])
    out = tmp_path / "theirs.safetensors"
    assert main(["convert", str(tmp_path / "ours.safetensors"), str(out), "--layout", "torchscale"]) == 0
    after = from_torchscale(out, head_width=16).method.state_dict()
    assert all(torch.equal(each, after[name]) for name, each in ours.method.state_dict().items())
    card = out.with_suffix(".md").read_text()
    assert 'library_name: "torchscale"' in card and 'license: "ofl-1.1"' in card and "BEiT3ForRetrieval" in card
