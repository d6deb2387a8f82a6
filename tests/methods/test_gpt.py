"""GPT: equality with transformers' OpenAI GPT, its size, its loss slowly, and what must not be seen."""

import math

import pytest
import torch
import transformers
from caption_batches import info, toy_batch
from peer_weights import copy, randomise

from multiway.abilities import Encoded, abilities_of
from multiway.config import from_json, to_json
from multiway.methods.gpt import Gpt, GptConfig
from multiway.methods.method import Step
from multiway.nn.generate import Generation
from multiway.nn.text import TextConfig
from multiway.world import World

SMALL = GptConfig(text=TextConfig(context=0, width=32, layers=2, heads=2, causal=True, pool="last"))


def build(config: GptConfig = SMALL, seed: int = 0) -> Gpt:
    torch.manual_seed(seed)
    return Gpt(config.resolve(info()))


@torch.no_grad()
def test_the_papers_blocks_equal_transformers() -> None:
    """Logits of OpenAIGPTLMHeadModel with the same random weights: norms after, tanh-GELU, tied output."""
    theirs = transformers.OpenAIGPTLMHeadModel(
        transformers.OpenAIGPTConfig(vocab_size=60, n_positions=14, n_embd=32, n_layer=2, n_head=2, afn="gelu")
    )
    randomise(theirs)
    text = TextConfig(
        vocabulary=60, context=14, width=32, layers=2, heads=2, activation="gelu_tanh", pool="last", norm="post"
    )
    ours = Gpt(GptConfig(text, start=1, end=2, pad=0)).eval()
    body = theirs.transformer
    ours.text.embed.words.weight.copy_(body.tokens_embed.weight)
    ours.text.embed.positions.copy_(body.positions_embed.weight)
    for own, their in zip(ours.text.transformer.blocks, body.h, strict=True):
        # Their Conv1D is a linear map with its weight the other way round.
        maps = [(own.attention.qkv, their.attn.c_attn), (own.attention.out, their.attn.c_proj),
                (own.mlp.up, their.mlp.c_fc), (own.mlp.down, their.mlp.c_proj)]  # fmt: skip
        for mine, other in maps:
            mine.weight.copy_(other.weight.T)
            mine.bias.copy_(other.bias)
        copy(own.attention_norm, their.ln_1)
        copy(own.mlp_norm, their.ln_2)
    ids = torch.randint(3, 60, (4, 14))
    out = theirs(ids).logits[:, :-1].flatten(0, 1)
    assert (ours._guess(ids, torch.ones_like(ids, dtype=torch.bool)) - out).abs().max() < 1e-5 * out.abs().max()
    scores = ours.caption_likelihood(None, ids, torch.ones_like(ids, dtype=torch.bool))
    loss = theirs(ids, labels=ids).loss
    assert float(-scores.logp.sum() / (4 * 13)) == pytest.approx(float(loss), rel=1e-5)


def test_parameters_of_the_papers_size() -> None:
    """117 M as the paper's model is commonly counted: embeddings of words and positions, and 12 blocks; the output is tied."""
    config = GptConfig.preset("base").resolve(info())
    with torch.device("meta"):
        method = Gpt(config)
    width, hidden = 768, 3072
    block = 4 * (width**2 + width) + (width * hidden + hidden) + (hidden * width + width) + 2 * 2 * width
    derived = (40478 + 512) * width + 12 * block
    assert sum(p.numel() for p in method.parameters()) == derived
    assert derived / 1e6 == pytest.approx(117, abs=0.6)
    assert config.text.context == 512
    assert from_json(GptConfig, to_json(config)) == config
    with pytest.raises(KeyError, match="base"):
        GptConfig.preset("large")
    with pytest.raises(ValueError, match="resolve"):
        Gpt(SMALL)


def test_the_loss_slowly_and_its_chance() -> None:
    """Each word from a text that ends before it."""
    method, batch = build().eval(), toy_batch()
    losses = method(batch, World(), Step())
    parts = []
    for row in range(16):
        ids = batch.text[row : row + 1, : int(batch.text_mask[row].sum())]
        for length in range(1, ids.shape[1]):
            last = method.text(ids[:, :length]).tokens[0, -1]
            parts.append(-(method.text.embed.words.weight @ last).log_softmax(0)[ids[0, length]])
    torch.testing.assert_close(losses.terms["lm"].value, torch.stack(parts).mean(), rtol=1e-5, atol=1e-5)
    counts = torch.bincount(batch.text[:, 1:][batch.text_mask[:, 1:]]).double()
    p = counts[counts > 0] / counts.sum()
    assert losses.terms["lm"].chance == pytest.approx(float(-(p * p.log()).sum()))
    assert losses.terms["lm"].chance < math.log(method.config.text.vocabulary)


@torch.no_grad()
def test_a_word_sees_nothing_after_it_and_no_picture_at_all() -> None:
    method, batch = randomise(build()), toy_batch(4)
    scores = method.caption_likelihood(None, batch.text, batch.text_mask)
    length = int(batch.text_mask.sum(1).min())
    for place in range(2, length):
        other = batch.text.clone()
        other[:, place:] = (other[:, place:] + 7) % 40 + 4
        changed = method.caption_likelihood(None, other, batch.text_mask)
        assert torch.equal(changed.logp[:, :place], scores.logp[:, :place])
        assert torch.equal(changed.best[:, : place + 1], scores.best[:, : place + 1])
        assert not torch.equal(changed.logp[:, place:], scores.logp[:, place:])
    padded = torch.where(batch.text_mask, batch.text, torch.tensor(9))
    assert torch.equal(method.caption_likelihood(None, padded, batch.text_mask).logp, scores.logp)
    shown = Encoded(torch.randn(4, 3), torch.randn(4, 5, 3))
    assert torch.equal(method.caption_likelihood(shown, batch.text, batch.text_mask).logp, scores.logp)


@torch.no_grad()
def test_what_it_writes_has_the_likelihood_it_claims() -> None:
    method = randomise(build())
    prompts = toy_batch(5).text[:, :3]
    draws = torch.Generator().manual_seed(0)
    texts = method.generate(None, Generation("nucleus", max_length=12), prompts, generator=draws)
    assert torch.equal(texts.ids[:, :3], prompts)
    scores = method.caption_likelihood(None, texts.ids, texts.mask)
    torch.testing.assert_close(texts.scores, scores.logp[:, 3:].sum(1), rtol=1e-4, atol=1e-4)
    assert len(method.generate(None, Generation()).ids) == 1
    assert len(method.generate(Encoded(torch.zeros(3, 0)), Generation()).ids) == 3


def test_abilities_and_gradients() -> None:
    method = build()
    assert set(abilities_of(method)) == {"encode_text", "fuse", "caption_likelihood", "generate"}
    method(toy_batch(), World(), Step()).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
