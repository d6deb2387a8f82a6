"""Gradient caching: the gradient of a large batch in the memory of a small one.

Gao, Zhang, Han and Callan, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021, arXiv 2101.06983,
section 3.2. A contrastive loss needs the features of all rows, and its gradient reaches the encoder through these features
alone. So, over the stages of a method's step (`methods/method.py`):

    1. encode every row, a micro-batch at a time, without a graph; the features are leaves
    2. mine, and take the loss over all leaves; backward gives the leaves' gradients
    3. encode each micro-batch again, with a graph, from the same random numbers, and go on backward from its leaves' gradients

By the chain rule this is the gradient of the whole batch; the price is one forward pass of the encoder more. Where a method
tells its losses in two parts, `within` (ALBEF's and BLIP's fused pass) is run in micro-batches too, between 2 and 3. It is a
mean over rows whose weights are known beforehand, so that forward and backward are run once and nothing is done twice.

Dropout draws for each micro-batch by itself, as with `Settings.accumulate`: other numbers than for the whole batch at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from multiway.batch import Batch
from multiway.engine.agreement import from_main
from multiway.engine.cached_leaves import Borrowed, Leaf, Words, check_rows, needed_rows
from multiway.engine.gradients import average
from multiway.engine.settings import Settings
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.world import World

__all__ = ["CachedStep", "splits"]


def splits(method: Method) -> bool:
    """Whether the losses of a method are `across` and `within`, and nothing else."""
    return type(method).losses is Method.losses


class CachedStep:
    """Forward and backward of one step, cached; gradients are left on the parameters.

    Args:
        method: on its device, in training mode. It is called as it is, without DDP: gradients are averaged over ranks here.
        settings: `cache` rows to a micro-batch; how tokens are kept.
        world: the ranks.
        say: told once what is kept and how many bytes it takes, before they are taken.

    Raises:
        ValueError: for a batch that does not divide, batch normalisation, or tokens that cannot be kept as asked.
    """

    def __init__(self, method: Method, settings: Settings, world: World, say: Callable[[str], None]) -> None:
        own = settings.batch // world.size
        if own % settings.cache:
            raise ValueError(
                f"a rank's batch of {own} rows does not divide into micro-batches of {settings.cache}; set cache to a divisor of it"
            )
        norms = [name for name, part in method.named_modules() if isinstance(part, _BatchNorm) and part.training]
        if norms:
            more = f" and {len(norms) - 1} more" if len(norms) > 1 else ""
            raise ValueError(
                f"gradient caching encodes {method.name or type(method).__name__} in micro-batches, and batch normalisation "
                f"({norms[0]}{more}) would normalise each by itself, across ranks or not, and move its running statistics twice; "
                "use layer norm, freeze it, or set cache to 0"
            )
        self.split = splits(method)
        self.lends = method.lends if self.split and world.size > 1 else {}
        if self.lends and settings.cache_on_cpu:
            raise ValueError(
                f"{method.name or type(method).__name__} mines negatives among the rows of all ranks, whose tokens are sent between "
                "devices and not kept in the main memory: set --method.negatives rank, or leave cache_on_cpu off"
            )
        if (settings.cache_bf16 or settings.cache_on_cpu) and not self.split:
            raise ValueError(
                f"cache_bf16 and cache_on_cpu keep tokens that are read a micro-batch at a time; the losses of "
                f"{method.name or type(method).__name__} read all rows at once: leave both off"
            )
        self.method, self.settings, self.world, self.say = method, settings, world, say
        self.device = next(method.parameters()).device
        self.begun = False
        from_main([*method.parameters(), *method.buffers()], world)

    def __call__(self, batch: Batch, finish: Callable[[Batch], Batch], step: Step, autocast: bool) -> Losses:
        """Leave the gradient of the mean over ranks on the parameters, and give the terms without graph.

        Args:
            batch: this rank's rows, on any device; pictures are moved and finished a micro-batch at a time.
            finish: what the device does to pictures first; row-local.
            step: where training is.
            autocast: whether to compute in bfloat16.

        Raises:
            ValueError: if `encode` is not row-local or not replayable, or a loss reads pictures.
        """
        rows, size = len(batch), self.settings.cache
        starts = self.micro_batches(rows)

        # A context of its own for every pass: autocast keeps cast weights, and those of a pass without graph have none.
        def computing() -> torch.autocast:
            return torch.autocast(self.device.type, torch.bfloat16, enabled=autocast)

        def encode(start: int) -> Reps:
            with computing():
                return self.method.encode(finish(batch.rows(start, start + size).to(self.device)), step)

        states, leaves = [], dict[str, Leaf]()
        for start in starts:
            states.append(_generators(self.device))
            # The first has a graph, which is dropped at once, to see which features are learned and which are a twin's.
            with torch.set_grad_enabled(start == 0):
                part = encode(start)
            check_rows(part, size, leaves)
            leaves = leaves or self._leaves(part, rows)
            for name, leaf in leaves.items():
                leaf.put(start, part[name])
            del part

        words = replace(batch, images=None, views=(), draws=None, captions=(), skipped=()).to(self.device)
        vectors = {name: leaf.whole() for name, leaf in leaves.items() if not leaf.apart}
        with computing():
            with torch.no_grad():
                pairs = self.method.mine(vectors, Words.of(words), self.world, step)
            whole = self.method.across if self.split else self.method.losses
            losses = whole(vectors, pairs, Words.of(words), self.world, step).over_ranks(self.world)
        if losses.terms and losses.total.requires_grad:
            losses.total.backward()
        losses = replace(losses, terms={name: _bare(term) for name, term in losses.terms.items()})
        for name, vector in vectors.items():
            leaves[name].gradient = vector.grad
        if self.split:
            losses = losses.beside(self._within(leaves, pairs, words, step, computing))

        with _restored(self.device):
            for start, state in zip(starts, states, strict=True):
                _restore(self.device, state)
                self._replay(encode(start), leaves, start)
        self.begun = True
        average(self.method.parameters(), self.world)
        return losses

    def micro_batches(self, rows: int) -> range:
        """Where micro-batches begin. A plan, which computes nothing, takes the first few for all (`workflows/plan_step.py`)."""
        return range(0, rows, self.settings.cache)

    def _leaves(self, first: Reps, rows: int) -> dict[str, Leaf]:
        """Room for what `encode` gives of all rows, announced before it is taken."""
        if not any(each.requires_grad for each in first.values()):
            raise ValueError(
                f"encode of {self.method.name or type(self.method).__name__} gives nothing that is learned, so that there is "
                "nothing to cache; set cache to 0"
            )
        leaves = {name: Leaf(each, rows, self.split and each.ndim > 2, self.settings) for name, each in first.items()}
        if not self.begun:
            listed = ", ".join(f"{name} {leaf.bytes / 2**20:,.1f}" for name, leaf in leaves.items())
            total = sum(leaf.bytes for leaf in leaves.values())
            self.say(
                f"gradient cache: {rows // self.settings.cache} micro-batches of {self.settings.cache} rows; kept of {rows:,} "
                f"rows, gradients included: {total / 2**20:,.1f} MiB ({listed})"
            )
        for leaf in leaves.values():
            leaf.make()
        return leaves

    def _within(
        self, leaves: Mapping[str, Leaf], pairs: Pairs, words: Batch, step: Step, computing: Callable[[], Any]
    ) -> Losses:
        """The row-local part, forward and backward, each micro-batch weighed by its share of what the means are over."""
        size, rows = self.settings.cache, next(iter(leaves.values())).shape[0]
        starts = self.micro_batches(rows)
        borrowed = Borrowed(leaves, pairs, words, self.world, self.lends, self.settings)
        leaves, pairs, words = borrowed.leaves, borrowed.pairs, borrowed.words
        own = [{name: each[start : start + size] for name, each in pairs.items()} for start in starts]
        held = [
            self.method.counts(some, words.rows(start, start + size), step)
            for some, start in zip(own, starts, strict=True)
        ]
        shares, even = _shares(held, self.world), [1.0 / len(starts)] * len(starts)
        found: list[Losses] = []
        for number, start in enumerate(starts):
            needed, local = needed_rows(own[number], start, size, rows + borrowed.count)
            reps = {name: leaf.take(needed) for name, leaf in leaves.items()}
            texts = Words.of(words.map(lambda each, needed=needed: each[needed[needed < len(each)]]))  # type: ignore[misc]
            with computing():
                part = self.method.within(reps, local, texts, step, size)
            weighed = [term.weight * shares.get(name, even)[number] * term.value for name, term in part.terms.items()]
            if weighed and (total := torch.stack(weighed).sum()).requires_grad:
                total.backward()
            for name, rep in reps.items():
                if rep.grad is not None:
                    leaves[name].add(needed[: len(rep)], rep.grad)
            found.append(replace(part, terms={name: _bare(term) for name, term in part.terms.items()}))
        borrowed.give_back()
        return _mean(found, shares, even)

    def _replay(self, part: Reps, leaves: Mapping[str, Leaf], start: int) -> None:
        """Backward from the gradients of the leaves; the first step's features are held against those of the first pass."""
        ends, gradients = [], []
        for name, leaf in leaves.items():
            rows = slice(start, start + len(part[name]))
            if not self.begun and part[name].is_floating_point():
                before, again = leaf.value[rows].to(part[name]).float(), part[name].detach().float()
                if (before - again).norm() > 0.05 * before.norm():
                    raise ValueError(
                        f"`{name}` of rows {rows.start} to {rows.stop - 1} came out differently when encoded again: the encoder draws "
                        "random numbers that are not torch's, or keeps a state; gradient caching needs the same again: set cache to 0"
                    )
            if part[name].requires_grad and leaf.gradient is not None:
                ends.append(part[name])
                gradients.append(leaf.gradient[rows].to(part[name]))
        torch.autograd.backward(ends, gradients)


