"""BEiT-3: its size, masked prediction in thirds, captions by masked decoding, and what must not be seen."""

from dataclasses import replace

import pytest
import torch
from multiway_batches import INFO, toy_batch

from multiway.abilities import abilities_of
from multiway.config import from_json, to_json
from multiway.data.masking import Masking
from multiway.data.patch_masking import PatchMasking
from multiway.methods.beit3 import Beit3, Beit3Config
from multiway.methods.method import Step
from multiway.nn.generate import Generation
from multiway.nn.multiway import MultiwayConfig
from multiway.nn.visual_tokeniser import VisualTokeniserConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

SMALL = Beit3Config(
    blocks=MultiwayConfig(width=32, layers=3, heads=2, fusion_layers=1, key_bias=True),
    size=16,
    patch=4,
    stem="patch",
    tokeniser=VisualTokeniserConfig(VisionConfig(size=16, patch=4, width=16, layers=1, heads=2), codes=7, code_width=6),
)
RELEASED = replace(SMALL, blocks=MultiwayConfig(32, 3, 2, attention="decoupled", key_bias=True, sub_norm=True))
BOTH = pytest.mark.parametrize("config", [SMALL, RELEASED], ids=["paper", "released"])
MASK, END = INFO.special["mask"], INFO.special["eos"]


def build(config: Beit3Config = SMALL, seed: int = 0) -> Beit3:
    torch.manual_seed(seed)
    return Beit3(config.resolve(INFO))


def thirds(rows: int = 12):
    masking, patches = Masking(ratios=(0.0, 0.15, 0.5), least=1), PatchMasking(patch=4, least=1, ratios=(0.4, 0.0, 0.4))
    return toy_batch(rows, masking=masking, patches=patches)


def count(model: torch.nn.Module, *parts: str) -> int:
    return sum(p.numel() for n, p in model.named_parameters() if any(part in n for part in parts))


def test_parameters_of_the_papers_size() -> None:
    """Section 2.3 and table 2: 692 M for either modality's experts, 52 M for the pairs', 317 M of shared attention."""
    with torch.device("meta"):
        model = Beit3(replace(Beit3Config.preset("giant"), objective="itc"))
    width, hidden = 1408, 6144
    feed_forward = 2 * width * hidden + hidden + width
    assert count(model, "mlp.experts.vision") == count(model, "mlp.experts.language") == 40 * feed_forward
    assert count(model, "mlp.experts.fusion") == 3 * feed_forward
    assert count(model, ".projection.", ".out.") == 40 * (4 * width**2 + 4 * width)
    assert [round(part / 1e6) for part in (40 * feed_forward, 3 * feed_forward)] == [692, 52]
    assert round(count(model, ".projection.", ".out.") / 1e6) == 317
    # "1.9B" is these 1.75 B and the embeddings, 90 M of words among them.
    assert 1.75e9 < count(model, "blocks") < 1.76e9 and 1.84e9 < count(model, "") < 1.9e9


def test_presets_survive_json_and_unknown_ones_are_named() -> None:
    for name in ("tiny", "base", "large", "giant"):
        config = Beit3Config.preset(name)
        assert from_json(Beit3Config, to_json(config)) == config
    with pytest.raises(KeyError, match="tiny, base, large, giant"):
        Beit3Config.preset("huge")
    with pytest.raises(ValueError, match="--codes RUN"):
        build(replace(SMALL, tokeniser=None))


def test_abilities_follow_the_objective() -> None:
    own = {
        "mdm": {"encode_image", "encode_text", "fuse", "fill_mask"},
        "itc": {"encode_image", "encode_text", "compare"},
        "caption": {"encode_image", "caption_likelihood", "generate"},
    }
    for objective, abilities in own.items():
        assert set(abilities_of(build(replace(SMALL, objective=objective)))) == abilities


@BOTH
def test_a_third_each_of_pictures_texts_and_pairs(config: Beit3Config) -> None:
    """The four terms, computed apart and slowly."""
    model, batch = build(config).eval(), thirds()
    losses = model(batch, World(), Step())
    assert list(losses.terms) == ["image", "text", "pair_image", "pair_text"]
    assert batch.patch_mask.sum(1).tolist() == [6] * 4 + [0] * 4 + [6] * 4
    assert not batch.masked[:4].any() and batch.masked[4:].any(1).all()
    codes = model.tokeniser.tokenise(batch.images)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in losses.terms}
    for i in range(12):
        one, mask = slice(i, i + 1), batch.text_mask[i : i + 1]
        length = int(mask.sum())
        ids, at = batch.masked_text[one, :length], batch.masked[i, :length]
        hidden = batch.patch_mask[one]
        if i < 4:
            patches, words = model._image(model.pictures(batch.images[one], hidden)), None
        elif i < 8:
            patches, words = None, model._text(ids, mask[:, :length])
        else:
            patches, words = model._both_ways(model.pictures(batch.images[one], hidden), ids, mask[:, :length])
        if patches is not None:
            logp = model.code_head(patches[0, 1:]).log_softmax(-1)
            found["image" if i < 4 else "pair_image"] += [-logp[p, codes[i, p]] for p in hidden[0].nonzero().flatten()]
        if words is not None:
            logp = model._guess(words[0]).log_softmax(-1)
            found["text" if i < 8 else "pair_text"] += [-logp[p, batch.text[i, p]] for p in at.nonzero().flatten()]
    for name, each in found.items():
        torch.testing.assert_close(losses.terms[name].value, torch.stack(each).mean(), rtol=1e-4, atol=1e-5)


