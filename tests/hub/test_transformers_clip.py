"""CLIP equals transformers.CLIPModel with copied random weights, both ways, from pixels and strings."""

import json

import numpy as np
import pytest
import torch
from hub.vit_peers import nothing_unaccounted
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from multiway.batch import DataInfo, ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.file import WeightsError
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.renaming import fill, state_of
from multiway.hub.transformers_clip import TABLE, clip_config, from_transformers, to_transformers
from multiway.methods.clip import Clip, ClipConfig

CAPTIONS = ["a red apple", "a green pear on a plate", "seven blue cups", "the red fruit"]


def peer(eos: int = 61, activation: str = "quick_gelu") -> CLIPModel:
    """A small CLIPModel whose every tensor is random, biases and norms too."""
    torch.manual_seed(0)
    shared = dict(num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, hidden_act=activation)
    config = CLIPConfig(
        text_config=dict(
            hidden_size=24,
            vocab_size=64,
            max_position_embeddings=12,
            eos_token_id=eos,
            bos_token_id=0,
            pad_token_id=1,
            **shared,
        ),
        vision_config=dict(hidden_size=32, image_size=32, patch_size=8, **shared),
        projection_dim=20,
    )
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.logit_scale.fill_(2.3)
    return model


def converted(theirs: CLIPModel) -> Clip:
    method = Clip(clip_config(json.loads(theirs.config.to_json_string(use_diff=False)))).eval()
    fill(method, TABLE, theirs.state_dict())
    return method


def their_embeddings(model: CLIPModel, images: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor):
    out = model(input_ids=ids, attention_mask=mask.long(), pixel_values=images)
    return out.image_embeds, out.text_embeds


def ids_with_end(eos: int, rows: int = 5, length: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Random texts of different lengths, each ended and then padded."""
    ids = torch.randint(3, 60, (rows, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(rows, length, dtype=torch.bool)
    for row in range(rows):
        end = 3 + row
        ids[row, end] = eos
        ids[row, end + 1 :] = 1
        mask[row, end + 1 :] = False
    return ids, mask


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_new"])
@pytest.mark.parametrize("eos", [61, 2])  # 2: transformers then takes the greatest id, as old configs meant
@torch.no_grad()
def test_embeddings_equal(eos: int, activation: str) -> None:
    theirs = peer(eos, activation)
    ours = converted(theirs)
    ids, mask = ids_with_end(63 if eos == 2 else eos)
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    image, text = their_embeddings(theirs, images, ids, mask)
    assert (ours.encode_image(images).embedding - image).abs().max() < 1e-5
    assert (ours.encode_text(ids, mask).embedding - text).abs().max() < 1e-5
    assert text.std(0).max() > 0.05  # rows differ, so the comparison can fail


def test_round_trip_is_exact_to_the_bit() -> None:
    theirs = peer()
    back = TABLE.write(state_of(converted(theirs)))
    assert set(back) == set(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back[name], tensor), name


def test_nothing_is_left_over_or_missing_in_silence() -> None:
    theirs = peer()
    nothing_unaccounted(TABLE, converted(theirs), theirs.state_dict())


@pytest.fixture
def model() -> Model:
    tokenizer = Tokenizer.train(CAPTIONS * 3, TokenizerSpec(vocabulary=300, context=12))
    info = DataInfo(vocabulary=len(tokenizer), context=12, special=tokenizer.special)
    torch.manual_seed(3)
    method = Clip(ClipConfig().resolve(info))
    return Model(method, Processor(ViewSpec(size=64), tokenizer))


@torch.no_grad()
def test_transformers_runs_what_was_trained_here(model: Model, tmp_path) -> None:
    """From pixels and strings: our folder, read by transformers with its own preprocessing, gives our embeddings."""
    to_transformers(model, tmp_path / "clip")
    theirs = CLIPModel.from_pretrained(tmp_path / "clip").eval()
    tokens = PreTrainedTokenizerFast.from_pretrained(tmp_path / "clip")(CAPTIONS, padding=True, return_tensors="pt")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 52, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each) for each in pixels]
    images = CLIPImageProcessor.from_pretrained(tmp_path / "clip")(pictures, return_tensors="pt")["pixel_values"]
    image, text = their_embeddings(
        theirs, torch.cat([images, images[:1]]), tokens["input_ids"], tokens["attention_mask"]
    )
    assert (model.encode_text(CAPTIONS).embedding - text).abs().max() < 1e-5
    assert (model.encode_image(pictures).embedding - image[:3]).abs().max() < 1e-5


@torch.no_grad()
def test_folder_and_back(model: Model, tmp_path) -> None:
    to_transformers(model, tmp_path / "clip")
    back = load(f"hf:{tmp_path / 'clip'}")
    for name, tensor in model.method.state_dict().items():
        assert torch.equal(back.method.state_dict()[name], tensor), name
    assert torch.equal(back.encode_text(CAPTIONS).embedding, model.encode_text(CAPTIONS).embedding)


def test_another_architecture_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match="bert"):
        from_transformers(str(tmp_path))
    with pytest.raises(WeightsError, match=r"config\.json"):
        (tmp_path / "empty").mkdir()
        from_transformers(str(tmp_path / "empty"))
