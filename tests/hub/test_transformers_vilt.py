"""ViLT equals five classes of transformers with copied random weights, both ways: tokens, pooled, words, pairs, answers."""

import json
from typing import get_args

import pytest
import torch
from hub.vit_peers import nothing_unaccounted
from peer_weights import randomise
from transformers import (
    ViltConfig as TheirConfig,
)
from transformers import (
    ViltForImageAndTextRetrieval,
    ViltForImagesAndTextClassification,
    ViltForMaskedLM,
    ViltForQuestionAnswering,
    ViltModel,
)

from multiway.batch import DataInfo, ViewSpec
from multiway.data.processor import Processor
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.file import WeightsError
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.hub.renaming import fill
from multiway.hub.transformers_vilt import (
    Kind,
    from_transformers,
    ours_to_theirs,
    table,
    tied,
    to_transformers,
    vilt_config,
)
from multiway.hub.vit_tensors import Names, older
from multiway.methods.vilt import Vilt, ViltConfig

CLASSES = {each.__name__: each for each in (ViltModel, ViltForMaskedLM, ViltForImageAndTextRetrieval,
                                            ViltForQuestionAnswering, ViltForImagesAndTextClassification)}  # fmt: skip
CAPTIONS = ["a red apple", "a green pear on a plate", "seven blue cups"]


def peer(kind: Kind, **more):
    torch.manual_seed(0)
    if kind == "ViltForImagesAndTextClassification":
        more |= {"num_images": 2, "modality_type_vocab_size": 3}
    config = TheirConfig(
        vocab_size=60, max_position_embeddings=12, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=48, image_size=32, patch_size=8, num_labels=5, **more,
    )  # fmt: skip
    model = randomise(CLASSES[kind](config))
    if kind == "ViltForMaskedLM":
        model.tie_weights()
    return model


def converted(theirs, kind: Kind) -> Vilt:
    config = vilt_config(json.loads(theirs.config.to_json_string(use_diff=False)), kind)
    ours = Vilt(config).eval()
    fill(ours, table(config, kind), older(theirs.state_dict(), Names()))
    return ours


def inputs(height: int = 32, width: int = 32):
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(9) < torch.tensor([9, 6, 3])[:, None]
    ids = torch.randint(3, 60, (3, 9), generator=generator) * mask
    return ids, mask, torch.randn(3, 3, height, width, generator=generator)


def asked(model, ids, mask, images):
    pixel_mask = torch.ones(len(images), *images.shape[-2:], dtype=torch.int64)
    return model(input_ids=ids, attention_mask=mask.long(), pixel_values=images, pixel_mask=pixel_mask)


@pytest.mark.parametrize("shape", [(32, 32), (48, 32), (16, 40)])  # positions interpolated, as published
@pytest.mark.parametrize("activation, bias", [("gelu", True), ("relu", False)])
@torch.no_grad()
def test_tokens_and_pooled_equal(shape: tuple[int, int], activation: str, bias: bool) -> None:
    theirs = peer("ViltModel", hidden_act=activation, qkv_bias=bias)
    ours = converted(theirs, "ViltModel")
    ids, mask, images = inputs(*shape)
    wanted = asked(theirs, ids, mask, images)
    image, text = ours.encode_image(images), ours.encode_text(ids, mask)
    fused = ours._fuse(text.tokens, mask, image.tokens)
    length, patches = ids.shape[1], shape[0] * shape[1] // 64
    assert (fused - wanted.last_hidden_state)[:, :length][mask].abs().max() < 1e-5
    # They gather the patches in an order of their own; pictures of one shape keep it up to a permutation.
    their_patches = wanted.last_hidden_state[:, length + 1 :]
    distance = torch.cdist(fused[:, length + 1 :], their_patches)
    assert distance.shape == (3, patches, patches)
    assert distance.min(2).values.max() < 1e-4 and (distance.argmin(2).sort(1).values == torch.arange(patches)).all()
    assert (ours.pool(fused) - wanted.pooler_output).abs().max() < 1e-5
    assert (
        ours.pool(ours._fuse(text.tokens, mask, image.tokens, first=True)) - wanted.pooler_output
    ).abs().max() < 1e-5
    assert wanted.pooler_output.std(0).max() > 0.01  # rows differ, so the comparison can fail