def _shares(held: Sequence[Mapping[str, Tensor]], world: World) -> dict[str, list[float]]:
    """What part each micro-batch holds of the things that a mean is over, by the mean's name; of a mean over ranks, of its share."""
    counts = {name: torch.stack([each[name] for each in held]).double() for name in held[0]}
    return {name: (each / world.mean(each.sum()).clamp(min=1e-12)).tolist() for name, each in counts.items()}


def _mean(found: Sequence[Losses], shares: Mapping[str, Sequence[float]], even: Sequence[float]) -> Losses:
    """Micro-batches as one: terms and reports by what they are means over. Chance values too, which says what they are of."""

    def mean(name: str, values: Iterable[Any]) -> Any:
        return sum(share * value for share, value in zip(shares.get(name, even), values, strict=True))

    terms, report = {}, {}
    for name, term in found[0].terms.items():
        chances, formula = [part.terms[name].chance for part in found], term.formula
        own = sum(shares.get(name, even)) or 1.0  # of all ranks' the shares of one need not add up to 1
        chance = None if None in chances else float(mean(name, chances)) / own
        if len(set(chances)) > 1:
            formula = f"mean of {len(found)} micro-batches, the first: {formula}"
        terms[name] = Term(mean(name, [part.terms[name].value for part in found]), term.weight, chance, formula)
    for name in found[0].report:
        report[name] = mean(name, [part.report[name] for part in found])
    return Losses(terms, report)


def _bare(term: Term) -> Term:
    """The term without its graph, whose memory is then free."""
    return replace(term, value=term.value.detach())


# Random numbers: torch's generators, of the processor and of the device.


def _generators(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore(device: torch.device, states: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state(states[1], device)


@contextmanager
def _restored(device: torch.device) -> Iterator[None]:
    """Afterwards the generators go on from where they were."""
    states = _generators(device)
    yield
    _restore(device, states)
