"""A picture encoder equals Dinov2Model of transformers with copied random weights: with and without gate and registers, at any size."""

from dataclasses import replace

import pytest
import torch
from hub.vit_peers import converted as converted_by
from hub.vit_peers import drawn_alike, nothing_unaccounted, opened, pictures, same_encoding, same_state
from peer_weights import randomise
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import transformers_dinov2
from multiway.hub.file import WeightsError
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.transformers_dinov2 import dinov2_config, from_transformers, names, table, to_transformers
from multiway.methods.ibot import Ibot, IbotConfig
from multiway.methods.picture_encoder import PictureEncoder
from multiway.nn.mlp_head import MlpHeadConfig
from multiway.nn.vit import VisionConfig

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 8,
    "mlp_ratio": 2,
}
KINDS = {
    "plain": (Dinov2Model, Dinov2Config(**SIZES)),
    "gated": (Dinov2Model, Dinov2Config(**SIZES, use_swiglu_ffn=True)),
    "registers": (Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3)),
    "registers, gated": (Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**SIZES, use_swiglu_ffn=True)),
}


def peer(kind: str) -> Dinov2Model:
    cls, config = KINDS[kind]
    return randomise(cls(config))


def converted(theirs) -> PictureEncoder:
    return converted_by(theirs, dinov2_config, transformers_dinov2)


@torch.no_grad()
def same(ours, theirs, size: int = 56) -> None:
    wanted = theirs(pictures(size)).last_hidden_state
    same_encoding(ours, pictures(size), wanted, wanted[:, 0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [56, 24, 72])
def test_tokens_equal_at_any_size(kind: str, size: int) -> None:
    same(converted(peer(kind)), peer(kind), size)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["plain", "registers"])
def test_hidden_patches_are_covered_alike(kind: str) -> None:
    theirs = peer(kind)
    ours, images, mask = converted(theirs), torch.randn(2, 3, 56, 56), torch.rand(2, 49) < 0.4
    wanted = theirs(images, bool_masked_pos=mask).last_hidden_state
    assert (ours.covered(images, mask).tokens - wanted).abs().max() < 1e-5
    assert (wanted - theirs(images).last_hidden_state).abs().max() > 0.1


def test_nothing_is_left_over_or_missing_in_silence() -> None:
    for kind in ("gated", "registers"):
        theirs = peer(kind)
        ours = converted(theirs)
        nothing_unaccounted(table(ours.config), ours, names(theirs.state_dict()))


@pytest.mark.parametrize("kind", KINDS)
def test_folders_go_both_ways_exactly(tmp_path, kind: str) -> None:
    theirs = peer(kind)
    theirs.save_pretrained(tmp_path / "in")
    ours = load(f"hf:{tmp_path / 'in'}")
    same(ours.method, theirs)
    to_transformers(ours, tmp_path / "out")
    same_state(opened(KINDS[kind][0], tmp_path / "out").state_dict(), theirs.state_dict())
    assert load(f"hf:{tmp_path / 'out'}").method.config == ours.method.config


def test_pictures_are_cut_as_released(tmp_path) -> None:
    """The shorter side to 64, the middle 48 of it, for a model whose positions are of 56."""
    theirs = randomise(Dinov2ForImageClassification(Dinov2Config(**SIZES)))
    theirs.save_pretrained(tmp_path)
    side = {"height": 48, "width": 48}
    processor = BitImageProcessorPil(size={"shortest_edge": 64}, crop_size=side, resample=3,
                                     image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])  # fmt: skip
    processor.save_pretrained(tmp_path)
    ours = from_transformers(str(tmp_path))
    assert (ours.processor.view.size, ours.processor.view.shortest) == (48, 64)
    for shape in ((90, 131, 3), (131, 90, 3), (77, 77, 3), (30, 40, 3)):
        picture, pixels = drawn_alike(ours, processor, shape)
    with torch.no_grad():
        wanted = theirs.dinov2(pixels).last_hidden_state[:, 0]
    assert (ours.encode_image([picture]).embedding - torch.nn.functional.normalize(wanted, dim=1)).abs().max() < 1e-5
    to_transformers(ours, tmp_path / "out")
    assert from_transformers(str(tmp_path / "out")).processor.view == ours.processor.view
    processor.crop_size = {"height": 50, "width": 50}
    processor.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="cuts 50"):
        from_transformers(str(tmp_path))


def test_an_ibot_trained_here_is_written(tmp_path) -> None:
    """Without layer scale too, with factors of 1; its mask token goes along."""
    torch.manual_seed(0)
    backbone = VisionConfig(56, 8, 32, 3, 2, 2.0)
    for scale in (None, 0.1):
        head = MlpHeadConfig()
        ibot = randomise(Ibot(IbotConfig(replace(backbone, layer_scale=scale), projector=head)))
        folder = tmp_path / str(scale)
        to_transformers(Model(ibot, Processor(ViewSpec(56, "center"), None)), folder)
        theirs = opened(Dinov2Model, folder)
        same(ibot, theirs)
        assert torch.equal(theirs.embeddings.mask_token[0], ibot.mask_token)


def test_what_has_no_counterpart_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "dinov2", "architectures": ["Dinov2Backbone"]}')
    with pytest.raises(WeightsError, match=r"Dinov2Backbone.*expected one of Dinov2Model"):
        from_transformers(str(tmp_path))
    with pytest.raises(WeightsError, match="qkv_bias=False"):
        dinov2_config(SIZES | {"qkv_bias": False})
    backbone = VisionConfig(56, 8, 32, 3, 2, 2.0)
    for other, said in ((replace(backbone, mlp_ratio=1.5), "whole multiple"), (replace(backbone, registers=2), "antialias=False"),
                        (replace(backbone, pool="mean", class_token=True), "mean of patches")):  # fmt: skip
        method = Ibot(IbotConfig(other, projector=MlpHeadConfig()))
        with pytest.raises(WeightsError, match=said):
            to_transformers(Model(method, Processor(ViewSpec(56), None)), tmp_path / "none")
