"""multiway: one codebase for vision-language pre-training.

import multiway as mw

model = mw.train("clip", data="emoji", out="runs/demo")      # or mw.load("runs/demo"), mw.load("hf:...")
model.encode_text(["red fruit"]).embedding
print(mw.evaluate(model, "retrieval", "emoji@composition"))

docs/quickstart.md goes through all of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from multiway.version import __version__

__all__ = [
    "Generation",
    "PictureIndex",
    "ZeroShotClassifier",
    "__version__",
    "convert",
    "evaluate",
    "explain",
    "finetune",
    "load",
    "open_source",
    "train",
]

if TYPE_CHECKING:
    from multiway.data.open import open_source
    from multiway.explain.look import explain
    from multiway.hub.load import load
    from multiway.nn.generate import Generation
    from multiway.serve.search import PictureIndex
    from multiway.tasks.zeroshot import ZeroShotClassifier
    from multiway.workflows.convert import convert
    from multiway.workflows.quick import evaluate, finetune, train

# Loaded on first use, so that `multiway --help` does not wait for torch.
_PLACES = {
    "Generation": "multiway.nn.generate",
    "PictureIndex": "multiway.serve.search",
    "ZeroShotClassifier": "multiway.tasks.zeroshot",
    "convert": "multiway.workflows.convert",
    "evaluate": "multiway.workflows.quick",
    "finetune": "multiway.workflows.quick",
    "load": "multiway.hub.load",
    "open_source": "multiway.data.open",
    "train": "multiway.workflows.quick",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name == "explain":
        # A package that can be called (`explain/__init__.py`), so that its modules stay where they are.
        return import_module("multiway.explain")
    raise AttributeError(f"module 'multiway' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
