"""ALBEF: its size, its halves against peers, its schedules, and what must not be seen."""

import math
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from forked import spawn
from peer_weights import copy, copy_bert_block, randomise
from toy import ToySource
from transformers import BertConfig, BertModel

from multiway.abilities import abilities_of
from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.config import from_json, to_json
from multiway.data.augment import finish
from multiway.data.loader import Loader
from multiway.data.masking import Masking
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.method import Step
from multiway.nn.text import TextConfig
from multiway.nn.transformer import Transformer
from multiway.nn.twin import gap
from multiway.nn.vit import VisionConfig
from multiway.world import World

SMALL = AlbefConfig(
    image=VisionConfig(size=16, patch=4, width=24, layers=2, heads=2),
    text=TextConfig(width=32, layers=1, heads=2, causal=False, pool="class"),
    fusion_layers=2,
    embedding=20,
    queue=24,
    momentum=0.9,
)
LATE = Step(index=90, epoch=3, progress=0.9)


def words_of(rows: int) -> Tokenizer:
    source = ToySource(rows)
    return Tokenizer.train([c for i in range(rows) for c in source.row(i).captions], TokenizerSpec(300, 16))


def toy_batch(rows: int = 16, number: int = 0, rank: int = 0, world: int = 1) -> Batch:
    source = ToySource(32)
    view = ViewSpec(size=16)
    loader = Loader(source, view, words_of(32), rows, rank=rank, world=world, masking=Masking(0.3, least=1))
    return finish(loader.batch(number), view)


def build(config: AlbefConfig = SMALL, seed: int = 0) -> Albef:
    torch.manual_seed(seed)
    return Albef(config.resolve(DataInfo(vocabulary=len(words_of(32)), context=16)))


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_parameters_of_the_papers_size() -> None:
    """209.9 M without the twin, derived part by part."""
    with torch.device("meta"):
        method = Albef(AlbefConfig.preset("base"))
    width, hidden, words = 768, 3072, 30522
    attention = 4 * (width**2 + width)
    block = attention + 2 * 2 * width + (width * hidden + hidden) + (hidden * width + width)
    vit = (3 * 16**2 * width + width) + width + (1 + 16**2) * width + 12 * block + 2 * width
    embedding = (words + 512 + 2) * width + 2 * width
    crossing = attention + 2 * width
    head = (width**2 + width) + 2 * width + words  # its matrix is the word embedding's
    projections = 2 * (width * 256 + 256)
    derived = vit + embedding + 12 * block + 6 * crossing + head + projections + (2 * width + 2) + 1
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    assert trained == derived
    assert round(trained / 1e6, 1) == 209.9
    assert sum(p.numel() for p in method.twin.parameters()) == derived - (2 * width + 2) - 1
    assert method.queue.image.shape == (65_536, 256)


def test_presets_survive_json_and_unknown_ones_are_named() -> None:
    for name in ("tiny", "base"):
        config = AlbefConfig.preset(name)
        assert from_json(AlbefConfig, to_json(config)) == config
    with pytest.raises(KeyError, match="base"):
        AlbefConfig.preset("huge")
    with pytest.raises(ValueError, match="resolve"):
        Albef(SMALL)


# --- the halves of BERT against transformers (the ViT: tests/nn/test_vit.py) ------------------------------------------


@torch.no_grad()
def test_lower_and_upper_half_are_one_bert() -> None:
    """Layers 0-1 of a BertModel alone, then layers 2-3 with cross-attention over a picture's tokens."""
    sizes = dict(vocab_size=50, hidden_size=32, num_attention_heads=2, intermediate_size=128, num_hidden_layers=4)
    config = BertConfig(
        **sizes, max_position_embeddings=16, is_decoder=True, add_cross_attention=True, attn_implementation="eager"
    )
    config.encoder_hidden_size = 24
    peer = BertModel(config, add_pooling_layer=False)
    for layer in peer.encoder.layer:
        layer.crossattention.self.key = torch.nn.Linear(24, 32)
        layer.crossattention.self.value = torch.nn.Linear(24, 32)
    randomise(peer)
    text = TextConfig(
        50, 16, 32, 2, 2, causal=False, pool="class", norm="post", epsilon=1e-12, types=2, embedding_norm=True
    )
    ours = Albef(replace(SMALL, text=text)).eval().student
    copy(ours.text.embed.words, peer.embeddings.word_embeddings)
    copy(ours.text.embed.types, peer.embeddings.token_type_embeddings)
    copy(ours.text.embed.norm[0], peer.embeddings.LayerNorm)
    ours.text.embed.positions.data.copy_(peer.embeddings.position_embeddings.weight)
    halves = [*ours.text.transformer.blocks, *ours.fusion.blocks]
    for our, their in zip(halves, peer.encoder.layer, strict=True):
        copy_bert_block(our, their)

    ids = torch.randint(4, 50, (3, 7))
    mask = torch.arange(7) < torch.tensor([[7], [5], [3]])
    picture = torch.randn(3, 5, 24)
    hidden = peer.embeddings(input_ids=ids)
    visible = torch.zeros(3, 1, 1, 7).masked_fill(~mask[:, None, None], torch.finfo(torch.float32).min)
    for number, layer in enumerate(peer.encoder.layer):
        seen = picture if number >= 2 else None
        # The lower half has no cross-attention: its layers are called without a memory.
        hidden = layer(hidden, visible, **({} if seen is None else {"encoder_hidden_states": seen}))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        if number == 1:
            _, tokens = ours.encode_text(ids, mask)
            assert (tokens - hidden)[mask].abs().max() < 1e-5
    assert (ours.fusion(tokens, mask, picture) - hidden)[mask].abs().max() < 1e-5


