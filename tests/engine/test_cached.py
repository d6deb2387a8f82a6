"""Gradient caching against the plain gradient: in float64, replayed, over steps, over ranks, in memory, and what is refused."""

import dataclasses
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from forked import spawn
from hypothesis import given
from hypothesis import strategies as st
from multiway_batches import INFO, laid_together, toy_batch
from torch import Tensor, nn

from multiway.batch import Batch
from multiway.engine.cached import CachedStep, splits
from multiway.engine.cached_leaves import needed_rows
from multiway.engine.loop import train
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import Settings
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.blip import Blip, BlipConfig
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.coca import Coca, CocaConfig
from multiway.methods.filip import Filip, FilipConfig
from multiway.methods.method import Losses, Method, Step, Term
from multiway.methods.siglip import Siglip, SiglipConfig
from multiway.methods.slip import Slip, SlipConfig
from multiway.methods.vlmo import Vlmo, VlmoConfig
from multiway.nn.multiway import MultiwayConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

ALONE = World()
LATE = Step(index=90, epoch=3, progress=0.9)
VIT = VisionConfig(size=16, patch=8, width=16, layers=2, heads=2)
BERT = TextConfig(width=16, layers=1, heads=2, causal=False, pool="class")
GPT = TextConfig(width=16, layers=1, heads=2, pool="last")
CONFIGS: dict[str, tuple[type[Method], object]] = {
    "clip": (Clip, ClipConfig(image=VIT, text=GPT, embedding=8)),
    "siglip": (Siglip, SiglipConfig(image=replace(VIT, pool="mean"), text=replace(GPT, causal=False))),
    "filip": (Filip, FilipConfig(VIT, GPT, 8)),
    "coca": (Coca, CocaConfig(replace(VIT, pool="mean"), GPT, 1, queries=4, embedding=8)),
    "vlmo": (Vlmo, VlmoConfig(blocks=MultiwayConfig(width=16, layers=2, heads=2, fusion_layers=1), size=16, patch=8, stem="patch", embedding=8)),
    "albef": (Albef, AlbefConfig(VIT, BERT, 2, 8, queue=20, momentum=0.9)),
    "blip": (Blip, BlipConfig(VIT, replace(BERT, layers=2, cross_width=16), embedding=8, queue=20, momentum=0.9)),
}  # fmt: skip
NOISY = {"dropout": 0.1, "drop_path": 0.2}


def build(name: str, noise: bool = False) -> Method:
    """A small method in float64 and training mode, its towers with dropout and stochastic depth where asked."""
    kind, config = CONFIGS[name]
    if noise:
        config = replace(config, image=replace(config.image, **NOISY), text=replace(config.text, **NOISY))
    torch.manual_seed(0)
    method = kind(config.resolve(INFO)).double()
    with torch.no_grad():  # no two tokens alike, nothing at zero
        for parameter in method.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    method.started()
    return method.train()


def rows(count: int = 12, **more: int) -> Batch:
    batch = toy_batch(count, **more)
    return replace(batch, images=batch.images.double(), patch_mask=None)


def settings(cache: int = 4, batch: int = 12, **more: object) -> Settings:
    return Settings(steps=3, batch=batch, lr=0.01, device="cpu", precision="fp32", cache=cache, **more)


def cached(
    method: Method, batch: Batch, cache: int = 4, world: World = ALONE, autocast: bool = False, **more
) -> Losses:
    torch.manual_seed(5)
    size = len(batch) * world.size
    step = CachedStep(method, settings(cache, size, **more), world, say=lambda text: None)
    return step(batch, lambda part: part, LATE, autocast)


