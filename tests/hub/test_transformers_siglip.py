"""SigLIP equals transformers.SiglipModel with copied random weights, both ways, from pixels and strings."""

import json
import math

import numpy as np
import pytest
import torch
from hub.vit_peers import nothing_unaccounted
from peer_weights import randomise
from PIL import Image
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessor, SiglipModel

from multiway.batch import DataInfo, ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.file import WeightsError
from multiway.hub.layouts import to_transformers
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.renaming import fill, state_of
from multiway.hub.transformers_siglip import TABLE, _their_config, siglip_config
from multiway.methods.siglip import PRESETS, Siglip
from multiway.methods.siglip import SiglipConfig as OurConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig

CAPTIONS = ["a red apple", "a green pear on a plate", "seven blue cups", "the red fruit"]


def peer() -> SiglipModel:
    """A small SiglipModel whose every tensor is random, biases and norms too."""
    shared = dict(num_hidden_layers=2, num_attention_heads=2, intermediate_size=44)
    model = SiglipModel(
        SiglipConfig(
            text_config=dict(
                hidden_size=24, vocab_size=64, max_position_embeddings=12, projection_size=32, pad_token_id=1, **shared
            ),
            vision_config=dict(hidden_size=32, image_size=32, patch_size=8, **shared),
        )
    )
    randomise(model)
    with torch.no_grad():
        model.logit_scale.fill_(2.3)
        model.logit_bias.fill_(-4.5)
    return model


def read(theirs: SiglipModel) -> OurConfig:
    return siglip_config(json.loads(theirs.config.to_json_string(use_diff=False)))


def converted(theirs: SiglipModel) -> Siglip:
    ours = Siglip(read(theirs)).eval()
    fill(ours, TABLE, theirs.state_dict())
    return ours


@torch.no_grad()
def test_embeddings_and_logits_equal() -> None:
    theirs = peer()
    ours = converted(theirs)
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([12, 9, 3, 5, 1])
    mask = torch.arange(12) < lengths[:, None]
    ids = torch.randint(2, 64, (5, 12), generator=generator)
    images = torch.randn(5, 3, 32, 32, generator=generator)
    # As SigLIP is used: filled up to the context, no mask.
    out = theirs(input_ids=ids.masked_fill(~mask, 1), pixel_values=images)
    image, text = ours.encode_image(images), ours.encode_text(ids, mask)
    assert (image.embedding - out.image_embeds).abs().max() < 1e-5
    assert (text.embedding - out.text_embeds).abs().max() < 1e-5
    assert (ours.logits(image, text) - out.logits_per_image).abs().max() < 1e-5 * math.exp(2.3)
    assert out.text_embeds.std(0).max() > 0.05 and out.image_embeds.std(0).max() > 0.01


def test_round_trip_is_exact_to_the_bit() -> None:
    theirs = peer()
    back = TABLE.write(state_of(converted(theirs)))
    assert set(back) == set(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back[name], tensor), name


def test_nothing_is_left_over_or_missing_in_silence() -> None:
    theirs = peer()
    nothing_unaccounted(TABLE, converted(theirs), theirs.state_dict())


@pytest.mark.parametrize(("preset", "published"), [("base", 203.16), ("so400m", 877.36)])
def test_presets_have_the_peers_shapes(preset: str, published: float) -> None:
    """Millions of parameters as `open_clip` lists its SigLIPs: both towers, the head, t' and c."""
    config = PRESETS[preset]
    with torch.device("meta"):
        ours = Siglip(config)
        theirs = SiglipModel(SiglipConfig(**{k: v for k, v in _their_config(config).items() if k.endswith("_config")}))
    shapes = {name: tensor.shape for name, tensor in TABLE.write(ours.state_dict()).items()}
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert sum(p.numel() for p in ours.parameters()) / 1e6 == pytest.approx(published, abs=0.006)


@pytest.fixture
def model() -> Model:
    tokenizer = Tokenizer.train(CAPTIONS * 3, TokenizerSpec(vocabulary=300, context=12))
    info = DataInfo(vocabulary=len(tokenizer), context=12, special=tokenizer.special)
    shared = dict(width=32, layers=1, heads=2, activation="gelu_tanh")
    config = OurConfig(
        image=VisionConfig(size=32, patch=8, pool="mean", **shared),
        text=TextConfig(context=0, causal=False, pool="last", epsilon=1e-6, **shared),
    )
    method = Siglip(config.resolve(info))
    randomise(method)
    with torch.no_grad():
        method.log_scale.fill_(2.0)
    view = ViewSpec(size=32, crop="squash", mean=(0.5,) * 3, std=(0.5,) * 3)
    return Model(method, Processor(view, tokenizer))


@torch.no_grad()
def test_transformers_runs_what_was_trained_here(model: Model, tmp_path) -> None:
    """From pixels and strings: our folder, read by transformers with its own preprocessing, gives our embeddings."""
    to_transformers(model, tmp_path / "siglip")
    theirs = SiglipModel.from_pretrained(tmp_path / "siglip").eval()
    words = PreTrainedTokenizerFast.from_pretrained(tmp_path / "siglip")
    ids = words(CAPTIONS, padding="max_length", max_length=12, return_tensors="pt")["input_ids"]
    pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 52, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each) for each in pixels]
    images = SiglipImageProcessor.from_pretrained(tmp_path / "siglip")(pictures, return_tensors="pt")["pixel_values"]
    out = theirs(input_ids=ids, pixel_values=images)
    assert (model.encode_text(CAPTIONS).embedding - out.text_embeds).abs().max() < 1e-5
    assert (model.encode_image(pictures).embedding - out.image_embeds).abs().max() < 1e-5


def test_folder_and_back_by_its_model_type(model: Model, tmp_path) -> None:
    to_transformers(model, tmp_path / "siglip")
    back = load(f"hf:{tmp_path / 'siglip'}")
    assert isinstance(back.method, Siglip) and back.processor.view == model.processor.view
    for name, tensor in model.method.state_dict().items():
        assert torch.equal(back.method.state_dict()[name], tensor), name
    assert torch.equal(back.encode_text(CAPTIONS).embedding, model.encode_text(CAPTIONS).embedding)


def test_what_has_no_counterpart_is_refused(model: Model, tmp_path) -> None:
    tiny = Siglip(OurConfig().resolve(DataInfo(vocabulary=9, context=4)))
    with pytest.raises(WeightsError, match=r"--method\.image\.stem patch"):
        to_transformers(Model(tiny, model.processor), tmp_path / "x")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(WeightsError, match=r"'gpt2'; those that can be converted are: .*siglip"):
        load(f"hf:{tmp_path}")
    narrow = {"text_config": {"hidden_size": 8, "projection_size": 8}, "vision_config": {"hidden_size": 16}}
    with pytest.raises(WeightsError, match="projects to 8 and pictures are 16"):
        siglip_config(narrow)
