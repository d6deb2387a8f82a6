import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from multiway.batch import Batch, Place
from multiway.engine.loop import StepRecord, TooManyBadRows, train
from multiway.engine.optim import OptimiserSpec
from multiway.engine.settings import OPERATIONAL, Settings
from multiway.methods.method import Losses, Method, Step, Term
from multiway.world import World

SETTINGS = Settings(
    steps=12, batch=8, lr=0.01, device="cpu", precision="fp32", log_every=4, checkpoint_every=5,
    optimiser=OptimiserSpec(warmup=2, clip=0.0, weight_decay=0.0),
)  # fmt: skip


class Toy(Method):
    """Regression of a linear map, with a queue-like counter and a little dropout."""

    name = "toy"

    def __init__(self, dropout: float = 0.0, poison: int = -1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(4, 2)
        self.dropout, self.poison = dropout, poison
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.steps: list[int] = []

    def encode(self, batch: Batch, step: Step):
        return {"out": nn.functional.dropout(self.map(batch.images), self.dropout, self.training)}

    def losses(self, reps, pairs, batch: Batch, world: World, step: Step) -> Losses:
        value = (reps["out"] - batch.images[:, :2]).square().mean()
        if step.index == self.poison:
            value = value * float("nan")
        return Losses(
            {"mse": Term(value, 2.0, 1.0, "variance")}, {"half": value.detach() / 2}, {"rows": reps["out"].detach()}
        )

    def after_step(self, step: Step, updates) -> None:
        self.seen += len(updates["rows"])
        self.steps.append(step.index)


class Rows:
    """Batches as a function of the step."""

    def __init__(self, bad: dict[int, int] | None = None) -> None:
        self.bad = bad or {}

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            images = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            skipped = tuple(f"row {step}" for _ in range(self.bad.get(step, 0)))
            yield Batch(images=images, sample_index=torch.arange(8), skipped=skipped, place=Place(step))

    def epoch(self, step: int) -> float:
        return step / 4


class Memory:
    """Journals without a folder."""

    failed = False

    def __init__(self, state: tuple[int, dict, dict] | None = None) -> None:
        self.state, self.records, self.saved, self.skipped = state, [], {}, []

    def resume(self, method, optimiser) -> int:
        if self.state is None:
            return 0
        step, weights, moments = self.state
        method.load_state_dict(weights)
        optimiser.load_state_dict(moments)
        return step

    def log(self, record: StepRecord, seconds: float, waiting: float, rows: int) -> None:
        assert 0 <= waiting <= seconds and rows == 8
        self.records.append(record.to_json())

    def skip(self, step: int, messages: tuple[str, ...]) -> None:
        self.skipped += [(step, message) for message in messages]

    def checkpoint(self, step, method, optimiser, score) -> None:
        weights = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        moments = torch.utils._pytree.tree_map(
            lambda x: x.clone() if isinstance(x, torch.Tensor) else x, optimiser.state_dict()
        )
        self.saved[step] = (step, weights, moments, score)

    def settle(self) -> None: ...


def run(
    method: Toy | None = None,
    settings: Settings = SETTINGS,
    memory: Memory | None = None,
    loader: Rows | None = None,
    **more,
):
    method, memory = method or Toy(), memory or Memory()
    outcome = train(method, loader or Rows(), settings, World(), memory, finish=lambda batch: batch, **more)
    return method, memory, outcome


def test_equals_a_loop_written_out() -> None:
    """The slow obvious twin: plain AdamW with the schedule's rates."""
    method, memory, outcome = run()
    twin = Toy()
    optimiser = torch.optim.AdamW(twin.parameters(), betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0, foreach=False)
    from multiway.engine.optim import schedule

    for index, batch in enumerate(Rows().batches(0, 12)):
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * schedule(index, 12, SETTINGS.optimiser)
        optimiser.zero_grad()
        loss = 2 * (twin.map(batch.images) - batch.images[:, :2]).square().mean()
        loss.backward()
        optimiser.step()
    assert torch.allclose(method.map.weight, twin.map.weight, atol=1e-6)
    assert memory.records[-1]["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert outcome.finished and outcome.step == 12 and method.steps == list(range(12)) and int(method.seen) == 96


def test_what_is_logged_and_saved_when() -> None:
    _, memory, _ = run()
    assert [record["step"] for record in memory.records] == [1, 4, 8, 12]
    assert sorted(memory.saved) == [5, 10, 12]
    record = memory.records[1]
    assert set(record) == {"step", "epoch", "loss", "terms", "report", "health", "lr", "grad_norm"}
    assert record["terms"]["mse"] | {"value": 0} == {"value": 0, "chance": 1.0, "formula": "variance", "weight": 2.0}
    assert record["loss"] == pytest.approx(2 * record["terms"]["mse"]["value"])
    json.dumps(memory.records)


def test_stopping_and_going_on_changes_nothing() -> None:
    straight, whole, _ = run(Toy(dropout=0.3))
    _, first, _ = run(Toy(dropout=0.3), replace(SETTINGS, steps=5, horizon=12))
    resumed, second, outcome = run(Toy(dropout=0.3), SETTINGS, Memory(first.saved[5][:3]))
    assert outcome.resumed_at == 5
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert second.records == whole.records[2:]


def test_a_finished_run_does_nothing_more() -> None:
    _, memory, _ = run()
    method, again, outcome = run(memory=Memory(memory.saved[12][:3]))
    assert outcome.finished and method.steps == [] and again.records == [] and again.saved == {}


def test_a_step_with_nan_is_skipped_whole() -> None:
    method, memory, outcome = run(Toy(poison=6))
    assert outcome.skipped_steps == 1 and 6 not in method.steps and int(method.seen) == 88
    assert all(torch.isfinite(p).all() for p in method.parameters())
    bad = [record for record in memory.records if record.get("skipped")]
    assert [record["step"] for record in bad] == [7]


def test_micro_batches_give_the_same_step() -> None:
    """The toy's loss is a mean over rows, so two halves averaged are the whole; updates of both arrive."""
    whole, _, _ = run()
    halves, memory, _ = run(settings=replace(SETTINGS, accumulate=2))
    assert torch.allclose(whole.map.weight, halves.map.weight, atol=1e-6)
    assert int(halves.seen) == 96 and memory.records[-1]["report"]["half"] > 0


def test_clipping_bounds_the_gradient() -> None:
    tight = replace(SETTINGS, optimiser=replace(SETTINGS.optimiser, clip=1e-3))
    captured = []
    method = Toy()
    method.map.weight.register_post_accumulate_grad_hook(lambda p: captured.append(p))
    norms = []
    method.after_step = lambda step, updates: norms.append(
        float(torch.cat([p.grad.flatten() for p in method.parameters()]).norm())
    )
    _, memory, _ = run(method, tight)
    assert max(norms) <= 1.001e-3 and memory.records[0]["grad_norm"] > 1e-2  # what is logged is the norm before


def test_evaluation_leaves_the_method_as_it_was_and_is_saved() -> None:
    modes = []

    def evaluate(method, step):
        modes.append((step, method.training))
        torch.rand(100)  # consuming random numbers must not change training
        return {"toy@val/score": {"value": step / 12}}, step / 12

    settings = replace(SETTINGS, evaluate_every=6)
    method, memory, _ = run(Toy(dropout=0.3), settings, evaluate=evaluate)
    plain, _, _ = run(Toy(dropout=0.3))
    assert modes == [(6, False), (12, False)] and method.training
    assert torch.equal(method.map.weight, plain.map.weight)
    assert (
        memory.saved[6][3] == 0.5
        and next(r["eval"] for r in memory.records if "eval" in r)["toy@val/score"]["value"] == 0.5
    )


def test_bad_rows_are_recorded_and_too_many_stop_the_run() -> None:
    _, memory, outcome = run(loader=Rows({3: 1}))
    assert outcome.bad_rows == 1 and memory.skipped == [(4, "row 3")]
    with pytest.raises(TooManyBadRows, match=r"could not be read.*row 2.*multiway data check"):
        run(loader=Rows(dict.fromkeys(range(12), 4)))


def test_bf16_keeps_fp32_weights() -> None:
    method, memory, _ = run(settings=replace(SETTINGS, precision="bf16"))
    assert method.map.weight.dtype == torch.float32 and memory.records[-1]["loss"] < memory.records[0]["loss"]


def test_compile_gives_the_same_numbers() -> None:
    compiled, memory, _ = run(settings=replace(SETTINGS, steps=3, compile=True))
    plain, other, _ = run(settings=replace(SETTINGS, steps=3))
    assert torch.allclose(compiled.map.weight, plain.map.weight, atol=1e-6)
    assert memory.records[-1]["loss"] == pytest.approx(other.records[-1]["loss"], rel=1e-5)


def test_a_request_to_stop_ends_after_the_step_with_a_checkpoint() -> None:
    import os
    import signal

    class Asking(Rows):
        def batches(self, start: int, stop: int) -> Iterator[Batch]:
            for batch in super().batches(start, stop):
                if batch.place.step == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    before = signal.getsignal(signal.SIGTERM)
    _, memory, outcome = run(loader=Asking())
    assert not outcome.finished and outcome.step == 4 and sorted(memory.saved) == [4]
    assert signal.getsignal(signal.SIGTERM) is before


def test_settings_are_checked_and_operational_fields_exist() -> None:
    with pytest.raises(ValueError, match="micro-batches"):
        Settings(steps=1, batch=8, lr=0.1, accumulate=3)
    with pytest.raises(ValueError, match="at least 1"):
        Settings(steps=0, batch=8, lr=0.1)
    for name, value in (("lr", -0.1), ("checkpoint_every", 0), ("log_every", 0), ("keep_last", 0), ("workers", -1)):
        with pytest.raises(ValueError, match=f"{name} is {value}; expected"):
            Settings(**{"steps": 1, "batch": 8, "lr": 0.1, name: value})
    assert set(Settings.__dataclass_fields__) >= OPERATIONAL
