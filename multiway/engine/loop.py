"""The training loop: one file, read from top to bottom.

A step is: batch, forward, backward, clip, optimiser, `after_step`. Everything that is random in it is a function of
(seed, step), so there is no generator to save, and a run that is killed and started again computes the same numbers.
The loop knows the protocol of a method (`methods/method.py`), never a particular one, and nothing of data sets.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from multiway.batch import Batch
from multiway.engine.allocator import keep_freed_memory
from multiway.engine.cached import CachedStep
from multiway.engine.compiling import compile_networks
from multiway.engine.device import choose_device, choose_precision
from multiway.engine.gradients import clip
from multiway.engine.health import gradient_health, health
from multiway.engine.optim import build_optimiser, schedule, set_rates
from multiway.engine.settings import Settings
from multiway.engine.sharding import Sharded
from multiway.engine.stopping import StopRequest
from multiway.engine.unfreeze import Joining, joining_rules
from multiway.methods.method import Losses, Method, Step, Term
from multiway.nn.units import recompute
from multiway.world import World

__all__ = ["Batches", "Journals", "Outcome", "Progress", "StepRecord", "TooManyBadRows", "train"]


class TooManyBadRows(RuntimeError):
    """More rows could not be read than the run allows."""


class Batches(Protocol):
    """Where batches come from; `data.loader.Loader` is one."""

    def batches(self, start: int, stop: int) -> Iterator[Batch]: ...

    def epoch(self, step: int) -> float: ...


@dataclass
class StepRecord:
    """What one step did, as plain numbers."""

    step: int  # steps done, this one included
    epoch: int
    loss: float
    terms: dict[str, dict[str, Any]]
    report: dict[str, float]
    health: dict[str, float]
    lr: float
    grad_norm: float
    applied: bool  # False if the gradient was not finite and the step was skipped
    evaluation: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The line of metrics.jsonl."""
        line = {
            "step": self.step,
            "epoch": self.epoch,
            "loss": self.loss,
            "terms": self.terms,
            "report": self.report,
            "health": self.health,
            "lr": self.lr,
            "grad_norm": self.grad_norm,
        }
        if not self.applied:
            line["skipped"] = True
        if self.evaluation:
            line["eval"] = self.evaluation
        return line


class Journals(Protocol):
    """What the loop asks of a run folder: remember, and recall; and to hand sentences on to people.

    A checkpoint may be written while the loop goes on: `failed` says that one could not be, which ranks learn at different moments;
    the next `checkpoint`, or `settle`, which waits for what is under way, then raises the same error on all of them.
    """

    @property
    def say(self) -> Callable[[str], None]: ...

    @property
    def failed(self) -> bool: ...

    def resume(self, method: Method, optimiser: torch.optim.Optimizer) -> int: ...

    def log(self, record: StepRecord, seconds: float, waiting: float, rows: int) -> None: ...

    def skip(self, step: int, messages: tuple[str, ...]) -> None: ...

    def checkpoint(self, step: int, method: Method, optimiser: torch.optim.Optimizer, score: float | None) -> None: ...

    def settle(self) -> None: ...


class Progress(Protocol):
    """What watches: a bar, or nothing."""

    def __call__(self, record: StepRecord, seconds: float, waiting: float, rows: int) -> None: ...


Evaluate = Callable[[Method, int], tuple[dict[str, Any], float | None]]  # (method, step) -> (metrics, score)


@dataclass
class Outcome:
    """How training ended.

    Attributes:
        method: the trained method, whole; None on ranks other than the main one where ranks held parts of it.
    """

    step: int
    resumed_at: int
    finished: bool
    skipped_steps: int
    bad_rows: int
    method: Method | None = None


