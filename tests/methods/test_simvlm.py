"""SimVLM: its sizes, its loss slowly, the plain language model in it, and what must not be seen. It has no peer."""

from dataclasses import replace

import pytest
import torch
from caption_batches import info, toy_batch
from peer_weights import randomise

from multiway.abilities import abilities_of
from multiway.batch import Place
from multiway.config import from_json, to_json
from multiway.methods.gpt import Gpt, GptConfig
from multiway.methods.method import Step
from multiway.methods.simvlm import Simvlm, SimvlmConfig
from multiway.nn.conv_stage import ConvStageConfig
from multiway.nn.generate import Generation
from multiway.nn.text import TextConfig
from multiway.world import World

SMALL = SimvlmConfig(
    image=ConvStageConfig(size=16, patch=4),
    text=TextConfig(context=0, width=32, layers=2, heads=2, causal=False, pool="last"),
)


def build(config: SimvlmConfig = SMALL, seed: int = 0) -> Simvlm:
    torch.manual_seed(seed)
    return Simvlm(config.resolve(info()))


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["base", "large", "huge"])
def test_parameters_of_the_papers_sizes(preset: str) -> None:
    """Derived part by part. The paper publishes no counts that could be held against them."""
    config = SimvlmConfig.preset(preset).resolve(info())
    with torch.device("meta"):
        method = Simvlm(config)
    width, layers, depths = config.text.width, config.text.layers, config.image.depths
    attention, norm = 4 * (width**2 + width), 2 * width
    mlp = 2 * 4 * width**2 + 5 * width
    encoder = layers * (attention + mlp + 2 * norm) + norm
    decoder = layers * (2 * attention + mlp + 3 * norm) + norm
    convolutions, inputs = 3 * 7 * 7 * 64 + 2 * 64, 64
    for stage, depth in enumerate(depths):
        channels = 64 * 2**stage
        for index in range(depth):
            convolutions += (inputs * channels + 9 * channels**2 + 4 * channels**2) + 2 * (2 * channels + 4 * channels)
            if index == 0:
                convolutions += inputs * 4 * channels + 2 * 4 * channels
            inputs = 4 * channels
    image = convolutions + (inputs * width + width) + (224 // 16) ** 2 * width
    assert inputs == 1024
    assert sum(p.numel() for p in method.parameters()) == encoder + decoder + image + (32_000 + 256) * width
    assert from_json(SimvlmConfig, to_json(config)) == config


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="huge"):
        SimvlmConfig.preset("giant")
    with pytest.raises(ValueError, match="resolve"):
        Simvlm(SMALL)
    with pytest.raises(ValueError, match="blind_steps is 1"):
        build(replace(SMALL, blind_steps=1.0))
    with pytest.raises(ValueError, match="reduce a picture by 16"):
        build(replace(SMALL, image=ConvStageConfig(size=16, patch=4, depths=(1, 1, 1))))
    with pytest.raises(ValueError, match="not divisible"):
        build(replace(SMALL, image=ConvStageConfig(size=18, patch=4)))