def gradients(method: Method) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def assert_near(given: dict[str, Tensor], expected: dict[str, Tensor], within: float = 1e-9) -> None:
    """By relative error of each; of a gradient that is zero but for rounding (keys' biases), relative to all of them."""
    assert given.keys() == expected.keys() and expected
    floor = 1e-3 * max(float(each.double().norm()) for each in expected.values())
    for name, each in expected.items():
        error = float((given[name].double() - each.double()).norm()) / max(float(each.double().norm()), floor)
        assert error < within, (name, error)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and embeddings are taken in float32 at least; float64 stays float64."""
    to_single = Tensor.float
    monkeypatch.setattr(Tensor, "float", lambda self: self if self.dtype == torch.float64 else to_single(self))


# --- the same gradient -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_gradient_terms_and_updates_are_those_of_the_whole_batch(name: str, exact: None) -> None:
    plain, other, batch = build(name), build(name), rows()
    torch.manual_seed(5)
    expected = plain.training_step(batch, ALONE, LATE)
    expected.total.backward()
    expected = replace(expected, terms={n: replace(t, value=t.value.detach()) for n, t in expected.terms.items()})
    found = cached(other, batch)
    assert_near(gradients(other), gradients(plain))
    assert not any(term.value.requires_grad for term in found.terms.values())
    assert list(found.terms) == list(expected.terms)
    for key, term in expected.terms.items():
        assert float(found.terms[key].value) == pytest.approx(float(term.value), rel=1e-9)
        if key in ("itc", "itm", "filip", "sigmoid"):
            assert (found.terms[key].chance, found.terms[key].formula) == (pytest.approx(term.chance), term.formula)
    for kind in ("report", "updates", "features"):
        mine, theirs = getattr(found, kind), getattr(expected, kind)
        assert mine.keys() == theirs.keys()
        for key, each in theirs.items():
            rounded = 1e-6 if kind == "report" else 1e-9  # shares of what is right are counted in float32
            assert torch.allclose(mine[key].double(), each.double(), rtol=rounded, atol=1e-12), (kind, key)


def test_which_losses_are_told_in_two_parts() -> None:
    assert {name for name in CONFIGS if splits(build(name))} == {"albef", "blip"}


def one_graph(method: Method, batch: Batch, size: int) -> None:
    """The slow twin: micro-batches are encoded one after the other and everything stays in one graph."""
    torch.manual_seed(5)
    parts = [method.encode(batch.rows(at, at + size), LATE) for at in range(0, len(batch), size)]
    reps = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    with torch.no_grad():
        pairs = method.mine(reps, batch, ALONE, LATE)
    if not splits(method):
        return method.losses(reps, pairs, batch, ALONE, LATE).total.backward()
    total = method.across(reps, pairs, batch, ALONE, LATE).total
    every = method.counts(pairs, batch, LATE)
    for at in range(0, len(batch), size):
        # Rows in another order: this micro-batch's first, all others behind them.
        order = torch.cat([torch.arange(at, at + size), torch.arange(0, at), torch.arange(at + size, len(batch))])
        own = {name: each[at : at + size] for name, each in pairs.items()}
        local = {name: order.argsort()[each] if each.dtype == torch.int64 else each for name, each in own.items()}
        there = {name: each[order] for name, each in reps.items()}
        part = method.within(there, local, batch.map(lambda each, order=order: each[order]), LATE, size)
        held = method.counts(own, batch.rows(at, at + size), LATE)
        total = total + sum(t.weight * t.value * held[n].double() / every[n].double() for n, t in part.terms.items())
    total.backward()


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "vlmo"])
def test_dropout_and_stochastic_depth_are_replayed(name: str, exact: None) -> None:
    plain, other, quiet, batch = build(name, noise=True), build(name, noise=True), build(name), rows()
    one_graph(plain, batch, 4)
    cached(other, batch)
    assert_near(gradients(other), gradients(plain))
    cached(quiet, batch)
    last = list(gradients(plain))[-1]
    assert not torch.allclose(gradients(quiet)[last], gradients(plain)[last]), "the noise made no difference"


@pytest.mark.parametrize("name", ["albef", "blip"])
def test_tokens_in_main_memory_change_nothing_and_in_bfloat16_little(name: str, exact: None) -> None:
    plain, batch = build(name), rows()
    cached(plain, batch)
    for kept, within in (({"cache_on_cpu": True}, 1e-12), ({"cache_bf16": True}, 0.05), ({"cache_bf16": True, "cache_on_cpu": True}, 0.05)):  # fmt: skip
        other = build(name)
        cached(other, batch, **kept)
        assert_near(gradients(other), gradients(plain), within)


@pytest.mark.parametrize("name", ["clip", "albef"])
def test_bfloat16_reaches_every_parameter(name: str) -> None:
    """Weights that autocast had cast in a pass without graph would be read again in the one with, and get nothing."""
    plain, other = build(name).float(), build(name).float()
    batch = replace(rows(), images=rows().images.float())
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16):
        losses = plain.training_step(batch, ALONE, LATE)
    losses.total.backward()
    cached(other, batch, autocast=True)
    assert gradients(other).keys() == gradients(plain).keys()
    mine, theirs = (torch.cat([g.flatten() for g in gradients(m).values()]) for m in (other, plain))
    assert float((mine - theirs).norm() / theirs.norm()) < 0.05


# --- in the loop -----------------------------------------------------------------------------------------------------


class Rows:
    """Batches by number; float64 so that two ways can be told apart from rounding."""

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        return (rows(12, number=step) for step in range(start, stop))

    def epoch(self, step: int) -> float:
        return step / 3


class Quiet:
    """Journals that keep the records and what was said."""

    failed = False

    def __init__(self) -> None:
        self.records, self.said = [], []
        self.say = self.said.append

    def resume(self, method: Method, optimiser: torch.optim.Optimizer) -> int:
        return 0

    def log(self, record, seconds: float, waiting: float, rows: int) -> None:
        self.records.append(record)

    def skip(self, step: int, messages: tuple[str, ...]) -> None: ...

    def checkpoint(self, step: int, method: Method, optimiser: torch.optim.Optimizer, score: float | None) -> None: ...

    def settle(self) -> None: ...


def test_twin_queue_and_weights_go_the_same_way_over_steps(exact: None) -> None:
    """SGD, whose step is linear in the gradient; Adam's first steps are signs, which rounding turns."""
    ends, quiet = [], Quiet()
    for cache in (0, 4):
        method = build("albef")
        method.config = replace(method.config, queue_from=0.0, align=0.3)  # the first step aligns alone
        chosen = replace(settings(cache), log_every=1, optimiser=OptimiserSpec(kind="sgd", warmup=0))
        quiet = Quiet()
        assert train(method, Rows(), chosen, ALONE, quiet, finish=lambda batch: batch).finished
        ends.append((method.state_dict(), [record.loss for record in quiet.records], quiet.records))
    (plain, losses, _), (other, again, records) = ends
    assert losses == pytest.approx(again, rel=1e-9) and losses[0] != losses[2]
    assert [list(record.terms) for record in records] == [["itc"], ["itc", "itm", "mlm"], ["itc", "itm", "mlm"]]
    assert_near(
        {n: t for n, t in other.items() if t.is_floating_point()},
        {n: t for n, t in plain.items() if t.is_floating_point()},
    )
    moved = build("albef").state_dict()
    assert not torch.equal(moved["twin.image_projection.weight"], other["twin.image_projection.weight"])
    assert len(quiet.said) == 1


