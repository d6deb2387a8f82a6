"""Word maps: shapes, sums, what Grad-CAM's gradients are of, and what a map is drawn as."""

import numpy as np
import pytest
import torch
from PIL import Image
from toy import ToySource, toy_picture

from multiway.abilities import LacksAbility
from multiway.batch import DataInfo, ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.explain.words import overlay, word_maps
from multiway.hub.model import Model
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.bert import Bert, BertConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

CONFIG = AlbefConfig(
    image=VisionConfig(size=16, patch=4, width=24, layers=1, heads=2),
    text=TextConfig(width=32, layers=1, heads=2, causal=False, pool="class"),
    fusion_layers=2,
    embedding=16,
    queue=0,
)


@pytest.fixture(scope="module")
def model() -> Model:
    source = ToySource(32)
    words = Tokenizer.train([c for i in range(32) for c in source.row(i).captions], TokenizerSpec(270, 24))
    torch.manual_seed(0)
    method = Albef(CONFIG.resolve(DataInfo(vocabulary=len(words), context=24)))
    with torch.no_grad():  # at the usual start attention is even, and no map says anything
        for parameter in method.student.fusion.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Model(method, Processor(ViewSpec(size=16, crop="squash"), words))


def test_words_and_shapes(model: Model) -> None:
    maps = word_maps(model, toy_picture("red", "left"), "red on the left")
    assert maps.words == ("red", "on", "the", "left")
    assert maps.attention.shape == maps.grad_cam.shape == (4, 4, 4)
    assert (maps.attention >= 0).all() and (maps.attention.sum((1, 2)) <= 1 + 1e-5).all()
    assert (maps.grad_cam >= 0).all() and maps.grad_cam.sum() > 0
    alone = model.method.match(
        model.method.encode_image(model.processor.images([toy_picture("red", "left")])),
        model.method.encode_text(*[getattr(model.processor.texts(["red on the left"]), n) for n in ("ids", "mask")]),
    )
    assert maps.odds == pytest.approx(float(alone.detach()), abs=1e-5)


def test_one_block_or_the_mean_of_all(model: Model) -> None:
    picture, text = toy_picture("blue", "top"), "the top is blue"
    both = word_maps(model, picture, text)
    each = [word_maps(model, picture, text, layer=i) for i in range(2)]
    torch.testing.assert_close(both.attention, (each[0].attention + each[1].attention) / 2)
    torch.testing.assert_close(both.grad_cam, (each[0].grad_cam + each[1].grad_cam) / 2)
    with pytest.raises(ValueError, match="no fused block 2"):
        word_maps(model, picture, text, layer=2)


def test_only_the_class_token_of_the_last_block_reaches_the_score(model: Model) -> None:
    method = model.method
    image = method.encode_image(model.processor.images([toy_picture("green", "right")]))
    tokens = model.processor.texts(["green on the right"])
    odds, maps = method.match_with_maps(image, method.encode_text(tokens.ids, tokens.mask))
    first, last = torch.autograd.grad(odds.sum(), maps)
    assert last[0, :, 1:].abs().max() < 1e-7 and last[0, :, 0].abs().max() > 0
    assert first[0, :, 1:].abs().max() > 0


def test_grad_cam_is_zero_where_looking_speaks_against_the_match(model: Model) -> None:
    """With the match head turned round, the gradients change sign, and no patch is in both maps of one block's head mean."""
    picture, text = toy_picture("red", "left"), "red on the left"
    there = word_maps(model, picture, text, layer=0)
    with torch.no_grad():
        model.method.match_head.weight.neg_()
        model.method.match_head.bias.neg_()
    try:
        back = word_maps(model, picture, text, layer=0)
    finally:
        with torch.no_grad():
            model.method.match_head.weight.neg_()
            model.method.match_head.bias.neg_()
    assert back.odds == pytest.approx(-there.odds, abs=1e-5)
    torch.testing.assert_close(back.attention, there.attention)
    assert not torch.allclose(back.grad_cam, there.grad_cam)


def test_a_model_without_cross_attention_is_refused(model: Model) -> None:
    blind = Bert(BertConfig(TextConfig(270, 24, 32, 1, 2, causal=False, pool="class")))
    with pytest.raises(LacksAbility, match="match_with_maps"):
        word_maps(Model(blind, model.processor), toy_picture("red", "left"), "red")


def test_the_overlay_is_red_where_the_map_is(model: Model) -> None:
    heat = torch.zeros(4, 4)
    heat[0, 3] = 2.0
    drawn = np.asarray(overlay(Image.new("RGB", (50, 30), "white"), heat, side=64)).astype(int)
    redness = drawn[:, :, 0] - drawn[:, :, 2]
    assert drawn.shape == (64, 64, 3)
    assert redness[4, 60] > 100 and abs(redness[60, 4]) < 12
