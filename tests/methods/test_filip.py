"""FILIP: parameters part by part, its step against loops over tokens, and tokens that must not be seen."""

import pytest
import torch
import torch.nn.functional as F
from peer_weights import randomise

from multiway.abilities import abilities_of
from multiway.batch import Batch, DataInfo
from multiway.methods.clip import ClipConfig
from multiway.methods.filip import PRESETS, Filip, FilipConfig
from multiway.methods.method import Step
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

INFO = DataInfo(vocabulary=40, context=10, special={"pad": 0, "bos": 2, "eos": 3})
SMALL = FilipConfig(
    image=VisionConfig(size=16, patch=4, width=24, layers=2, heads=2),
    text=TextConfig(context=0, width=16, layers=2, heads=2, pool="last"),
    embedding=8,
)


def method(keep: float = 1.0) -> Filip:
    torch.manual_seed(0)
    made = randomise(Filip(FilipConfig(SMALL.image, SMALL.text, SMALL.embedding, keep=keep).resolve(INFO)))
    with torch.no_grad():
        made.log_scale.fill_(1.0)
    return made


def batch(rows: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(8) < torch.randint(2, 9, (rows, 1), generator=generator)
    ids = torch.randint(4, 40, (rows, 8), generator=generator).masked_fill(~mask, 0)
    images = torch.randn(rows, 3, 16, 16, generator=generator)
    return Batch(images=images, text=ids, text_mask=mask, image_id=torch.arange(rows), text_id=torch.arange(rows))


def test_parameters_part_by_part() -> None:
    """CLIP's towers at B/32, and two projections to 256 in place of two to 512."""
    with torch.device("meta"):
        model = Filip(PRESETS["base"])
    width, text, patches = 768, 512, 49
    block = 12 * width * width + 13 * width
    image = 3 * 32 * 32 * width + width + (patches + 1) * width + 12 * block + 2 * 2 * width
    words = 49_408 * text + 77 * text + 12 * (12 * text * text + 13 * text) + 2 * text
    counted = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert counted == {
        "image": image, "text": words, "image_projection": width * 256, "text_projection": text * 256
    }  # fmt: skip
    clip = ClipConfig.preset("vit-b-32")
    assert (model.config.image.width, model.config.text.width) == (clip.image.width, clip.text.width)
    # CLIP B/32 has 151,277,313 (its released weights); half the projections, and nothing else, is gone.
    assert sum(p.numel() for p in model.parameters()) == 151_277_313 - (768 + 512) * 256


def test_step_and_compare_are_the_papers_by_loops() -> None:
    model, rows = method(), batch()
    found = model.training_step(rows, World(), Step())
    image, text = model.encode_image(rows.images), model.encode_text(rows.text, rows.text_mask)
    by_image, by_text = torch.empty(4, 4), torch.empty(4, 4)
    for i in range(4):
        for j in range(4):
            cosines = image.tokens[i] @ text.tokens[j][rows.text_mask[j]].T
            by_image[i, j], by_text[i, j] = cosines.max(1).values.mean(), cosines.max(0).values.mean()
    assert torch.allclose(model.compare(image, text), by_image, atol=1e-6)
    assert torch.allclose(model.compare(image, text, "text"), by_text, atol=1e-6)
    scale, own = float(model.log_scale.detach().exp()), torch.arange(4)
    wanted = (F.cross_entropy(scale * by_image, own) + F.cross_entropy(scale * by_text.T, own)) / 2
    assert float(found.total.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert found.terms["filip"].formula == "ln 4"
    found.total.backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing


@torch.no_grad()
def test_there_is_no_embedding_and_tokens_are_unit_vectors() -> None:
    model, rows = method(), batch()
    image, text = model.encode_image(rows.images), model.encode_text(rows.text, rows.text_mask)
    assert image.embedding.shape == (4, 0) and not image.has_embedding and image.slim() is image
    assert image.tokens.shape == (4, 17, 8) and text.tokens.shape == (4, 8, 8)
    assert torch.allclose(image.tokens.norm(dim=2), torch.ones(4, 17)) and text.mask is rows.text_mask
    assert abilities_of(model) == ("encode_image", "encode_text", "compare")


@pytest.mark.parametrize("keep", [1.0, 0.25])
@torch.no_grad()
def test_padding_is_seen_by_nothing_to_the_bit(keep: float) -> None:
    model, rows = method(keep), batch()
    assert not rows.text_mask.all()
    clean = model.training_step(rows, World(), Step()).total
    text = model.encode_text(rows.text, rows.text_mask)
    image = model.encode_image(rows.images)
    score = model.compare(image, text)
    padded = Batch(**{**vars(rows), "text": rows.text.masked_fill(~rows.text_mask, 33)})
    assert torch.equal(model.training_step(padded, World(), Step()).total, clean)
    assert torch.equal(model.compare(image, model.encode_text(padded.text, rows.text_mask)), score)
    changed = Batch(
        **{**vars(rows), "text": rows.text + rows.text_mask.long() * 0 + F.one_hot(torch.tensor([0] * 4), 8)}
    )
    assert not torch.equal(model.training_step(changed, World(), Step()).total, clean)


@torch.no_grad()
def test_a_quarter_of_the_tokens_is_another_loss_and_the_same_model() -> None:
    all_of_them, some, rows = method(), method(0.25), batch()
    totals = [float(each.training_step(rows, World(), Step()).total) for each in (all_of_them, some)]
    assert totals[0] != pytest.approx(totals[1])
    encoded = [
        (each.encode_image(rows.images), each.encode_text(rows.text, rows.text_mask)) for each in (all_of_them, some)
    ]
    assert torch.equal(all_of_them.compare(*encoded[0]), some.compare(*encoded[1]))  # inference has them all


@torch.no_grad()
def test_rows_are_encoded_by_themselves() -> None:
    model, rows = method(), batch()
    whole, part = model.encode(rows, Step()), model.encode(rows.rows(1, 3), Step())
    assert all(torch.allclose(part[name], whole[name][1:3], atol=1e-6) for name in part)


def test_the_scale_is_bounded_and_mistakes_are_explained() -> None:
    model = method()
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    model.after_step(Step(), {})
    assert float(model.log_scale.detach().exp()) == pytest.approx(100.0, rel=1e-5)
    with pytest.raises(ValueError, match=r"config\.resolve"):
        Filip(SMALL)
    with pytest.raises(ValueError, match=r"keep is 1\.5"):
        method(1.5)
    with pytest.raises(KeyError, match="tiny, base, large"):
        FilipConfig.preset("huge")