def train(
    method: Method,
    loader: Batches,
    settings: Settings,
    world: World,
    journals: Journals,
    *,
    finish: Callable[[Batch], Batch],
    evaluate: Evaluate | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train a method, from wherever its run folder left off.

    Args:
        method: built and initialised; it is moved to the device, and cut into parts where `settings.shard` says so.
        loader: batches by step number.
        settings: steps, learning rate, precision, ...
        world: the ranks that train together.
        journals: the run folder.
        finish: what the device does to a batch first (augmentation, normalisation).
        evaluate: called every `settings.evaluate_every` steps, and at the end, on the main rank.
        progress: called after every step on the main rank.

    Raises:
        TooManyBadRows: if the share of unreadable rows passes `settings.bad_rows`.
    """
    device = choose_device(settings.device, world.rank)
    autocast = choose_precision(settings.precision, device) == "bf16"
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if device.type == "cpu":
        keep_freed_memory()
    method.train()
    sharded = None
    if settings.shard != "none" and world.size > 1:
        sharded = Sharded(method, settings, world, device, autocast)
    elif settings.checkpoint_blocks:
        recompute(method)
    method.to(device)
    optimiser = build_optimiser(method, settings.optimiser, [*settings.optimiser.rules, *method.learning_rates()])
    joining = Joining(optimiser.param_groups, joining_rules(method, settings.optimiser), settings.end_of_schedule)
    start = journals.resume(method, optimiser)
    joining.at(start)
    cached = CachedStep(method, settings, world, _on_main(world, journals)) if settings.cache else None
    stepper = sharded.stepper if sharded else method if cached else _wrap(method, settings, world, device)

    outcome = Outcome(start, start, start >= settings.steps, 0, 0)
    batches = loader.batches(start, settings.steps)
    with StopRequest() as stop:
        for index in range(start, settings.steps):
            began = time.perf_counter()
            batch = next(batches)
            waiting = time.perf_counter() - began
            if batch.skipped:
                _count_bad_rows(batch, index, outcome, settings, journals)
            step = Step(index, int(loader.epoch(index)), min(1.0, index / settings.end_of_schedule))
            joined = joining.at(index)
            if joined and sharded:
                sharded.joined()
            elif joined and not cached:  # DDP knows the parameters that learn when it is made, and no others
                del stepper
                stepper = _wrap(method, settings, world, device)
            set_rates(optimiser.param_groups, index, settings.end_of_schedule, settings.lr, settings.optimiser)
            _seed(settings.seed, index, world.rank)
            if cached:
                losses = cached(batch, finish, step, autocast)
            else:
                losses = _forward_backward(stepper, finish(batch.to(device)), settings, world, step, autocast)
            if sharded:
                sharded.average()
            norm = clip(method.parameters(), settings.optimiser.clip)
            applied = world.all_agree(bool(torch.isfinite(norm)) and bool(torch.isfinite(losses.total)))
            if applied:
                optimiser.step()
                method.after_step(step, losses.updates)
            else:
                outcome.skipped_steps += 1

            outcome.step = done = index + 1
            stopping = not world.all_agree(not (stop.wanted or journals.failed))
            last = done == settings.steps or stopping
            due = done == settings.steps or (settings.evaluate_every > 0 and done % settings.evaluate_every == 0)
            evaluating = evaluate is not None and due
            record = None
            if index == 0 or last or evaluating or done % settings.log_every == 0 or not applied:
                record = _record(losses, step, done, settings, norm, applied, world)
                record.health |= gradient_health(method.parameters())
            optimiser.zero_grad(set_to_none=True)
            score = None
            if evaluating and evaluate is not None and record is not None:
                with sharded.whole() if sharded else contextlib.nullcontext(method) as whole:
                    score = _evaluate(evaluate, whole, done, record, world)
            seconds = time.perf_counter() - began
            rows = len(batch) * world.size
            if record is not None:
                journals.log(record, seconds, waiting, rows)
            if progress is not None and world.is_main:
                progress(record or _brief(losses, step, done, norm, applied), seconds, waiting, rows)
            # A step that was evaluated is saved, so that the best one exists.
            if last or evaluating or done % settings.checkpoint_every == 0:
                journals.checkpoint(done, method, optimiser, score)
            if stopping:
                break
        journals.settle()
    outcome.finished = outcome.step >= settings.steps
    outcome.method = sharded.gather() if sharded else method
    return outcome


def _on_main(world: World, journals: Journals) -> Callable[[str], None]:
    """Where sentences of the main rank go; those of the others are the same."""
    return journals.say if world.is_main else lambda text: None


def _wrap(method: Method, settings: Settings, world: World, device: torch.device) -> nn.Module:
    """The method as it is called in a step: its networks compiled, and under DDP where there are several ranks."""
    if settings.compile:
        compile_networks(method)
    if world.size == 1:
        return method
    ids = [device.index] if device.type == "cuda" else None
    wrapped = DistributedDataParallel(
        method,
        device_ids=ids,
        process_group=world.group,
        gradient_as_bucket_view=True,
        find_unused_parameters=method.rests,
    )
    if settings.reduce == "bf16":
        wrapped.register_comm_hook(world.group, bf16_compress_hook)
    return wrapped


def _seed(seed: int, index: int, rank: int) -> None:
    """Dropout and the like: a function of (seed, step, rank), so that no generator state needs saving."""
    torch.manual_seed((seed * 1_000_003 + index) * 1_009 + rank)


def _forward_backward(
    stepper: nn.Module, batch: Batch, settings: Settings, world: World, step: Step, autocast: bool
) -> Losses:
    """One step's forward and backward, in micro-batches where asked; gradients are left on the parameters."""
    parts: list[Losses] = []
    micro = len(batch) // settings.accumulate
    device_type = next(stepper.parameters()).device.type
    for part in range(settings.accumulate):
        rows = batch if settings.accumulate == 1 else batch.rows(part * micro, (part + 1) * micro)
        last = part == settings.accumulate - 1
        with (
            contextlib.nullcontext() if last or not isinstance(stepper, DistributedDataParallel) else stepper.no_sync()
        ):
            with torch.autocast(device_type, torch.bfloat16, enabled=autocast):
                found = stepper(rows, world, step)
            total, losses = found if isinstance(found, tuple) else (found.total, found)
            (total / settings.accumulate).backward()
        parts.append(losses)
    return parts[0] if len(parts) == 1 else _join(parts)


def _join(parts: list[Losses]) -> Losses:
    """Micro-batches as one step: terms and reports averaged, updates and features laid end to end."""

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack([value.detach() for value in values]).mean()

    first = parts[0]
    terms = {
        name: Term(mean([part.terms[name].value for part in parts]), term.weight, term.chance, term.formula)
        for name, term in first.terms.items()
    }
    return Losses(
        terms,
        report={name: mean([part.report[name] for part in parts]) for name in first.report},
        updates={name: torch.cat([part.updates[name] for part in parts]) for name in first.updates},
        features={name: torch.cat([part.features[name] for part in parts]) for name in first.features},
    )


def _record(
    losses: Losses, step: Step, done: int, settings: Settings, norm: Tensor, applied: bool, world: World
) -> StepRecord:
    """The step in numbers, averaged over ranks."""
    terms: dict[str, dict[str, Any]] = {
        name: {
            "value": float(world.mean(term.value)),
            "chance": term.chance,
            "formula": term.formula,
            "weight": term.weight,
        }
        for name, term in losses.terms.items()
    }
    return StepRecord(
        step=done,
        epoch=step.epoch,
        loss=sum(term["value"] * term["weight"] for term in terms.values()),
        terms=terms,
        report={name: float(world.mean(value)) for name, value in losses.report.items()},
        health=health(losses.features),
        lr=settings.lr * schedule(step.index, settings.end_of_schedule, settings.optimiser),
        grad_norm=float(norm),
        applied=applied,
    )


def _brief(losses: Losses, step: Step, done: int, norm: Tensor, applied: bool) -> StepRecord:
    """What the progress bar shows on steps that are not logged: this rank's numbers."""
    terms = {name: {"value": float(term.value.detach()), "chance": term.chance} for name, term in losses.terms.items()}
    return StepRecord(done, step.epoch, float(losses.total.detach()), terms, {}, {}, 0.0, float(norm), applied)


def _evaluate(evaluate: Evaluate, method: Method | None, done: int, record: StepRecord, world: World) -> float | None:
    """Online evaluation of the whole method on the main rank, while the others wait; leaves it as it found it."""
    score = None
    if world.is_main and method is not None:
        method.eval()
        with torch.inference_mode():
            record.evaluation, score = evaluate(method, done)
        method.train()
    world.barrier()
    return score


def _count_bad_rows(batch: Batch, index: int, outcome: Outcome, settings: Settings, journals: Journals) -> None:
    """Rows that were replaced are recorded; too large a share of them ends the run."""
    outcome.bad_rows += len(batch.skipped)
    journals.skip(index + 1, batch.skipped)
    seen = (index + 1 - outcome.resumed_at) * len(batch)
    if outcome.bad_rows > max(settings.bad_rows * seen, settings.bad_rows * 20 * len(batch)):
        raise TooManyBadRows(
            f"{outcome.bad_rows} of {seen} rows could not be read (allowed: {settings.bad_rows:.0%}), the last: {batch.skipped[-1]}; "
            "see skipped.jsonl in the run folder, run `multiway data check`, or raise --bad-rows"
        )
