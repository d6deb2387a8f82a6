"""VLMo: its size, its modes, its stages, negatives across ranks, and what must not be seen."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from forked import spawn
from multiway_batches import INFO, laid_together, toy_batch

from multiway.abilities import abilities_of
from multiway.config import from_json, to_json
from multiway.engine.optim import build_optimiser
from multiway.methods.method import Step
from multiway.methods.vlmo import Vlmo, VlmoConfig
from multiway.nn.multiway import MultiwayConfig
from multiway.nn.visual_tokeniser import VisualTokeniserConfig
from multiway.nn.vit import VisionConfig
from multiway.recipes.vlmo import vlmo_stages
from multiway.world import World

SMALL = VlmoConfig(
    blocks=MultiwayConfig(width=32, layers=3, heads=2, fusion_layers=1), size=16, patch=4, stem="patch", embedding=20
)
LATE = Step(index=90, epoch=3, progress=0.9)
CODES = VisualTokeniserConfig(VisionConfig(size=16, patch=4, width=16, layers=1, heads=2), codes=7, code_width=6)


def build(config: VlmoConfig = SMALL, seed: int = 0) -> Vlmo:
    torch.manual_seed(seed)
    return Vlmo(config.resolve(INFO))


def test_parameters_of_the_papers_base() -> None:
    """The paper says 175 M; that counts the blocks with all experts, the words and the patches, and no heads."""
    with torch.device("meta"):
        model = Vlmo(VlmoConfig.preset("base"))

    def count(*beginnings: str) -> int:
        return sum(p.numel() for n, p in model.named_parameters() if n.startswith(beginnings))

    width, hidden = 768, 3072
    attention = 4 * width**2 + 3 * width  # no bias on keys
    feed_forward = 2 * width * hidden + hidden + width
    norms = 2 * width
    block = attention + norms + 2 * width + 2 * (feed_forward + norms)  # two layer scales, two experts
    assert count("blocks") == 12 * block + 2 * (feed_forward + norms) + norms
    assert count("words") == 30522 * width + 40 * width + norms
    assert count("pictures") == 16 * 16 * 3 * width + width + 2 * width
    # Displacements of 14 x 14 patches and of 39 words, three entries for either class token, two between the modalities.
    assert count("positions") == (27 * 27 + 3 + 77 + 3 + 2) * 12 * 12
    assert round(count("blocks", "words", "pictures", "types", "positions") / 1e6) == 175


def test_presets_survive_json_and_unknown_ones_are_named() -> None:
    for name in ("tiny", "base", "base-plus", "large"):
        config = VlmoConfig.preset(name)
        assert from_json(VlmoConfig, to_json(config)) == config
    with pytest.raises(KeyError, match="tiny, base, base-plus, large"):
        VlmoConfig.preset("huge")


def test_abilities() -> None:
    assert set(abilities_of(build())) == {
        "encode_image",
        "encode_text",
        "compare",
        "match",
        "match_with_maps",
        "fuse",
        "fill_mask",
    }


@pytest.mark.parametrize(
    "blocks", [SMALL.blocks, replace(SMALL.blocks, fusion_layers=0), replace(SMALL.blocks, experts=("shared",))]
)
def test_attention_maps_are_those_of_the_match_and_can_be_differentiated(blocks: MultiwayConfig) -> None:
    model, batch = build(replace(SMALL, blocks=blocks)).eval(), toy_batch()
    image, text = model.encode_image(batch.images), model.encode_text(batch.text, batch.text_mask)
    odds, maps = model.match_with_maps(image, text)
    torch.testing.assert_close(odds, model.match(image, text), rtol=1e-4, atol=1e-5)
    rows, length = batch.text.shape
    assert len(maps) == 3 and all(each.shape == (rows, 2, length, 17) for each in maps)
    assert all((each.sum(-1) > 0).all() and (each.sum(-1) < 1).all() for each in maps)
    gradients = torch.autograd.grad(odds.sum(), maps)
    assert all(each[:, :, 0].abs().sum() > 0 for each in gradients)
    assert gradients[-1][:, :, 1:].abs().sum() == 0  # above the last layer the class token alone is read


@torch.no_grad()
def test_matching_and_embeddings_ignore_padding_and_neighbours() -> None:
    model, batch = build().eval(), toy_batch()
    image, text = model.encode_image(batch.images), model.encode_text(batch.text, batch.text_mask)
    odds = model.match(image, text)
    junk = torch.where(batch.text_mask, batch.text, 5)
    padded = torch.nn.functional.pad(junk, (0, 3), value=7)
    mask = torch.nn.functional.pad(batch.text_mask, (0, 3))
    again = model.encode_text(padded, mask)
    assert not torch.equal(junk, batch.text)
    torch.testing.assert_close(again.embedding, text.embedding, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.match(image, again), odds, rtol=0, atol=1e-6)
    # Without a change of length the rounding is the same too: to the bit.
    same = model.encode_text(junk, batch.text_mask)
    assert torch.equal(same.embedding, text.embedding) and torch.equal(model.match(image, same), odds)


@torch.no_grad()
def test_each_modality_has_its_own_experts_and_pairs_have_theirs() -> None:
    """Change one expert: only what is routed through it changes, all else to the bit."""
    batch = toy_batch()

    def outputs(model: Vlmo) -> dict[str, torch.Tensor]:
        reps = model.eval().encode(batch, LATE)
        pair = model._match(reps["text_tokens"], batch.text_mask, reps["image_tokens"])
        return {n: reps[n] for n in ("image_own", "image_fusion", "text_own", "text_fusion")} | {"pair": pair}

    before = outputs(build())
    changed = {
        "vision": {"image_own", "image_fusion", "pair"},
        "language": {"text_own", "text_fusion", "pair"},
        "fusion": {"image_fusion", "text_fusion", "pair"},
    }
    for expert, expected in changed.items():
        model = build()
        for name, parameter in model.named_parameters():
            if f"mlp.experts.{expert}" in name:
                parameter.add_(torch.randn_like(parameter))
        after = outputs(model)
        assert {name for name in before if not torch.equal(before[name], after[name])} == expected, expert


@torch.no_grad()
def test_masked_positions_know_nothing_of_the_words_masked() -> None:
    model, batch = build().eval(), toy_batch(rows=24)
    image = model.encode_image(batch.images)
    hidden = batch.text.masked_fill(batch.masked, INFO.special["mask"])
    logits = model.fill_mask(image, hidden, batch.text_mask, batch.masked)
    other = torch.where(batch.masked, (batch.text + 9) % 90 + 10, batch.text).masked_fill(
        batch.masked, INFO.special["mask"]
    )
    assert torch.equal(model.fill_mask(image, other, batch.text_mask, batch.masked), logits)
    assert not torch.allclose(model.fill_mask(None, hidden, batch.text_mask, batch.masked), logits)


def test_the_step_is_the_papers_formulas() -> None:
    """Contrast twice, matching of three rows per pair, masked words: a slow twin, one pair at a time."""
    model, batch = build().eval(), toy_batch()
    reps = model.encode(batch, LATE)
    torch.manual_seed(4)
    pairs = model.mine(reps, batch, World(), LATE)
    losses = model.losses(reps, pairs, batch, World(), LATE)
    rows = range(len(batch))

    def row(i: int) -> tuple[torch.Tensor, torch.Tensor]:
        length = int(batch.text_mask[i].sum())
        return batch.text[i : i + 1, :length], batch.text_mask[i : i + 1, :length]

    same = [
        [bool(batch.image_id[i] == batch.image_id[j] or batch.text_id[i] == batch.text_id[j]) for j in rows]
        for i in rows
    ]
    nll = []
    for i in rows:
        for words, image in ((i, i), (int(pairs["text_of_image"][i]), i), (i, int(pairs["image_of_text"][i]))):
            ids, mask = row(words)
            logits = model._match(model.embed_text(ids), mask, model.embed_image(batch.images[image : image + 1]))
            truth = int(words == image)
            assert truth or not same[image][words]
            nll.append(-logits.log_softmax(1)[0, truth])
    torch.testing.assert_close(losses.terms["itm"].value, torch.stack(nll).mean(), rtol=1e-4, atol=1e-5)

    for kind in ("own", "fusion"):
        scores = model.log_scale[kind].exp() * reps[f"image_{kind}"] @ reps[f"text_{kind}"].T
        assert scores.shape == (12, 12)
    assert float(losses.total) == pytest.approx(sum(t.weight * t.value.item() for t in losses.terms.values()), rel=1e-5)


def test_without_a_shared_picture_the_contrast_is_cross_entropy_twice() -> None:
    model, batch = build().eval(), toy_batch()
    batch.image_id, batch.text_id = torch.arange(12), torch.arange(100, 112)
    reps = model.encode(batch, LATE)
    losses = model.losses(reps, model.mine(reps, batch, World(), LATE), batch, World(), LATE)
    slow = []
    for kind in ("own", "fusion"):
        scores = model.log_scale[kind].exp() * reps[f"image_{kind}"] @ reps[f"text_{kind}"].T
        slow += [torch.nn.functional.cross_entropy(each, torch.arange(12)) for each in (scores, scores.T)]
    torch.testing.assert_close(losses.terms["itc"].value, torch.stack(slow).mean(), rtol=1e-5, atol=1e-6)


def test_a_step_mutates_nothing_and_trains_everything() -> None:
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(toy_batch(), World(), LATE).total.backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert idle == {"pictures.mask_token"}


def test_a_shared_expert_is_for_all() -> None:
    config = replace(SMALL, blocks=MultiwayConfig(width=32, layers=3, heads=2, experts=("shared",)))
    model = build(config)
    losses = model(toy_batch(), World(), LATE)
    losses.total.backward()
    assert torch.isfinite(losses.total) and not any("vision" in name for name in model.state_dict())


# --- stages ----------------------------------------------------------------------------------------------------------


def test_the_second_stage_leaves_attention_and_the_first_ones_experts_alone() -> None:
    recipe = replace(vlmo_stages(), codes="codes", out="runs/x")
    stages = dict(recipe.stages())
    assert list(stages) == ["1-vision", "2-language", "3-pairs"]
    swapped = replace(recipe, order=("language", "vision", "pairs"), frozen=("vision",))
    assert [name for name, _ in swapped.stages()] == ["1-language", "2-vision", "3-pairs"]
    assert stages["2-language"].init.endswith("1-vision") and stages["3-pairs"].init.endswith("2-language")
    model = build(replace(SMALL, stage="language"))
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimiser = build_optimiser(
        model, stages["2-language"].settings.optimiser, stages["2-language"].settings.optimiser.rules
    )
    for group in optimiser.param_groups:
        group["lr"] = 0.1
    model(toy_batch(), World(), LATE).total.backward()
    optimiser.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert not [name for name in moved if "projection" in name or "attention_norm" in name or ".out." in name]
    assert not [name for name in moved if "vision" in name or "fusion" in name or name.startswith("pictures")]
    assert any("mlp.experts.language" in name for name in moved) and "words.words.weight" in moved
    assert any(name.startswith("word_head") for name in moved) and "positions.table" in moved


def test_the_first_stage_guesses_codes_of_hidden_patches() -> None:
    model = build(replace(SMALL, stage="vision", tokeniser=CODES)).eval()
    batch = toy_batch()
    losses = model(batch, World(), LATE)
    assert list(losses.terms) == ["mim"]
    # Hidden patches are not seen: other pixels there change nothing, to the bit.
    hidden = batch.patch_mask.view(12, 1, 4, 1, 4, 1).expand(-1, 3, -1, 4, -1, 4).reshape(12, 3, 16, 16)
    other = torch.where(hidden, torch.randn_like(batch.images), batch.images)
    bias = model.positions.image()
    outputs = [
        model.blocks(model.embed_image(images, batch.patch_mask), (("vision", 17),), bias=bias)
        for images in (batch.images, other)
    ]
    assert torch.equal(*outputs)
    with pytest.raises(ValueError, match="--codes RUN"):
        build(replace(SMALL, stage="vision"))
    with pytest.raises(ValueError, match="must agree"):
        build(replace(SMALL, stage="vision", patch=8, tokeniser=CODES))


# --- one rank against two --------------------------------------------------------------------------------------------


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model, world, batch = build().eval(), World(rank, 2), toy_batch(12, 0, rank, 2)
    reps = model.encode(batch, LATE)
    drawn = [model.mine(reps, batch, world, LATE) for _ in range(200)]
    # The same wrong partners as the one rank below: each row's neighbour among all rows.
    own = rank + 2 * torch.arange(6)
    pairs = {"text_of_image": (own + 5) % 12, "image_of_text": (own + 7) % 12, "found": torch.ones(6, dtype=torch.bool)}
    losses = model.losses(reps, pairs, batch, world, LATE)
    (losses.terms["itc"].value + losses.terms["itm"].value).backward()
    values = {name: losses.terms[name].value.detach() for name in ("itc", "itm")}
    gradient = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    found = torch.stack([each["text_of_image"] for each in drawn])
    torch.save({"values": values, "gradient": gradient, "drawn": found}, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_contrast_and_match_as_one(tmp_path) -> None:
    """Negatives come from either rank, and the gradient is that of the whole batch."""
    spawn(_rank, (str(tmp_path),), nprocs=2)
    two = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for rank, each in enumerate(two):
        elsewhere = each["drawn"] % 2 != rank
        assert elsewhere.any() and not elsewhere.all()
    parts = [toy_batch(12, 0, rank, 2) for rank in range(2)]
    batch = laid_together(parts)
    model = build().eval()
    reps = model.encode(batch, LATE)
    pairs = {
        "text_of_image": (torch.arange(12) + 5) % 12,
        "image_of_text": (torch.arange(12) + 7) % 12,
        "found": torch.ones(12, dtype=torch.bool),
    }
    losses = model.losses(reps, pairs, batch, World(), LATE)
    (losses.terms["itc"].value + losses.terms["itm"].value).backward()
    for name in ("itc", "itm"):
        averaged = (two[0]["values"][name] + two[1]["values"][name]) / 2
        torch.testing.assert_close(averaged, losses.terms[name].value.detach(), rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            averaged = (two[0]["gradient"][name] + two[1]["gradient"][name]) / 2
            torch.testing.assert_close(averaged, parameter.grad, rtol=1e-3, atol=2e-6)
