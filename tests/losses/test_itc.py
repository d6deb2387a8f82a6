"""ITC against a slow, obvious twin in float64, against transformers' CLIP, and at its identities."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.losses.itc import Candidates, itc
from multiway.world import World

ALONE = World()


def twin_direction(query, candidates, scale, image_id, text_id, same="positive", first=0, teacher=None, soft=0.0):
    """One direction by the definition, a row at a time."""
    total, hits, logs = 0.0, 0, []
    for i in range(len(query)):
        own = first + i
        related = [
            j
            for j in range(len(candidates))
            if j == own
            or (image_id is not None and image_id[j] == image_id[own])
            or (text_id is not None and text_id[j] == text_id[own])
        ]
        left_out = [j for j in related if j != own] if same == "ignore" else []
        kept = [j for j in range(len(candidates)) if j not in left_out]
        positives = [own] if same == "ignore" else related
        logits = {j: scale * (query[i] * candidates[j]).sum() for j in kept}
        log_sum = torch.logsumexp(torch.stack(list(logits.values())), 0)
        target = {j: (1 - soft) * (1 / len(positives)) * (j in positives) for j in kept}
        if soft:
            expected = torch.softmax(
                torch.stack([scale.detach() * (teacher[own] * candidates[j]).sum() for j in kept]), 0
            )
            target = {j: target[j] + soft * expected[n].detach() for n, j in enumerate(kept)}
        total = total - sum(target[j] * (logits[j] - log_sum) for j in kept)
        hits += max(kept, key=lambda j: float(logits[j].detach())) in positives
        logs.append(math.log(len(kept)))
    return total / len(query), hits / len(query), sum(logs) / len(logs)


def draw(rows, dimension, seed=0, scale=9.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    image, text = (
        F.normalize(torch.randn(rows, dimension, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)
    )
    return [part.to(dtype).requires_grad_() for part in (image, text, torch.tensor(scale, dtype=torch.float64))]


def draw_ids(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, rows, (rows,), generator=generator) for _ in range(2)]


def relative(got, expected):
    return float((got.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("same", ["positive", "ignore"])
@pytest.mark.parametrize("ids", ["none", "image", "text", "both"])
@pytest.mark.parametrize("rows,chunk", [(1, None), (5, 1), (12, 5), (12, None), (17, 16)])
def test_equals_the_twin(rows, chunk, ids, same, dtype, tolerance):
    image, text, scale = draw(rows, 6)
    image_id, text_id = draw_ids(rows)
    image_id, text_id = image_id if ids in ("image", "both") else None, text_id if ids in ("text", "both") else None
    there, hits_there, log_there = twin_direction(image, text, scale, image_id, text_id, same)
    back, hits_back, _ = twin_direction(text, image, scale, image_id, text_id, same)
    expected = torch.autograd.grad((there + back) / 2, (image, text, scale))

    inputs = [part.detach().to(dtype).requires_grad_() for part in (image, text, scale)]
    result = itc(*inputs, ALONE, image_id, text_id, same=same, chunk=chunk)
    gradients = torch.autograd.grad(result.loss, inputs)
    assert float(result.image_to_text.detach()) == pytest.approx(float(there.detach()), rel=tolerance, abs=tolerance)
    assert float(result.text_to_image.detach()) == pytest.approx(float(back.detach()), rel=tolerance, abs=tolerance)
    assert float(result.loss.detach()) == pytest.approx(
        float((there + back).detach()) / 2, rel=tolerance, abs=tolerance
    )
    assert float(result.image_to_text_accuracy) == pytest.approx(hits_there)
    assert float(result.text_to_image_accuracy) == pytest.approx(hits_back)
    assert result.chance == pytest.approx(log_there)
    size = max(float(part.norm()) for part in expected)
    for got, wanted in zip(gradients, expected, strict=True):
        assert float((got.double() - wanted).norm()) <= 10 * tolerance * max(size, 1e-3)


@pytest.mark.parametrize("mode", ["global", "none"])
@pytest.mark.parametrize("same", ["positive", "ignore"])
def test_gradcheck(mode, same):
    image_id, text_id = torch.tensor([0, 1, 1, 3, 4]), torch.tensor([0, 1, 2, 0, 4])
    for chunk in (2, None):
        if mode == "none":  # columns are constants, so finite differences see another function: check rows alone
            image, text, scale = draw(5, 3)
            fixed = Candidates(image.detach().clone(), text.detach().clone(), image_id, text_id)
            both = [
                torch.autograd.grad(
                    itc(image, text, scale, ALONE, *given, same=same, chunk=chunk, **more).loss, (image, text)
                )
                for given, more in (((image_id, text_id), {"gradient": "none"}), ((), {"candidates": fixed}))
            ]
            for a, b in zip(*both, strict=True):
                torch.testing.assert_close(a, b)
        else:
            torch.autograd.gradcheck(
                lambda i, t, s, chunk=chunk: itc(i, t, s, ALONE, image_id, text_id, same=same, chunk=chunk).loss,
                draw(5, 3),
            )


@pytest.mark.parametrize("same,soft,chunk", list(itertools.product(["positive", "ignore"], [0.0, 0.4, 1.0], [2, None])))
def test_queue_and_soft_targets_equal_the_twin(same, soft, chunk):
    image, text, scale = draw(4, 5)
    far_image, far_text, _ = draw(11, 5, seed=1)
    image_id, text_id = torch.tensor([0, 1, 0, 3, 4, 4, 1, 7, 8, 9, 10]), torch.arange(11) // 2
    candidates = Candidates(far_image.detach(), far_text.detach(), image_id, text_id)
    there, *_ = twin_direction(
        image, candidates.text, scale, image_id, text_id, same, teacher=candidates.image, soft=soft
    )
    back, *_ = twin_direction(
        text, candidates.image, scale, image_id, text_id, same, teacher=candidates.text, soft=soft
    )
    expected = torch.autograd.grad((there + back) / 2, (image, text, scale))
    result = itc(image, text, scale, ALONE, same=same, candidates=candidates, soft=soft, chunk=chunk)
    torch.testing.assert_close(result.loss, (there + back) / 2)
    for got, wanted in zip(torch.autograd.grad(result.loss, (image, text, scale)), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_equals_transformers_clip():
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 19},
        vision_config={**small, "image_size": 8, "patch_size": 4},
        projection_dim=8,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        out = model(input_ids=torch.randint(3, 20, (9, 8)), pixel_values=torch.randn(9, 3, 8, 8), return_loss=True)
        ours = itc(out.image_embeds, out.text_embeds, model.logit_scale.exp(), ALONE, chunk=4)
    torch.testing.assert_close(ours.loss, out.loss, rtol=1e-6, atol=0)


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(2, 20),
    chunk=st.integers(1, 25),
    seed=st.integers(0, 999),
    same=st.sampled_from(["positive", "ignore"]),
)
def test_neither_order_nor_chunks_matter(rows, chunk, seed, same):
    image, text, scale = draw(rows, 4, seed)
    image_id, text_id = draw_ids(rows, seed)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    before = itc(image, text, scale, ALONE, image_id, text_id, same=same)
    after = itc(image[order], text[order], scale, ALONE, image_id[order], text_id[order], same=same, chunk=chunk)
    torch.testing.assert_close(before.loss, after.loss)
    torch.testing.assert_close(before.image_to_text_accuracy, after.image_to_text_accuracy)
    for a, b in zip(*(torch.autograd.grad(r.loss, (image, text)) for r in (before, after)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("same", ["positive", "ignore"])
def test_zero_scale_scores_exactly_chance(same):
    image, text, _ = draw(16, 4, dtype=torch.float32)
    image_id, text_id = draw_ids(16)
    result = itc(image, text, torch.tensor(0.0), ALONE, image_id, text_id, same=same, chunk=5)
    assert float(result.loss.detach()) == pytest.approx(result.chance, rel=1e-6)
    if same == "positive":
        assert result.formula == "ln 16"


def test_collapsed_embeddings_have_the_accuracy_of_chance():
    point = F.normalize(torch.ones(32, 4), dim=1)
    result = itc(point, point, torch.tensor(14.0), ALONE, chunk=5)
    assert float(result.image_to_text_accuracy) == float(result.text_to_image_accuracy) == 1 / 32


def test_captions_of_one_picture_do_not_push_each_other_away():
    """With all rows the same picture and text there is no negative at all, so nothing to learn in `ignore`."""
    image, text, scale = draw(6, 4)
    one = torch.zeros(6, dtype=torch.int64)
    result = itc(image, text, scale, ALONE, one, None, same="ignore")
    assert float(result.loss.detach()) == pytest.approx(0.0, abs=1e-12) and result.chance == 0.0
    # As positives, the pull is towards the mean of all.
    result = itc(image, text, scale * 0, ALONE, one, None)
    (gradient,) = torch.autograd.grad(result.loss, image)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_large_logits_neither_overflow_nor_lose_the_gradient(scale):
    image, text, factor = draw(40, 3, scale=scale)
    expected = itc(image, text, factor, ALONE)
    wanted = torch.autograd.grad(expected.loss, (image, text, factor))
    inputs = [part.detach().float().requires_grad_() for part in (image, text, factor)]
    for chunk in (7, None):
        result = itc(*inputs, ALONE, chunk=chunk)
        assert relative(result.loss.detach(), expected.loss.detach()) < 1e-5
        assert relative(torch.autograd.grad(result.loss, inputs)[0], wanted[0]) < 1e-3


def test_low_precision_and_autocast_are_summed_in_float32():
    image, text, scale = draw(64, 16, dtype=torch.bfloat16)
    exact = itc(*(part.detach().double() for part in (image, text, scale)), ALONE, *draw_ids(64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = itc(image, text, scale, ALONE, *draw_ids(64), chunk=10)
    assert result.loss.dtype == torch.float32
    assert relative(result.loss.detach(), exact.loss) < 1e-6
    result.loss.backward()
    assert image.grad.dtype == text.grad.dtype == torch.bfloat16


def test_a_second_backward_gives_the_same():
    image, text, scale = draw(8, 4)
    loss = itc(image, text, scale, ALONE).loss
    first, second = (torch.autograd.grad(loss, image, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_nan_is_not_hidden():
    image, text, scale = draw(8, 4)
    spoilt = image.detach().clone()
    spoilt[3, 1] = math.nan
    for chunk in (3, None):
        assert itc(spoilt, text, scale, ALONE, chunk=chunk).loss.isnan()


def test_refusals_name_what_was_given():
    image, text, scale = draw(4, 3)
    ids = torch.arange(4)
    with pytest.raises(ValueError, match=r"image is \(4, 3\) and text \(3, 3\)"):
        itc(image, text[:3], scale, ALONE)
    with pytest.raises(ValueError, match="image_id has shape"):
        itc(image, text, scale, ALONE, ids[:3])
    with pytest.raises(ValueError, match="same is 'negative'"):
        itc(image, text, scale, ALONE, ids, same="negative")
    with pytest.raises(ValueError, match="chunk is 0"):
        itc(image, text, scale, ALONE, chunk=0)
    with pytest.raises(ValueError, match="need `candidates`"):
        itc(image, text, scale, ALONE, soft=0.4)
    with pytest.raises(ValueError, match="expected one number"):
        itc(image, text, torch.ones(2), ALONE)
    with pytest.raises(ValueError, match="at least 4"):
        itc(image, text, scale, ALONE, candidates=Candidates(image[:3], text[:3]))
    with pytest.raises(ValueError, match="expected them in `Candidates`"):
        itc(image, text, scale, ALONE, ids, candidates=Candidates(image, text))
    with pytest.raises(ValueError, match="one for each of 4 candidates"):
        itc(image, text, scale, ALONE, candidates=Candidates(image, text, ids[:2]))
