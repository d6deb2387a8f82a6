"""BLIP: its sizes by what is shared, its losses as formulas, its modes, and what must not be seen (peers: tests/hub)."""

import math
from dataclasses import replace

import pytest
import torch
from peer_weights import randomise
from toy import ToySource

from multiway.abilities import abilities_of
from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.config import from_json, to_json
from multiway.data.augment import finish
from multiway.data.loader import Loader
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.methods.blip import Blip, BlipConfig
from multiway.methods.method import Step
from multiway.nn.decoder import SHARING
from multiway.nn.generate import Generation
from multiway.nn.text import TextConfig
from multiway.nn.twin import gap
from multiway.nn.vit import VisionConfig
from multiway.world import World

SMALL = BlipConfig(
    image=VisionConfig(size=16, patch=4, width=24, layers=2, heads=2),
    text=TextConfig(context=0, width=32, layers=2, heads=2, causal=False, pool="class"),
    embedding=20,
    queue=24,
    momentum=0.9,
)
ALL = [*SHARING, "none"]
LATE = Step(index=90, epoch=3, progress=0.9)


def words_of(rows: int) -> Tokenizer:
    source = ToySource(rows)
    return Tokenizer.train([c for i in range(rows) for c in source.row(i).captions], TokenizerSpec(300, 16))


def toy_batch(rows: int = 16, number: int = 0) -> Batch:
    view = ViewSpec(size=16)
    return finish(Loader(ToySource(32), view, words_of(32), rows).batch(number), view)


def info() -> DataInfo:
    tokenizer = words_of(32)
    return DataInfo(vocabulary=len(tokenizer), context=16, special=tokenizer.special)


def build(config: BlipConfig = SMALL, seed: int = 0) -> Blip:
    torch.manual_seed(seed)
    return Blip(config.resolve(info()))


# --- sizes -----------------------------------------------------------------------------------------------------------

# Table 3 of the paper, in millions. `none` is not quite the paper's: see docs/methods/blip.md.
PUBLISHED = {"all": 224, "all-but-self-attention": 252, "all-but-cross-attention": 252, "none": 361}


@pytest.mark.parametrize("sharing", ALL)
def test_parameters_of_the_papers_size(sharing: str) -> None:
    """Derived part by part; the published figure counts everything trained: ViT, text in its modes, heads; no twin."""
    with torch.device("meta"):
        method = Blip(replace(BlipConfig.preset("base"), sharing=sharing))
    width, hidden, words = 768, 3072, 30524
    attention, norm = 4 * (width**2 + width), 2 * width
    mlp = (width * hidden + hidden) + (hidden * width + width)
    vit = (3 * 16**2 * width + width) + width + (1 + 14**2) * width + 12 * (attention + mlp + 2 * norm) + norm
    embedding = (words + 512) * width + norm
    reads = 12 * (2 * attention + mlp + 3 * norm)
    writes = {
        "all": 0, "all-but-self-attention": 12 * (attention + norm), "all-but-cross-attention": 12 * (attention + norm),
        "none": reads + embedding,
    }[sharing]  # fmt: skip
    head = (width**2 + width) + norm + words  # its matrix is the word embedding's
    projections, match = 2 * (width * 256 + 256), 2 * width + 2
    derived = vit + embedding + reads + writes + head + projections + match + 1
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    assert trained == derived
    assert abs(trained / 1e6 - PUBLISHED[sharing]) < 0.7
    assert method.queue.text.shape == (57_600, 256)


def test_presets_survive_json_and_unknown_ones_are_named() -> None:
    for name in ("tiny", "base", "large"):
        config = BlipConfig.preset(name)
        assert from_json(BlipConfig, to_json(config)) == config
    assert (BlipConfig.preset("large").image.layers, BlipConfig.preset("large").text.cross_width) == (24, 1024)
    with pytest.raises(KeyError, match="large"):
        BlipConfig.preset("huge")
    with pytest.raises(ValueError, match="resolve"):
        Blip(SMALL)
    with pytest.raises(ValueError, match="cross_width"):
        Blip(replace(SMALL.resolve(info()), text=replace(SMALL.resolve(info()).text, cross_width=7)))


