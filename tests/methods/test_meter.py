"""METER: its size, its encoders against CLIP's and RoBERTa's, its step against a slow twin, and what must not be seen."""

import math
from dataclasses import replace

import pytest
import torch
from peer_weights import copy, copy_bert_block, copy_clip_block, randomise
from toy import ToySource
from transformers import CLIPVisionConfig, CLIPVisionModel, RobertaConfig, RobertaModel

from multiway.abilities import abilities_of
from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.config import from_json, to_json
from multiway.data.augment import finish
from multiway.data.loader import Loader
from multiway.data.masking import Masking
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.engine.optim import OptimiserSpec, parameter_groups
from multiway.methods.meter import Meter, MeterConfig
from multiway.methods.method import Step
from multiway.nn.coattention import CoAttention
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

SMALL = MeterConfig(
    image=VisionConfig(size=16, patch=4, width=24, layers=2, heads=2),
    text=TextConfig(width=32, layers=1, heads=2, causal=False, pool="class"),
    fusion_layers=2,
    width=32,
    heads=2,
)
MERGED = replace(SMALL, fusion="merged")
STEP = Step(index=10, progress=0.5)


def words_of(rows: int) -> Tokenizer:
    source = ToySource(rows)
    return Tokenizer.train([c for i in range(rows) for c in source.row(i).captions], TokenizerSpec(300, 16))


def toy_batch(rows: int = 16, number: int = 0) -> Batch:
    view = ViewSpec(size=16)
    loader = Loader(ToySource(32), view, words_of(32), rows, masking=Masking(0.3, least=1))
    return finish(loader.batch(number), view)


def build(config: MeterConfig = SMALL) -> Meter:
    torch.manual_seed(0)
    return Meter(config.resolve(DataInfo(vocabulary=len(words_of(32)), context=16)))


def random_build(config: MeterConfig = SMALL) -> Meter:
    method = randomise(build(config))
    assert isinstance(method, Meter)
    return method


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_parameters_of_the_papers_size() -> None:
    """357.9 M, derived part by part: CLIP's ViT without its last block, RoBERTa-base, six layers of two streams."""
    with torch.device("meta"):
        method = Meter(MeterConfig.preset("base"))
    width, hidden, words = 768, 3072, 50265
    attention, norm = 4 * (width**2 + width), 2 * width
    feed = (width * hidden + hidden) + (hidden * width + width)
    block = attention + norm + feed + norm
    image = 3 * 16**2 * width + width + (1 + 18**2) * width + norm + 11 * block + norm
    text = (words + 512 + 1) * width + norm + 12 * block
    fusion = 2 * 6 * (block + attention + norm)
    layer = width**2 + width
    heads = 2 * layer + 2 * width + 2 * layer + (2 * 2 * width + 2) + (layer + norm + words) + words * width
    derived = image + text + fusion + heads
    assert sum(p.numel() for p in method.parameters()) == derived
    assert round(derived / 1e6, 1) == 357.9
    merged = replace(MeterConfig.preset("base"), fusion="merged", fusion_layers=12)
    with torch.device("meta"):
        # Twelve merged layers are three quarters of six pairs of co-attention layers.
        assert sum(p.numel() for p in Meter(merged).fusion.parameters()) == 12 * block
    assert 0.74 < 12 * block / fusion < 0.76


def test_presets_survive_json_and_what_does_not_fit_is_named() -> None:
    for name in ("tiny", "base"):
        config = MeterConfig.preset(name)
        assert from_json(MeterConfig, to_json(config)) == config
    with pytest.raises(KeyError, match="base"):
        MeterConfig.preset("huge")
    with pytest.raises(ValueError, match="resolve"):
        Meter(SMALL)
    with pytest.raises(ValueError, match="tied_words=False"):
        build(replace(SMALL, width=48))
    assert build(replace(SMALL, width=48, tied_words=False)).word_matrix is not None
    with pytest.raises(ValueError, match="pool='class'"):
        build(replace(SMALL, image=replace(SMALL.image, pool="mean")))


def test_what_was_not_trained_before_learns_five_times_as_fast() -> None:
    method = build(replace(SMALL, fusion_rate=5.0, tied_words=False))
    groups = parameter_groups(method, OptimiserSpec(), method.learning_rates())
    factors = {name: group["factor"] for group in groups for name in group["names"]}
    for name, factor in factors.items():
        assert factor == (1.0 if name.startswith(("image.", "text.", "modalities.")) else 5.0), name
    assert build().learning_rates() == []


