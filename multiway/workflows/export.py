"""From a trained model to a folder that runs without it: graphs, each held against PyTorch, and all that a runtime must know.

Everything is written aside and renamed when it has been checked, so that a folder that is there is whole and right.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from multiway.hub import onnx_runtime
from multiway.hub.export_check import Difference, compared, require_equal
from multiway.hub.exported import open_exported
from multiway.hub.graph import ExportError, Graph
from multiway.hub.graphs import graphs, parts_of
from multiway.hub.model import Model
from multiway.hub.onnx_file import open_onnx, require_onnx, write_onnx
from multiway.hub.onnx_int8 import quantise
from multiway.hub.onnx_runtime import Exported
from multiway.hub.torch_file import open_torch, traced, write_torch
from multiway.nn.generate import Generation
from multiway.workflows.export_asked import Asked
from multiway.workflows.export_measure import Origin, losses
from multiway.workflows.export_readme import write_readme
from multiway.workflows.export_sidecar import describe, write_sidecar

__all__ = ["Asked", "Report", "Shown", "export"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Shown:
    """Real pictures and texts that graphs are checked with, and 8-bit ranges are taken from.

    Attributes:
        pictures, texts: a few of each, row by row.
    """

    pictures: Sequence[Image.Image]
    texts: Sequence[str]


@dataclass(frozen=True)
class Report:
    """What was written, and how far it is from PyTorch.

    Attributes:
        parts: that there are.
        checked: by variant, what was compared.
        sizes: bytes by variant of all graphs.
        losses: what 8 bits cost, see `export_measure.losses`.
        captions: how many of the real pictures' captions are the same, and of how many; None where none are written.
    """

    parts: tuple[str, ...]
    checked: Mapping[str, list[Difference]]
    sizes: Mapping[str, int]
    captions: tuple[int, int] | None = None
    losses: Sequence[Mapping[str, Any]] = ()


def export(model: Model, asked: Asked, shown: Shown | None, origin: Origin | None, say: Say) -> Report:
    """Write a model's graphs.

    Args:
        model: on the CPU, in float32.
        asked: what.
        shown: real inputs for the check; None for random ones alone.
        origin: what the cost of 8 bits is measured on; None leaves that out.
        say: is told of every graph.

    Raises:
        ExportError: if the model cannot do what is asked for, something cannot be a graph, or a graph is not what PyTorch computes; nothing
            is left then.
    """
    if asked.format == "onnx":
        require_onnx()
    parts = parts_of(model, asked.parts)
    model.method.eval().float()
    asked.target.parent.mkdir(parents=True, exist_ok=True)
    aside = asked.target.with_name(f".{asked.target.name}.{os.getpid()}")
    try:
        aside.mkdir()
        report = _written(model, parts, asked, shown, origin, aside, say)
        if asked.target.is_dir():
            asked.target.rmdir()  # it is empty
        aside.rename(asked.target)
    finally:  # also when interrupted
        shutil.rmtree(aside, ignore_errors=True)
    return report


def _written(
    model: Model,
    parts: Sequence[str],
    asked: Asked,
    shown: Shown | None,
    origin: Origin | None,
    folder: Path,
    say: Say,
) -> Report:
    found = graphs(model, parts)
    real = _real_inputs(model, found, shown)
    suffix = "onnx" if asked.format == "onnx" else "pt2"
    variants = {"fp32": "."} | ({"int8": "int8"} if asked.int8 else {})
    checked: dict[str, list[Difference]] = {name: [] for name in variants}
    for graph in found:
        program, path = traced(graph), folder / f"{graph.name}.{suffix}"
        if asked.format == "onnx":
            write_onnx(graph, program, path, asked.opset)
            run = open_onnx(graph, path)
        else:
            write_torch(graph, program, path)
            run = open_torch(graph, path)
        difference = compared(graph, run, real.get(graph.name, []))
        require_equal(difference, asked.tolerance)
        checked["fp32"].append(difference)
        say(
            f"{path.name}: {_ports(graph)}; differs from PyTorch by {difference.worst:.1e} at most, {difference.cases} sizes"
        )
        if asked.int8:
            (folder / "int8").mkdir(exist_ok=True)
            small = folder / "int8" / path.name
            quantise(path, small)
            checked["int8"].append(compared(graph, open_onnx(graph, small), real.get(graph.name, [])))
    sizes = {name: _bytes(folder / of) for name, of in variants.items()}
    about = describe(model, parts, found, asked, variants) | {
        "checked": {name: [asdict(each) for each in differences] for name, differences in checked.items()},
        "bytes": sizes,
    }
    write_sidecar(folder, model, about)
    captions = None
    if asked.format == "onnx":
        shutil.copyfile(onnx_runtime.__file__, folder / "runtime.py")
        captions = _same_without_torch(model, folder, shown, asked.tolerance)
    if asked.int8 and origin is not None:
        eight = open_exported(folder, "int8")
        about["losses"] = losses(model, eight, origin.evaluations(eight), say)
        write_sidecar(folder, model, about)
    write_readme(folder, model, about, asked.target.name)
    return Report(tuple(parts), checked, sizes, captions, about.get("losses", ()))


def _ports(graph: Graph) -> str:
    def named(ports: Any) -> str:
        names = [f"{port.name} ({', '.join(map(str, port.shape))})" for port in ports]
        return ", ".join(names if len(names) < 4 else [*names[:2], f"and {len(names) - 2} more"])

    return f"{named(graph.inputs)} -> {named(graph.outputs)}"


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".onnx", ".pt2", ".data"))


@torch.no_grad()
def _real_inputs(model: Model, found: Sequence[Graph], shown: Shown | None) -> dict[str, list[list[Tensor]]]:
    """Inputs of each graph from real pictures and texts: what comes before a graph is computed by PyTorch."""
    if shown is None:
        return {}
    have: dict[str, Tensor] = {}
    if shown.pictures:
        have["pixels"] = model.processor.images(list(shown.pictures))
    if model.processor.tokenizer is not None and shown.texts:
        words = model.processor.texts(list(shown.texts))
        have |= {"ids": words.ids, "mask": words.mask, "text_mask": words.mask}
    inputs: dict[str, list[list[Tensor]]] = {}
    for graph in found:
        own = dict(have)
        if graph.name.startswith("caption") and "image_tokens" in have:
            start = model.method.writing(model.method.encode_image(have["pixels"][:1])).start  # type: ignore[operator]
            own["ids"] = torch.full((len(have["pixels"]), 1), start)
        if any(port.name not in own for port in graph.inputs):
            continue
        given = [own[port.name] for port in graph.inputs]
        inputs[graph.name] = [given]
        for port, value in zip(graph.outputs, graph(given), strict=True):
            have[port.name.replace("present.", "past_key_values.")] = value
    return inputs


def _same_without_torch(model: Model, folder: Path, shown: Shown | None, tolerance: float) -> tuple[int, int] | None:
    """Real pictures and strings through `runtime.py`, preprocessing and tokens included, against the model.

    Returns:
        How many captions are the same, and of how many.

    Raises:
        ExportError: if anything but a caption differs; a caption may where two words are equally likely.
    """
    if shown is None:
        return None
    ran, pictures = Exported(folder, threads=torch.get_num_threads()), list(shown.pictures)
    pairs: list[tuple[str, Tensor, Any]] = []
    if pictures:
        pairs.append(("pixels", model.processor.images(pictures), ran.pixels(pictures)))
    if shown.texts and ran.about["text"] is not None:
        words, read = model.processor.texts(list(shown.texts)), ran.tokens(shown.texts)
        pairs += [("ids", words.ids, read["ids"]), ("mask", words.mask, read["mask"])]
    for name, want, got in pairs:
        given = torch.from_numpy(got)
        if want.shape != given.shape or float((want.float() - given.float()).abs().max()) > tolerance:
            raise ExportError(
                f"runtime.py makes other {name} of the same {'pictures' if name == 'pixels' else 'texts'} than the model does"
            )
    if "caption" not in ran.about["parts"] or not pictures:
        return None
    mine = [texts[0] for texts in model.generate(model.encode_image(pictures, tokens=True), Generation())]
    return sum(a == b for a, b in zip(mine, ran.caption(pictures), strict=True)), len(pictures)