def test_the_two_start_tokens_are_beyond_the_tokenisers() -> None:
    config, tokenizer = SMALL.resolve(info()), words_of(32)
    assert config.text.vocabulary == len(tokenizer) + 2
    assert (config.start_decode, config.start_encode) == (len(tokenizer), len(tokenizer) + 1)
    assert (config.end, config.pad) == (tokenizer.special["eos"], tokenizer.special["pad"])
    assert (BlipConfig.preset("base").start_decode, BlipConfig.preset("base").start_encode) == (30522, 30523)


# --- the step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", ALL)
def test_the_step_is_the_papers_formulas(sharing: str) -> None:
    """Every term again, slowly: each text alone, without padding, cache or shared keys."""
    method = build(replace(SMALL, sharing=sharing)).eval()
    method.after_step(LATE, method(toy_batch(number=1), World(), LATE).updates)
    batch = toy_batch()
    torch.manual_seed(5)
    losses = method(batch, World(), LATE)
    torch.manual_seed(5)
    reps = method.encode(batch, LATE)
    with torch.no_grad():
        pairs = method.mine(reps, batch, World(), LATE)
    config, tau, alpha = method.config, float(method.temperature.detach()), 0.4

    queue = method.queue.read()
    candidates = {side: torch.cat([reps[f"twin_{side}"], queue[side]]) for side in ("image", "text")}
    image_ids, text_ids = (torch.cat([getattr(batch, key), queue[key]]) for key in ("image_id", "text_id"))
    total = 0.0
    for query, other in (("image", "text"), ("text", "image")):
        logp = (reps[query] @ candidates[other].T / tau).log_softmax(1)
        q = (reps[f"twin_{query}"] @ candidates[other].T / tau).softmax(1)
        y = ((batch.image_id[:, None] == image_ids) | (batch.text_id[:, None] == text_ids)).float()
        total = total - ((alpha * q + (1 - alpha) * y / y.sum(1, keepdim=True)) * logp).sum(1).mean() / 2
    torch.testing.assert_close(losses.terms["itc"].value, total, rtol=1e-5, atol=1e-5)

    def alone(row: int, start: int) -> torch.Tensor:
        ids = batch.text[row : row + 1, : int(batch.text_mask[row].sum())].clone()
        ids[0, 0] = start
        return ids

    text = method.student.text
    rows, answers = [], []
    for i in range(16):
        for words, image in ((i, i), (int(pairs["text_of_image"][i]), i), (i, int(pairs["image_of_text"][i]))):
            fused = text(alone(words, config.start_encode), None, reps["image_tokens"][image : image + 1]).tokens
            rows.append(method.match_head(fused[:, 0]))
            answers.append(int((words, image) == (i, i)))
    slow = torch.nn.functional.cross_entropy(torch.cat(rows), torch.tensor(answers))
    torch.testing.assert_close(losses.terms["itm"].value, slow, rtol=1e-4, atol=1e-5)

    parts = []
    for i in range(16):
        ids = alone(i, config.start_decode)
        for length in range(1, ids.shape[1]):  # each word from those before it: nothing after it exists
            last = method.decoder(text, ids[:, :length], reps["image_tokens"][i : i + 1])[0, -1]
            logp = method.decoder.guess(text, last[None])[0].log_softmax(0)
            parts.append(-0.9 * logp[ids[0, length]] - 0.1 * logp.mean())
    torch.testing.assert_close(losses.terms["lm"].value, torch.stack(parts).mean(), rtol=1e-4, atol=1e-5)
    assert losses.terms["itm"].chance == pytest.approx(0.6365, abs=1e-4)


def test_a_step_mutates_nothing_and_after_step_does_it_all() -> None:
    method = build()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    losses = method(toy_batch(), World(), LATE)
    losses.total.backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(0.1)
    apart = float(gap([method.twin], [method.student]))
    method.after_step(LATE, losses.updates)
    assert float(gap([method.twin], [method.student])) == pytest.approx(0.9 * apart, rel=1e-5)
    assert len(method.queue) == 16


@pytest.mark.parametrize("sharing", ALL)
def test_every_trained_parameter_gets_a_gradient_and_no_twin_does(sharing: str) -> None:
    method = build(replace(SMALL, sharing=sharing))
    method(toy_batch(), World(), LATE).total.backward()
    for name, parameter in method.named_parameters():
        if name.startswith("twin"):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("sharing", ALL)
