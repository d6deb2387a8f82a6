"""SigLIP: parameters part by part, the loss against the paper's, and what the last position reads."""

import math

import pytest
import torch
import torch.nn.functional as F
from peer_weights import randomise

from multiway.batch import Batch, DataInfo
from multiway.losses.siglip import siglip
from multiway.methods.method import Step
from multiway.methods.siglip import PRESETS, Siglip, SiglipConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

INFO = DataInfo(vocabulary=40, context=10, special={"pad": 0, "bos": 2, "eos": 3})
SMALL = SiglipConfig(
    image=VisionConfig(size=16, patch=4, width=24, layers=2, heads=2, pool="mean"),
    text=TextConfig(context=0, width=16, layers=2, heads=2, causal=False, pool="last"),
)


def method() -> Siglip:
    torch.manual_seed(0)
    made = randomise(Siglip(SMALL.resolve(INFO)))
    with torch.no_grad():
        made.log_scale.fill_(1.0)
        made.bias.fill_(-2.0)
    return made


def batch(rows: int = 4, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(8) < torch.randint(2, 9, (rows, 1), generator=generator)
    ids = torch.randint(4, 40, (rows, 8), generator=generator).masked_fill(~mask, 0)
    images = torch.randn(rows, 3, 16, 16, generator=generator)
    numbers = torch.arange(rows)
    return Batch(images=images, text=ids, text_mask=mask, image_id=numbers, text_id=numbers)


def test_parameters_part_by_part() -> None:
    """B/16 at 224: 92.9 M for the picture, 110.3 M for the text, of which 24.6 M are words."""
    width, layers, patches, context, words = 768, 12, 14 * 14, 64, 32_000
    block = 4 * width * width + 4 * width + 2 * (width * 4 * width) + 5 * width + 4 * width
    image = 3 * 16 * 16 * width + width + patches * width + layers * block + 2 * width
    head = width + 4 * width * width + 4 * width + 2 * width + 8 * width * width + 5 * width
    text = words * width + context * width + layers * block + 2 * width + width * width + width
    with torch.device("meta"):
        model = Siglip(PRESETS["base"])
    counted = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert counted == {
        "image": image,
        "image_pool": head,
        "text": text - width * width - width,
        "text_projection": width * width + width,
    }
    # 203 M is what the released weights have: two towers, the head, and the two scalars.
    assert sum(p.numel() for p in model.parameters()) == image + head + text + 2 == 203_155_970


def test_it_starts_where_the_paper_starts() -> None:
    model = Siglip(SiglipConfig().resolve(INFO))
    assert float(model.log_scale.detach()) == pytest.approx(math.log(10)) and float(model.bias.detach()) == -10.0
    assert model.config.pad_id == 0 and model.config.text.context == 10
    # A tokeniser without a pad token fills up with its end token.
    assert SMALL.resolve(DataInfo(vocabulary=9, context=4, special={"eos": 3})).pad_id == 3


def test_loss_is_the_papers_pseudo_code() -> None:
    """Algorithm 1, line by line."""
    model, rows = method(), batch()
    found = model.training_step(rows, World(), Step())
    image = model.encode_image(rows.images).embedding
    text = model.encode_text(rows.text, rows.text_mask).embedding
    logits = image @ text.T * model.log_scale.exp() + model.bias
    assert torch.allclose(
        model.logits(*(model.encode_image(rows.images), model.encode_text(rows.text, rows.text_mask))), logits
    )
    labels = 2 * torch.eye(4) - 1
    wanted = -F.logsigmoid(labels * logits).sum() / 4
    assert float(found.total.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert found.terms["sigmoid"].chance == pytest.approx(4 * (0.25 * math.log(4) + 0.75 * math.log(4 / 3)))
    found.total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert float(model.bias.grad.abs()) > 0 and float(model.log_scale.grad.abs()) > 0


def test_rows_of_one_picture_are_no_negatives() -> None:
    model, rows = method(), batch()
    rows.image_id = torch.tensor([0, 0, 2, 3])
    reps = model.encode(rows, Step())
    found = model.losses(reps, {}, rows, World(), Step()).terms["sigmoid"].value
    apart = siglip(reps["image"], reps["text"], model.log_scale.exp(), model.bias, World())
    assert float(found.detach()) != pytest.approx(float(apart.loss.detach()))
    logits = model.log_scale.exp() * reps["image"] @ reps["text"].T + model.bias
    belongs = torch.eye(4) + torch.tensor([[0.0, 1, 0, 0], [1, 0, 0, 0], [0] * 4, [0] * 4])
    assert float(found.detach()) == pytest.approx(float(-F.logsigmoid((2 * belongs - 1) * logits).sum().detach()) / 4)


@torch.no_grad()
def test_a_text_means_the_same_in_every_batch_to_the_bit() -> None:
    """What stands behind a text, and how far the batch was padded, changes nothing; what stands in it does."""
    model = method()
    short = torch.tensor([[7, 8, 9]])
    alone = model.encode_text(short, torch.ones(1, 3, dtype=torch.bool))
    padded = F.pad(short, (0, 5), value=0)
    junk = F.pad(short, (0, 5), value=17)
    mask = torch.arange(8)[None] < 3
    for ids in (padded, junk):
        assert torch.equal(model.encode_text(ids, mask).embedding, alone.embedding)
        assert torch.equal(model.encode_text(ids, mask).tokens[:, :3], alone.tokens)
    assert not torch.equal(model.encode_text(junk, torch.ones_like(mask)).embedding, alone.embedding)
    # Not causal: the last position reads the first word.
    assert not torch.equal(model.encode_text(short + torch.tensor([[1, 0, 0]]), mask[:, :3]).embedding, alone.embedding)
    assert alone.mask.shape == (1, 3) and alone.tokens.shape == (1, 3, 16)


@torch.no_grad()
def test_training_and_inference_encode_alike() -> None:
    model, rows = method(), batch()
    reps = model.encode(rows, Step())
    assert torch.allclose(reps["image"], model.encode_image(rows.images).embedding, atol=1e-6)
    assert torch.allclose(reps["text"], model.encode_text(rows.text, rows.text_mask).embedding, atol=1e-6)
    # Row-local: a row alone is the same row.
    part = model.encode(rows.rows(2, 3), Step())
    assert all(torch.allclose(part[name], reps[name][2:3], atol=1e-6) for name in reps)


def test_mistakes_are_explained() -> None:
    with pytest.raises(ValueError, match=r"config\.resolve"):
        Siglip(SMALL)
    with pytest.raises(ValueError, match=r"image\.pool='mean'"):
        Siglip(SiglipConfig(image=VisionConfig(), text=TextConfig(vocabulary=5, causal=False, pool="last")))
    with pytest.raises(KeyError, match="tiny, base, so400m"):
        SiglipConfig.preset("large")
