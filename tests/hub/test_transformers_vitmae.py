"""MAE equals ViTMAEForPreTraining of transformers with copied random weights, both ways: loss, values, encoder's tokens."""

import json
from dataclasses import replace

import pytest
import torch
from hub.vit_peers import nothing_unaccounted
from peer_weights import randomise
from torch import Tensor
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub.file import WeightsError
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.renaming import fill
from multiway.hub.transformers_vitmae import (
    from_transformers,
    mae_config,
    older,
    ours_to_theirs,
    table,
    to_transformers,
)
from multiway.methods.mae import Mae, MaeConfig
from multiway.nn.mae_decoder import MaeDecoderConfig
from multiway.nn.patch import sincos_positions
from multiway.nn.vit import VisionConfig
from multiway.world import World

SMALL = MaeConfig(
    VisionConfig(32, 8, 32, 3, 2, 1.5, positions="sincos", epsilon=1e-12), decoder=MaeDecoderConfig(24, 2, 3)
)


def peer(fixed: bool = True, **more) -> ViTMAEForPreTraining:
    """Random everything; positions are sines and cosines, which transformers 5 leaves at zero, or random too."""
    config = ViTMAEConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, image_size=32, patch_size=8,
        decoder_hidden_size=24, decoder_num_hidden_layers=2, decoder_num_attention_heads=3, decoder_intermediate_size=40, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = randomise(ViTMAEForPreTraining(config))
    if fixed:
        with torch.no_grad():
            for table in (theirs.vit.embeddings.position_embeddings, theirs.decoder.decoder_pos_embed):
                table.zero_()
                table[0, 1:] = sincos_positions((4, 4), table.shape[2])
    return theirs


def converted(theirs: ViTMAEForPreTraining) -> Mae:
    state = {older(n): t for n, t in theirs.state_dict().items()}
    ours = Mae(mae_config(json.loads(theirs.config.to_json_string(use_diff=False)), state)).eval()
    fill(ours, table(8), state)
    return ours


def same(ours: Mae, theirs: ViTMAEForPreTraining) -> None:
    """Loss, values and the encoder's tokens, of the same noise."""
    make = torch.Generator().manual_seed(1)
    images, noise = torch.randn(3, 3, 32, 32, generator=make), torch.rand(3, 16, generator=make)
    with torch.no_grad():
        wanted, encoded = theirs(images, noise=noise), theirs.vit(images, noise=noise)
        mask = wanted.mask.bool()
        tower, said = ours.shown(images, mask), ours.look(images, mask)[1]
        loss = ours.judge(said, images, mask, World()).terms["reconstruction"].value
    assert int(mask.sum()) == 3 * 12
    assert (loss - wanted.loss).abs() < 1e-5
    assert (colours_last(said) - wanted.logits).abs().max() < 1e-5
    # Theirs stand in the order of the noise, ours in that of the picture.
    their_tokens = torch.cat(
        [encoded.last_hidden_state[:, :1], encoded.last_hidden_state[:, 1:].gather(1, in_order(noise))], 1
    )
    assert (tower.tokens - their_tokens).abs().max() < 1e-5
    assert wanted.logits.std(0).max() > 0.01  # rows differ, so the comparison can fail


def in_order(noise: Tensor) -> Tensor:
    """Where the visible patches stand in their sequence, in ascending order of the patches."""
    return noise.argsort(1)[:, :4].argsort(1)[..., None].expand(-1, -1, 32)


def colours_last(said: Tensor) -> Tensor:
    return said.unflatten(2, (3, 8, 8)).movedim(2, -1).flatten(2)


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("normalised", [True, False])
def test_loss_values_and_tokens_equal(fixed: bool, normalised: bool) -> None:
    theirs = peer(fixed, norm_pix_loss=normalised)
    ours = converted(theirs)
    assert ours.config.backbone.positions == ours.config.decoder.positions == ("sincos" if fixed else "learned")
    same(ours, theirs)


