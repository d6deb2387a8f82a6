"""multiway: one codebase for vision-language pre-training.

import multiway as mw
model = mw.load("runs/demo")
model.encode_text(["red fruit"]).embedding
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from multiway.version import __version__

__all__ = ["__version__", "explain", "load"]

if TYPE_CHECKING:
    from multiway.explain.look import explain
    from multiway.hub.load import load


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `multiway --help` does not wait for torch.
    if name == "load":
        from multiway.hub.load import load

        return load
    if name == "explain":
        # A package that can be called (`explain/__init__.py`), so that its modules stay where they are.
        return import_module("multiway.explain")
    raise AttributeError(f"module 'multiway' has no attribute {name!r}")
