"""The card that goes with exported weights: what they are, whose they were, what they were trained on and measured at, how to load them.

A `README.md` in a folder, `NAME.md` beside `NAME.safetensors`; its head is what model hubs read. All of it is taken from the weights and
from the run folder they came out of; what is not known is said to be unknown.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from multiway.config import to_json
from multiway.engine.run import MODEL, Run, RunError
from multiway.hub.model import Model
from multiway.hub.origin import Origin, joined, licence_of_origin, of_data, of_others
from multiway.hub.sources import by_part
from multiway.version import __version__

__all__ = ["caveats", "licence_of", "settings_of", "write_card"]


def write_card(target: Path, model: Model, layout: str, source: str, step: int | None = None) -> Path:
    """Write the card of what has just been exported.

    Args:
        target: the folder or file.
        model: that is in it.
        layout: of `hub.layouts.WRITERS`.
        source: what was converted; of a run folder data, settings and scores are told.
        step: after which the weights were taken, where they are those of a checkpoint.

    Returns:
        The card's path.
    """
    run = _run(source)
    card = target / "README.md" if target.is_dir() else target.with_suffix(".md")
    after = "" if step is None else f", after step {step}"
    short, licence = licence_of(model, run)
    head = {
        "license": short,
        "library_name": {"transformers": "transformers", "open_clip": "open_clip", "torchscale": "torchscale"}.get(
            layout, "multiway"
        ),
        "tags": ["multiway", model.name, "vision-language"],
    }
    parts = [
        "---\n" + "\n".join(f"{name}: {json.dumps(value)}" for name, value in head.items()) + "\n---\n",
        f"# {model.name}, from `{source}`{after}\n",
        f"Written by multiway {__version__} on {date.today().isoformat()}; "
        f"{sum(each.numel() for each in model.method.parameters()):,} parameters.\n",
        "## Load\n",
        _loading(target, layout),
        "## Licence\n",
        licence + "\n",
        "## Preprocessing\n",
        settings_of(model) + ".\n",
        *(f"**Note**: {each}\n" for each in caveats(model, layout)),
        *_lineage(model),
        *_trained(run, step),
        *_came_from(model),
        "## Configuration\n",
        f"```json\n{json.dumps(to_json(model.method.config), indent=2)}\n```\n",
    ]
    card.write_text("\n".join(parts), encoding="utf-8")
    return card


def licence_of(model: Model, run: Run | None) -> tuple[str, str]:
    """The licence of weights as hubs abbreviate it, `unknown` where nobody has said, and a note.

    Args:
        model: with its origin, which says of weights of this version what they come from.
        run: that trained it, for older ones; None if that is not at hand.
    """
    origin = model.origin or ([] if run is None else _origin_of(run))
    if not origin:
        return (
            "unknown",
            "What these weights were trained on is not known here; say it, and under which licence they are, before you publish them.",
        )
    short, said = licence_of_origin(origin)
    return short, " ".join(said)


def _origin_of(run: Run) -> Origin:
    """What a run's configuration says of where its weights come from."""
    init, data = run.config.get("init"), str(run.config.get("data", ""))
    began = [of_others(source, "") for source in (by_part(init) or {"": init}).values()] if init else []
    return joined(*began, of_data(data, str(run.config.get("recipe", ""))) if data else [])


def settings_of(model: Model) -> str:
    """What travels with the weights, in a line: resolution, drawing, normalisation, activation, epsilon, tokeniser."""
    view, words = model.processor.view, model.processor.tokenizer
    found: dict[str, set[str]] = {"activation": set(), "epsilon": set()}
    _collect(to_json(model.method.config), found)
    middle = "the middle cut out" + (f" of {view.shortest}" if view.shortest else "")
    crop = {"squash": "squeezed into the square", "center": middle, "pad": "fitted on a background"}[view.crop]
    drawn = [
        f"pictures of {view.size} pixels, {view.resample}, {crop}",
        f"mean {_numbers(view.mean)}, deviation {_numbers(view.std)}",
    ]
    said = [
        *(drawn if _sees(model) else ()),
        *(f"{name} {', '.join(sorted(values))}" for name, values in found.items() if values),
        "no tokeniser" if words is None else f"a tokeniser of {len(words):,} ids for texts of {words.context} tokens",
    ]
    return "; ".join(said)


def caveats(model: Model, layout: str) -> list[str]:
    """What the other library does otherwise, and cannot be told to do alike."""
    view, words, found = model.processor.view, model.processor.tokenizer, []
    if layout == "multiway" or not _sees(model):
        return []
    if layout == "open_clip" or view.background != 255:
        there = "in the colours that are hidden under them" if layout == "open_clip" else "on white"
        found.append(
            f"transparent pixels are drawn on a background of {view.background} here, and {there} there; flatten such pictures before"
        )
    if view.crop == "pad":
        found.append(
            f"here pictures that are not square are fitted on a background of {view.background}; no processor there does that, and the "
            "middle is cut out. Pad such pictures before, or give square ones; of these nothing differs"
        )
    if layout == "open_clip" and words is not None:
        found.append("open_clip takes its tokeniser by name; use this folder's tokenizer.json, as the code above does")
    if layout == "open_clip" and view.shortest is not None:
        found.append(
            f"open_clip resizes to {view.size} pixels and cuts nothing more; here {view.size} are cut out of {view.shortest}"
        )
    return found


