"""`multiway export RUN OUT`: a model as ONNX graphs or `torch.export` programs, each checked against PyTorch."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiway.cli.output import print_json
from multiway.data.source import DataError
from multiway.hub.load import load
from multiway.hub.onnx_file import OPSET
from multiway.workflows.export import Asked, Report, Shown, export
from multiway.workflows.export_measure import Origin

__all__ = ["Export", "run"]


@dataclass(frozen=True)
class Export:
    """Write a model as graphs that run without multiway; each is held against PyTorch first.

    Attributes:
        source: run folder, weights file, or `hf:` name or folder.
        target: a new folder.
        format: `onnx`, run by onnxruntime, or `torch`, programs of `torch.export`.
        parts: of image, text, compare, match, caption, classify, answer; all that the model can do by default.
        int8: with `onnx`, every graph with weights of 8 bits too, and what they cost on the run's own evaluation.
        opset: version of ONNX's operators.
        data: real pictures and texts for the check and the cost of 8 bits, `name[:path][@split]`; by default the run's own data, held-out
            rows first, and the bundled emoji for weights without a run.
        tasks: that the cost is measured by; by default the run's own, else retrieval, matching and captions.
        rows: of the data that the cost is measured on, so many, evenly spread; 0 for all.
        size: pixels of the pictures that the model is to see, if others than now.
        json: print one JSON object.
    """

    source: Annotated[str, tyro.conf.Positional]
    target: Annotated[str, tyro.conf.Positional]
    format: Literal["onnx", "torch"] = "onnx"
    parts: tuple[str, ...] = ()
    int8: bool = False
    opset: int = OPSET
    data: str = ""
    tasks: tuple[str, ...] = ()
    rows: int = 0
    size: int | None = None
    json: bool = False


def run(args: list[str]) -> int:
    """Export, and say how far it is from PyTorch."""
    asked = tyro.cli(Export, args=args, prog="multiway export")
    what = Asked(Path(asked.target), asked.source, asked.format, asked.parts, asked.int8, asked.opset)
    origin = Origin.of(asked.source, asked.data, asked.tasks, asked.rows)
    model = load(asked.source, size=asked.size)
    try:
        shown: Shown | None = Shown(*origin.examples())
    except DataError as error:
        if asked.data:
            raise
        _say(f"checked with random inputs alone, for the run's data are not here ({error}); --data names others")
        shown = None
    report = export(model, what, shown, origin if shown else None, _say)
    if asked.json:
        print_json({"folder": asked.target, **asdict(report)})
        return 0
    _print(report, asked)
    return 0


def _say(sentence: str) -> None:
    """On the error stream, so that `--json` stays one object."""
    print(sentence, file=sys.stderr)


def _print(report: Report, asked: Export) -> None:
    console = Console()
    if report.losses:
        for task, data in dict.fromkeys((row["task"], row["data"]) for row in report.losses):
            table = Table("metric", "PyTorch", "int8", "95 % interval", "n", title=escape(f"8 bits: {task} on {data}"))
            for row in report.losses:
                if (row["task"], row["data"]) == (task, data):
                    values = [f"{row[name]:.4g}" for name in ("fp32", "int8")]
                    table.add_row(
                        escape(row["metric"]), *values, f"{row['low']:.4g} - {row['high']:.4g}", str(row["n"])
                    )
            console.print(table)
    if report.captions is not None:
        console.print(
            f"captions of real pictures, written without torch: {report.captions[0]} of {report.captions[1]} are the same"
        )
    worst = max(each.worst for each in report.checked["fp32"])
    sizes = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in report.sizes.items())
    console.print(
        f"{asked.target}: {', '.join(report.parts)}; {sizes}; within {worst:.1e} of PyTorch. README.md says how to run it",
        soft_wrap=True,
    )