def test_bytes_are_said_beforehand() -> None:
    said: list[str] = []
    for more in ({}, {"cache_bf16": True}):
        CachedStep(build("albef"), settings(**more), ALONE, said.append)(rows(), lambda part: part, LATE, False)
    tokens, length = 12 * 5 * 16 * 8 / 2**20, rows().text.shape[1]
    assert said[0].startswith("gradient cache: 3 micro-batches of 4 rows; kept of 12 rows, gradients included: ")
    assert f"image_tokens {2 * tokens:.1f}" in said[0] and f"image_tokens {0.5 * tokens:.1f}" in said[1]
    assert length > 2 and "twin_masked_tokens" in said[0]


# --- memory ----------------------------------------------------------------------------------------------------------


class Held:
    """Most bytes of activations that graphs kept at one time, weights left out."""

    def __init__(self, method: Method) -> None:
        self.weights = {p.data_ptr() for p in method.parameters()}
        self.now = self.most = 0

    def __enter__(self) -> "Held":
        held = self

        class Kept:
            def __init__(self, tensor: Tensor) -> None:
                self.tensor, self.bytes = tensor, 0 if tensor.data_ptr() in held.weights else tensor.nbytes
                held.now += self.bytes
                held.most = max(held.most, held.now)

            def __del__(self) -> None:
                held.now -= self.bytes

        self.hooks = torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.hooks.__exit__(*exception)


@pytest.mark.parametrize("name", ["clip", "albef", "blip"])
def test_activations_do_not_grow_with_the_batch(name: str) -> None:
    most: dict[tuple[int, bool], int] = {}
    for count in (8, 32):
        for cache in (True, False):
            method, batch = build(name), rows(count)
            with Held(method) as held:
                cached(method, batch, 4) if cache else method.training_step(batch, ALONE, LATE).total.backward()
            most[count, cache] = held.most
    assert most[32, False] > 3.5 * most[8, False], "the plain step grows with the batch"
    assert most[32, True] < 1.3 * most[8, True] and most[32, True] < 0.3 * most[32, False], most


