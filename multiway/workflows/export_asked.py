"""What an export is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from multiway.hub.export_check import TOLERANCE
from multiway.hub.graph import ExportError
from multiway.hub.onnx_file import OPSET, OPSETS

__all__ = ["Asked"]


@dataclass(frozen=True)
class Asked:
    """What is to be written.

    Attributes:
        target: a folder that does not exist yet.
        source: how the model was named.
        format: `onnx`, or `torch` for `torch.export` programs.
        parts: of `hub.graphs.PARTS`; none for all that the model has.
        int8: write every ONNX graph with 8-bit weights too, in `int8/`.
        opset: version of ONNX's operators.
        tolerance: greatest difference from PyTorch in float32.
    """

    target: Path
    source: str
    format: Literal["onnx", "torch"] = "onnx"
    parts: tuple[str, ...] = ()
    int8: bool = False
    opset: int = OPSET
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        if self.int8 and self.format != "onnx":
            raise ExportError("8-bit weights are written as ONNX; leave out --format torch, or --int8")
        if self.opset not in OPSETS:
            raise ExportError(f"opset {self.opset} cannot be written; expected {OPSETS[0]} to {OPSETS[-1]}")
        if self.target.exists() and not (self.target.is_dir() and not any(self.target.iterdir())):
            raise ExportError(f"{self.target} is there already; name a folder that is not")