# --- the step --------------------------------------------------------------------------------------------------------


def test_the_step_is_the_papers_formulas() -> None:
    """Every term again, slowly, from the reps; with momentum distillation and a queue that holds something."""
    method = build().eval()
    first = method(toy_batch(number=1), World(), LATE)
    method.after_step(LATE, first.updates)
    batch = toy_batch()
    torch.manual_seed(5)
    losses = method(batch, World(), LATE)
    torch.manual_seed(5)
    reps = method.encode(batch, LATE)
    with torch.no_grad():
        pairs = method.mine(reps, batch, World(), LATE)
    alpha, tau = 0.4, float(method.temperature.detach())

    queue = method.queue.read()
    candidates = {side: torch.cat([reps[f"twin_{side}"], queue[side]]) for side in ("image", "text")}
    image_ids, text_ids = (torch.cat([getattr(batch, key), queue[key]]) for key in ("image_id", "text_id"))
    total = 0.0
    for query, other in (("image", "text"), ("text", "image")):
        logp = (reps[query] @ candidates[other].T / tau).log_softmax(1)
        q = (reps[f"twin_{query}"] @ candidates[other].T / tau).softmax(1)
        rows = torch.arange(16)
        y = ((image_ids[rows, None] == image_ids) | (text_ids[rows, None] == text_ids)).float()
        y = y / y.sum(1, keepdim=True)
        total = total - ((alpha * q + (1 - alpha) * y) * logp).sum(1).mean() / 2
    torch.testing.assert_close(losses.terms["itc"].value, total, rtol=1e-5, atol=1e-5)

    rows, answers = [], []
    for i in range(16):
        for text, image in ((i, i), (int(pairs["text_of_image"][i]), i), (i, int(pairs["image_of_text"][i]))):
            length = int(batch.text_mask[text].sum())  # each row alone, without padding
            tokens = method.student.encode_text(batch.text[text : text + 1, :length], None)[1]
            fused = method.student.fusion(tokens, None, reps["image_tokens"][image : image + 1])
            rows.append(method.match_head(fused[:, 0]))
            answers.append(int((text, image) == (i, i)))
    slow = torch.nn.functional.cross_entropy(torch.cat(rows), torch.tensor(answers))
    torch.testing.assert_close(losses.terms["itm"].value, slow, rtol=1e-4, atol=1e-5)

    parts = []
    for i in range(16):
        length = int(batch.text_mask[i].sum())
        guesses = []
        for towers in (method.student, method.twin):
            _, tokens = towers.encode_text(batch.masked_text[i : i + 1, :length], None)
            _, image = towers.encode_image(batch.images[i : i + 1])
            fused = towers.fusion(tokens, None, image)
            guesses.append(towers.words(fused, towers.text.embed.words.weight)[0])
        for place in batch.masked[i].nonzero().flatten().tolist():
            logp, q = guesses[0][place].log_softmax(0), guesses[1][place].softmax(0)
            parts.append((1 - alpha) * -logp[batch.text[i, place]] - alpha * (q * logp).sum())
    torch.testing.assert_close(losses.terms["mlm"].value, torch.stack(parts).mean(), rtol=1e-4, atol=1e-5)


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
    torch.testing.assert_close(method.queue.read()["image"], losses.updates["image"])


def test_the_temperature_is_kept_within_its_bounds() -> None:
    method = build()
    losses = method(toy_batch(), World(), LATE)
    for value, kept in ((3.0, 0.5), (-1.0, 0.001), (0.07, 0.07)):
        method.temperature.data.fill_(value)
        method.after_step(LATE, losses.updates)
        assert float(method.temperature.detach()) == pytest.approx(kept)


