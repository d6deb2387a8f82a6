"""A picture encoder equals BEiT of transformers with copied random weights: encoder, pooled vector, and codes of hidden patches."""

from dataclasses import replace

import pytest
import torch
from hub.vit_peers import converted as converted_by
from hub.vit_peers import nothing_unaccounted, opened, pictures, same_encoding, same_state
from peer_weights import randomise
from torch import Tensor
from transformers import BeitConfig, BeitForImageClassification, BeitForMaskedImageModeling, BeitModel

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import transformers_beit
from multiway.hub.file import WeightsError
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.transformers_beit import beit_config, from_transformers, names, table, to_transformers
from multiway.methods.beit import Beit
from multiway.methods.beit import BeitConfig as OurBeitConfig
from multiway.methods.picture_encoder import PictureEncoder
from multiway.nn.visual_tokeniser import VisualTokeniserConfig
from multiway.nn.vit import VisionConfig

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 32,
         "patch_size": 8}  # fmt: skip
SHARED, OWN = {"use_shared_relative_position_bias": True}, {"use_relative_position_bias": True}
KINDS = {
    "tuned": OWN,
    "shared": SHARED,
    "class token": OWN | {"use_mean_pooling": False},
    "absolute": {"use_absolute_position_embeddings": True, "use_mask_token": True},
    "no scale": OWN | {"layer_scale_init_value": 0.0},
}


def peer(more: dict, cls: type = BeitModel):
    return randomise(cls(BeitConfig(**SIZES, **more)))


def masked_peer() -> BeitForMaskedImageModeling:
    return peer(SHARED | {"use_mask_token": True, "vocab_size": 19}, BeitForMaskedImageModeling)


def converted(theirs) -> PictureEncoder:
    return converted_by(theirs, beit_config, transformers_beit)


def hidden() -> Tensor:
    """(3, 16) which patches of `pictures()` are."""
    return torch.rand(3, 16, generator=torch.Generator().manual_seed(2)) < 0.4


@torch.no_grad()
def same(ours, theirs) -> None:
    wanted = theirs(pictures())
    same_encoding(ours, pictures(), wanted.last_hidden_state, wanted.pooler_output)


@torch.no_grad()
def same_codes(ours, theirs) -> None:
    mask = hidden()
    wanted = theirs(pictures(), bool_masked_pos=mask).logits
    guessed = ours.guess_codes(pictures(), mask)
    assert guessed.shape == wanted.shape == (3, 16, 19) and (guessed - wanted).abs().max() < 1e-5
    assert (ours.guess_codes(pictures(), mask, hidden_only=True) - wanted[mask]).abs().max() < 1e-5
    assert (wanted - theirs(pictures(), bool_masked_pos=~mask).logits).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_pooled_vector_equal(kind: str) -> None:
    same(converted(peer(KINDS[kind])), peer(KINDS[kind]))


def test_codes_of_hidden_patches_equal() -> None:
    same_codes(converted(masked_peer()), masked_peer())


@torch.no_grad()
def test_relative_positions_matter_and_differ_by_block() -> None:
    """The comparison above would fail if the bias were left out, or another block's were taken."""
    ours = converted(peer(OWN))
    before = ours.encode_image(pictures()).tokens
    ours.backbone.relative.table.copy_(ours.backbone.relative.table.roll(2, 1))  # H columns: the next block's
    assert (ours.encode_image(pictures()).tokens - before).abs().max() > 0.01


@torch.no_grad()
def test_a_bias_of_keys_changes_nothing() -> None:
    """Which is why BEiT goes without, and why it may be dropped on the way out."""
    ours = converted(peer(OWN))
    before = ours.encode_image(pictures()).tokens
    for block in ours.backbone.transformer.blocks:
        block.attention.qkv.bias[32:64] = torch.randn(32)
    assert (ours.encode_image(pictures()).tokens - before).abs().max() < 1e-4


def test_nothing_is_left_over_or_missing_in_silence() -> None:
    for theirs in (masked_peer(), peer(OWN)):
        ours = converted(theirs)
        nothing_unaccounted(table(ours.config), ours, names(theirs.state_dict()))


@pytest.mark.parametrize("kind", KINDS)
def test_folders_go_both_ways_exactly(tmp_path, kind: str) -> None:
    theirs = peer(KINDS[kind])
    theirs.save_pretrained(tmp_path / "in")
    ours = load(f"hf:{tmp_path / 'in'}")
    same(ours.method, theirs)
    to_transformers(ours, tmp_path / "out")
    same_state(opened(BeitModel, tmp_path / "out").state_dict(), theirs.state_dict())


def test_pre_trained_folders_go_both_ways_exactly(tmp_path) -> None:
    theirs = masked_peer()
    theirs.save_pretrained(tmp_path / "in")
    (tmp_path / "in" / "preprocessor_config.json").write_text(
        '{"size": 32, "crop_size": 24, "do_center_crop": false, "resample": 2}'
    )
    ours = load(f"hf:{tmp_path / 'in'}")
    assert (ours.processor.view.crop, ours.processor.view.resample) == ("squash", "bilinear")
    same_codes(ours.method, theirs)
    assert ours.method.config.backbone.pool == "mean"
    to_transformers(ours, tmp_path / "out")
    again = opened(BeitForMaskedImageModeling, tmp_path / "out")
    same_codes(ours.method, again)
    same_state(again.state_dict(), theirs.state_dict())


def test_a_classifier_is_left_behind_and_it_is_said(tmp_path, caplog) -> None:
    theirs = peer(OWN, BeitForImageClassification)
    theirs.save_pretrained(tmp_path)
    same(from_transformers(str(tmp_path)).method, theirs.beit)
    assert "classifier.bias, classifier.weight" in caplog.text


@torch.no_grad()
def test_a_beit_trained_here_is_written(tmp_path) -> None:
    """Its tokeniser and the blocks that aggregate stay behind; its head on codes goes along."""
    torch.manual_seed(0)
    image = VisionConfig(32, 8, 32, 3, 2, 1.5, layer_scale=0.1)
    codes = VisualTokeniserConfig(image=replace(image, layers=1), codes=19)
    method = randomise(Beit(OurBeitConfig(image, tokeniser=codes, aggregate_from=2, aggregate_layers=1)))
    to_transformers(Model(method, Processor(ViewSpec(32, "squash"), None)), tmp_path)
    theirs = opened(BeitForMaskedImageModeling, tmp_path)
    mask = hidden()
    said = method.code_head(method.look(pictures(), mask)[1][:, :, 0])
    assert (said - theirs(pictures(), bool_masked_pos=mask).logits).abs().max() < 1e-5
    same_codes(load(f"hf:{tmp_path}").method, theirs)


def test_what_has_no_counterpart_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "beit", "architectures": ["BeitForSemanticSegmentation"]}')
    with pytest.raises(WeightsError, match=r"BeitForSemanticSegmentation.*expected one of BeitModel"):
        from_transformers(str(tmp_path))
    with pytest.raises(WeightsError, match="one of the last two at most"):
        beit_config(SIZES | SHARED | OWN)
    with pytest.raises(WeightsError, match="the first two"):
        beit_config(SIZES | {"architectures": ["BeitForMaskedImageModeling"]})
    config = beit_config(SIZES | OWN)
    plain = replace(config, backbone=replace(config.backbone, pool_norm=False))
    with pytest.raises(WeightsError, match="pool_norm=False"):
        to_transformers(Model(PictureEncoder(plain), Processor(ViewSpec(32, "squash"), None)), tmp_path / "none")
