"""How texts are written."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, Self

__all__ = ["Generation"]


@dataclass(frozen=True)
class Generation:
    """Settings of generation. Lengths count every token of a text: start token, prompt and end token too.

    Attributes:
        strategy: `greedy` takes the likeliest token at each step; `beam` keeps the likeliest texts; `nucleus` draws.
        max_length: texts that have not ended by then are cut.
        min_length: the end token is not written before so many tokens.
        beams: of beam search; with `greedy` and `nucleus` it does nothing.
        length_penalty: p of beam search, which ranks ended texts by log-probability / length^p. Above 0 favours long ones.
        early_stopping: end the beams of a picture as soon as `beams` texts have ended; False goes on while a better one
            is likely.
        repetition_penalty: scores of tokens that the text already has are divided by this if positive, multiplied if
            negative (CTRL, Keskar et al. 2019, arXiv 1909.05858, section 4.1). 1 turns it off.
        top_p: mass of the nucleus: the smallest set of likeliest tokens whose probabilities sum to this or more
            (Holtzman et al. 2020, arXiv 1904.09751, section 3.1).
        temperature: of `nucleus`.
        texts: how many are written for each picture: with `nucleus` so many draws, with `beam` the so many best (at most
            `beams`), with `greedy` 1.
    """

    strategy: Literal["greedy", "beam", "nucleus"] = "greedy"
    max_length: int = 20
    min_length: int = 0
    beams: int = 3
    length_penalty: float = 1.0
    early_stopping: bool = False
    repetition_penalty: float = 1.0
    top_p: float = 0.9
    temperature: float = 1.0
    texts: int = 1

    @classmethod
    def of(cls, settings: Any) -> Self:
        """The settings among the fields of something that writes, a task, say; what it has no field for is as here.

        Raises:
            ValueError: for settings that do not fit together.
        """
        return cls(**{each.name: getattr(settings, each.name) for each in fields(cls) if hasattr(settings, each.name)})

    def __post_init__(self) -> None:
        most = {"greedy": 1, "beam": self.beams}.get(self.strategy, self.texts)
        if not (
            self.strategy in ("greedy", "beam", "nucleus")
            and 0 <= self.min_length <= self.max_length
            and 1 <= self.texts <= most
            and self.beams >= 1
            and 0.0 < self.top_p <= 1.0
            and self.temperature > 0
            and self.repetition_penalty > 0
        ):
            raise ValueError(
                "generation needs a strategy of greedy, beam, nucleus; 0 <= min_length <= max_length; beams >= 1; texts from 1 "
                f"to what the strategy gives (greedy 1, beam its beams); top_p in (0, 1]; temperature and repetition_penalty "
                f"above 0; given {self}"
            )