@torch.no_grad()
def test_masked_words_equal() -> None:
    theirs = peer("ViltForMaskedLM")
    ours = converted(theirs, "ViltForMaskedLM")
    ids, mask, images = inputs()
    wanted = asked(theirs, ids, mask, images).logits
    assert (ours.fill_mask(ours.encode_image(images), ids, mask, mask) - wanted[:, :9][mask]).abs().max() < 1e-5
    assert "fill_mask" in ours.abilities() and "match" not in ours.abilities()


@torch.no_grad()
def test_pairs_equal() -> None:
    theirs = peer("ViltForImageAndTextRetrieval")
    ours = converted(theirs, "ViltForImageAndTextRetrieval")
    ids, mask, images = inputs()
    odds = ours.match(ours.encode_image(images), ours.encode_text(ids, mask))
    assert (odds - asked(theirs, ids, mask, images).logits[:, 0]).abs().max() < 1e-5
    assert "match" in ours.abilities() and "fill_mask" not in ours.abilities()


@torch.no_grad()
def test_answers_equal() -> None:
    theirs = peer("ViltForQuestionAnswering")
    ours = converted(theirs, "ViltForQuestionAnswering")
    ids, mask, images = inputs()
    logits = ours.answer(ours.encode_image(images), ours.encode_text(ids, mask))
    assert logits.shape == (3, 5) and len(ours.config.answers) == 5
    assert (logits - asked(theirs, ids, mask, images).logits).abs().max() < 1e-5


@torch.no_grad()
def test_verdicts_equal() -> None:
    """On two pictures, whose order makes a difference."""
    kind: Kind = "ViltForImagesAndTextClassification"
    theirs = peer(kind)
    ours = converted(theirs, kind)
    ids, mask, images = inputs()
    both, text = [ours.encode_image(each) for each in (images, images.flip(0))], ours.encode_text(ids, mask)
    wanted = judged(theirs, ids, mask, images, images.flip(0))
    assert (ours.judge(both, text) - wanted).abs().max() < 1e-5 and len(ours.verdicts) == 5
    assert (ours.judge(both[::-1], text) - wanted).abs().max() > 1e-3
    with pytest.raises(ValueError, match="1 pictures and 5 verdicts"):
        ours.judge(both[:1], text)
    with pytest.raises(ValueError, match="set modalities=3"):
        Vilt(ViltConfig(vocabulary=60, context=12, verdicts=("a", "b")))
    with pytest.raises(WeightsError, match="num_images=3"):
        vilt_config(theirs.config.to_dict() | {"num_images": 3}, kind)


def judged(theirs, ids, mask, left, right):
    both = torch.stack([left, right], 1)
    seen = torch.ones(len(both), 2, *both.shape[-2:], dtype=torch.int64)
    return theirs(input_ids=ids, attention_mask=mask.long(), pixel_values=both, pixel_mask=seen).logits


