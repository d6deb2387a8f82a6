"""The protocol of a method: a training step in three pure stages, and what follows a successful optimiser step.

    reps   = method.encode(batch, step)                       row-local and replayable
    pairs  = method.mine(reps, batch, world, step)            no gradient, over all ranks
    losses = method.losses(reps, pairs, batch, world, step)   named terms
    ...backward, optimiser...
    method.after_step(step, losses.updates)                   queues, twins, centres: only if the step succeeded

The loop may run the stages at once, in micro-batches, cached, or across ranks, and the method never knows. Because
nothing is mutated before `after_step`, skipping a step with a NaN is not calling it.

A method whose losses run a large pass over each row (a fused encoder, a decoder) may tell them in two parts, so that gradient
caching runs that pass in micro-batches as well: `across` compares rows, `within` takes them one by one, and `counts` says
what the means of `within` are over. `losses` is then both, and is not written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from multiway.batch import Batch
from multiway.config import from_json, to_json
from multiway.methods.partners import Lent, meet
from multiway.world import World

__all__ = ["Losses", "Method", "Pairs", "Reps", "Step", "Term"]

Reps = Mapping[str, Tensor]  # features of each row by name; every tensor has the batch's rows first
Pairs = Mapping[str, Tensor]  # indices of rows, chosen without gradient


@dataclass(frozen=True)
class Step:
    """Where training is; every schedule of a method (alpha, momentum, masking ratio) is a function of this."""

    index: int = 0
    epoch: int = 0
    progress: float = 0.0  # share of the planned steps that is done, in [0, 1]


@dataclass
class Term:
    """One loss term.

    Attributes:
        value: scalar with gradient.
        weight: its factor in the total.
        chance: what the best constant prediction would score; None where there is no such thing.
        formula: how `chance` comes about, for people: `ln 128`.
    """

    value: Tensor
    weight: float = 1.0
    chance: float | None = None
    formula: str = ""


@dataclass
class Losses:
    """What a step yields.

    Attributes:
        terms: loss terms by name; their weighted sum is what is minimised.
        report: further scalars for the log (accuracy, temperature), detached.
        updates: tensors that `after_step` needs (features for a queue, statistics for a centre), detached, with rows
            first: those of micro-batches are laid end to end.
        features: embeddings by name, (B, D), detached; the doctor watches them for collapse.
        counts: over how many things each term and report is a mean, by name, where that differs from rank to rank (masked words,
            not rows): a rank then weighs what it holds, and all together give the mean of the whole batch.
    """

    terms: dict[str, Term]
    report: dict[str, Tensor] = field(default_factory=dict)
    updates: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor | int] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The weighted sum of the terms."""
        return torch.stack([term.weight * term.value for term in self.terms.values()]).sum()

    def beside(self, others: Losses) -> Losses:
        """These and others, whose names are different ones."""
        return Losses(
            self.terms | others.terms,
            self.report | others.report,
            self.updates | others.updates,
            self.features | others.features,
            self.counts | others.counts,
        )

    def over_ranks(self, world: World) -> Losses:
        """These, so that the mean over ranks of a term with a count is the mean over what all ranks count. Every rank calls it."""
        if world.size == 1 or not self.counts:
            return self
        device = next(iter(self.terms.values())).value.device
        own = torch.stack([torch.as_tensor(each, dtype=torch.float64, device=device) for each in self.counts.values()])
        shares = dict(zip(self.counts, (own / world.mean(own).clamp(min=1e-12)).unbind(), strict=True))
        terms = {
            name: replace(term, value=term.value * shares[name].to(term.value.dtype)) if name in shares else term
            for name, term in self.terms.items()
        }
        report = {
            name: value * shares[name].to(value.dtype) if name in shares else value
            for name, value in self.report.items()
        }
        return replace(self, terms=terms, report=report, counts={})