# --- ranks -----------------------------------------------------------------------------------------------------------


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    single = Tensor.float
    Tensor.float = lambda self: self if self.dtype == torch.float64 else single(self)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world, found = World(rank, 2), {}
    for name in ("clip", "albef", "blip"):
        batch, method, plain = rows(12, rank=rank, world=2), build(name), build(name)
        with torch.no_grad():  # a rank that began elsewhere is brought to the first one's weights
            for parameter in method.parameters():
                parameter.add_(rank)
        losses = cached(method, batch, 3, world)
        wrapped = nn.parallel.DistributedDataParallel(plain)
        torch.manual_seed(5)
        wrapped(batch, world, LATE).total.backward()
        assert_near(gradients(method), gradients(plain))
        method.after_step(LATE, losses.updates)
        found[name] = gradients(method)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_are_as_under_ddp_and_as_on_one(tmp_path, exact: None) -> None:
    spawn(_rank, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    whole = laid_together([rows(12, rank=rank, world=2) for rank in range(2)])
    for name in first:
        assert_near(first[name], second[name], 1e-12)
        one = build(name)
        cached(one, whole, 4)
        assert_near(first[name], gradients(one))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_settings_that_do_not_go_together() -> None:
    for more, said in (
        ({"cache": -1}, "cache is -1; expected the rows"),
        ({"accumulate": 2}, "cache=4 and accumulate=2 are both given"),
        ({"compile": True}, "cache=4 and compile are both given"),
        ({"cache": 0, "cache_bf16": True}, "set cache to its rows too"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(settings(), **more)


def test_what_cannot_be_cached_is_refused_by_name() -> None:
    def refused(method: Method, said: str, **more: object) -> None:
        with pytest.raises(ValueError, match=said):
            CachedStep(method, settings(**more), ALONE, say=lambda text: None)

    refused(build("clip"), "batch of 12 rows does not divide into micro-batches of 5", cache=5)
    with pytest.raises(ValueError, match="albef mines negatives among the rows of all ranks"):
        CachedStep(build("albef"), settings(3, cache_on_cpu=True), World(0, 2), say=lambda text: None)
    refused(build("clip"), "the losses of clip read all rows at once", cache_bf16=True)
    slip = Slip(SlipConfig(image=VIT, text=GPT, embedding=8).resolve(INFO))
    refused(slip, r"slip in micro-batches, and batch normalisation \(projector\..* and \d more\)")
    CachedStep(slip.eval(), settings(), ALONE, say=lambda text: None)  # what is frozen normalises no batch


class Odd(Method):
    """A method that breaks one promise."""

    name = "odd"

    def __init__(self, promise: str) -> None:
        super().__init__()
        self.map, self.promise, self.calls = nn.Linear(3 * 16 * 16, 2).double(), promise, 0

    def encode(self, batch: Batch, step: Step):
        self.calls += 1
        out = self.map(batch.images.flatten(1))
        if self.promise == "rows":
            return {"out": out, "count": torch.ones(3)}
        if self.promise == "alike":
            return {"out": out, "words": batch.text[:, : 2 + self.calls]}
        if self.promise == "names":
            return {"out": out, **({"late": out} if self.calls > 1 else {})}
        if self.promise == "learned":
            return {"out": out.detach()}
        return {"out": out + self.calls if self.promise == "state" else out}

    def losses(self, reps, pairs, batch: Batch, world: World, step: Step) -> Losses:
        seen = batch.images if self.promise == "pictures" else batch.views if self.promise == "views" else None
        assert seen is None
        return Losses({"mean": Term(reps["out"].mean())})


@pytest.mark.parametrize(
    ("promise", "said"),
    [
        ("rows", r"encode gave `count` as \(3,\) for 4 rows"),
        ("alike", r"encode gave `words` as \(4, 4\) for 4 rows; gradient caching expects \(4, 3\)"),
        ("names", "encode gave out, late and before out"),
        ("learned", "encode of odd gives nothing that is learned"),
        ("state", "`out` of rows 0 to 3 came out differently"),
        ("pictures", "a loss reads the pictures of the whole batch"),
        ("views", "a loss reads the views of the whole batch"),
    ],
)
def test_a_broken_promise_is_told(promise: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cached(Odd(promise), rows())


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.randoms(use_true_random=False))
def test_partners_are_the_same_rows_under_their_new_numbers(size: int, parts: int, part: int, random) -> None:
    count, start = size * parts, size * (part % parts)
    pairs = {name: torch.tensor([random.randrange(count) for _ in range(size)]) for name in ("text", "image")}
    pairs["found"] = torch.ones(size, dtype=torch.bool)
    needed, local = needed_rows(pairs, start, size, count)
    assert needed[:size].tolist() == list(range(start, start + size)) and len(set(needed.tolist())) == len(needed)
    for name in ("text", "image"):
        assert torch.equal(needed[local[name]], pairs[name])
    assert set(needed[size:].tolist()) <= set(pairs["text"].tolist()) | set(pairs["image"].tolist())
    assert local["found"] is pairs["found"]


def test_partners_on_other_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="name rows up to 12 of 12: partners on other ranks"):
        needed_rows({"text_of_image": torch.tensor([3, 12])}, 2, 2, 12)


def test_every_field_of_a_batch_survives_without_its_pictures() -> None:
    from multiway.engine.cached_leaves import Words

    batch = rows()
    bare = Words.of(replace(batch, images=None))
    for field in dataclasses.fields(Batch):
        if field.name not in ("images", "views"):
            assert getattr(bare, field.name) is getattr(batch, field.name)
