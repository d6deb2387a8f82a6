import math
from dataclasses import replace

import pytest
import torch
from toy import ToySource

from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.config import from_json, to_json
from multiway.data.augment import finish
from multiway.data.loader import Loader
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.methods import METHODS, method_class
from multiway.methods.clip import PRESETS, Clip, ClipConfig
from multiway.methods.method import Step
from multiway.nn.resnet import ModifiedResNetConfig, ResNetConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

INFO = DataInfo(vocabulary=300, context=16, special={"eos": 3})
SMALL = ClipConfig(
    image=VisionConfig(size=16, patch=4, width=32, layers=2, heads=2, pre_norm=True, patch_bias=False),
    text=TextConfig(width=32, layers=2, heads=2),
    embedding=24,
)


def build(config: ClipConfig = SMALL) -> Clip:
    torch.manual_seed(0)
    return Clip(config.resolve(INFO))


def toy_batch(rows: int = 16) -> Batch:
    source = ToySource(rows)
    words = Tokenizer.train([c for i in range(rows) for c in source.row(i).captions], TokenizerSpec(300, 16))
    return finish(Loader(source, ViewSpec(size=16), words, batch=rows).batch(0), ViewSpec(size=16))


# --- sizes -----------------------------------------------------------------------------------------------------------


def vit_parameters(size: int, patch: int, width: int, layers: int) -> int:
    """Patches without bias, class token, positions, two norms (before and after), and the blocks."""
    return (
        3 * patch**2 * width + width + ((size // patch) ** 2 + 1) * width + 4 * width + layers * block_parameters(width)
    )


def block_parameters(width: int) -> int:
    """qkv and output projections, an MLP of four times the width, two norms; every linear map has a bias."""
    return (3 * width**2 + 3 * width) + (width**2 + width) + (8 * width**2 + 5 * width) + 4 * width


def text_parameters(width: int) -> int:
    """49,408 ids, 77 positions, 12 blocks, the last norm."""
    return (49408 + 77) * width + 12 * block_parameters(width) + 2 * width


@pytest.mark.parametrize(
    ("name", "published"),
    # The released weights' counts, temperature included; the paper gives them rounded.
    [("vit-b-32", 151_277_313), ("vit-b-16", 149_620_737), ("vit-l-14", 427_616_513), ("vit-l-14-336", 427_944_193)],
)
def test_parameters_of_the_papers_vits(name: str, published: int) -> None:
    config = PRESETS[name]
    with torch.device("meta"):
        method = Clip(config)
    image, text = config.image, config.text
    derived = (
        vit_parameters(image.size, image.patch, image.width, image.layers)
        + text_parameters(text.width)
        + (image.width + text.width) * config.embedding
        + 1
    )
    assert sum(p.numel() for p in method.parameters()) == derived == published
    assert sum(p.numel() for p in method.text.parameters()) == text_parameters(text.width)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("rn50", 102_007_137),
        ("rn101", 119_688_033),
        ("rn50x4", 178_300_601),
        ("rn50x16", 290_979_217),
        ("rn50x64", 623_258_305),
    ],
)
def test_parameters_of_the_papers_resnets(name: str, published: int) -> None:
    with torch.device("meta"):
        method = Clip(PRESETS[name])
    assert sum(p.numel() for p in method.parameters()) == published


def test_presets_survive_json_and_unknown_ones_are_named() -> None:
    for name in ("tiny", *PRESETS):
        config = ClipConfig.preset(name)
        assert from_json(ClipConfig, to_json(config)) == config
    with pytest.raises(KeyError, match="vit-b-32"):
        ClipConfig.preset("huge")
    assert method_class("clip") is Clip and "clip" in METHODS
    with pytest.raises(KeyError, match="clip"):
        method_class("clap")


def test_the_end_token_is_always_the_tokenisers() -> None:
    """A preset names CLIP's own (49,407); trained here the tokeniser ends texts otherwise, and all would be read at their start."""
    for name in ("tiny", "vit-b-32", "rn50"):
        assert ClipConfig.preset(name).resolve(INFO).text.eos_id == 3
    assert PRESETS["vit-b-32"].resolve(DataInfo()).text.eos_id == 49407
    small = replace(
        PRESETS["vit-b-32"], image=SMALL.image, text=replace(PRESETS["vit-b-32"].text, width=32, layers=1, heads=2)
    )
    method = Clip(small.resolve(INFO)).eval()
    ids = torch.tensor([[2, 9, 3], [2, 14, 3]])
    first, second = method.encode_text(ids, ids.ne(0)).embedding
    assert float((first @ second).detach()) < 0.999


def test_an_unresolved_config_is_refused() -> None:
    with pytest.raises(ValueError, match="resolve"):
        Clip(SMALL)


