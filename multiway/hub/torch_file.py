"""Graphs as `torch.export` programs: traced once for any batch and length, written as `.pt2`, read again and compared.

A `.pt2` is an archive that `torch.export.load` reads; it uses pickle for parts of it, so that one from a stranger can run code. Nothing
here reads any but the file that it has just written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from multiway.hub.graph import ExportError, Graph

__all__ = ["open_torch", "traced", "write_torch"]


def traced(graph: Graph) -> ExportedProgram:
    """The graph as torch sees it.

    Raises:
        ExportError: if the method does something that cannot be a graph, with what torch says of it.
    """
    try:
        return _export(graph, graph.module)
    except Exception as error:  # whatever a method does that is no graph
        said = " ".join(str(error).split()) or "no more is known"
        raise ExportError(
            f"`{graph.name}` cannot be traced for any batch and length: {type(error).__name__}: {said:.600}"
        ) from error


def _export(graph: Graph, module: torch.nn.Module) -> ExportedProgram:
    example = graph.nested(graph.example({"batch": 3, "pictures": 3, "texts": 4, "length": 5, "past": 5}, seed=0))
    axes = {axis: Dim(axis, min=1, max=graph.longest.get(axis)) for axis in graph.axes}
    open_ = [
        {i: _dim(size, axes) for i, size in enumerate(port.shape) if isinstance(size, str)} for port in graph.inputs
    ]
    with torch.no_grad():
        return torch.export.export(module, example, dynamic_shapes=graph.nested(open_), strict=False)


def _dim(size: str, axes: dict[str, Any]) -> Any:
    axis, _, more = size.partition("+")
    return axes[axis] + int(more) if more else axes[axis]


def write_torch(graph: Graph, program: ExportedProgram, path: Path) -> None:
    """Write a program as `.pt2`, with the weights that it uses: a program has all of the module's that it was traced from."""
    module = program.module(check_guards=False)
    module.graph.eliminate_dead_code()  # weights that nothing is computed from
    module.recompile()
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name, _ in [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]:
        if name not in used:
            place, _, last = name.rpartition(".")
            delattr(module.get_submodule(place), last)
    torch.export.save(_export(graph, module), path)


def open_torch(graph: Graph, path: Path) -> Any:
    """What was just written, as a function of the graph's inputs."""
    module = torch.export.load(path).module()

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return list(module(*graph.nested(inputs)))

    return run