@BOTH
@torch.no_grad()
def test_what_is_masked_is_not_seen(config: Beit3Config) -> None:
    """Other pixels under hidden patches, other words under masks, junk in the padding: nothing changes, to the bit."""
    model, batch = build(config).eval(), thirds()
    both = slice(8, 12)
    hidden, mask = batch.patch_mask[both], batch.text_mask[both]
    ids = batch.text[both].masked_fill(batch.masked[both], MASK)
    before = model._both_ways(model.pictures(batch.images[both], hidden), ids, mask)
    pixels = hidden.view(4, 1, 4, 1, 4, 1).expand(-1, 3, -1, 4, -1, 4).reshape(4, 3, 16, 16)
    other = torch.where(pixels, torch.randn(4, 3, 16, 16), batch.images[both])
    after = model._both_ways(model.pictures(other, hidden), torch.where(mask, ids, 9), mask)
    assert torch.equal(after[0], before[0]) and torch.equal(after[1][mask], before[1][mask])


@BOTH
@torch.no_grad()
def test_pictures_do_not_see_captions_and_words_not_what_follows(config: Beit3Config) -> None:
    model, batch = build(replace(config, objective="caption")).eval(), toy_batch()
    image, ids = model.pictures(batch.images), batch.text
    before = model._read(image, ids)
    for place in range(1, ids.shape[1]):
        changed = ids.clone()
        changed[:, place:] = 11
        after = model._read(image, changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.equal(after[:, place], before[:, place])
    # The picture's own tokens: whatever the caption, the first word's state, which sees the picture alone, stays.
    assert torch.equal(model._read(image, ids[:, :1])[:, 0], model._read(image, ids)[:, 0]) or torch.allclose(
        model._read(image, ids[:, :1])[:, 0], before[:, 0], atol=1e-6
    )


@BOTH
@torch.no_grad()
def test_all_words_at_once_are_guessed_as_one_by_one(config: Beit3Config) -> None:
    """The probes give what appending [MASK] to each beginning of the caption gives."""
    model, batch = build(replace(config, objective="caption")).eval(), toy_batch()
    image = model.encode_image(batch.images)
    scores = model.caption_likelihood(image, batch.text, batch.text_mask)
    for place in range(1, batch.text.shape[1]):
        asked = torch.nn.functional.pad(batch.text[:, :place], (0, 1), value=MASK)
        logp = model._guess(model._read(image.tokens, asked)[:, -1]).log_softmax(-1)
        real = batch.text_mask[:, place]
        wanted = logp.gather(1, batch.text[:, place : place + 1])[:, 0]
        torch.testing.assert_close(scores.logp[real, place], wanted[real], rtol=1e-4, atol=1e-5)
        assert not scores.logp[~real, place].any()
    assert not scores.logp[:, 0].any()


@torch.no_grad()
def test_greedy_texts_append_masks() -> None:
    model, batch = build(replace(SMALL, objective="caption")).eval(), toy_batch(4)
    image = model.encode_image(batch.images)
    texts = model.generate(image, Generation(strategy="greedy", max_length=9))
    for row in range(4):
        ids = [INFO.special["bos"]]
        while len(ids) < 9 and ids[-1] != END:
            asked = torch.tensor([[*ids, MASK]])
            ids.append(int(model._guess(model._read(image.tokens[row : row + 1], asked)[:, -1]).argmax()))
        assert texts.ids[row, : len(ids)].tolist() == ids


def test_captioning_learns_where_texts_end() -> None:
    """The end is always among what is guessed, masked or not, and never shown."""
    model, batch = build(replace(SMALL, objective="caption")), toy_batch()
    seen = []
    model._guess = lambda tokens: (
        seen.append(len(tokens)) or torch.zeros(len(tokens), INFO.vocabulary, requires_grad=True)
    )
    model(batch, World(), Step())
    assert seen == [int((batch.masked | (batch.text == END)).sum())] and int((batch.text == END).sum()) == 12


def test_retrieval_tuning_is_a_dual_encoder() -> None:
    model, batch = build(replace(SMALL, objective="itc")).eval(), toy_batch()
    losses = model(batch, World(), Step())
    assert list(losses.terms) == ["itc"]
    image, text = model.encode_image(batch.images), model.encode_text(batch.text, batch.text_mask)
    batch.image_id, batch.text_id = torch.arange(12), torch.arange(50, 62)
    scores = model.log_scale.exp() * image.embedding @ text.embedding.T
    slow = sum(torch.nn.functional.cross_entropy(each, torch.arange(12)) for each in (scores, scores.T)) / 2
    torch.testing.assert_close(model(batch, World(), Step()).terms["itc"].value, slow, rtol=1e-5, atol=1e-6)


def test_a_step_mutates_nothing_and_the_tokeniser_is_never_trained() -> None:
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(thirds(), World(), Step()).total.backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("tokeniser."), name


def test_batches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        build()(thirds(12).rows(0, 2), World(), Step())
    unmasked = thirds()
    unmasked.patch_mask = None
    with pytest.raises(ValueError, match=r"patches\.ratios"):
        build()(unmasked, World(), Step())