@torch.no_grad()
def test_reconstructions_equal() -> None:
    theirs = peer()
    ours, images, noise = converted(theirs), torch.randn(3, 3, 32, 32), torch.rand(3, 16)
    wanted = theirs(images, noise=noise)
    mask = wanted.mask.bool()
    shown = theirs.patchify(images) * ~mask[..., None] + wanted.logits * mask[..., None]
    assert (ours.reconstruct(images, mask) - theirs.unpatchify(shown)).abs().max() < 1e-5


@torch.no_grad()
def test_a_whole_picture_is_encoded_as_theirs_with_nothing_hidden() -> None:
    theirs = peer(mask_ratio=0.0)
    ours, images = converted(theirs), torch.randn(3, 3, 32, 32)
    wanted = theirs.vit(images, noise=torch.arange(16.0).expand(3, -1)).last_hidden_state
    encoded = ours.encode_image(images)
    assert encoded.tokens is not None and (encoded.tokens - wanted).abs().max() < 1e-5
    assert (encoded.embedding - torch.nn.functional.normalize(wanted[:, 0], dim=1)).abs().max() < 1e-5


@pytest.mark.parametrize("fixed", [True, False])
def test_round_trip_is_exact_to_the_bit(fixed: bool) -> None:
    theirs = peer(fixed)
    back = ours_to_theirs(converted(theirs))
    state = {older(name): tensor for name, tensor in theirs.state_dict().items()}
    assert set(back) == set(state)
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name


def test_nothing_is_left_over_or_missing_in_silence() -> None:
    theirs = peer()
    nothing_unaccounted(table(8), converted(theirs), {older(name): each for name, each in theirs.state_dict().items()})


def test_other_positions_than_sines_are_no_sines() -> None:
    theirs = peer()
    state = {older(name): each for name, each in theirs.state_dict().items()}
    state["decoder.decoder_pos_embed"] = state["decoder.decoder_pos_embed"] + 0.1
    with pytest.raises(WeightsError, match=r"other positions in decoder\.positions"):
        fill(converted(theirs), table(8), state)


@pytest.mark.parametrize("written_by", ["transformers", "us"])
def test_folders_are_read_and_written(tmp_path, written_by: str) -> None:
    """By the hub's names as well, older ones and those of transformers 5."""
    torch.manual_seed(2)
    if written_by == "us":
        method = randomise(Mae(replace(SMALL, probe=5)))  # the probe stays behind
        view = ViewSpec(32, "squash", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        to_transformers(Model(method, Processor(view, None)), tmp_path / "mae")
        theirs, told = ViTMAEForPreTraining.from_pretrained(tmp_path / "mae", output_loading_info=True)
        assert not any(told[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert theirs.config.norm_pix_loss and theirs.config.mask_ratio == 0.75
        same(method, theirs.eval())
        back = load(f"hf:{tmp_path / 'mae'}")
        assert back.processor.view == view and back.name == "mae"
        for name, tensor in back.method.state_dict().items():
            assert torch.equal(tensor, method.state_dict()[name]), name
    else:
        theirs = peer()
        theirs.save_pretrained(tmp_path / "mae")
        same(load(f"hf:{tmp_path / 'mae'}").method, theirs)


def test_what_has_no_counterpart_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit_mae", "architectures": ["ViTMAEModel"]}')
    with pytest.raises(WeightsError, match=r"ViTMAEModel.*has the decoder too"):
        from_transformers(str(tmp_path))
    with pytest.raises(WeightsError, match="qkv_bias"):
        mae_config({"qkv_bias": False}, {})
    with pytest.raises(WeightsError, match="16 positions, and its config 4 patches"):
        theirs = peer()
        mae_config(theirs.config.to_dict() | {"patch_size": 16}, {older(n): t for n, t in theirs.state_dict().items()})
    for other in (replace(SMALL, mask_tokens="encoder"), replace(SMALL, decoder=MaeDecoderConfig(24, 2, 3, positions="none")),
                  replace(SMALL, backbone=replace(SMALL.backbone, layer_scale=0.1))):  # fmt: skip
        with pytest.raises(WeightsError, match="as published"):
            to_transformers(Model(Mae(other), Processor(ViewSpec(32), None)), tmp_path / "none")
