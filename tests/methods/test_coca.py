"""CoCa: its sizes, its losses slowly, its poolers and its class token, and what must not be seen (peer: tests/peers)."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from caption_batches import info, toy_batch
from peer_weights import randomise

from multiway.abilities import abilities_of
from multiway.config import from_json, to_json
from multiway.methods.coca import Coca, CocaConfig
from multiway.methods.method import Step
from multiway.nn.generate import Generation
from multiway.nn.image_pools import ImagePools
from multiway.nn.pooler import AttentionalPooler
from multiway.nn.text import TextConfig
from multiway.nn.text_halves import ReadingHalf
from multiway.nn.vit import VisionConfig
from multiway.world import World

SMALL = CocaConfig(
    image=VisionConfig(size=16, patch=4, width=24, layers=2, heads=2, pool="mean"),
    text=TextConfig(context=0, width=32, layers=2, heads=2, causal=True, pool="last"),
    multimodal_layers=2,
    queries=5,
    embedding=20,
)
OPEN_CLIP = replace(SMALL, pooler="single", cross="after", class_mask="legacy")
FORMS = [
    SMALL,
    replace(SMALL, pooler="parallel"),
    replace(SMALL, class_token="first"),
    OPEN_CLIP,
]
NAMES = ["cascade", "parallel", "class-first", "open_clip"]
forms = pytest.mark.parametrize("config", FORMS, ids=NAMES)


def build(config: CocaConfig = SMALL, seed: int = 0) -> Coca:
    torch.manual_seed(seed)
    return Coca(config.resolve(info()))


# --- sizes -----------------------------------------------------------------------------------------------------------

# Table 1 of the paper, in millions: picture, text, together. What is written there as 1B, 1.1B and 2.1B is rounded down.
PUBLISHED = {"base": (86, 297, 383), "large": (303, 484, 787), "giant": (1000, 1100, 2100)}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_parameters_of_the_papers_sizes(preset: str) -> None:
    """Derived part by part. The published figures count the image encoder and the text decoder, with a softmax of its own
    beside the embedding; the poolers, the two projections and [CLS] are in none of them."""
    config = CocaConfig.preset(preset).resolve(info())
    with torch.device("meta"):
        method = Coca(config)
    width, hidden, half = config.text.width, 4 * config.text.width, config.text.layers
    layers, image_hidden = config.image.layers, int(width * config.image.mlp_ratio)
    attention, norm = 4 * (width**2 + width), 2 * width

    def mlp(inner: int) -> int:
        return 2 * width * inner + inner + width

    image = (3 * 18**2 * width + width) + 16**2 * width + layers * (attention + mlp(image_hidden) + 2 * norm)
    embedding = (64_000 + 64) * width
    unimodal = half * (attention + mlp(hidden) + 2 * norm) + norm
    multimodal = half * (2 * attention + mlp(hidden) + 3 * norm) + norm
    text = embedding + unimodal + multimodal + 64_000 * width
    poolers = (256 + 1) * width + 2 * (attention + 3 * norm)
    beside = 2 * width + 2 * width**2 + 1
    assert sum(p.numel() for p in method.parameters()) == image + text + poolers + beside
    for derived, published in zip((image, text, image + text), PUBLISHED[preset], strict=True):
        if preset == "giant":
            assert 1.0 < derived / 1e6 / published < 1.08
        else:
            assert abs(derived / 1e6 - published) < 0.8, (derived, published)
    assert from_json(CocaConfig, to_json(config)) == config


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="giant"):
        CocaConfig.preset("huge")
    with pytest.raises(ValueError, match="resolve"):
        Coca(SMALL)
    with pytest.raises(ValueError, match="both weigh 0"):
        build(replace(SMALL, contrast=0.0, caption=0.0))
    with pytest.raises(ValueError, match="norms before"):
        build(replace(SMALL, text=replace(SMALL.text, norm="post")))
    with pytest.raises(ValueError, match="at least 2"):
        build(replace(SMALL, pooler="single", queries=1))
    with pytest.raises(ValueError, match="legacy"):
        build(replace(SMALL, class_token="first", class_mask="legacy"))
    with pytest.raises(ValueError, match="interleaved"):
        build(replace(SMALL, cross="after", text=replace(SMALL.text, dropout=0.1)))


# --- the step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [FORMS[0], FORMS[1]], ids=NAMES[:2])
def test_the_step_slowly(config: CocaConfig) -> None:
    """Figure 2 written out for each pair alone: a text, then [CLS]; poolers by hand; every word from a text that ends there."""
    method, batch = build(config).eval(), toy_batch()
    losses = method(batch, World(), Step())
    images, texts, parts = [], [], []
    for row in range(16):
        tokens = method.image(batch.images[row : row + 1]).tokens[0]
        caption = pool(method.pools.caption, tokens)
        images.append(
            method.image_projection(pool(method.pools.contrast, caption if config.pooler == "cascade" else tokens)[0])
        )
        ids, half = batch.text[row, : int(batch.text_mask[row].sum())], method.unimodal
        read = half.transformer(
            torch.cat([half.embed(ids[None]), (half.class_token + half.class_position)[None, None]], 1)
        )
        texts.append(method.text_projection(half.class_norm(read[0, -1])))
        for length in range(1, len(ids)):
            words = half.transformer(half.embed(ids[None, :length]))
            last = method.multimodal(words, memory=caption[None])[0, -1]
            parts.append(-method.vocabulary(last).log_softmax(0)[ids[length]])
    logits = F.normalize(torch.stack(images), dim=1) @ F.normalize(torch.stack(texts), dim=1).T / 0.07
    ids, words = batch.image_id, batch.text_id
    same = ((ids[:, None] == ids) | (words[:, None] == words)).float()
    target = same / same.sum(1, keepdim=True)
    slow = -((target * logits.log_softmax(1)).sum(1) + (target * logits.T.log_softmax(1)).sum(1)).mean() / 2
    torch.testing.assert_close(losses.terms["itc"].value, slow, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.terms["lm"].value, torch.stack(parts).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.total, slow + 2 * torch.stack(parts).mean(), rtol=1e-4, atol=1e-5)
    assert losses.terms["itc"].chance == pytest.approx(math.log(16))


def pool(pooler: AttentionalPooler, memory: torch.Tensor) -> torch.Tensor:
    """(M, W) -> (n, W): an attentional pooler, head by head."""
    asked, memory, part = pooler.query_norm(pooler.queries), pooler.memory_norm(memory), pooler.attention
    key, value = part.key_value(memory).chunk(2, 1)
    wide, out = asked.shape[1] // part.heads, []
    for head in range(part.heads):
        own = slice(head * wide, (head + 1) * wide)
        weights = (part.query(asked)[:, own] @ key[:, own].T / wide**0.5).softmax(1)
        out.append(weights @ value[:, own])
    return pooler.output_norm(part.out(torch.cat(out, 1)))


@forms
def test_one_forward_pass_serves_both_losses(config: CocaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Picture, poolers and words are each read once; words are scored where one is to be written and nowhere else."""
    method, batch = build(config), toy_batch()
    parts = {"image": method.image, "pooler": method.pools.caption, "words": method.unimodal.transformer,
             "pictured": method.multimodal, "scored": method.vocabulary}  # fmt: skip
    seen: dict[str, list[int]] = {name: [] for name in parts}
    for name, part in parts.items():
        monkeypatch.setattr(
            part, "forward", lambda x, *a, n=name, r=part.forward, **k: seen[n].append(len(x)) or r(x, *a, **k)
        )
    method(batch, World(), Step())
    assert all(seen[name] == [16] for name in ("image", "pooler", "words", "pictured"))
    assert seen["scored"] == [int(batch.text_mask[:, 1:].sum())]


