"""What each method of pictures and texts has to show, at its smallest size with random weights: nothing fails, and nothing is silent."""

from dataclasses import replace

import pytest
import torch
from toy import ToySource, toy_picture

from multiway.batch import DataInfo, ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.explain.kinds import KINDS
from multiway.explain.look import explain
from multiway.hub.model import Model
from multiway.methods import method_class
from multiway.methods.clip import ClipConfig
from multiway.methods.meter import MeterConfig
from multiway.nn.resnet import ResNetConfig

ALONE, ACROSS = ("attention", "rollout"), ("cross-attention", "grad-cam")
HAS = {
    "albef": (*ALONE, *ACROSS, "itc-cam", "occlusion"),
    "blip": (*ALONE, *ACROSS, "itc-cam", "occlusion"),
    "clip": (*ALONE, "itc-cam", "occlusion"),
    "coca": (*ALONE, "itc-cam", "occlusion"),
    "filip": (*ALONE, "itc-cam", "wpa", "filip", "occlusion"),
    "meter": (*ALONE, *ACROSS, "occlusion"),
    "simvlm": ("occlusion",),
    "siglip": (*ALONE, "itc-cam", "occlusion"),
    "slip": (*ALONE, "itc-cam", "occlusion"),
    "vilt": ("rollout", *ACROSS, "wpa", "occlusion"),
    "vlmo": (*ALONE, *ACROSS, "itc-cam", "wpa", "occlusion"),
}
# The same methods in another form.
FORMS = {
    "meter, merged": ("meter", replace(MeterConfig(), fusion="merged"), (*ALONE, *ACROSS, "wpa", "occlusion")),
    "clip, resnet": ("clip", ClipConfig(image=ResNetConfig(depths=(1, 1), base=8)), ("itc-cam", "occlusion")),
}
CASES = {name: (name, None, kinds) for name, kinds in HAS.items()} | FORMS


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    source = ToySource(32)
    return Tokenizer.train([c for i in range(32) for c in source.row(i).captions], TokenizerSpec(290, 24))


@pytest.mark.parametrize("case", list(CASES))
def test_kinds_of_a_method(words: Tokenizer, case: str) -> None:
    name, config, kinds = CASES[case]
    made = method_class(name)
    torch.manual_seed(0)
    info = DataInfo(vocabulary=len(words), context=24, special=words.special)
    method = made((config or made.config_class.preset("tiny")).resolve(info))
    found = explain(
        Model(method, Processor(ViewSpec(size=64, crop="squash"), words)), toy_picture("red", "left"), "the red top"
    )
    assert tuple(found.maps) == kinds
    assert set(found.maps) | set(found.absent) == set(KINDS) and all(found.absent.values())
    for kind, own in found.maps.items():
        assert torch.isfinite(own.heat).all() and own.heat.shape[0] == own.heat.shape[1] >= 2, kind
        assert kind == "itc-cam" or own.heat.std() > 0, kind


def test_a_captioner_is_asked_how_likely_the_text_is(words: Tokenizer) -> None:
    """CoCa has both: covering the picture moves the caption's log-probability, which is the method's own."""
    made = method_class("coca")
    torch.manual_seed(0)
    info = DataInfo(vocabulary=len(words), context=24, special=words.special)
    model = Model(
        made(made.config_class.preset("tiny").resolve(info)), Processor(ViewSpec(size=64, crop="squash"), words)
    )
    picture = toy_picture("red", "left")
    found = explain(model, picture, "red on the left", ["occlusion"], score="caption", window=32, stride=32)[
        "occlusion"
    ]
    tokens = words(["red on the left"])
    told = model.caption_likelihood(model.encode_image([picture], tokens=True), tokens.ids, tokens.mask)
    assert (
        found.score == pytest.approx(float(told.logp.sum()), abs=1e-3)
        and found.score_name == "log-probability of the text"
    )
    assert found.heat.shape == (2, 2) and found.heat.std() > 0
