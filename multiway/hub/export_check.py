"""Whether a graph that has been written gives what PyTorch gives, for batches and lengths that it was not traced at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multiway.hub.graph import ExportError, Graph

__all__ = ["TOLERANCE", "Difference", "compared", "require_equal", "sizes_of"]

TOLERANCE = 1e-4
"""Greatest difference of a number from PyTorch's, in float32."""


@dataclass(frozen=True)
class Difference:
    """What was compared, and how far apart it was.

    Attributes:
        graph: its name.
        worst: greatest absolute difference of any number of any output.
        output: where that was.
        cases: at how many sizes it was run.
        numbers: how many were compared.
    """

    graph: str
    worst: float
    output: str
    cases: int
    numbers: int


def sizes_of(graph: Graph) -> Iterator[dict[str, int]]:
    """Sizes of its open axes: one of each, a few, and the longest; batches of 1, 2, 5 and 8."""
    for batch, share in ((1, 0.0), (2, 0.3), (5, 0.7), (8, 1.0)):
        found = {"batch": batch, "pictures": batch, "texts": batch + 3}
        for axis in ("length", "past"):
            longest = graph.longest.get(axis, 1)
            found[axis] = max(1, round(share * longest))
        yield found


def compared(
    graph: Graph, run: Callable[[Sequence[Tensor]], list[Tensor]], own: Sequence[Sequence[Tensor]] = ()
) -> Difference:
    """Random inputs of many sizes, and `own` ones, through both.

    Args:
        graph: is run as PyTorch runs it.
        run: the written form, opened.
        own: more inputs: of real pictures and texts.

    Raises:
        ExportError: if something comes out in another shape, or as no number where PyTorch has one.
    """
    worst, where, cases, numbers = 0.0, graph.outputs[0].name, 0, 0
    examples = [graph.example(sizes, seed=number) for number, sizes in enumerate(sizes_of(graph))]
    for inputs in (*examples, *own):
        for port, want, got in zip(graph.outputs, graph(inputs), run(inputs), strict=True):
            if want.shape != got.shape:
                raise ExportError(
                    f"`{graph.name}` gives {port.name} as {tuple(got.shape)}, PyTorch as {tuple(want.shape)}"
                )
            got = got.detach()
            apart = (want.float() - got.float()).abs()
            apart[want == got] = 0.0  # infinities
            if not bool(torch.isfinite(apart).all()):
                raise ExportError(
                    f"`{graph.name}` gives numbers in {port.name} that are infinite or none, where PyTorch's are not, or the reverse"
                )
            numbers += want.numel()
            if want.numel() and float(apart.max()) > worst:
                worst, where = float(apart.max()), port.name
        cases += 1
    return Difference(graph.name, worst, where, cases, numbers)


def require_equal(found: Difference, tolerance: float = TOLERANCE) -> None:
    """Refuse a difference above the tolerance.

    Raises:
        ExportError: saying where it was.
    """
    if found.worst > tolerance:
        raise ExportError(
            f"`{found.graph}` differs from PyTorch by {found.worst:.2g} in {found.output}; at most {tolerance:g} is accepted. Nothing "
            "was kept: please report this with the model's config"
        )
