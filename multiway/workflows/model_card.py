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
from multiway.engine.run import Run, RunError
from multiway.hub.model import Model
from multiway.version import __version__

__all__ = ["caveats", "licence_of", "settings_of", "write_card"]

# Data that come with multiway: licence as hubs abbreviate it, and what it says.
_DATA = {
    "emoji": (
        "ofl-1.1",
        "the pictures of Noto Emoji, SIL Open Font License 1.1, with Unicode's names, Unicode License v3",
    ),
    "scenes": ("apache-2.0", "scenes drawn by multiway itself, Apache License 2.0"),
    "digits": ("bsd-3-clause", "the digits that scikit-learn distributes, BSD 3-Clause"),
}
_NOT_LEGAL = (
    "Whether a licence of data reaches weights that learned from them is not settled; this note says what was used."
)


def write_card(target: Path, model: Model, layout: str, source: str) -> Path:
    """Write the card of what has just been exported.

    Args:
        target: the folder or file.
        model: that is in it.
        layout: of `hub.layouts.WRITERS`.
        source: what was converted; of a run folder data, settings and scores are told.

    Returns:
        The card's path.
    """
    run = _run(source)
    card = target / "README.md" if target.is_dir() else target.with_suffix(".md")
    short, licence = licence_of(model, run)
    head = {
        "license": short,
        "library_name": {"transformers": "transformers", "open_clip": "open_clip"}.get(layout, "multiway"),
        "tags": ["multiway", model.name, "vision-language"],
    }
    parts = [
        "---\n" + "\n".join(f"{name}: {json.dumps(value)}" for name, value in head.items()) + "\n---\n",
        f"# {model.name}, from `{source}`\n",
        f"Written by multiway {__version__} on {date.today().isoformat()}; "
        f"{sum(each.numel() for each in model.method.parameters()):,} parameters.\n",
        "## Load\n",
        _loading(target, layout),
        "## Licence\n",
        licence + "\n",
        "## Preprocessing\n",
        settings_of(model) + ".\n",
        *(f"**Note**: {each}\n" for each in caveats(model, layout)),
        *_trained(run),
        *_came_from(model),
        "## Configuration\n",
        f"```json\n{json.dumps(to_json(model.method.config), indent=2)}\n```\n",
    ]
    card.write_text("\n".join(parts), encoding="utf-8")
    return card


def licence_of(model: Model, run: Run | None) -> tuple[str, str]:
    """The licence of weights as hubs abbreviate it, `unknown` where nobody has said, and a sentence.

    Args:
        model: with its origin.
        run: that trained it; None if that is not at hand.
    """
    origin = model.origin
    if not origin and run is not None and run.config.get("init"):
        origin = {"source": run.config["init"]}
    if origin:
        stated = origin.get("licence")
        what = (
            f"under {stated}, as stated there"
            if stated
            else "whose licence is not stated there: look it up before you publish them"
        )
        return stated or "unknown", f"These weights began as those of `{origin.get('source')}`, {what}."
    if run is None:
        return (
            "unknown",
            "What these weights were trained on is not known here; say it, and under which licence they are, before you publish them.",
        )
    names = [
        str(part).partition(":")[0].partition("@")[0].partition("*")[0] for part in str(run.config["data"]).split("+")
    ]
    known = [_DATA[name] for name in names if name in _DATA]
    if len(known) < len(names):
        other = ", ".join(name for name in names if name not in _DATA)
        return (
            "unknown",
            f"Trained on `{other}`, whose licence is not known here; say it before you publish these weights. {_NOT_LEGAL}",
        )
    return known[0][0] if len(
        known
    ) == 1 else "other", f"Trained on {'; '.join(said for _, said in known)}. {_NOT_LEGAL}"


def settings_of(model: Model) -> str:
    """What travels with the weights, in a line: resolution, drawing, normalisation, activation, epsilon, tokeniser."""
    view, words = model.processor.view, model.processor.tokenizer
    found: dict[str, set[str]] = {"activation": set(), "epsilon": set()}
    _collect(to_json(model.method.config), found)
    crop = {"squash": "squeezed into the square", "center": "the middle cut out", "pad": "fitted on a background"}[
        view.crop
    ]
    said = [
        f"pictures of {view.size} pixels, {view.resample}, {crop}",
        f"mean {_numbers(view.mean)}, deviation {_numbers(view.std)}",
        *(f"{name} {', '.join(sorted(values))}" for name, values in found.items() if values),
        "no tokeniser" if words is None else f"a tokeniser of {len(words):,} ids for texts of {words.context} tokens",
    ]
    return "; ".join(said)


def caveats(model: Model, layout: str) -> list[str]:
    """What the other library does otherwise, and cannot be told to do alike."""
    view, words, found = model.processor.view, model.processor.tokenizer, []
    if layout == "multiway":
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
    path = Path(source)
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
    else:
        code = f'import multiway as mw\n\nmodel = mw.load("{target.name}")'
    again = "" if layout == "multiway" else f'\nBack into multiway: `mw.load("hf:{target.name}")`.\n'
    return f"```python\n{code}\n```\n{again}"


def _trained(run: Run | None) -> list[str]:
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
        scored = [line for line in run.metrics() if line.get("eval")]
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