# --- the encoders against transformers ---------------------------------------------------------------------------------


@torch.no_grad()
def test_text_encoder_is_roberta() -> None:
    """Positions count real tokens from two on, as RoBERTa's do, where texts are padded on the right."""
    theirs = randomise(RobertaModel(RobertaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=14, type_vocab_size=1, pad_token_id=1,
    )))  # fmt: skip
    base = MeterConfig.preset("base").text
    text = replace(base, vocabulary=60, context=12, width=32, layers=2, heads=2, epsilon=1e-12)
    ours = Meter(replace(SMALL, text=text)).eval().text
    copy(ours.embed.words, theirs.embeddings.word_embeddings)
    copy(ours.embed.types, theirs.embeddings.token_type_embeddings)
    copy(ours.embed.norm[0], theirs.embeddings.LayerNorm)
    ours.embed.positions.copy_(theirs.embeddings.position_embeddings.weight[2:])
    for our, their in zip(ours.transformer.blocks, theirs.encoder.layer, strict=True):
        copy_bert_block(our, their)
    mask = torch.arange(9) < torch.tensor([9, 6, 3])[:, None]
    ids = torch.where(mask, torch.randint(4, 60, (3, 9)), 1)
    wanted = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    assert (ours(ids, mask).tokens - wanted)[mask].abs().max() < 1e-5


@torch.no_grad()
def test_image_encoder_is_clips_with_its_last_norm_on_every_token() -> None:
    config = CLIPVisionConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, image_size=32, patch_size=8
    )
    theirs = randomise(CLIPVisionModel(config))
    vision = theirs.vision_model if hasattr(theirs, "vision_model") else theirs
    image = replace(MeterConfig.preset("base").image, size=32, patch=8, width=32, layers=2, heads=2)
    ours = build(replace(SMALL, image=image)).eval().image
    ours.patches.project.weight.copy_(vision.embeddings.patch_embedding.weight.flatten(1))
    ours.class_token.copy_(vision.embeddings.class_embedding)
    ours.class_position.copy_(vision.embeddings.position_embedding.weight[0])
    ours.positions.copy_(vision.embeddings.position_embedding.weight[1:])
    copy(ours.pre_norm, vision.pre_layrnorm)
    copy(ours.transformer.norm, vision.post_layernorm)
    for our, their in zip(ours.transformer.blocks, vision.encoder.layers, strict=True):
        copy_clip_block(our, their)
    pixels = torch.randn(3, 3, 32, 32)
    wanted = vision.post_layernorm(theirs(pixel_values=pixels).last_hidden_state)
    assert (ours(pixels).tokens - wanted).abs().max() < 1e-5


