"""Grad-CAM of a tuned classifier's own class: as the function of tensors has it, named for every picture, and moved by layer and head."""

import pytest
import torch
from toy import toy_picture

import multiway
from multiway.batch import ViewSpec
from multiway.config import ConfigError, to_json
from multiway.data.processor import Processor
from multiway.explain.alone import class_cam
from multiway.explain.evidence import class_evidence
from multiway.explain.pairs import CannotShow, Look, Pairs
from multiway.hub.model import Model
from multiway.methods.classifier import ClassifierConfig, PictureClassifier
from multiway.methods.mae import MaeConfig
from multiway.nn.vit import VisionConfig

VIT = VisionConfig(size=16, patch=4, width=24, layers=2, heads=2, positions="sincos")
PICTURES = [toy_picture("red", "left"), toy_picture("blue", "top", 3), toy_picture("green", "right", 5)]


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    method = PictureClassifier(ClassifierConfig("mae", to_json(MaeConfig(VIT)), ("cat", "dog", "cow")))
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Model(method, Processor(ViewSpec(size=16, crop="squash")))


def test_the_map_is_of_the_class_that_it_gives(model: Model) -> None:
    images = model.processor.images(PICTURES)
    maps, numbers, shares = class_evidence(model.method, images)
    found = class_cam(Pairs(model, PICTURES))
    assert torch.equal(found.heat, maps) and torch.equal(found.score, shares)
    assert found.chosen == tuple(model.classes[number] for number in numbers.tolist())
    best = model.classify(model.encode_image(PICTURES, tokens=True)).softmax(1).max(1)
    torch.testing.assert_close(found.score, best.values, atol=1e-5, rtol=1e-5)
    assert found.chosen == tuple(model.classes[number] for number in best.indices.tolist())


def test_every_picture_has_its_own_class(model: Model) -> None:
    for picture in PICTURES:
        seen = multiway.explain(model, picture)
        assert tuple(seen.maps) == ("attention", "rollout", "class-cam", "occlusion")
        own = seen["class-cam"]
        assert (
            own.chosen in model.classes and own.score_name == "probability of its class" and not seen["rollout"].chosen
        )


def test_layers_and_heads_are_chosen(model: Model) -> None:
    usual, last, first = (class_cam(Pairs(model, PICTURES, look=Look(layers=each))).heat for each in ((), (-1,), (0,)))
    assert torch.equal(usual, last) and not torch.equal(usual, first)
    one = class_cam(Pairs(model, PICTURES, look=Look(heads=(1,)))).heat
    assert not torch.allclose(usual, one)
    with pytest.raises(ConfigError, match="no layer 2"):
        class_cam(Pairs(model, PICTURES, look=Look(layers=(2,))))


def test_who_has_no_classes_is_refused(models) -> None:
    with pytest.raises(CannotShow, match="clip sorts pictures into no classes"):
        class_cam(Pairs(models["clip"], PICTURES))