def _sees(model: Model) -> bool:
    return "encode_image" in model.abilities()


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _collect(value: Any, found: dict[str, set[str]]) -> None:
    if isinstance(value, dict):
        for name, each in value.items():
            if name in found and not isinstance(each, dict | list):
                found[name].add(str(each))
            _collect(each, found)
    elif isinstance(value, list):
        for each in value:
            _collect(each, found)


def _run(source: str) -> Run | None:
    """The run whose weights these are: its folder, or its `model.safetensors`."""
    path = Path(source)
    if not path.is_dir() and not (path.is_file() and path.name == MODEL):
        return None
    try:
        return Run.read(path if path.is_dir() else path.parent)
    except RunError:
        return None


def _loading(target: Path, layout: str) -> str:
    if layout == "open_clip":
        code = (
            "import open_clip\nfrom tokenizers import Tokenizer\n\n"
            f'model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{target.name}")\n'
            f'ids = [Tokenizer.from_file("{target.name}/tokenizer.json").encode("a red fruit").ids]  # filled up with 0 to the context'
        )
    elif layout == "transformers":
        config = json.loads((target / "config.json").read_text(encoding="utf-8"))
        kind = config["architectures"][0]
        lines = [
            f"from transformers import AutoImageProcessor, {kind}",
            "",
            f'model = {kind}.from_pretrained("{target.name}")',
        ]
        if (target / "preprocessor_config.json").is_file():
            lines.append(f'pictures = AutoImageProcessor.from_pretrained("{target.name}")')
        if (target / "tokenizer.json").is_file():
            lines[0] += ", PreTrainedTokenizerFast"
            lines.append(f'words = PreTrainedTokenizerFast.from_pretrained("{target.name}")')
        code = "\n".join(lines)
    elif layout == "torchscale":
        code = (
            "from safetensors.torch import load_file\n\n"
            f'model.load_state_dict(load_file("{target.name}"))  # a BEiT3ForRetrieval or BEiT3ForCaptioning of these sizes'
        )
    else:
        code = f'import multiway as mw\n\nmodel = mw.load("{target.name}")'
    back = target.name if layout == "torchscale" else f"hf:{target.name}"
    again = "" if layout == "multiway" else f'\nBack into multiway: `mw.load("{back}")`.\n'
    return f"```python\n{code}\n```\n{again}"


def _lineage(model: Model) -> list[str]:
    """What the weights come from, first to last."""
    lines = []
    for entry in model.origin:
        if "weights" in entry:
            kind, licence = entry.get("kind"), entry.get("licence", "not known here")
            lines.append(f"weights of `{entry['weights']}`{f' ({kind})' if kind else ''}, licence: {licence}")
        elif "data" in entry:
            recipe = entry.get("recipe")
            lines.append(f"trained on `{entry['data']}`{f' by recipe `{recipe}`' if recipe else ''}")
        elif "average" in entry:
            lines.append(f"averaged: {entry['average']}")
    numbered = "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))
    return ["## Origin\n", f"{numbered}\n"] if lines else []


def _trained(run: Run | None, step: int | None) -> list[str]:
    if run is None:
        return []
    config, settings = run.config, run.config.get("settings", {})
    facts = {"recipe": config.get("recipe"), "preset": config.get("preset"), "data": config.get("data"), "began from": config.get("init"),
             **{name: settings.get(name) for name in ("steps", "batch", "seed", "precision")}}  # fmt: skip
    parts = [
        "## Training\n",
        "\n".join(f"- {name}: `{value}`" for name, value in facts.items() if value not in (None, "")) + "\n",
    ]
    try:
        scored = [line for line in run.metrics() if line.get("eval") and (step is None or line["step"] <= step)]
    except RuntimeError:  # a folder that holds the weights alone
        scored = []
    if scored:
        rows = [
            _row(name, each) for name, each in scored[-1]["eval"].items() if isinstance(each, dict) and "value" in each
        ]
        parts += [
            f"## Measured\n\nAfter {scored[-1]['step']} steps.\n",
            "| metric | value | chance | of |\n|---|---|---|---|\n" + "\n".join(rows) + "\n",
        ]
    return parts


def _row(name: str, metric: dict[str, Any]) -> str:
    chance = "" if metric.get("chance") is None else f"{metric['chance']:.4g}"
    return f"| {name} | {metric['value']:.4g} | {chance} | {metric.get('n', '')} |"


def _came_from(model: Model) -> list[str]:
    if model.report is None:
        return []
    return ["## Where the tensors came from\n", f"{model.report.source}\n\n```text\n{model.report}\n```\n"]
