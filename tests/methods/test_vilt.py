"""ViLT: its size, its step against a slow twin, and what must not be seen. (Numbers against transformers: tests/hub.)"""

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
from multiway.data.masking import Masking
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.losses.wpa import cosine_cost, ipot
from multiway.methods.method import Step
from multiway.methods.vilt import Vilt, ViltConfig
from multiway.world import World

HALF = (0.5, 0.5, 0.5)
SMALL = ViltConfig(size=16, patch=4, width=32, layers=2, heads=2, mean=HALF)
STEP = Step(index=10, progress=0.5)


def words_of(rows: int) -> Tokenizer:
    source = ToySource(rows)
    return Tokenizer.train([c for i in range(rows) for c in source.row(i).captions], TokenizerSpec(300, 16))


def toy_batch(rows: int = 16, number: int = 0) -> Batch:
    view = ViewSpec(size=16, mean=HALF, std=HALF)
    loader = Loader(ToySource(32), view, words_of(32), rows, masking=Masking(0.3, least=1))
    return finish(loader.batch(number), view)


def build(config: ViltConfig = SMALL) -> Vilt:
    torch.manual_seed(0)
    return Vilt(config.resolve(DataInfo(vocabulary=len(words_of(32)), context=16)))


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_parameters_of_the_papers_size() -> None:
    """87.4 M, as published, are what the blocks, the patch projection, the modalities, the class token and the last norm come
    to: ViT-B/32 without its positions, and without the text's embedding, which earlier models had too, and the heads."""
    with torch.device("meta"):
        method = Vilt(ViltConfig.preset("base"))
    width, hidden, words = 768, 3072, 30522
    block = 4 * (width**2 + width) + 2 * 2 * width + (width * hidden + hidden) + (hidden * width + width)
    patches = 3 * 32**2 * width + width
    core = 12 * block + patches + 2 * width + width + 2 * width
    assert round(core / 1e6, 1) == 87.4
    positions = (1 + 12**2) * width
    text = (words + 40 + 2) * width + 2 * width
    pooler, matching = width**2 + width, 2 * width + 2
    guessing = (width**2 + width) + 2 * width + words  # its matrix is the word embedding's
    derived = core + positions + text + pooler + matching + guessing
    assert sum(p.numel() for p in method.parameters()) == derived
    assert round(derived / 1e6, 1) == 112.2
    untied = replace(ViltConfig.preset("base"), tied_words=False)
    with torch.device("meta"):
        assert sum(p.numel() for p in Vilt(untied).parameters()) == derived + words * width


def test_presets_survive_json_and_unknown_ones_are_named() -> None:
    for name in ("tiny", "base"):
        config = ViltConfig.preset(name)
        assert from_json(ViltConfig, to_json(config)) == config
    with pytest.raises(KeyError, match="base"):
        ViltConfig.preset("huge")
    with pytest.raises(ValueError, match="resolve"):
        Vilt(SMALL)
    with pytest.raises(ValueError, match="patch 5"):
        build(replace(SMALL, patch=5))


