"""The sigmoid loss against a twin in float64, transformers' SigLIP, and at its identities."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.losses.siglip import siglip
from multiway.world import World

ALONE = World()


def draw(rows, dimension=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    image, text = (
        F.normalize(torch.randn(rows, dimension, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)
    )
    scale, bias = torch.tensor(10.0, dtype=torch.float64), torch.tensor(-3.0, dtype=torch.float64)
    return [part.to(dtype).requires_grad_() for part in (image, text, scale, bias)]


def twin(image, text, scale, bias, image_id=None, text_id=None):
    total, hits = 0.0, 0
    for i in range(len(image)):
        logits = [scale * (image[i] * row).sum() + bias for row in text]
        related = [
            i == j or any(ids is not None and bool(ids[i] == ids[j]) for ids in (image_id, text_id))
            for j in range(len(text))
        ]
        total = total - sum(F.logsigmoid(logit if r else -logit) for logit, r in zip(logits, related, strict=True))
        hits += related[max(range(len(text)), key=lambda j: float(logits[j].detach()))]
    return total / len(image), hits / len(image)


@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-12), (torch.float32, 3e-6)])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("rows,chunk", [(1, None), (7, 3), (12, 1), (12, None)])
def test_equals_the_twin(rows, chunk, ids, dtype, tolerance):
    inputs = draw(rows)
    more = [torch.arange(rows) // 2, torch.arange(rows) % 5] if ids else []
    expected, hits = twin(*inputs, *more)
    wanted = torch.autograd.grad(expected, inputs)
    own = [part.detach().to(dtype).requires_grad_() for part in inputs]
    result = siglip(*own, ALONE, *more, chunk=chunk)
    assert float(result.loss.detach()) == pytest.approx(float(expected.detach()), rel=tolerance)
    assert float(result.accuracy) == pytest.approx(hits)
    for got, want in zip(torch.autograd.grad(result.loss, own), wanted, strict=True):
        assert float((got.double() - want).norm()) <= 10 * tolerance * float(want.norm())


def test_gradcheck():
    ids = torch.tensor([0, 0, 1, 2])
    assert torch.autograd.gradcheck(lambda *inputs: siglip(*inputs, ALONE, ids, chunk=3).loss, draw(4, 3))


def test_equals_transformers_siglip():
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.SiglipConfig(
        text_config={**small, "vocab_size": 20, "max_position_embeddings": 8, "projection_size": 16},
        vision_config={**small, "image_size": 8, "patch_size": 4},
    )
    torch.manual_seed(0)
    model = transformers.SiglipModel(config).eval()
    with torch.no_grad():
        out = model(input_ids=torch.randint(3, 20, (6, 8)), pixel_values=torch.randn(6, 3, 8, 8), return_loss=True)
        ours = siglip(out.image_embeds, out.text_embeds, model.logit_scale.exp(), model.logit_bias, ALONE, chunk=4)
    torch.testing.assert_close(ours.loss, out.loss, rtol=1e-6, atol=0)


def test_the_best_constant_logit_scores_exactly_chance():
    image, text, *_ = draw(20, dtype=torch.float32)
    ids = torch.arange(20) // 4  # 4 of 20 belong together in each row
    result = siglip(image, text, torch.tensor(0.0), torch.logit(torch.tensor(4 / 20)), ALONE, ids, chunk=7)
    assert float(result.loss.detach()) == pytest.approx(result.chance, rel=1e-6)
    assert result.formula == "20 H(4/20)"


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(2, 16), chunk=st.integers(1, 20), seed=st.integers(0, 999))
def test_neither_order_nor_chunks_matter(rows, chunk, seed):
    image, text, scale, bias = draw(rows, seed=seed)
    ids = torch.randint(0, rows, (rows,), generator=torch.Generator().manual_seed(seed))
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    before = siglip(image, text, scale, bias, ALONE, ids)
    after = siglip(image[order], text[order], scale, bias, ALONE, ids[order], chunk=chunk)
    torch.testing.assert_close(before.loss, after.loss)
    for a, b in zip(*(torch.autograd.grad(r.loss, (image, text)) for r in (before, after)), strict=True):
        torch.testing.assert_close(a, b)


def test_autocast_is_summed_in_float32():
    image, text, scale, bias = draw(64, 16, dtype=torch.bfloat16)
    exact = siglip(*(part.detach().double() for part in (image, text, scale, bias)), ALONE).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = siglip(image, text, scale, bias, ALONE, chunk=10)
    assert result.loss.dtype == torch.float32
    assert float(result.loss.detach()) == pytest.approx(float(exact), rel=1e-6)


def test_refusals_name_what_was_given():
    image, text, scale, bias = draw(4)
    with pytest.raises(ValueError, match="expected 'global' or 'local'"):
        siglip(image, text, scale, bias, ALONE, gradient="none")
    with pytest.raises(ValueError, match="expected two equal"):
        siglip(image, text[:2], scale, bias, ALONE)
    with pytest.raises(ValueError, match="one number each"):
        siglip(image, text, scale, torch.zeros(4), ALONE)
    with pytest.raises(ValueError, match="chunk is -1"):
        siglip(image, text, scale, bias, ALONE, chunk=-1)
