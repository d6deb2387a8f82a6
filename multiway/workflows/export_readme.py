"""The README of an exported folder: what it is, code that runs it, how far it is from PyTorch, what 8 bits cost, the licence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiway.hub.model import Model
from multiway.workflows.model_card import settings_of

__all__ = ["write_readme"]


def write_readme(folder: Path, model: Model, about: Mapping[str, Any], name: str) -> None:
    """Write `README.md` from what `export.json` says.

    Args:
        folder: where.
        model: that was exported.
        about: of `export.json`.
        name: of the folder, for the code.
    """
    onnx = about["runtime"] == "onnx"
    head = {
        "license": about["licence"]["id"],
        "library_name": "onnx" if onnx else "pytorch",
        "tags": ["multiway", model.name],
    }
    parts = [
        "---\n" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items()) + "\n---\n",
        f"# {model.name}, from `{about['source']}`, as {'ONNX' if onnx else 'torch.export programs'}\n",
        f"Written by {about['written']}. Batches and lengths are open; pictures are of {model.processor.view.size} pixels. "
        "`export.json` has names, types and shapes of everything that goes in and comes out, special ids and preprocessing.\n",
        "## Run\n",
        _onnx_code(about, name) if onnx else _torch_code(about, name),
        "## Graphs\n",
        _table(about),
        *_int8(about),
        "## Preprocessing\n",
        settings_of(model) + ".\n",
        "## Licence\n",
        about["licence"]["note"] + "\n",
    ]
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def _onnx_code(about: Mapping[str, Any], name: str) -> str:
    parts = set(about["parts"])
    lines = [
        f"# pip install onnxruntime tokenizers pillow numpy; run beside this file, in {name}/",
        "from runtime import Exported",
        "",
        'model = Exported(".")',
    ]
    if "image" in parts:
        shown = "image_embedding" if _has(about, "image", "image_embedding") else "image_tokens"
        lines.append(f'model.encode_image(["cat.png"])["{shown}"]  # {_shape(about, "image", shown)}')
    if {"image", "text"} <= parts and about["compares"]:
        lines.append('model.similarity(["cat.png"], ["a cat", "a dog"])  # (pictures, texts)')
    if "match" in parts:
        lines.append('model.match(["cat.png"], ["a cat"])  # log-odds of a pair')
    if "caption" in parts:
        lines.append('model.caption(["cat.png"])  # a text for each, greedily')
    if "classify" in parts:
        lines.append('model.classify(["cat.png"])  # scores of model.about["classes"]')
    if "answer" in parts:
        lines.append('model.answer(["cat.png"], ["what is it?"])  # scores of model.about["answers"]')
    if "int8" in about["variants"]:
        lines.append('Exported(".", "int8")  # the same with weights of 8 bits')
    end = "\n`runtime.py` is one file over `onnxruntime.InferenceSession`: copy it, or read how it is done.\n"
    return "```python\n" + "\n".join(lines) + "\n```\n" + end


def _torch_code(about: Mapping[str, Any], name: str) -> str:
    graph, ports = next(iter(about["graphs"].items()))
    inputs = ", ".join(_example(port) for port in ports["inputs"])
    return (
        "```python\nimport torch\n\n"
        f'run = torch.export.load("{name}/{graph}.pt2").module()\n'
        f"run({inputs})  # {', '.join(port['name'] for port in ports['outputs'])}\n```\n\n"
        "`torch.export.load` uses pickle: load files from people you trust. Pictures are drawn and texts cut into ids as `export.json` "
        "and `tokenizer.json` say.\n"
    )


def _example(port: Mapping[str, Any]) -> str:
    sizes = ", ".join(str(size if isinstance(size, int) else 2) for size in port["shape"])
    make = {"int64": "torch.zeros({}, dtype=torch.int64)", "bool": "torch.ones({}, dtype=torch.bool)"}
    return make.get(port["dtype"], "torch.randn({})").format(sizes)


def _has(about: Mapping[str, Any], graph: str, output: str) -> bool:
    return any(port["name"] == output for port in about["graphs"][graph]["outputs"])


def _shape(about: Mapping[str, Any], graph: str, output: str) -> str:
    shape = next(port["shape"] for port in about["graphs"][graph]["outputs"] if port["name"] == output)
    return f"({', '.join(map(str, shape))})"


def _table(about: Mapping[str, Any]) -> str:
    variants = about["variants"]
    lines = [
        "| graph | inputs | outputs |" + "".join(f" {name}: apart from PyTorch |" for name in variants),
        "|---|---|---|" + "---|" * len(variants),
    ]
    for number, (graph, ports) in enumerate(about["graphs"].items()):
        apart = [f" {about['checked'][name][number]['worst']:.1e} |" for name in variants]
        lines.append(f"| `{graph}` | {_named(ports['inputs'])} | {_named(ports['outputs'])} |" + "".join(apart))
    sizes = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in about["bytes"].items())
    return (
        "\n".join(lines)
        + f"\n\nGreatest absolute differences of any output, over batches of 1 to 8, short and longest texts. All graphs together: {sizes}.\n"
    )


def _named(ports: list[Mapping[str, Any]]) -> str:
    names = [f"`{port['name']}` ({', '.join(map(str, port['shape']))})" for port in ports]
    return ", ".join(names if len(names) < 5 else [*names[:3], f"{len(names) - 3} more"])


def _int8(about: Mapping[str, Any]) -> list[str]:
    if "int8" not in about["variants"]:
        return []
    said = "Weights of matrix products and embeddings have 8 bits, each channel its own scale; activations are rounded as they come.\n"
    if not about.get("losses"):
        return ["## 8 bits\n", said, "What that costs was not measured on a task.\n"]
    lines = ["| task | data | metric | fp32 | int8 | 95 % interval of fp32 | n |", "|---|---|---|---|---|---|---|"]
    for row in about["losses"]:
        lines.append(
            f"| {row['task']} | {row['data']} | {row['metric']} | {row['fp32']:.4g} | {row['int8']:.4g} | "
            f"{row['low']:.4g} - {row['high']:.4g} | {row['n']} |"
        )
    return ["## 8 bits\n", said, "\n".join(lines) + "\n"]
