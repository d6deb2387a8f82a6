"""A picture encoder equals ViTModel of transformers with copied random weights, both ways, in memory and by way of folders."""

import logging
from dataclasses import replace

import pytest
import torch
from hub.vit_peers import converted as converted_by
from hub.vit_peers import drawn_alike, nothing_unaccounted, opened, pictures, same_encoding, same_state
from peer_weights import randomise
from transformers import ViTConfig, ViTForImageClassification, ViTModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import layouts, transformers_vit
from multiway.hub.file import WeightsError, read_model, write_model
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.renaming import fill
from multiway.hub.transformers_vit import from_transformers, names, table, to_transformers, vit_config
from multiway.hub.vit_tensors import Names, blocks_of, older
from multiway.methods.dino import Dino, DinoConfig
from multiway.methods.mae import Mae, MaeConfig
from multiway.methods.picture_encoder import PictureEncoder
from multiway.nn.mae_decoder import MaeDecoderConfig
from multiway.nn.mlp_head import MlpHeadConfig
from multiway.nn.resnet import ResNetConfig
from multiway.nn.vit import VisionConfig

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 49, "image_size": 32,
         "patch_size": 8}  # fmt: skip
OURS = VisionConfig(32, 8, 32, 3, 2, 1.5, epsilon=1e-12)


def peer(pooler: bool = False, **more) -> ViTModel:
    return randomise(ViTModel(ViTConfig(**SIZES, **more), add_pooling_layer=pooler))


def converted(theirs: ViTModel) -> PictureEncoder:
    return converted_by(theirs, vit_config, transformers_vit)


@torch.no_grad()
def same(ours, theirs: ViTModel, size: int = 32) -> None:
    wanted = theirs(pictures(size), interpolate_pos_encoding=size != 32).last_hidden_state
    same_encoding(ours, pictures(size), wanted, wanted[:, 0])


@pytest.mark.parametrize("more", [{}, {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}])
def test_class_token_and_patches_equal(more: dict) -> None:
    same(converted(peer(**more)), peer(**more))


def test_positions_are_interpolated_alike() -> None:
    ours, theirs = converted(peer()), peer()
    same(ours, theirs, 48)
    same(ours, theirs, 16)


def test_round_trip_is_exact_to_the_bit() -> None:
    theirs = peer()
    ours = converted(theirs)
    same_state(table(ours.config).write(ours.state_dict()), older(theirs.state_dict(), Names()))


def test_nothing_is_left_over_or_missing_in_silence(caplog) -> None:
    theirs = peer(pooler=True)
    with caplog.at_level(logging.WARNING):
        ours = converted(theirs)
    assert "pooler.dense.bias, pooler.dense.weight" in caplog.text
    bare = {name: each for name, each in names(theirs.state_dict()).items() if not name.startswith("pooler.")}
    nothing_unaccounted(table(ours.config), ours, bare)


@pytest.mark.parametrize("kind", [ViTModel, ViTForImageClassification])
def test_folders_are_read(tmp_path, kind: type) -> None:
    theirs = randomise(kind(ViTConfig(**SIZES)))
    theirs.save_pretrained(tmp_path / "vit")
    processor = ViTImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    )
    processor.save_pretrained(tmp_path / "vit")
    ours = load(f"hf:{tmp_path / 'vit'}")
    same(ours.method, getattr(theirs, "vit", theirs))
    assert ours.abilities() == ("encode_image",) and ours.name == "picture-encoder"
    # The whole way, from a picture that is not square.
    picture, pixels = drawn_alike(ours, processor, (40, 57, 3))
    wanted = getattr(theirs, "vit", theirs)(pixels).last_hidden_state[:, 0]
    assert (ours.encode_image([picture]).embedding - torch.nn.functional.normalize(wanted, dim=1)).abs().max() < 1e-5
    write_model(tmp_path / "one.safetensors", ours.method, ours.processor)
    back = read_model(tmp_path / "one.safetensors")
    assert back.processor.view == ours.processor.view and back.method.config == ours.method.config


def test_one_side_given_is_squeezed_as_theirs(tmp_path) -> None:
    """As the processors of the first releases were written down: `"size": 32`."""
    peer().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": 32, "resample": 3, "do_center_crop": false}')
    view = from_transformers(str(tmp_path)).processor.view
    assert (view.size, view.crop, view.resample, view.mean) == (32, "squash", "bicubic", (0.5, 0.5, 0.5))
    (tmp_path / "preprocessor_config.json").write_text('{"size": 48}')
    with pytest.raises(WeightsError, match="resizes to 48"):
        from_transformers(str(tmp_path))


@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_a_method_trained_here_is_written(tmp_path, positions: str) -> None:
    """Of DINO the encoder alone, and it comes back as a picture encoder."""
    torch.manual_seed(0)
    config = DinoConfig(replace(OURS, positions=positions), projector=MlpHeadConfig())
    dino = randomise(Dino(config))
    model = Model(dino, Processor(ViewSpec(32, "squash"), None))
    to_transformers(model, tmp_path / "out")
    theirs = opened(ViTModel, tmp_path / "out", add_pooling_layer=False)
    same(dino, theirs)
    back = load(f"hf:{tmp_path / 'out'}")
    same(back.method, theirs)
    assert back.processor.view == model.processor.view


def test_what_has_no_counterpart_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTForMaskedImageModeling"]}')
    with pytest.raises(WeightsError, match=r"ViTForMaskedImageModeling.*expected one of ViTModel"):
        from_transformers(str(tmp_path))
    for wrong, said in (({"qkv_bias": False}, "qkv_bias=False"), ({"image_size": [32, 16]}, "squares"), ({"patch_size": 5}, "squares"),
                        ({"hidden_dropout_prob": 0.1}, "no dropout")):  # fmt: skip
        with pytest.raises(WeightsError, match=said):
            vit_config(SIZES | wrong)
    fewer = vit_config(SIZES | {"image_size": 16})
    with pytest.raises(WeightsError, match=r"other shapes: backbone\.positions \(16, 32\) instead of \(4, 32\)"):
        fill(PictureEncoder(fewer), table(fewer), names(peer().state_dict()))
    view = Processor(ViewSpec(32, "squash"), None)
    for backbone, said in ((replace(OURS, stem="conv"), "convolutional stem"), (replace(OURS, pool="mean"), "no class token"),
                           (replace(OURS, layer_scale=0.1), "layer scale"), (ResNetConfig(), "none as its backbone"),
                           (replace(OURS, activation="swiglu"), "SwiGLU")):  # fmt: skip
        with pytest.raises(WeightsError, match=said):
            to_transformers(Model(Dino(DinoConfig(backbone, projector=MlpHeadConfig())), view), tmp_path / "none")


def test_widths_survive_the_ratio() -> None:
    for width in range(1, 400, 7):
        for hidden in range(1, 1200, 11):
            assert int(width * blocks_of({"hidden_size": width}, hidden, 1e-6)["mlp_ratio"]) == hidden


def test_no_layout_drops_what_it_has_no_place_for(tmp_path) -> None:
    """A MAE with registers would lose them on the way to ViTMAEForPreTraining."""
    mae = Mae(MaeConfig(replace(OURS, registers=2), decoder=MaeDecoderConfig(16, 1, 2)))
    with pytest.raises(WeightsError, match="registers"):
        layouts.to_transformers(Model(mae, Processor(ViewSpec(32, "squash"), None)), tmp_path / "none")
    assert not (tmp_path / "none").exists()
