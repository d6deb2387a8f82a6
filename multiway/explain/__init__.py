"""Looking inside: maps of what a model attends to, as `multiway.explain(model, image, text, kinds=...)` and by parts.

Knows abilities, never a particular method. The package is called like a function because that is what most want of it; what is
called is `look.explain`, and nothing of it is imported before.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A package that can be called: `multiway.explain` is both, and a function of that name would hide the package."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`look.explain`."""
        from multiway.explain.look import explain

        return explain(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
