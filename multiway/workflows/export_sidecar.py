"""What lies beside graphs: everything that a runtime needs, and what whoever finds the folder wants to know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from multiway.config import identity_json
from multiway.engine.run import Run, RunError
from multiway.hub.graph import Graph
from multiway.hub.model import Model
from multiway.hub.onnx_runtime import FORMAT
from multiway.version import __version__
from multiway.workflows.export_asked import Asked
from multiway.workflows.model_card import licence_of

__all__ = ["describe", "write_sidecar"]


def write_sidecar(folder: Path, model: Model, about: Mapping[str, Any]) -> None:
    """Write `export.json`, and `tokenizer.json` where texts are read."""
    if model.processor.tokenizer is not None:
        (folder / "tokenizer.json").write_text(model.processor.tokenizer.to_json(), encoding="utf-8")
    (folder / "export.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def describe(
    model: Model, parts: Sequence[str], found: Sequence[Graph], asked: Asked, variants: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that a runtime needs, and what whoever finds the folder wants to know."""
    view, words, method = model.processor.view, model.processor.tokenizer, model.method
    try:
        path = Path(asked.source)
        run: Run | None = Run.read(path if path.is_dir() else path.parent)
    except RunError:
        run = None
    short, licence = licence_of(model, run)
    text = None
    if words is not None:
        text = {
            "tokenizer": "tokenizer.json",
            "context": words.context,
            "ids": len(words),
            "pad": words.pad,
            "special": words.special,
        }
    caption = None
    if "caption" in parts:
        writing = method.writing(method.encode_image(torch.zeros(1, 3, view.size, view.size)))  # type: ignore[operator]
        names = ("start", "end", "pad", "context", "prompted")
        caption = {name: getattr(writing, name) for name in names}
    picture = {
        name: getattr(view, name) for name in ("size", "crop", "shortest", "mean", "std", "resample", "background")
    }
    return {
        "format": FORMAT,
        "runtime": asked.format,
        "written": f"multiway {__version__}, torch {torch.__version__}, {date.today().isoformat()}",
        "opset": asked.opset if asked.format == "onnx" else None,
        "method": model.name,
        "source": asked.source,
        "origin": model.origin,
        "licence": {"id": short, "note": licence},
        "parts": list(parts),
        "compares": "compare" in model.abilities(),
        "picture": picture,
        "view": identity_json(view),
        "text": text,
        "caption": caption,
        "classes": list(model.classes) if "classify" in parts else None,
        "answers": list(model.answers) if "answer" in parts else None,
        "variants": dict(variants),
        "tolerance": asked.tolerance,
        "graphs": {
            graph.name: {
                "inputs": [port.to_json() for port in graph.inputs],
                "outputs": [port.to_json() for port in graph.outputs],
                "longest": {axis: graph.longest[axis] for axis in graph.axes if axis in graph.longest},
            }
            for graph in found
        },
    }