def test_nothing_is_computed_twice(sharing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture is read once by the student and once by the twin; its keys are projected once where they are shared; words
    are scored where one is to be written and nowhere else."""
    method, batch = build(replace(SMALL, sharing=sharing)), toy_batch()
    seen: dict[str, list[int]] = {"student": [], "twin": [], "keys": [], "words": []}

    def count(module: torch.nn.Module, name: str) -> None:
        real = module.forward
        monkeypatch.setattr(module, "forward", lambda x, *a, **k: seen[name].append(len(x)) or real(x, *a, **k))

    count(method.student.image, "student")
    count(method.twin.image, "twin")
    count(method.student.text.transformer.blocks[0].cross.key_value, "keys")
    count(method.decoder.words, "words")
    method(batch, World(), LATE)
    assert seen["student"] == seen["twin"] == seen["keys"] == [16]
    assert seen["words"] == [int(batch.text_mask[:, 1:].sum())]


def test_checkpointed_blocks_give_the_same_gradients() -> None:
    gradients = []
    for checkpointed in (False, True):
        text = replace(SMALL.text, checkpoint=checkpointed)
        method = build(replace(SMALL, image=replace(SMALL.image, checkpoint=checkpointed), text=text))
        torch.manual_seed(3)
        method(toy_batch(), World(), LATE).total.backward()
        gradients.append({n: p.grad for n, p in method.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


# --- what is shared ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_sharing_all_differs_between_modes_by_the_mask_alone() -> None:
    """With the mask turned off, writing with shared weights is reading: one token sees itself either way."""
    method = build(replace(SMALL, sharing="all")).eval()
    batch = toy_batch(4)
    image, one = method.encode_image(batch.images).tokens, batch.text[:, :1]
    read, wrote = method.student.text(one, None, image).tokens, method.decoder(method.student.text, one, image)
    torch.testing.assert_close(wrote, read)
    apart = build(SMALL).eval()
    assert not torch.allclose(
        apart.decoder(apart.student.text, one, image), apart.student.text(one, None, image).tokens
    )


@pytest.mark.parametrize("sharing", ALL)
def test_which_parts_a_mode_moves(sharing: str) -> None:
    """LM's gradient reaches exactly the shared parts and the decoder's own."""
    method, batch = build(replace(SMALL, sharing=sharing)), toy_batch()
    image = method.encode_image(batch.images).tokens.detach()
    method._write(image, batch.text, batch.text_mask).sum().backward()
    moved = {n for n, p in method.named_parameters() if p.grad is not None}
    block = {n.split(".")[5] for n in moved if n.startswith("student.text.transformer.blocks.0.")}
    parts = {"attention", "attention_norm", "cross", "cross_norm", "mlp", "mlp_norm"}
    own = set(SHARING.get(sharing, parts))
    assert block == parts - own
    assert any(n.startswith("student.text.embed.words") for n in moved) == (sharing != "none")
    assert {n for n, _ in method.named_parameters() if n.startswith("decoder.")} <= moved


# --- what must not be seen -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_word_knows_nothing_of_those_after_it() -> None:
    """To the bit, at every place; and everything of those before, and of the picture."""
    method, batch = randomise(build()), toy_batch(4)
    image = method.encode_image(batch.images)
    length = int(batch.text_mask.sum(1).min())
    ids = batch.text[:, :length]
    tokens = method.decoder(method.student.text, ids, image.tokens)
    for place in range(1, length):
        other = ids.clone()
        other[:, place:] = (other[:, place:] + 7) % 40 + 4
        changed = method.decoder(method.student.text, other, image.tokens)
        assert torch.equal(changed[:, :place], tokens[:, :place])
        assert not torch.isclose(changed[:, place:], tokens[:, place:]).all(-1).any()
    assert not torch.allclose(method.decoder(method.student.text, ids, -image.tokens)[:, 0], tokens[:, 0])


@torch.no_grad()
def test_the_text_alone_sees_no_picture_and_padding_changes_nothing() -> None:
    method, batch = randomise(build()), toy_batch(4)
    image, text = method.encode_image(batch.images), method.encode_text(batch.text, batch.text_mask)
    padded = torch.where(batch.text_mask, batch.text, torch.tensor(9))
    again = method.encode_text(padded, batch.text_mask)
    assert torch.equal(again.embedding, text.embedding)
    assert torch.equal(method.match(image, again), method.match(image, text))
    scores, same = (method.caption_likelihood(image, ids, batch.text_mask) for ids in (batch.text, padded))
    assert torch.equal(scores.logp, same.logp) and torch.equal(scores.best, same.best)


@torch.no_grad()
def test_modes_are_told_by_the_first_token() -> None:
    """Whatever stands there in the batch, matching reads [ENC] and writing [DEC]; reading alone keeps it."""
    method, batch = randomise(build()), toy_batch(4)
    image, text = method.encode_image(batch.images), method.encode_text(batch.text, batch.text_mask)
    other = batch.text.clone()
    other[:, 0] = 7
    changed = method.encode_text(other, batch.text_mask)
    assert torch.equal(method.match(image, changed), method.match(image, text))
    scores, same = (method.caption_likelihood(image, ids, batch.text_mask) for ids in (batch.text, other))
    assert torch.equal(scores.logp, same.logp)
    assert not torch.allclose(changed.embedding, text.embedding)


@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours() -> None:
    method, batch = build().eval(), toy_batch()
    whole, part = method.encode(batch, LATE), method.encode(batch.rows(4, 8), LATE)
    for name, tensor in part.items():
        torch.testing.assert_close(tensor, whole[name][4:8], rtol=1e-4, atol=1e-5)


# --- abilities -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_likelihood_is_that_of_the_lm_loss() -> None:
    method, batch = build(replace(SMALL, smoothing=0.0)).eval(), toy_batch()
    scores = method.caption_likelihood(method.encode_image(batch.images), batch.text, batch.text_mask)
    lm = method(batch, World(), LATE).terms["lm"].value
    assert float(-scores.logp.sum() / batch.text_mask[:, 1:].sum()) == pytest.approx(float(lm), rel=1e-5)
    scored = batch.text_mask.clone()
    scored[:, 0] = False
    assert torch.equal(scores.best >= 0, scored) and bool((scores.logp[~scored] == 0).all())


@torch.no_grad()
def test_written_captions_have_the_likelihood_they_claim() -> None:
    method, batch = randomise(build()), toy_batch(5)
    image = method.encode_image(batch.images)
    texts = method.generate(image, Generation("nucleus", max_length=12), generator=torch.Generator().manual_seed(0))
    scores = method.caption_likelihood(image, texts.ids, texts.mask)
    torch.testing.assert_close(texts.scores, scores.logp.sum(1), rtol=1e-4, atol=1e-4)
    assert bool((texts.ids[:, 0] == method.config.start_decode).all())
    greedy = method.generate(image, Generation(max_length=12))
    best = method.caption_likelihood(image, greedy.ids, greedy.mask).best
    assert torch.equal(best[:, 1:][greedy.mask[:, 1:]], greedy.ids[:, 1:][greedy.mask[:, 1:]])


def test_attention_maps_are_those_of_the_match_and_can_be_differentiated() -> None:
    method, batch = build().eval(), toy_batch(4)
    image, text = method.encode_image(batch.images), method.encode_text(batch.text, batch.text_mask)
    odds, maps = method.match_with_maps(image, text)
    torch.testing.assert_close(odds, method.match(image, text), rtol=1e-4, atol=1e-5)
    assert len(maps) == 2 and maps[0].shape == (4, 2, batch.text.shape[1], 17)
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(odds.sum(), maps))


def test_abilities_and_those_that_are_hidden() -> None:
    able = {
        "encode_image",
        "encode_text",
        "compare",
        "match",
        "match_with_maps",
        "fuse",
        "caption_likelihood",
        "generate",
    }
    assert set(abilities_of(build())) == able
    assert set(abilities_of(build(replace(SMALL, lacks=("generate",))))) == able - {"generate"}


def test_chance_values() -> None:
    losses, batch = build()(toy_batch(), World(), Step()), toy_batch()
    assert losses.terms["itc"].chance == pytest.approx(math.log(16))
    counts = torch.bincount(
        batch.text[:, 1:][batch.text_mask[:, 1:]], minlength=build().config.text.vocabulary
    ).double()
    q = 0.9 * counts / counts.sum() + 0.1 / len(counts)
    assert losses.terms["lm"].chance == pytest.approx(float(-(q * q.log()).sum()), rel=1e-6)
