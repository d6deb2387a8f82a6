"""Methods that stand on a trained one: what that can do, they still can, beside what they were tuned for."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from torch import nn

from multiway.abilities import ABILITIES
from multiway.methods.finetune_config import Tuning
from multiway.methods.kept import adapt, keep
from multiway.methods.layer_decay import layer_rates
from multiway.methods.method import Method
from multiway.nn.lora import LowRank

__all__ = ["OnAnother", "Tuned"]


class OnAnother(Method):
    """A method on another one, `base`, which a subclass builds.

    Attributes:
        lent: what is asked of the method underneath where this one has none of that name.
    """

    rests: ClassVar[bool] = True  # heads and twins of the method underneath learn nothing here
    lent: ClassVar[tuple[str, ...]] = tuple(ABILITIES)
    base: Method

    def __getattr__(self, name: str) -> Any:
        """What the method underneath can do, it still can: retrieval is measured before and after."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in self.lent and "base" in self.__dict__.get("_modules", {}):
                return getattr(self.base, name)
            raise

    @property
    def starting(self) -> Method:
        """The part that begins from a trained run."""
        return self.base

    def started(self) -> None:
        """The method underneath began from other weights."""
        self.base.started()


class Tuned(OnAnother):
    """One with a head, of whose base all or less is trained (`methods/kept.py`), lower blocks at lower rates.

    Attributes:
        heads: regular expression of the names of what begins at random, which learns at a rate of its own.
        changes: those of low rank, if what learns are these; made by `tune`.
    """

    heads: ClassVar[str] = r"^head\."
    changes: LowRank | None

    def tune(self, config: Tuning) -> None:
        """Freeze what the config names, and make its low-rank changes; once `base` is built.

        Raises:
            ConfigError: for a part that the method lacks, and for changes that fit no layer.
        """
        self.changes = adapt(self.base, config)
        self._still: list[nn.Module] = keep(self.base, config)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but that what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in self._still:
            part.eval()
        return self

    def learning_rates(self) -> list[tuple[str, float]]:
        """The head's own rate, and less for lower blocks where that is asked for."""
        rates = [(self.heads, self.config.head_rate)]
        decay = self.config.layer_decay
        if decay == 1.0:
            return rates
        learns, prefix = (self.base, "base.") if self.changes is None else (self.changes, "changes.")
        return [*rates, *layer_rates(self.base, decay, prefix, learns)]