def test_every_trained_parameter_gets_a_gradient_and_no_twin_does() -> None:
    method = build()
    method(toy_batch(), World(), LATE).total.backward()
    for name, parameter in method.named_parameters():
        if name.startswith("twin"):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_pictures_are_read_once_by_the_student_and_once_by_the_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    method = build()
    seen: list[tuple[str, int]] = []
    for who in ("student", "twin"):
        tower = getattr(method, who).image
        real = tower.forward
        monkeypatch.setattr(
            tower,
            "forward",
            lambda images, *a, who=who, real=real, **k: seen.append((who, len(images))) or real(images, *a, **k),
        )
    method(toy_batch(), World(), LATE)
    assert seen == [("student", 16), ("twin", 16)]


def test_schedules() -> None:
    method = build(replace(SMALL, alpha_ramp=0.5, hard_from=0.2, hard_until=0.6, hardness=0.8, align=0.1))
    at = lambda share: Step(progress=share)  # noqa: E731
    assert [round(method.alpha(at(p)), 6) for p in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.2, 0.4, 0.4]
    assert [round(method.hardness(at(p)), 6) for p in (0.0, 0.2, 0.4, 0.6, 1.0)] == [0.0, 0.0, 0.4, 0.8, 0.8]
    assert set(method(toy_batch(), World(), at(0.05)).terms) == {"itc"}
    assert set(method(toy_batch(), World(), at(0.1)).terms) == {"itc", "itm", "mlm"}
    paper = AlbefConfig.preset("base")
    assert (paper.alpha, paper.momentum, paper.hard_until, paper.align) == (0.4, 0.995, 0.0, 0.0)


# --- what must not be seen -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_masked_positions_know_nothing_of_the_words_masked() -> None:
    """Other words under the masks: the same guesses, from the student and from the twin."""
    method = build().eval()
    batch = toy_batch()
    shown = torch.where(batch.masked, torch.tensor(1), batch.text)  # every one as [MASK]
    batch = replace(batch, masked_text=shown)
    other = replace(batch, text=torch.where(batch.masked, (batch.text + 7) % 40 + 4, batch.text))
    for towers in (method.student, method.twin):
        guesses = []
        for each in (batch, other):
            _, tokens = towers.encode_text(each.masked_text, each.text_mask)
            _, images = towers.encode_image(each.images)
            guesses.append(towers.guess(tokens, each.text_mask, images, each.masked))
        assert torch.equal(*guesses)
    first, second = (method.encode(each, LATE) for each in (batch, other))
    assert torch.equal(first["masked_tokens"], second["masked_tokens"])
    assert not torch.equal(first["text_tokens"], second["text_tokens"])


@torch.no_grad()
def test_guesses_depend_on_the_picture_and_can_do_without() -> None:
    method = build().eval()
    batch = toy_batch()
    image = method.encode_image(batch.images)
    seen = method.fill_mask(image, batch.masked_text, batch.text_mask, batch.masked)
    changed = method.fill_mask(method.encode_image(-batch.images), batch.masked_text, batch.text_mask, batch.masked)
    blind = method.fill_mask(None, batch.masked_text, batch.text_mask, batch.masked)
    assert seen.shape == blind.shape == (int(batch.masked.sum()), method.config.text.vocabulary)
    assert not torch.allclose(seen, changed) and not torch.allclose(seen, blind)


@torch.no_grad()
def test_match_is_the_log_odds_and_ignores_padding() -> None:
    method = build().eval()
    batch = toy_batch(4)
    image, text = method.encode_image(batch.images), method.encode_text(batch.text, batch.text_mask)
    odds = method.match(image, text)
    fused = method.student.fusion(text.tokens, text.mask, image.tokens)[:, 0]
    p = method.match_head(fused).softmax(1)[:, 1]
    torch.testing.assert_close(odds, (p / (1 - p)).log(), rtol=1e-4, atol=1e-5)
    length = batch.text.shape[1]
    longer = torch.nn.functional.pad(batch.text, (0, 3), value=9)
    padded = method.encode_text(longer, torch.nn.functional.pad(batch.text_mask, (0, 3)))
    torch.testing.assert_close(method.match(image, padded), odds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded.embedding, text.embedding, rtol=1e-4, atol=1e-5)
    assert length + 3 <= 16
    assert {"encode_image", "encode_text", "match", "fill_mask"} <= set(abilities_of(method))


