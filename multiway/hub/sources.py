"""What `--init` names: a model, or one for each of several parts, `image=runs/clip,text=runs/bert`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from multiway.config import digest
from multiway.data.tokenizer import Tokenizer
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.origin import Origin, joined, or_unknown
from multiway.hub.start import Offer, Started, start_from, start_parts, weights_hash
from multiway.methods.method import Method
from multiway.methods.parts import part_of
from multiway.nn.text import TextEmbed

__all__ = ["Sources", "by_part", "require_one"]

_PART = re.compile(r"[A-Za-z_]\w*=")


def by_part(init: str) -> dict[str, str]:
    """Part -> source of what `--init` names; empty where it is one source for all.

    Raises:
        WeightsError: for a part that is named twice, or without a source.
    """
    if not _PART.match(init) or Path(init).exists():  # a folder may be called so
        return {}
    found: dict[str, str] = {}
    for entry in re.split(rf",(?={_PART.pattern})", init):
        part, _, source = entry.partition("=")
        if not source or part in found:
            why = "has no source" if not source else f"is named twice, {found[part]} and {source}"
            raise WeightsError(f"--init {init}: {part} {why}; expected one for each part: image=runs/a,text=runs/b")
        found[part] = source
    return found


def require_one(source: str) -> None:
    """Refuse sources of parts where one model is meant.

    Raises:
        WeightsError: naming the parts.
    """
    if parts := by_part(source):
        raise WeightsError(
            f"{source} names a model for each of {', '.join(parts)}, from which a new run may begin (multiway train METHOD --init); "
            "expected one model: a run folder, a weights file or hf:NAME"
        )


@dataclass(frozen=True)
class Sources:
    """The models that a run begins from.

    Attributes:
        init: what the command line says.
        models: by part; the one for all is under the empty name.
    """

    init: str
    models: dict[str, Model]

    @property
    def tokenizer(self) -> Tokenizer | None:
        """That of the model whose words are taken: another would give their embeddings other words. None if there is none.

        Raises:
            WeightsError: if words are taken of two models that write them otherwise.
        """
        if "" in self.models:
            return self.models[""].processor.tokenizer
        found = {part: model.processor.tokenizer for part, model in self.models.items() if _has_words(model, part)}
        words = [each for each in found.values() if each is not None]
        if any(each.to_json() != words[0].to_json() for each in words[1:]):
            raise WeightsError(
                f"--init {self.init}: {' and '.join(found)} have embeddings of words by different tokenisers; take the words of one "
                "model alone"
            )
        return words[0] if words else None

    @property
    def origin(self) -> Origin:
        """Where all of their weights come from."""
        named = by_part(self.init)
        return joined(
            *(or_unknown(each.origin, named.get(part, self.init), each.name) for part, each in self.models.items())
        )

    def fill(self, method: Method, excepted: tuple[str, ...], *, texts: bool = False) -> tuple[Started, str]:
        """Copy the models' tensors into a method, freshly built.

        Args:
            method: changed in place.
            excepted: see `start_from`.
            texts: whether positions of texts of another length are interpolated.

        Returns:
            Where its tensors came from, and the hash of all weights that the models have.

        Raises:
            WeightsError: as of `start_from` and `start_parts`.
        """
        states = {part: _state(model) for part, model in self.models.items()}
        offers = {
            part: Offer(
                self.init if not part else by_part(self.init)[part],
                method.adopt(states[part]),  # one picture's parts as two, where the method has them
                model.method.starting.own_state,
            )
            for part, model in self.models.items()
        }
        hashes = {part: weights_hash(state) for part, state in states.items()}
        if "" in offers:
            only = offers[""]
            return start_from(method, only.tensors, only.source, excepted, only.own, texts=texts), hashes[""]
        return start_parts(method, offers, excepted, texts=texts), digest(hashes)


def _state(model: Model) -> dict[str, Tensor]:
    return model.method.starting.state_dict()


def _has_words(model: Model, part: str) -> bool:
    """Whether a part of a model has embeddings of words."""
    method = model.method.starting
    return any(
        isinstance(module, TextEmbed) and part_of(name) == part and not name.startswith(method.own_state)
        for name, module in method.named_modules()
    )