@forms
def test_every_parameter_gets_a_gradient(config: CocaConfig) -> None:
    method = build(config)
    method(toy_batch(), World(), Step()).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


@pytest.mark.parametrize(("weight", "left"), [("contrast", "lm"), ("caption", "itc")])
def test_a_loss_of_weight_zero_is_not_computed(weight: str, left: str) -> None:
    method = build(replace(SMALL, **{weight: 0.0}))
    losses = method(toy_batch(), World(), Step())
    assert set(losses.terms) == {left} and method.rests and not build().rests
    both = build()(toy_batch(), World(), Step())
    assert torch.equal(losses.terms[left].value, both.terms[left].value)


@pytest.mark.parametrize("config", [SMALL, OPEN_CLIP], ids=["cascade", "open_clip"])
def test_checkpointed_blocks_give_the_same_gradients(config: CocaConfig) -> None:
    gradients = []
    for again in (False, True):
        image, text = replace(config.image, checkpoint=again), replace(config.text, checkpoint=again)
        method = build(replace(config, image=image, text=text))
        method(toy_batch(), World(), Step()).total.backward()
        gradients.append({n: p.grad for n, p in method.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_a_step_mutates_nothing_and_the_scale_is_bounded_after_it() -> None:
    method = build()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    method(toy_batch(), World(), Step()).total.backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    with torch.no_grad():
        method.log_scale.fill_(9.0)
    method.after_step(Step(), {})
    assert float(method.log_scale.detach().exp()) == pytest.approx(100.0)


# --- what must not be seen -------------------------------------------------------------------------------------------


@torch.no_grad()
@forms
def test_a_word_knows_nothing_of_those_after_it(config: CocaConfig) -> None:
    """To the bit, at every place, in both halves; and something of those before and of the picture."""
    method, batch = randomise(build(config)), toy_batch(4)
    image, ids, mask = method.encode_image(batch.images), batch.text, batch.text_mask
    scores, words = method.caption_likelihood(image, ids, mask), method.encode_text(ids, mask).tokens
    for place in range(2, int(mask.sum(1).min())):
        other = ids.clone()
        other[:, place:] = (other[:, place:] + 7) % 40 + 4
        told = method.caption_likelihood(image, other, mask)
        assert torch.equal(told.logp[:, :place], scores.logp[:, :place])
        assert torch.equal(told.best[:, : place + 1], scores.best[:, : place + 1])
        assert torch.equal(method.encode_text(other, mask).tokens[:, :place], words[:, :place])
        assert not torch.equal(told.logp[:, place:], scores.logp[:, place:])
    turned = method.caption_likelihood(method.encode_image(-batch.images), ids, mask)
    assert not torch.equal(turned.logp[:, 1], scores.logp[:, 1])


@torch.no_grad()
@forms
def test_words_are_read_without_the_picture_and_without_padding(config: CocaConfig) -> None:
    method, batch = randomise(build(config)), toy_batch(4)
    assert not bool(batch.text_mask.all())
    text = method.encode_text(batch.text, batch.text_mask)
    padded = torch.where(batch.text_mask, batch.text, torch.tensor(9))
    again = method.encode_text(padded, batch.text_mask)
    assert torch.equal(again.embedding, text.embedding)
    image = method.encode_image(batch.images)
    told, same = (method.caption_likelihood(image, ids, batch.text_mask).logp for ids in (batch.text, padded))
    assert torch.equal(told, same)


@torch.no_grad()
@forms
def test_a_text_is_the_same_however_far_it_is_padded(config: CocaConfig) -> None:
    method, batch = randomise(build(config)), toy_batch()
    whole = method.encode_text(batch.text, batch.text_mask).embedding
    for row in range(3):
        length = int(batch.text_mask[row].sum())
        alone = method.encode_text(batch.text[row : row + 1, :length], batch.text_mask[row : row + 1, :length])
        far = method.encode_text(
            F.pad(batch.text[row : row + 1, :length], (0, 16 - length)),
            F.pad(batch.text_mask[row : row + 1, :length], (0, 16 - length)),
        )
        torch.testing.assert_close(alone.embedding[0], whole[row], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(far.embedding[0], whole[row], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_class_token_sees_every_word_from_the_end_and_none_from_the_start() -> None:
    """Claim CoCa-C4's ground: under a causal mask a class token in the first place is the same for all texts."""
    batch = toy_batch(8)
    last, first = randomise(build()), randomise(build(replace(SMALL, class_token="first")))
    one = first.encode_text(batch.text, batch.text_mask).embedding
    torch.testing.assert_close(one, one[:1].expand_as(one))
    text = last.encode_text(batch.text, batch.text_mask)
    for place in range(int(batch.text_mask.sum(1).min())):
        other = batch.text.clone()
        other[:, place] = (other[:, place] + 7) % 40 + 4
        assert not torch.isclose(last.encode_text(other, batch.text_mask).embedding, text.embedding).all(1).any()
    # Nobody sees it: another one changes no word.
    last.unimodal.class_token.add_(1.0)
    again = last.encode_text(batch.text, batch.text_mask)
    assert torch.equal(again.tokens, text.tokens) and not torch.allclose(again.embedding, text.embedding)


@torch.no_grad()
def test_the_legacy_mask_is_one_place_late() -> None:
    """[CLS] sees the first padding token; it sees itself only where the text fills the context. The words do not change."""
    torch.manual_seed(0)
    config = TextConfig(vocabulary=40, context=9, width=16, layers=2, heads=2, pool="last")
    half = randomise(ReadingHalf(config, "last", "legacy", pad=7))
    exact = ReadingHalf(config, "last", "exact", pad=7).eval()
    exact.load_state_dict(half.state_dict())
    ids, mask = torch.randint(8, 40, (2, 9)), torch.arange(9) < torch.tensor([[9], [6]])
    one, words = half(ids, mask)
    there, same = exact(ids, mask)
    assert torch.equal(words[mask], same[mask])
    torch.testing.assert_close(one[0], there[0])
    # By hand: the six words, then padding, then [CLS], whose keys are all but its own.
    row = torch.cat([ids[1:, :6], torch.tensor([[7]])], 1)
    entering = torch.cat([half.embed(row), (half.class_token + half.class_position)[None, None]], 1)
    keys = torch.tensor([[True] * 7 + [False]])
    torch.testing.assert_close(one[1], half.class_norm(half.transformer(entering, keys)[0, -1]))
    assert not torch.allclose(one[1], there[1])


@torch.no_grad()
def test_poolers_read_what_their_form_says() -> None:
    tokens = torch.randn(2, 6, 24)
    pools = {form: randomise(ImagePools(24, 32, 5, 2, form)) for form in ("cascade", "parallel", "single")}
    shapes = {form: [tuple(part.shape) for part in each(tokens)] for form, each in pools.items()}
    assert shapes == {
        "cascade": [(2, 32), (2, 5, 32)], "parallel": [(2, 32), (2, 5, 32)], "single": [(2, 32), (2, 4, 32)],
    }  # fmt: skip
    # The contrastive token depends on the caption's queries in a cascade alone.
    before = {form: each(tokens)[0] for form, each in pools.items()}
    for each in pools.values():
        each.caption.queries[1:].add_(torch.randn(4, 32))
    assert torch.equal(pools["parallel"](tokens)[0], before["parallel"])
    assert torch.equal(pools["single"](tokens)[0], before["single"])
    assert not torch.allclose(pools["cascade"](tokens)[0], before["cascade"])


@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours() -> None:
    method, batch = build().eval(), toy_batch()
    whole, part = method.encode(batch, Step()), method.encode(batch.rows(4, 8), Step())
    for name, tensor in part.items():
        torch.testing.assert_close(tensor, whole[name][4:8], rtol=1e-4, atol=1e-5)


# --- abilities -------------------------------------------------------------------------------------------------------


@torch.no_grad()
@forms
@pytest.mark.parametrize("strategy", ["greedy", "nucleus"])
def test_written_captions_have_the_likelihood_they_claim(config: CocaConfig, strategy: str) -> None:
    """The cache of both halves gives what reading the whole text gives."""
    method, batch = randomise(build(config)), toy_batch(5)
    image, prompts = method.encode_image(batch.images), batch.text[:, :2]
    draws = torch.Generator().manual_seed(0)
    texts = method.generate(image, Generation(strategy, max_length=12), prompts, generator=draws)
    assert torch.equal(texts.ids[:, :2], prompts)
    scores = method.caption_likelihood(image, texts.ids, texts.mask)
    torch.testing.assert_close(texts.scores, scores.logp[:, 2:].sum(1), rtol=1e-4, atol=1e-4)
    if strategy == "greedy":
        written = texts.mask[:, 2:]
        assert torch.equal(scores.best[:, 2:][written], texts.ids[:, 2:][written])


@torch.no_grad()
@forms
def test_beams_have_the_likelihood_they_claim(config: CocaConfig) -> None:
    method, batch = randomise(build(config)), toy_batch(3)
    image = method.encode_image(batch.images)
    texts = method.generate(image, Generation("beam", max_length=10, beams=3, length_penalty=0.0, texts=2))
    which = torch.arange(3).repeat_interleave(2)
    scores = method.caption_likelihood(image.rows(which), texts.ids, texts.mask)
    torch.testing.assert_close(texts.scores, scores.logp.sum(1), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_likelihood_is_that_of_the_lm_loss() -> None:
    method, batch = build().eval(), toy_batch()
    scores = method.caption_likelihood(method.encode_image(batch.images), batch.text, batch.text_mask)
    term = method(batch, World(), Step()).terms["lm"]
    assert float(-scores.logp.sum() / batch.text_mask[:, 1:].sum()) == pytest.approx(float(term.value), rel=1e-5)
    counts = torch.bincount(batch.text[:, 1:][batch.text_mask[:, 1:]]).double()
    p = counts[counts > 0] / counts.sum()
    assert term.chance == pytest.approx(float(-(p * p.log()).sum())) and term.weight == 2.0


def test_abilities() -> None:
    able = {"encode_image", "encode_text", "compare", "fuse", "caption_likelihood", "generate"}
    assert set(abilities_of(build())) == able