class Method(nn.Module):
    """A published method. Subclasses write `encode` and `losses`, and `mine` and `after_step` where they need them.

    Attributes:
        name: what the command line calls it.
        config_class: the frozen dataclass of its sizes; an instance of it is `self.config`.
        watched: for the doctor: names in `report` that have bounds, e.g. `{"temperature_scale": (1.0, 100.0)}`.
        own_state: beginnings of the names of tensors that training makes for itself, twins and queues, which another run
            has no use for.
        rests: whether a step may leave some parameters without a gradient (experts that a stage has no tokens for). DDP then
            looks for them, which costs it a walk over the graph.
        lends: of pairs that are drawn among all ranks' rows, what a row reads of a partner (`methods/partners.py`).
        two_pictures: name of the method that is this one with parts for two pictures at a time (`fuse_two`), of the same config;
            empty where the paper has none.
    """

    name: ClassVar[str] = ""
    config_class: ClassVar[type]
    config: Any
    own_state: ClassVar[tuple[str, ...]] = ()
    rests: ClassVar[bool] = False
    lends: ClassVar[Lent] = {}
    two_pictures: ClassVar[str] = ""
    watched: ClassVar[dict[str, tuple[float, float]]] = {}

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Features and tokens of each row: row i of the output depends on row i of the batch alone."""
        raise TypeError(f"{type(self).__name__} does not define encode")

    def mine(self, reps: Reps, batch: Batch, world: World, step: Step) -> Pairs:
        """Which rows are negatives for which. Runs without gradient; may be random: torch's generator is seeded anew
        for every step."""
        return {}

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """The loss terms over the encoded rows; unless a method says otherwise, those of `across` and of `within`."""
        found, rows = self.across(reps, pairs, batch, world, step), len(next(iter(reps.values())))
        counts = self.counts(pairs, batch, step)
        if self.lends:
            reps, pairs, batch = meet(reps, pairs, batch, world, self.lends)
        within = self.within(reps, pairs, batch, step, rows)
        return found.beside(replace(within, counts=dict(counts)))

    def across(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """The terms that compare rows with one another, and all updates and features.

        Cached, this and `mine` see those `reps` that are vectors, (B, D), and no pictures.
        """
        raise TypeError(f"{type(self).__name__} does not define losses")

    def within(self, reps: Reps, pairs: Pairs, batch: Batch, step: Step, rows: int) -> Losses:
        """The terms, and reports, that are means over rows taken one by one, each perhaps with partners from `pairs`.

        Args:
            reps, batch: `rows` rows that are scored, then others that are there as partners alone. Cached, of the whole batch
                those that a micro-batch needs, and no pictures.
            pairs: `rows` rows; int64 are rows of `reps` and `batch`, numbered as they are here, everything else is a fact.
            rows: how many are scored.
        """
        return Losses({})

    def counts(self, pairs: Pairs, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Over how many things each of `within`'s terms and reports is a mean, by name; those not named are means over rows.

        By this a micro-batch weighs what it holds, and the whole is the mean that one pass would have taken.
        """
        return {}

    def after_step(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """Once per successful optimiser step: advance queues, momentum twins, centres."""

    @property
    def starting(self) -> Method:
        """The part that `--init` fills: all of it, but where a head is put on a trained method."""
        return self

    def adopt(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Another run's tensors, by name, as this method has them: a part that begins as the copy of another is added."""
        return state

    def started(self) -> None:
        """Once after weights were loaded from elsewhere: make the twin equal to the student again."""

    def training_step(self, batch: Batch, world: World, step: Step) -> Losses:
        """The three stages at once; mutates nothing."""
        reps = self.encode(batch, step)
        with torch.no_grad():
            pairs = self.mine(reps, batch, world, step)
        return self.losses(reps, pairs, batch, world, step).over_ranks(world)

    def forward(self, batch: Batch, world: World, step: Step) -> Losses:
        """`training_step`, under the name by which wrappers (DDP, FSDP, compile) find it."""
        return self.training_step(batch, world, step)

    def learning_rates(self) -> list[tuple[str, float]]:
        """`(regular expression, multiplier)` pairs of the paper's own, first match wins; a recipe may override."""
        return []

    def config_json(self) -> dict[str, Any]:
        """The method's configuration as JSON, for the header of a weights file."""
        return to_json(self.config)  # type: ignore[no-any-return]

    @classmethod
    def from_config_json(cls, value: dict[str, Any]) -> Self:
        """The method, freshly initialised, from what `config_json` gave.

        Raises:
            ConfigError: naming a field that does not fit.
        """
        return cls(from_json(cls.config_class, value, f"{cls.name} config"))  # type: ignore[call-arg]