@pytest.mark.parametrize("kind", get_args(Kind))
def test_round_trip_is_exact_to_the_bit(kind: Kind) -> None:
    theirs = peer(kind)
    back = ours_to_theirs(converted(theirs, kind), kind)
    assert set(back) == set(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize("kind", get_args(Kind))
def test_nothing_is_left_over_or_missing_in_silence(kind: Kind) -> None:
    theirs = peer(kind)
    ours, state = converted(theirs, kind), dict(theirs.state_dict())
    if kind == "ViltForMaskedLM":
        del state["mlm_score.decoder.weight"]  # the word embedding again; either may be there alone
    nothing_unaccounted(table(ours.config, kind), ours, state)


def test_a_word_head_of_its_own_is_kept() -> None:
    """The released checkpoints do not tie it; transformers 5 does, whatever the file says."""
    theirs = peer("ViltForMaskedLM")
    ours = converted(theirs, "ViltForMaskedLM")
    state = {**theirs.state_dict(), "mlm_score.decoder.weight": torch.randn(60, 32)}
    with pytest.raises(WeightsError, match=r"decoder\.weight differs from .* to which it is tied"):
        fill(ours, table(ours.config, "ViltForMaskedLM"), state)
    assert tied(theirs.state_dict()) and not tied(state)
    config = vilt_config(json.loads(theirs.config.to_json_string(use_diff=False)), "ViltForMaskedLM", tied(state))
    apart = Vilt(config)
    fill(apart, table(config, "ViltForMaskedLM"), state)
    assert torch.equal(apart.state_dict()["word_matrix.weight"], state["mlm_score.decoder.weight"])


@pytest.fixture
def model() -> Model:
    tokenizer = Tokenizer.train(CAPTIONS * 3, TokenizerSpec(vocabulary=300, context=12))
    info = DataInfo(vocabulary=len(tokenizer), context=12, special=tokenizer.special)
    torch.manual_seed(3)
    config = ViltConfig(
        size=32,
        patch=8,
        width=32,
        layers=2,
        mean=(0.5, 0.5, 0.5),
        types=2,
        epsilon=1e-12,
        answers=("yes", "no", "three"),
        verdicts=("false", "true"),
        modalities=3,
    )
    method = randomise(Vilt(config.resolve(info)))
    return Model(method, Processor(ViewSpec(size=32, crop="squash", mean=config.mean, std=config.std), tokenizer))


@pytest.mark.parametrize("kind", get_args(Kind))
@torch.no_grad()
def test_transformers_runs_what_was_trained_here(model: Model, tmp_path, kind: Kind) -> None:
    to_transformers(model, tmp_path / "vilt", kind)
    theirs = CLASSES[kind].from_pretrained(tmp_path / "vilt").eval()
    method = model.method
    assert isinstance(method, Vilt)
    words, images = model.processor.texts(CAPTIONS), torch.randn(3, 3, 32, 32)
    two = kind == "ViltForImagesAndTextClassification"
    wanted = None if two else asked(theirs, words.ids, words.mask, images)
    image, text = method.encode_image(images), method.encode_text(words.ids, words.mask)
    if two:
        got = method.judge([image, method.encode_image(images.flip(0))], text)
        right = judged(theirs, words.ids, words.mask, images, images.flip(0))
        assert theirs.config.id2label == {0: "false", 1: "true"}
    elif kind == "ViltModel":
        got, right = method.pool(method._fuse(text.tokens, text.mask, image.tokens)), wanted.pooler_output
    elif kind == "ViltForMaskedLM":
        got = method.fill_mask(image, words.ids, words.mask, words.mask)
        right = wanted.logits[:, : words.ids.shape[1]][words.mask]
    elif kind == "ViltForQuestionAnswering":
        got, right = method.answer(image, text), wanted.logits
        assert theirs.config.id2label == {0: "yes", 1: "no", 2: "three"}
    else:
        got, right = method.match(image, text), wanted.logits[:, 0]
    assert (got - right).abs().max() < 1e-5
    # And back: the encoder to the bit.
    back = load(f"hf:{tmp_path / 'vilt'}")
    mine = method.state_dict()
    for name, tensor in back.method.state_dict().items():
        assert name.startswith("match_head") or torch.equal(tensor, mine[name]), name
    assert back.processor.view == model.processor.view
    assert back.processor.texts(CAPTIONS).ids.equal(words.ids)


def test_what_has_no_counterpart_is_refused(model: Model, tmp_path) -> None:
    with pytest.raises(WeightsError, match="ViltForTokenClassification"):
        (tmp_path / "config.json").write_text('{"model_type": "vilt", "architectures": ["ViltForTokenClassification"]}')
        from_transformers(str(tmp_path))
    bare = Vilt(ViltConfig(vocabulary=60, context=12, words=False))
    with pytest.raises(WeightsError, match="word_head"):
        ours_to_theirs(bare, "ViltForMaskedLM")
    with pytest.raises(WeightsError, match="segment types"):
        to_transformers(Model(bare, model.processor), tmp_path / "none")
    conv = Vilt(ViltConfig(vocabulary=60, context=12, stem="conv", types=2))
    with pytest.raises(WeightsError, match="stem"):
        to_transformers(Model(conv, model.processor), tmp_path / "none")