# --- the step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_the_step_is_the_papers_formulas(stem) -> None:
    """Every term again, slowly: one row at a time, from pixels and ids, without padding."""
    method = randomise(build(replace(SMALL, stem=stem, mpp=0.5)))
    assert isinstance(method, Vilt)
    batch = toy_batch()
    torch.manual_seed(5)
    reps = method.encode(batch, STEP)
    with torch.no_grad():
        pairs = method.mine(reps, batch, World(), STEP)
    losses = method.losses(reps, pairs, batch, World(), STEP)

    def fused(ids: torch.Tensor, image: int) -> torch.Tensor:
        text = method.encode_text(ids[None], torch.ones(1, len(ids), dtype=torch.bool))
        return method._fuse(text.tokens, None, method.encode_image(batch.images[image : image + 1]).tokens)[0]

    matching, moved, guessed = [], [], []
    for row in range(16):
        length = int(batch.text_mask[row].sum())
        ids, yes = batch.text[row, :length], bool(pairs["matched"][row])
        tokens = fused(ids, int(pairs["image_of_text"][row]))
        logits = method.match_head(torch.tanh(method.pooler(tokens[:1])))[0]
        matching.append(-logits.log_softmax(0)[int(yes)])
        words, patches = tokens[None, 1 : length - 1], tokens[None, length + 1 :]
        every = torch.ones(words.shape[:2], dtype=torch.bool), torch.ones(patches.shape[:2], dtype=torch.bool)
        cost = cosine_cost(words, patches, *every)
        moved.append((1 if yes else -1) * (ipot(cost, *every) * cost).sum())
        shown = fused(batch.masked_text[row, :length], row)
        for place in batch.masked[row].nonzero().flatten().tolist():
            scores = method.word_head(shown[place : place + 1], method.text.words.weight)[0]
            guessed.append(-scores.log_softmax(0)[batch.text[row, place]])
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(losses.terms["itm"].value, torch.stack(matching).mean(), **close)
    torch.testing.assert_close(losses.terms["wpa"].value, torch.stack(moved).mean(), **close)
    torch.testing.assert_close(losses.terms["mlm"].value, torch.stack(guessed).mean(), **close)

    asked, coloured = reps["asked"], []
    for row in range(16):
        length = int(batch.text_mask[row].sum())
        text = reps["text"][row : row + 1, :length]
        patches = method._fuse(text, None, reps["holes"][row : row + 1])[0, length + 1 :]
        for place in asked[row].nonzero().flatten().tolist():
            pixels = batch.images[row, :, place // 4 * 4 : place // 4 * 4 + 4, place % 4 * 4 : place % 4 * 4 + 4]
            colour = ((pixels * 0.5 + 0.5).mean((1, 2)) * 255 + 1e-3).long()
            scores = method.colour_head(patches[place]).view(3, 256).log_softmax(1)
            coloured += [-scores[channel, colour[channel]] for channel in range(3)]
    torch.testing.assert_close(losses.terms["mpp"].value, torch.stack(coloured).mean(), **close)
    weights = {name: term.weight for name, term in losses.terms.items()}
    assert weights == {"itm": 1.0, "mlm": 1.0, "wpa": 0.1, "mpp": 0.5}


def test_chance_values_and_switches() -> None:
    losses = build()(toy_batch(), World(), STEP)
    assert set(losses.terms) == {"itm", "mlm", "wpa"}
    assert losses.terms["itm"].chance == pytest.approx(math.log(2)) and losses.terms["itm"].formula == "H(1/2)"
    assert losses.terms["wpa"].chance == 0.0
    assert set(build(replace(SMALL, wpa=0.0))(toy_batch(), World(), STEP).terms) == {"itm", "mlm"}
    assert set(build(replace(SMALL, words=False))(toy_batch(), World(), STEP).terms) == {"itm", "wpa"}
    assert set(build(replace(SMALL, matching=False))(toy_batch(), World(), STEP).terms) == {"mlm"}
    with pytest.raises(ValueError, match="no head to train"):
        build(replace(SMALL, matching=False, words=False))(toy_batch(), World(), STEP)
    with pytest.raises(ValueError, match=r"masking\.ratio"):
        build()(replace(toy_batch(), masked_text=None), World(), STEP)


def test_without_alignment_the_last_block_is_spared_and_matching_is_the_same() -> None:
    method = build().eval()
    batch = toy_batch()
    values = []
    for config in (SMALL, replace(SMALL, wpa=0.0)):
        method.config = config
        torch.manual_seed(1)
        values.append(method(batch, World(), STEP).terms["itm"].value)
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)


def test_a_step_mutates_nothing_and_every_parameter_learns() -> None:
    method = build(replace(SMALL, mpp=1.0))
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    method(toy_batch(), World(), STEP).total.backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_pictures_are_projected_once_and_the_vocabulary_only_where_words_are_hidden(monkeypatch) -> None:
    method = build(replace(SMALL, mpp=1.0))
    batch = toy_batch()
    seen: list[tuple[str, int]] = []
    for name in ("patches", "word_head", "colour_head"):
        real = getattr(method, name).forward
        monkeypatch.setattr(
            getattr(method, name),
            "forward",
            lambda x, *a, name=name, real=real: seen.append((name, len(x))) or real(x, *a),
        )
    method(batch, World(), STEP)
    counts = dict(seen)
    assert len(seen) == 3
    assert counts["patches"] == 16 and counts["word_head"] == int(batch.masked.sum()) < batch.text.numel() / 2
    assert 0 < counts["colour_head"] < 16 * 16 / 2


def test_kept_patches_are_a_random_part_with_their_own_positions() -> None:
    method = build(replace(SMALL, keep=5, mpp=1.0))
    batch = toy_batch()
    torch.manual_seed(2)
    reps = method.encode(batch, STEP)
    assert reps["image"].shape == (16, 6, 32) and reps["asked"].shape == (16, 5)
    whole = method.encode_image(batch.images).tokens
    found = (reps["image"][:, :, None] - whole[:, None]).abs().amax(3) < 1e-6
    assert found.any(2).all(), "every kept token is one of the picture's"
    picked = found.int().argmax(2)
    assert (picked[:, 0] == 0).all() and (picked.diff(dim=1) > 0).all()
    assert not torch.equal(picked[0], picked[1])
    method(batch, World(), STEP).total.backward()


# --- what must not be seen -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_masked_positions_know_nothing_of_the_words_masked() -> None:
    method = build().eval()
    batch = toy_batch()
    batch = replace(batch, masked_text=torch.where(batch.masked, torch.tensor(1), batch.text))  # every one as [MASK]
    other = replace(batch, text=torch.where(batch.masked, (batch.text + 7) % 40 + 4, batch.text))
    first, second = (method.encode(each, STEP) for each in (batch, other))
    assert torch.equal(first["masked"], second["masked"]) and not torch.equal(first["text"], second["text"])
    fused = [method._fuse(each["masked"], batch.text_mask, each["image"]) for each in (first, second)]
    assert torch.equal(*fused)