def test_attention_maps_are_those_of_the_match_and_can_be_differentiated() -> None:
    method = build().eval()
    batch = toy_batch(4)
    image, text = method.encode_image(batch.images), method.encode_text(batch.text, batch.text_mask)
    odds, maps = method.match_with_maps(image, text)
    torch.testing.assert_close(odds, method.match(image, text), rtol=1e-4, atol=1e-5)
    assert len(maps) == 2 and maps[0].shape == (4, 2, batch.text.shape[1], 17)
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(4, 2, batch.text.shape[1]))
    for gradient in torch.autograd.grad(odds.sum(), maps):
        assert gradient.abs().sum() > 0


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    method = build().eval()
    batch = toy_batch()
    whole = method.encode(batch, LATE)
    part = method.encode(batch.rows(4, 8), LATE)
    for name, tensor in part.items():
        torch.testing.assert_close(tensor, whole[name][4:8], rtol=1e-4, atol=1e-5)


def test_checkpointed_blocks_give_the_same_gradients() -> None:
    """Dropout included: it is replayed in the backward pass."""
    gradients = []
    for checkpointed in (False, True):
        text = replace(SMALL.text, dropout=0.2, checkpoint=checkpointed)
        method = build(replace(SMALL, image=replace(SMALL.image, checkpoint=checkpointed), text=text))
        torch.manual_seed(3)
        method(toy_batch(), World(), LATE).total.backward()
        gradients.append({n: p.grad for n, p in method.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7)


def test_cross_attention_is_in_the_upper_half_only() -> None:
    method = build()
    assert all(block.cross is not None for block in method.student.fusion.blocks)
    assert all(block.cross is None for block in method.student.text.transformer.blocks)
    assert isinstance(method.student.fusion, Transformer)


# --- one rank against two --------------------------------------------------------------------------------------------


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    method = build().eval()
    world = World(rank, 2)
    losses = method(toy_batch(16, 0, rank, 2), world, LATE)
    losses.terms["itc"].value.backward()
    method.after_step(LATE, losses.updates)
    torch.save(
        {
            "itc": losses.terms["itc"].value.detach(),
            "gradient": {n: p.grad for n, p in method.named_parameters() if p.grad is not None},
            "queue": method.queue.state_dict(),
        },
        f"{folder}/{rank}.pt",
    )
    _every_parameter_takes_part(rank, world)
    dist.barrier()
    dist.destroy_process_group()


def _every_parameter_takes_part(rank: int, world: World) -> None:
    """Under DDP, in either stage: a parameter without gradient would stop the second step with an error."""
    wrapped = torch.nn.parallel.DistributedDataParallel(build(replace(SMALL, align=0.5)))
    for progress in (0.1, 0.2, 0.6, 0.9):
        wrapped(toy_batch(16, 0, rank, 2), world, Step(progress=progress)).total.backward()


def test_two_ranks_align_and_queue_as_one(tmp_path) -> None:
    """ITC, its gradient and the queue are those of the whole batch. ITM's negatives are each rank's own, as published."""
    spawn(_rank, (str(tmp_path),), nprocs=2)
    two = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    method = build().eval()
    both = [toy_batch(16, 0, rank, 2) for rank in range(2)]
    length = max(b.text.shape[1] for b in both)

    def wide(tensor: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(tensor, (0, length - tensor.shape[1]))

    def by_turns(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(parts, 1).flatten(0, 1)  # ranks take rows by turns

    whole = Batch(
        images=by_turns([b.images for b in both]),
        image_id=by_turns([b.image_id for b in both]),
        text_id=by_turns([b.text_id for b in both]),
        **{
            name: by_turns([wide(getattr(b, name)) for b in both])
            for name in ("text", "text_mask", "masked_text", "masked")
        },
    )
    losses = method(whole, World(), LATE)
    losses.terms["itc"].value.backward()
    method.after_step(LATE, losses.updates)
    one = losses.terms["itc"].value.detach()
    torch.testing.assert_close((two[0]["itc"] + two[1]["itc"]) / 2, one, rtol=1e-5, atol=1e-6)
    for name, gradient in ((n, p.grad) for n, p in method.named_parameters() if p.grad is not None):
        averaged = (two[0]["gradient"][name] + two[1]["gradient"][name]) / 2  # as DDP does
        torch.testing.assert_close(averaged, gradient, rtol=1e-4, atol=1e-6)
    for name, tensor in method.queue.state_dict().items():
        torch.testing.assert_close(two[0]["queue"][name], tensor, rtol=1e-5, atol=1e-6)
        assert torch.equal(two[0]["queue"][name], two[1]["queue"][name])


def test_chance_values() -> None:
    losses = build()(toy_batch(), World(), Step())
    assert losses.terms["itm"].chance == pytest.approx(0.6365, abs=1e-4)
    assert losses.terms["itc"].chance == pytest.approx(math.log(16))
    assert losses.terms["itm"].formula == "H(1/3)"
