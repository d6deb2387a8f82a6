"""A model at another size: positions interpolated, everything else equal, and pictures of that size encoded as by interpolating at run time."""

import pytest
import torch
from hub.vit_peers import pictures
from peer_weights import randomise

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.resize import resized
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.method import Method
from multiway.methods.picture_encoder import PictureEncoder, PictureEncoderConfig
from multiway.methods.vlmo import Vlmo, VlmoConfig
from multiway.nn.multiway import MultiwayConfig
from multiway.nn.resnet import ModifiedResNetConfig, ResNetConfig
from multiway.nn.swin import SwinConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

TEXT = TextConfig(60, 16, 32, 1, 2)  # as many positions as a square of patches: they are none
VIT = VisionConfig(32, 8, 32, 2, 2)


def model_of(method: Method, **view: object) -> Model:
    return Model(randomise(method), Processor(ViewSpec(32, **view), None))  # type: ignore[arg-type]


MODELS = {
    "clip": (lambda: Clip(ClipConfig(VIT, TEXT, 16)), ("image.positions",)),
    "resnet": (
        lambda: Clip(ClipConfig(ModifiedResNetConfig(32, (1, 1, 1, 1), 8, 4, 16), TEXT, 16)),
        ("image.pool.positions",),
    ),
    "encoder": (lambda: PictureEncoder(PictureEncoderConfig(VIT)), ("backbone.positions",)),
    "beit": (
        lambda: PictureEncoder(
            PictureEncoderConfig(VisionConfig(32, 8, 32, 2, 2, positions="none", relative="shared"))
        ),
        ("backbone.relative.table",),
    ),
    "fixed": (lambda: PictureEncoder(PictureEncoderConfig(VisionConfig(32, 8, 32, 2, 2, positions="sincos"))), ()),
    "vlmo": (lambda: Vlmo(VlmoConfig(MultiwayConfig(32, 2, 2), 32, 8, "patch", 60, 12)), ("positions.table",)),
    "swin": (lambda: PictureEncoder(PictureEncoderConfig(SwinConfig(base=16, depths=(1, 1), head_width=8))), ()),
    "convolutions": (lambda: PictureEncoder(PictureEncoderConfig(ResNetConfig(base=8))), ()),
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_pictures_of_the_new_size_are_seen_as_before(name: str) -> None:
    """All of these interpolate where pictures have another size than the positions; resized, they need not."""
    make, positions = MODELS[name]
    before = model_of(make())
    after = resized(before, 64)
    assert after.report is not None and after.report.resized == positions and after.processor.view.size == 64
    images = pictures(64)
    found, wanted = after.method.encode_image(images).embedding, before.method.encode_image(images).embedding
    if name != "fixed":  # sines and cosines of a larger grid are made anew, not interpolated
        assert (found - wanted).abs().max() < 1e-5
    own = before.method.state_dict()
    for key, each in after.method.state_dict().items():
        assert key in positions or torch.equal(each, own[key]), key
    assert before.processor.view.size == 32


def test_the_share_that_is_cut_out_stays() -> None:
    after = resized(model_of(MODELS["encoder"][0](), shortest=40), 64)
    assert (after.processor.view.size, after.processor.view.shortest) == (64, 80)


def test_patches_have_to_fit() -> None:
    with pytest.raises(
        WeightsError, match=r"pictures of 60 pixels do not fit this clip: size 60 is not divisible by patch 8"
    ):
        resized(model_of(MODELS["clip"][0]()), 60)