# --- encoders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        SMALL.image,
        replace(SMALL.image, pool="mean"),
        ModifiedResNetConfig(size=32, depths=(1, 1, 1, 1), base=8, heads=4, output=24),
        ResNetConfig(depths=(1, 1), base=8, stem="cifar"),
    ],
    ids=["vit", "vit-mean", "modified-resnet", "resnet"],
)
@torch.no_grad()
def test_every_tower_gives_unit_vectors_of_one_space(image: object) -> None:
    method = build(replace(SMALL, image=image)).eval()
    images = torch.randn(3, 3, 32, 32)  # the ViT interpolates its positions
    encoded = method.encode_image(images)
    assert encoded.embedding.shape == (3, 24) and torch.allclose(
        encoded.embedding.norm(dim=1), torch.ones(3), atol=1e-5
    )
    text = method.encode_text(torch.tensor([[2, 9, 3], [2, 3, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]]).bool())
    assert text.embedding.shape == (2, 24) and text.tokens.shape == (2, 3, 32)


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    method = build().eval()
    ids = torch.tensor([[2, 9, 8, 3, 0, 0]])
    mask = ids.ne(0)
    short = method.encode_text(ids[:, :4], mask[:, :4]).embedding
    assert torch.allclose(method.encode_text(ids, mask).embedding, short, atol=1e-6)
    scribbled = torch.tensor([[2, 9, 8, 3, 77, 99]])
    assert torch.allclose(method.encode_text(scribbled, mask).embedding, short, atol=1e-6)


# --- the step --------------------------------------------------------------------------------------------------------


def test_the_training_step_computes_what_the_encoders_give() -> None:
    """Training skips the tokens that pooling does not need; the embeddings must not notice."""
    method, batch = build(), toy_batch()
    reps = method.encode(batch, Step())
    assert torch.allclose(reps["image"], method.encode_image(batch.images).embedding, atol=1e-5)
    assert torch.allclose(reps["text"], method.encode_text(batch.text, batch.text_mask).embedding, atol=1e-5)


def test_the_loss_is_figure_3() -> None:
    """Against the paper's pseudo-code, on a batch where no two rows share a picture or caption."""
    method, batch = build(), toy_batch()
    assert len(set(batch.text_id.tolist())) == len(batch)
    losses = method(batch, World(), Step())
    image, text = method.encode_image(batch.images).embedding, method.encode_text(batch.text, batch.text_mask).embedding
    logits = image @ text.T * method.log_scale.exp()
    labels = torch.arange(len(batch))
    loss_i, loss_t = (torch.nn.functional.cross_entropy(each, labels) for each in (logits, logits.T))
    assert torch.allclose(losses.total, (loss_i + loss_t) / 2, atol=1e-5)
    assert losses.terms["itc"].chance == pytest.approx(math.log(len(batch)))
    assert float(losses.report["temperature_scale"]) == pytest.approx(1 / 0.07)


def test_a_step_mutates_nothing_and_rows_are_local() -> None:
    method, batch = build(), toy_batch()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    method(batch, World(), Step())
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    whole = method.encode(batch, Step())
    part = method.encode(batch.rows(4, 9), Step())
    # The part is padded to its own longest text.
    assert torch.allclose(part["image"], whole["image"][4:9], atol=1e-5)
    assert torch.allclose(part["text"], whole["text"][4:9], atol=1e-5)


def test_captions_of_one_picture_are_not_each_others_negatives() -> None:
    method, batch = build(), toy_batch()
    alone = method(batch, World(), Step()).total
    joined = method(replace(batch, image_id=torch.zeros_like(batch.image_id)), World(), Step()).total
    assert not torch.allclose(alone, joined)
    # All rows show one picture: every candidate is right, so the loss cannot depend on which is preferred over which mean.
    ignoring = build(replace(SMALL, same="ignore"))
    nothing = ignoring(replace(batch, image_id=torch.zeros_like(batch.image_id)), World(), Step()).total
    assert float(nothing) == pytest.approx(0.0, abs=1e-6)


def test_the_scale_is_clamped_after_the_step() -> None:
    method = build()
    with torch.no_grad():
        method.log_scale.fill_(9.0)
    method.after_step(Step(), {})
    assert float(method.log_scale.exp()) == pytest.approx(100.0, rel=1e-5)


def test_every_parameter_is_trained() -> None:
    method, batch = build(), toy_batch()
    method(batch, World(), Step()).total.backward()
    without = [name for name, p in method.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A position that no text of this batch reaches, and biases of keys (softmax does not see them), have none.
    assert without == [], without


def test_it_learns_the_toy_pairs_in_seconds() -> None:
    """Loss after 40 steps far below its chance value, ln 32 = 3.47."""
    method, batch = build(), toy_batch(32)
    optimiser = torch.optim.AdamW(method.parameters(), lr=3e-3)
    for _ in range(40):
        loss = method(batch, World(), Step()).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss) < 1.0
