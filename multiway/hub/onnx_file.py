"""Graphs as ONNX files: written from traced programs, opened in onnxruntime, held against PyTorch.

ONNX (onnx.ai) is the format; onnxruntime runs it on any machine without PyTorch. A graph of more than 1.5 GB keeps its weights beside it
in `NAME.onnx.data`, since a file of the format cannot hold 2 GB.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from multiway.hub.graph import ExportError, Graph

__all__ = ["OPSET", "OPSETS", "open_onnx", "require_onnx", "write_onnx"]

OPSET = 20
"""Version of ONNX's operators that is written by default: read by every onnxruntime from 1.17 on (2024)."""

OPSETS = range(18, 23)
"""Versions that can be written. From 23 on attention is one operator, of which onnxruntime 1.31 takes no mask that is to be broadcast."""

_LARGEST = 1_500_000_000  # bytes of weights in one file


def require_onnx() -> None:
    """Refuse, with the remedy, where the packages are missing.

    Raises:
        ExportError: naming the extra that has them.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"ONNX is written with packages that are not here ({error.name}): pip install 'multiway[onnx]'"
        ) from error


def write_onnx(graph: Graph, program: ExportedProgram, path: Path, opset: int = OPSET) -> None:
    """Write a traced program as `path`, its inputs, outputs and open axes under their names.

    Raises:
        ExportError: if ONNX has no word for something in it.
    """
    size = sum(each.numel() * each.element_size() for each in program.state_dict.values())
    try:
        with _quiet():
            torch.onnx.export(
                program,
                (),
                str(path),
                input_names=[port.name for port in graph.inputs],
                output_names=[port.name for port in graph.outputs],
                opset_version=opset,
                external_data=size > _LARGEST,
                dynamo=True,
            )
        _tidy(path)
    except Exception as error:  # of whichever of the exporter's passes
        first = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ExportError(
            f"`{graph.name}` cannot be written as ONNX, opset {opset}: {type(error).__name__}: {first:.300}"
        ) from error


def _tidy(path: Path) -> None:
    """Leave out the exporter's notes on shapes within the graph, some of which are of weights as they were before they were turned round
    (readers infer them), and hold what remains against the format's rules."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    del model.graph.value_info[:]
    onnx.save(model, path)
    onnx.checker.check_model(path, full_check=True)


def open_onnx(graph: Graph, path: Path, threads: int | None = None) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """The file as a function of the graph's inputs, run by onnxruntime on the CPU.

    Args:
        graph: that it was written from.
        path: the file.
        threads: of each operator; None for as many as PyTorch uses.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common kind
        raise ExportError(f"onnxruntime does not take {path.name}: {error!s:.300}") from error
    # An input that nothing depends on is no input of the file.
    there = {each.name for each in session.get_inputs()}

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        feed = {port.name: each.numpy() for port, each in zip(graph.inputs, inputs, strict=True) if port.name in there}
        try:
            found = session.run([port.name for port in graph.outputs], feed)
        except Exception as error:
            sizes = ", ".join(f"{name} {each.shape}" for name, each in feed.items())
            raise ExportError(f"onnxruntime cannot run {path.name} on {sizes}: {error!s:.300}") from error
        return [torch.from_numpy(each) for each in found]

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress and hints are for its own developers; what goes wrong is raised."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