@torch.no_grad()
def test_padding_changes_nothing_to_the_bit() -> None:
    """Neither what the padding holds, in any loss, nor in matching, nor in guesses."""
    method = build(replace(SMALL, mpp=1.0)).eval()
    batch = toy_batch()
    filled = {name: torch.where(batch.text_mask, getattr(batch, name), 9) for name in ("text", "masked_text")}
    other = replace(batch, **filled)
    assert not torch.equal(other.text, batch.text)
    values = []
    for each in (batch, other):
        torch.manual_seed(3)
        values.append({name: term.value for name, term in method(each, World(), STEP).terms.items()})
    for name, value in values[0].items():
        assert torch.equal(value, values[1][name]), name
    image = method.encode_image(batch.images)
    odds = [method.match(image, method.encode_text(each.text, each.text_mask)) for each in (batch, other)]
    assert torch.equal(*odds)
    guesses = [method.fill_mask(image, each.masked_text, each.text_mask, each.masked) for each in (batch, other)]
    assert torch.equal(*guesses)


@torch.no_grad()
def test_hidden_patches_are_not_seen() -> None:
    """Other pixels under the hole: the same tokens, but for the fifth of those asked about that stays visible."""
    method = build(replace(SMALL, mpp=1.0, hidden=0.5)).eval()
    batch = toy_batch()
    torch.manual_seed(4)
    first = method.encode(batch, STEP)
    torch.manual_seed(4)
    second = method.encode(replace(batch, images=-batch.images), STEP)
    same = (first["holes"][:, 1:] == second["holes"][:, 1:]).all(2)
    assert same[~first["asked"]].sum() == 0
    assert 0.6 < same[first["asked"]].float().mean() < 0.95


@torch.no_grad()
def test_guesses_and_matches_depend_on_the_picture_and_guesses_can_do_without() -> None:
    method = randomise(build())
    assert isinstance(method, Vilt)
    batch = toy_batch()
    image, negative = method.encode_image(batch.images), method.encode_image(-batch.images)
    asked = batch.masked_text, batch.text_mask, batch.masked
    seen, changed, blind = (method.fill_mask(each, *asked) for each in (image, negative, None))
    assert seen.shape == blind.shape == (int(batch.masked.sum()), method.config.vocabulary)
    assert not torch.allclose(seen, changed) and not torch.allclose(seen, blind)
    text = method.encode_text(batch.text, batch.text_mask)
    assert not torch.allclose(method.match(image, text), method.match(negative, text))


def test_attention_maps_are_those_of_the_match_and_can_be_differentiated() -> None:
    method = randomise(build())
    assert isinstance(method, Vilt)
    batch = toy_batch(4)
    image, text = method.encode_image(batch.images), method.encode_text(batch.text, batch.text_mask)
    odds, maps = method.match_with_maps(image, text)
    torch.testing.assert_close(odds, method.match(image, text), rtol=1e-4, atol=1e-5)
    assert len(maps) == 2 and maps[0].shape == (4, 2, batch.text.shape[1], 17)
    assert all((each.sum(-1) > 0).all() and (each.sum(-1) < 1).all() for each in maps)
    for gradient in torch.autograd.grad(odds.sum(), maps):
        assert gradient.abs().sum() > 0


@torch.no_grad()
def test_modalities_tell_words_from_patches() -> None:
    """Exchanging the two rows changes the result; both sides carry their own."""
    method = randomise(build())
    assert isinstance(method, Vilt)
    batch = toy_batch(4)
    image, text = method.encode_image(batch.images), method.encode_text(batch.text, batch.text_mask)
    before = method.match(image, text)
    method.modalities.weight.copy_(method.modalities.weight.flip(0))
    after = method.match(method.encode_image(batch.images), method.encode_text(batch.text, batch.text_mask))
    assert (before - after).abs().min() > 1e-4


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    method = build().eval()
    batch = toy_batch()
    whole, part = method.encode(batch, STEP), method.encode(batch.rows(4, 8), STEP)
    for name, tensor in part.items():
        torch.testing.assert_close(tensor, whole[name][4:8], rtol=1e-5, atol=1e-6)


def test_abilities_follow_the_heads() -> None:
    assert set(abilities_of(build())) == {
        "encode_image",
        "encode_text",
        "match",
        "match_with_maps",
        "fuse",
        "fill_mask",
    }
    bare = build(replace(SMALL, matching=False))
    assert set(abilities_of(bare)) == {"encode_image", "encode_text", "fuse", "fill_mask"}
    batch = toy_batch(2)
    image, text = bare.encode_image(batch.images), bare.encode_text(batch.text, batch.text_mask)
    assert image.embedding.shape == text.embedding.shape == (2, 0)
    for ask, remedy in ((bare.match, "matching=True"), (bare.answer, r"config\.answers")):
        with pytest.raises(ValueError, match=remedy):
            ask(image, text)