# --- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [SMALL.image, ConvStageConfig(size=16, patch=4, convolve=False)])
def test_the_loss_slowly(image: ConvStageConfig) -> None:
    """Each text alone; each word from an encoder that has its prefix and a decoder that ends before it."""
    method, batch = build(replace(SMALL, image=image)).eval(), toy_batch()
    lengths = method.prefix_lengths(batch)
    assert len(lengths.unique()) > 2
    tokens, parts = method.encode_image(batch.images).tokens, []
    for row in range(16):
        ids, given = batch.text[row : row + 1, : int(batch.text_mask[row].sum())], int(lengths[row])
        prefix = method.text(ids)[:, 1 : 1 + given]
        memory = method.encoder(torch.cat([tokens[row : row + 1], prefix], 1))
        for place in range(given + 1, ids.shape[1]):
            fed = torch.cat([torch.tensor([[method.config.start]]), ids[:, given + 1 : place]], 1)
            embedded = method.text.words(fed) + method.text.positions[given:place]
            last = method.decoder(embedded, None, memory)[0, -1]
            parts.append(-(method.text.words.weight @ last).log_softmax(0)[ids[0, place]])
    value = method(batch, World(), Step()).terms["lm"].value
    torch.testing.assert_close(value, torch.stack(parts).mean(), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_without_prefix_and_picture_it_is_the_plain_language_model() -> None:
    """To the bit: the decoder's weights in a GPT give its loss and its texts."""
    method, batch = randomise(build(replace(SMALL, prefix=False))), toy_batch()
    gpt = Gpt(GptConfig(replace(SMALL.text, causal=True)).resolve(info())).eval()
    gpt.text.embed.load_state_dict(method.text.state_dict())
    own = {n: t for n, t in method.decoder.state_dict().items() if "cross" not in n}
    gpt.text.transformer.load_state_dict(own)
    blind = replace(batch, images=None)
    assert torch.equal(method(blind, World(), Step()).total, gpt(blind, World(), Step()).total)
    assert torch.equal(method.generate(None, Generation()).ids, gpt.generate(None, Generation()).ids)


def test_prefixes_belong_to_the_sample_and_the_epoch() -> None:
    method, batch = build(), toy_batch()
    lengths = method.prefix_lengths(batch)
    assert torch.equal(method.prefix_lengths(batch.rows(4, 9)), lengths[4:9])
    later = replace(batch, place=Place(step=7, epoch=1))
    assert not torch.equal(method.prefix_lengths(later), lengths)
    words = batch.text_mask.sum(1) - 2
    assert bool((lengths >= 0).all()) and bool((lengths <= words).all())
    # Even over 0 .. words: the mean is half, and both ends occur.
    many = replace(batch, text_mask=torch.ones(4000, 6, dtype=torch.bool), sample_index=torch.arange(4000))
    drawn = method.prefix_lengths(many)
    assert torch.bincount(drawn).tolist() == pytest.approx([800] * 5, abs=100)
    assert int(method.prefix_lengths(many, blind=True).min()) == 1
    assert not bool(build(replace(SMALL, prefix=False)).prefix_lengths(batch).any())


def test_blind_steps_are_their_share_and_see_no_picture() -> None:
    method, batch = build(replace(SMALL, blind_steps=0.3)), toy_batch()
    other = replace(batch, images=-batch.images)
    with torch.no_grad():
        same = [
            torch.equal(method(batch, World(), s).total, method(other, World(), s).total) for s in map(Step, range(60))
        ]
    assert 0.15 < sum(same) / 60 < 0.45
    assert method.rests and not build().rests


# --- what must not be seen -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_prefix_sees_none_of_the_rest_and_the_rest_only_what_is_before() -> None:
    method, batch = randomise(build()), toy_batch(4)
    image, ids = method.encode_image(batch.images).tokens, batch.text
    given = batch.text_mask & (torch.arange(ids.shape[1]) < 3)
    memory, mask = method.read(image, ids[:, 1:3], given[:, 1:3])
    other = ids.clone()
    other[:, 3:] = (other[:, 3:] + 7) % 40 + 4
    again, _ = method.read(image, other[:, 1:3], given[:, 1:3])
    assert torch.equal(memory, again) and mask.shape == memory.shape[:2]
    both = ids.clone()
    both[:, 2] = (both[:, 2] + 1) % 40 + 4
    changed, _ = method.read(image, both[:, 1:3], given[:, 1:3])
    # It looks both ways: the picture's tokens and the first word see the second.
    assert not torch.isclose(changed, memory).all(-1).any()

    scores = method.caption_likelihood(method.encode_image(batch.images), ids, batch.text_mask)
    for place in range(2, int(batch.text_mask.sum(1).min())):
        later = ids.clone()
        later[:, place:] = (later[:, place:] + 7) % 40 + 4
        told = method.caption_likelihood(method.encode_image(batch.images), later, batch.text_mask)
        assert torch.equal(told.logp[:, :place], scores.logp[:, :place])
    turned = method.caption_likelihood(method.encode_image(-batch.images), ids, batch.text_mask)
    assert not torch.isclose(turned.logp[batch.text_mask][1:], scores.logp[batch.text_mask][1:]).all()


@torch.no_grad()
def test_padding_is_not_seen() -> None:
    method, batch = randomise(build()), toy_batch()
    padded = replace(batch, text=torch.where(batch.text_mask, batch.text, torch.tensor(9)))
    assert torch.equal(method(batch, World(), Step()).total, method(padded, World(), Step()).total)


@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours() -> None:
    method, batch = build().eval(), toy_batch()
    image = method.encode_image(batch.images)
    whole = method.caption_likelihood(image, batch.text, batch.text_mask).logp
    for row in (0, 7):
        one = torch.tensor([row])
        length = int(batch.text_mask[row].sum())
        alone = method.caption_likelihood(image.rows(one), batch.text[one, :length], batch.text_mask[one, :length])
        torch.testing.assert_close(alone.logp[0], whole[row, :length], rtol=1e-4, atol=1e-5)


# --- cost and abilities ----------------------------------------------------------------------------------------------


def test_nothing_is_computed_twice_or_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures, prefixes and the rest are read once each; the decoder's columns are those of the longest rest."""
    method, batch = build(), toy_batch()
    lengths = method.prefix_lengths(batch)
    seen: dict[str, list[tuple[int, ...]]] = {"image": [], "encoder": [], "decoder": []}
    for name in seen:
        part = getattr(method, name)
        monkeypatch.setattr(
            part,
            "forward",
            lambda x, *a, n=name, r=part.forward, **k: seen[n].append(tuple(x.shape[:2])) or r(x, *a, **k),
        )
    method(batch, World(), Step())
    longest = int((batch.text_mask.sum(1) - 1 - lengths).max())
    assert seen == {
        "image": [(16, 3)],
        "encoder": [(16, 16 + int(lengths.max()))],
        "decoder": [(16, longest)],
    }


def test_every_parameter_gets_a_gradient() -> None:
    method = build()
    method(toy_batch(), World(), Step()).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


@torch.no_grad()
@pytest.mark.parametrize("strategy", ["greedy", "beam", "nucleus"])
def test_prompts_are_prefixes_of_any_length(strategy: str) -> None:
    """Written together, texts are those that are written alone: longer prompts wait unseen."""
    method, batch = randomise(build()), toy_batch(5)
    image, prompts = method.encode_image(batch.images), batch.text[:, :4]
    mask = torch.arange(4) < torch.tensor([4, 1, 2, 3, 4])[:, None]
    settings = Generation(strategy, max_length=12, top_p=1e-6)  # the one likeliest token, so that draws do not matter
    texts = method.generate(image, settings, prompts, mask)
    for row in range(5):
        one, length = torch.tensor([row]), int(mask[row].sum())
        alone = method.generate(image.rows(one), settings, prompts[one, :length])
        size = int(alone.mask.sum())
        assert torch.equal(texts.ids[row, :size], alone.ids[0, :size])
        assert float(texts.scores[row]) == pytest.approx(float(alone.scores[0]), abs=1e-4)
        # And they have the likelihood that the encoder's prefix gives them.
        if strategy == "greedy":
            memory, _ = method.read(image.rows(one).tokens, prompts[one, 1:length], torch.ones(1, length - 1).bool())
            ids = alone.ids[:, length - 1 : -1].clone()
            ids[:, 0] = method.config.start
            embedded = method.text.words(ids) + method.text.positions[length - 1 : alone.ids.shape[1] - 1]
            logp = (method.decoder(embedded, None, memory) @ method.text.words.weight.T).log_softmax(-1)
            total = logp[0].gather(1, alone.ids[0, length:, None]).sum()
            assert float(alone.scores[0]) == pytest.approx(float(total), abs=1e-3)


@torch.no_grad()
def test_abilities() -> None:
    method, batch = build(), toy_batch(4)
    assert set(abilities_of(method)) == {"encode_image", "encode_text", "fuse", "caption_likelihood", "generate"}
    image = method.encode_image(batch.images)
    assert image.embedding.shape == (4, 0) and not image.has_embedding
    texts = randomise(method).generate(image, Generation(max_length=12))
    scores = method.caption_likelihood(image, texts.ids, texts.mask)
    torch.testing.assert_close(texts.scores, scores.logp.sum(1), rtol=1e-4, atol=1e-4)