# --- the step (co-attention itself: tests/nn/test_coattention.py) -------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, MERGED], ids=["co", "merged"])
def test_the_step_is_the_papers_formulas(config: MeterConfig) -> None:
    """Both terms again, slowly: one row at a time, from pixels and ids, without padding."""
    method = random_build(config)
    batch = toy_batch()
    torch.manual_seed(5)
    losses = method(batch, World(), STEP)
    torch.manual_seed(5)
    reps = method.encode(batch, STEP)
    with torch.no_grad():
        pairs = method.mine(reps, batch, World(), STEP)

    def fused(ids: torch.Tensor, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = method.text_projection(method.text(ids[None]).tokens) + method.modalities.weight[0]
        y = method.image_projection(method.image(batch.images[row : row + 1]).tokens) + method.modalities.weight[1]
        if isinstance(method.fusion, CoAttention):
            x, y = method.fusion(x, y)
        else:
            x, y = method.fusion(torch.cat([x, y], 1)).split([x.shape[1], y.shape[1]], 1)
        return x[0], y[0]

    matching, guessed = [], []
    for row in range(16):
        length = int(batch.text_mask[row].sum())
        x, y = fused(batch.text[row, :length], int(pairs["image_of_text"][row]))
        pooled = torch.cat([torch.tanh(method.text_pooler(x[0])), torch.tanh(method.image_pooler(y[0]))])
        matching.append(-method.match_head(pooled).log_softmax(0)[int(pairs["matched"][row])])
        x, _ = fused(batch.masked_text[row, :length], row)
        for place in batch.masked[row].nonzero().flatten().tolist():
            scores = method.word_head(x[place : place + 1], method.text.embed.words.weight)[0]
            guessed.append(-scores.log_softmax(0)[batch.text[row, place]])
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(losses.terms["itm"].value, torch.stack(matching).mean(), **close)
    torch.testing.assert_close(losses.terms["mlm"].value, torch.stack(guessed).mean(), **close)
    assert losses.terms["itm"].chance == pytest.approx(math.log(2))


@pytest.mark.parametrize("config", [SMALL, MERGED, replace(SMALL, tied_words=False)], ids=["co", "merged", "untied"])
def test_a_step_mutates_nothing_and_every_parameter_learns(config: MeterConfig) -> None:
    method = build(config)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    method(toy_batch(), World(), STEP).total.backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_pictures_are_read_once_and_the_vocabulary_only_where_words_are_hidden(monkeypatch) -> None:
    method = build()
    batch = toy_batch()
    seen: list[tuple[str, int]] = []
    for name in ("image", "text", "word_head"):
        real = getattr(method, name).forward
        monkeypatch.setattr(
            getattr(method, name),
            "forward",
            lambda x, *a, name=name, real=real: seen.append((name, len(x))) or real(x, *a),
        )
    method(batch, World(), STEP)
    assert sorted(seen) == [("image", 16), ("text", 32), ("word_head", int(batch.masked.sum()))]


# --- what must not be seen -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, MERGED], ids=["co", "merged"])
@torch.no_grad()
def test_padding_and_masked_words_change_nothing_to_the_bit(config: MeterConfig) -> None:
    method = build(config).eval()
    batch = toy_batch()
    filled = {name: torch.where(batch.text_mask, getattr(batch, name), 9) for name in ("text", "masked_text")}
    other = replace(batch, **filled)
    assert not torch.equal(other.text, batch.text)
    values = []
    for each in (batch, other):
        torch.manual_seed(3)
        values.append({name: term.value for name, term in method(each, World(), STEP).terms.items()})
    assert all(torch.equal(value, values[1][name]) for name, value in values[0].items())
    # Other words under the masks: the same tokens of the masked text.
    batch = replace(batch, masked_text=torch.where(batch.masked, torch.tensor(1), batch.text))
    other = replace(batch, text=torch.where(batch.masked, (batch.text + 7) % 40 + 4, batch.text))
    first, second = (method.encode(each, STEP) for each in (batch, other))
    assert torch.equal(first["masked"], second["masked"]) and not torch.equal(first["text"], second["text"])


@pytest.mark.parametrize("config", [SMALL, MERGED], ids=["co", "merged"])
@torch.no_grad()
def test_guesses_and_matches_depend_on_the_picture_and_guesses_can_do_without(config: MeterConfig) -> None:
    method = random_build(config)
    batch = toy_batch()
    image, negative = method.encode_image(batch.images), method.encode_image(-batch.images)
    assert image.embedding.shape == (16, 0)
    asked = batch.masked_text, batch.text_mask, batch.masked
    seen, changed, blind = (method.fill_mask(each, *asked) for each in (image, negative, None))
    assert seen.shape == blind.shape == (int(batch.masked.sum()), method.config.text.vocabulary)
    assert not torch.allclose(seen, changed) and not torch.allclose(seen, blind)
    text = method.encode_text(batch.text, batch.text_mask)
    assert not torch.allclose(method.match(image, text), method.match(negative, text))


@pytest.mark.parametrize("config", [SMALL, MERGED], ids=["co", "merged"])
def test_attention_maps_are_those_of_the_match_and_can_be_differentiated(config: MeterConfig) -> None:
    method = random_build(config)
    batch = toy_batch(4)
    image, text = method.encode_image(batch.images), method.encode_text(batch.text, batch.text_mask)
    odds, maps = method.match_with_maps(image, text)
    torch.testing.assert_close(odds, method.match(image, text), rtol=1e-4, atol=1e-5)
    assert len(maps) == 2 and maps[0].shape == (4, 2, batch.text.shape[1], 17)
    total = maps[0].sum(-1)
    assert torch.allclose(total, torch.ones_like(total)) if config is SMALL else (total < 1).all()
    for gradient in torch.autograd.grad(odds.sum(), maps):
        assert gradient.abs().sum() > 0


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    method = build().eval()
    batch = toy_batch()
    whole, part = method.encode(batch, STEP), method.encode(batch.rows(4, 8), STEP)
    for name, tensor in part.items():
        torch.testing.assert_close(tensor, whole[name][4:8], rtol=1e-4, atol=1e-5)
    assert set(abilities_of(method)) == {"encode_image", "encode_text", "match", "match_with_maps", "fuse", "fill_mask"}
