"""DeCLIP: each kind of supervision by itself, the queue of texts, and CLIP where the rest weighs nothing."""

import socket
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from forked import spawn
from safetensors.torch import load_file, save_file
from torch import Tensor
from toy import ToySource

from multiway.abilities import abilities_of
from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.data.augment import finish
from multiway.data.loader import Loader
from multiway.data.masking import Masking
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.data.view_presets import simclr_cifar
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.declip import DeClip, DeClipConfig, nearest_text
from multiway.methods.method import Step
from multiway.nn.batch_norm import across_ranks
from multiway.nn.mlp_head import MlpHeadConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

INFO = DataInfo(vocabulary=300, context=16, special={"eos": 3})
TOWERS = {
    "image": VisionConfig(size=16, patch=4, width=16, layers=1, heads=2),
    "text": TextConfig(width=16, layers=1, heads=2),
    "embedding": 12,
}
HEADS = {"projector": MlpHeadConfig(3, 16, 8, output_norm="batch"), "predictor": MlpHeadConfig(2, 4, 0)}
NOTHING = {"view_weight": 0.0, "word_weight": 0.0, "multi_view": 0.0, "neighbours": 0.0}
VIEWS = simclr_cifar(16)
WORLD = World()


def rows(count: int = 8, step: int = 0, size: int = 24) -> Batch:
    source = ToySource(size)
    words = Tokenizer.train([c for i in range(size) for c in source.row(i).captions], TokenizerSpec(300, 16))
    view = ViewSpec(size=16)
    loader = Loader(source, view, words, batch=count, masking=Masking(0.3, least=1), views=VIEWS)
    return finish(loader.batch(step), view, VIEWS)


def built(**changed: object) -> DeClip:
    torch.manual_seed(0)
    given = TOWERS | HEADS | {"queue": 20} | changed
    return DeClip(DeClipConfig(**given).resolve(INFO)).train()  # type: ignore[arg-type]


def filled(**changed: object) -> DeClip:
    """With the texts of one batch in the queue."""
    method = built(**changed)
    method.after_step(Step(), method.training_step(rows(step=1), WORLD, Step()).updates)
    return method


def test_with_the_pairs_alone_it_is_clip_on_the_first_view_to_the_bit() -> None:
    batch = rows()
    torch.manual_seed(0)
    clip = Clip(ClipConfig(**TOWERS).resolve(INFO)).train()  # type: ignore[arg-type]
    method = built(pair_weight=1.0, **NOTHING)
    clip.training_step(replace(batch, images=batch.views[0]), WORLD, Step()).total.backward()
    losses = method.training_step(replace(batch, masked_text=None), WORLD, Step())
    losses.total.backward()
    assert set(losses.terms) == {"itc"} and not losses.updates
    for (name, own), (_, its) in zip(method.named_parameters(), clip.named_parameters(), strict=True):
        assert torch.equal(own, its) and torch.equal(own.grad, its.grad), name  # type: ignore[arg-type]


def test_the_total_is_equation_4() -> None:
    losses = filled().training_step(rows(), WORLD, Step())
    weights = {name: term.weight for name, term in losses.terms.items()}
    assert weights == {"itc": 0.4, "cosine": 0.2, "multi_view": 0.2, "mlm": 0.2, "neighbours": 0.2}
    torch.testing.assert_close(
        losses.total, sum(0.2 * term.value for term in losses.terms.values()) + 0.2 * losses.terms["itc"].value
    )


def test_four_pairs_of_two_views_are_clips_loss_each() -> None:
    method, batch = filled(), rows()
    reps, losses = method.encode(batch, Step()), method.training_step(batch, WORLD, Step())
    labels, scale, found = torch.arange(len(batch)), method.log_scale.exp(), {}
    for image in ("image", "image_other"):
        for text in ("text", "text_other"):
            logits = scale * reps[image] @ reps[text].T
            found[image, text] = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    assert len(set(batch.text_id.tolist())) == len(batch)  # type: ignore[union-attr]
    torch.testing.assert_close(losses.terms["itc"].value, found.pop(("image", "text")))
    torch.testing.assert_close(losses.terms["multi_view"].value, torch.stack(list(found.values())).mean())


def test_neighbours_are_those_of_a_slow_search_and_their_loss_is_info_nce() -> None:
    method, batch = filled(), rows()
    kept, reps = method.queue.read(), method.encode(batch, Step())
    losses, total = method.training_step(batch, WORLD, Step()), []
    for text in ("text", "text_other"):
        places = []
        for row in range(len(batch)):
            allowed = [
                place
                for place in range(len(kept["text"]))
                if kept["image_id"][place] != batch.image_id[row] and kept["text_id"][place] != batch.text_id[row]  # type: ignore[index]
            ]
            places.append(
                max(allowed, key=lambda place, row=row: float((reps[text][row] @ kept["text"][place]).detach()))
            )
        near = kept["text"][places]
        for image in ("image", "image_other"):
            logits = method.log_scale.exp() * reps[image] @ near.T
            shared = torch.tensor([[a == b for b in places] for a in places]) & ~torch.eye(
                len(places), dtype=torch.bool
            )
            total.append(F.cross_entropy(logits.masked_fill(shared, -torch.inf), torch.arange(len(batch))))
    torch.testing.assert_close(losses.terms["neighbours"].value, torch.stack(total).mean())
    assert losses.terms["neighbours"].chance is not None


def test_a_queue_gives_no_gradient_to_texts_and_is_not_asked_before_it_has_any() -> None:
    batch = rows()
    empty = built().training_step(batch, WORLD, Step())
    assert not bool(empty.terms["neighbours"].value) and empty.terms["neighbours"].chance is None
    alone = filled(pair_weight=0.0, **NOTHING | {"neighbours": 1.0})
    losses = alone.training_step(batch, WORLD, Step())
    losses.total.backward()
    touched = {name for name, each in alone.named_parameters() if each.grad is not None and bool(each.grad.any())}
    assert touched and not any(name.startswith("text") for name in touched)
    assert any(name.startswith("image") for name in touched)


def test_a_text_never_finds_itself() -> None:
    text = F.normalize(torch.randn(3, 4), dim=1)
    ids = torch.tensor([1, 2, 3])
    near, _, place = nearest_text(text, ids, ids, {"text": text, "image_id": ids, "text_id": ids})
    assert not any(int(each) == row for row, each in enumerate(place)) and not torch.equal(near, text)
    lonely = {"text": text[:1], "image_id": ids[:1], "text_id": ids[:1]}
    near, _, place = nearest_text(text, ids, ids, lonely)
    assert torch.equal(near[0], text[0]) and int(place[0]) < 0 and place[1:].tolist() == [0, 0]


def test_masked_words_are_guessed_without_being_seen_or_the_picture() -> None:
    method, batch = filled(), rows()
    reps = method.encode(batch, Step())
    other = method.encode(replace(batch, views=tuple(each * 2.0 for each in batch.views)), Step())
    assert torch.equal(reps["words"], other["words"])
    hidden = batch.masked & (batch.masked_text != batch.text)  # type: ignore[operator]
    assert bool(hidden.any())
    text = torch.where(hidden, torch.full_like(batch.text, 9), batch.text)  # type: ignore[arg-type]
    assert torch.equal(method.encode(replace(batch, text=text), Step())["words"], reps["words"])


def test_nothing_moves_before_after_step_and_then_the_texts_enter() -> None:
    method, batch = filled(), rows()
    before = {name: each.clone() for name, each in method.state_dict().items()}
    losses = method.training_step(batch, WORLD, Step())
    moved = {name for name, each in method.state_dict().items() if not torch.equal(each, before[name])}
    assert all("running_" in name or "num_batches" in name for name in moved)
    method.after_step(Step(), losses.updates)
    assert len(method.queue) == 16
    torch.testing.assert_close(method.queue.read()["text"][8:], method.encode(batch, Step())["text"].detach())


def test_every_parameter_learns_and_it_is_able_to_do_what_clip_is() -> None:
    method = filled()
    method.training_step(rows(), WORLD, Step()).total.backward()
    assert all(each.grad is not None for each in method.parameters())
    assert abilities_of(method) == abilities_of(Clip(ClipConfig(**TOWERS).resolve(INFO)))  # type: ignore[arg-type]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"masking\.ratio above 0"):
        built().encode(replace(rows(), masked_text=None), Step())
    with pytest.raises(KeyError, match="there are: tiny, vit-b-32, rn50"):
        DeClipConfig.preset("nothing")


def test_the_papers_sizes() -> None:
    with torch.device("meta"):
        method = DeClip(DeClipConfig.preset("vit-b-32"))
    own = {name: sum(each.numel() for each in part.parameters()) for name, part in method.named_children()}
    assert own["projector"] == 513 * 1024 + 2 * 1025 * 1024 + 3 * 2 * 1024
    assert own["predictor"] == 1025 * 512 + 2 * 512 + 513 * 1024
    head = 512 * 512 + 512 + 2 * 512 + 49408
    assert sum(each.numel() for each in method.parameters()) == 151_277_313 + own["projector"] + own["predictor"] + head


# --- two ranks -------------------------------------------------------------------------------------------------------


def told(world: World, own: slice) -> dict[str, Tensor]:
    """Loss, gradients and the queue after a second step."""
    method = across_ranks(built(), world)
    for step in (1, 0):
        losses = method.training_step(rows(step=step).map(lambda each: each[own]), world, Step())
        losses.total.backward()
        method.after_step(Step(), losses.updates)
    # Where ranks mask different numbers of words, the mean of their means is another one.
    names = [name for name, _ in method.named_parameters() if name.startswith(("image", "projector", "predictor"))]
    gradients = dict(method.named_parameters())
    found = {name: gradients[name].grad.clone() for name in names}  # type: ignore[union-attr]
    kept = ("itc", "cosine", "multi_view", "neighbours")
    return found | {name: losses.terms[name].value.detach() for name in kept} | method.queue.read()


def work(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    world = World(rank, 2)
    found = {
        name: (each if each.dtype == torch.int64 else world.mean(each)).contiguous()
        for name, each in told(world, slice(rank, None, 2)).items()
    }
    save_file(found, f"{out}/{rank}")
    dist.barrier()  # a rank that leaves first can abort the other
    dist.destroy_process_group()


def test_two_ranks_are_one(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(work, (port, str(tmp_path)), nprocs=2)
    alone = told(WORLD, slice(None))
    for rank in range(2):
        found = load_file(tmp_path / str(rank))
        assert set(found) == set(alone)
        for name, each in alone.items():
            torch.testing.assert_close(found[name], each, rtol=1e-3, atol=2e-5, msg=name)
