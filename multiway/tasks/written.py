"""Written captions: what a model says of a picture, beside what people said.

The protocol of COCO captions (Chen et al., 2015, arXiv 1504.00325): one caption per picture, measured against all known ones by
BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D (`tasks/caption_metrics/`), over the whole set and over each group of it, as NoCaps reports
its domains (Agrawal et al., 2019, arXiv 1812.08658). What words are worth to CIDEr-D always comes from the whole set.

Where the data can tell whether a sentence is true of a picture, `true` is the share of written captions that are: the one figure
here that no similarity of words can stand in for.

Chance: the first caption of *another picture of the split*, half a turn further on, in place of what the model writes. It is a
flawless caption of the wrong picture, and scores what the language alone is worth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from multiway.abilities import abilities_of, require
from multiway.data.source import DataError, KnowsTruth, Row, Source
from multiway.nn.generate import Generation
from multiway.tasks import statistics
from multiway.tasks.caption_metrics import Corpus, measure
from multiway.tasks.embed import encode_images
from multiway.tasks.example_task import accuracies
from multiway.tasks.task import Metric, Result, collect, require_rows

__all__ = ["Captions", "Written", "without_prompt"]

_COCO_ID = re.compile(r"(?:^|[/_])(\d{12})\.jpg$")  # COCO_val2014_000000391895.jpg, 000000391895.jpg


@dataclass(frozen=True)
class Written:
    """What was written: details of the result.

    Attributes:
        rows: of the source.
        keys: of these rows.
        captions: one for each.
        true: whether each is true of its picture; empty where the data cannot tell.
    """

    rows: tuple[int, ...]
    keys: tuple[str, ...]
    captions: tuple[str, ...]
    true: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Captions:
    """A caption written for each picture, measured against all known ones.

    Attributes:
        strategy, beams, max_length, min_length, length_penalty, repetition_penalty, top_p, temperature: as in
            `nn.generate.Generation`; lengths count tokens, start, prompt and end included. Three beams are BLIP's; its lengths are 5 to 20.
        prompt: words that every caption begins with, cut off before it is measured (BLIP: "a picture of").
        rows: how many are written for, spread evenly over the source; 0 for all. Of a part of a set CIDEr-D is another metric.
        chunk: pictures whose tokens are held at once.
        resamples, seed: of the bootstrap over pictures; `seed` also draws texts with `nucleus`.
    """

    name: ClassVar[str] = "captions"
    needs: ClassVar[tuple[str, ...]] = ("generate",)
    best: ClassVar[str] = "CIDEr-D"

    strategy: Literal["greedy", "beam", "nucleus"] = "beam"
    beams: int = 3
    max_length: int = 40
    min_length: int = 0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    top_p: float = 0.9
    temperature: float = 1.0
    prompt: str = ""
    rows: int = 0
    chunk: int = 256
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rows < 0 or self.chunk < 1:
            raise ValueError(f"rows count from 0 (all) and chunk from 1; given rows={self.rows}, chunk={self.chunk}")
        self.generation  # noqa: B018 - refuses settings that do not fit together

    @property
    def generation(self) -> Generation:
        """How texts are written.

        Raises:
            ValueError: for settings that do not fit together.
        """
        return Generation.of(self)

    def run(self, model: Any, source: Source) -> Result:
        """Write and measure; where captions are withheld, write alone.

        Raises:
            LacksAbility: if the model writes no captions.
            DataError: if there are no rows.
            BadRow: if a picture cannot be decoded.
        """
        require(model, self.needs, self.name)
        if not isinstance(source, Source):
            raise DataError(f"task `{self.name}` takes pictures with captions; given {type(source).__name__}")
        require_rows(self.name, source)
        count = min(self.rows or len(source), len(source))
        numbers = [place * len(source) // count for place in range(count)]
        rows = [source.row(number) for number in numbers]
        said = self._write(model, source, numbers)
        true = None
        if isinstance(source, KnowsTruth):
            true = [source.holds(number, caption) for number, caption in zip(numbers, said, strict=True)]
        others = _of_another(rows)
        by_chance = None
        if true is not None and isinstance(source, KnowsTruth) and others is not None:
            by_chance = [source.holds(number, other) for number, other in zip(numbers, others, strict=True)]
        details = Written(tuple(numbers), tuple(row.key for row in rows), tuple(said), tuple(true or ()))
        return collect(self, source, self.metrics(rows, said, others, true, by_chance), details)

    def metrics(
        self,
        rows: Sequence[Row],
        said: Sequence[str],
        others: Sequence[str] | None,
        true: Sequence[bool] | None = None,
        by_chance: Sequence[bool] | None = None,
    ) -> Iterator[Metric]:
        """Truth where it is known, then every caption metric, over all rows that have captions and over each group.

        Args:
            rows: of the source.
            said: a caption for each.
            others: of another picture, for each; None where there is none.
            true, by_chance: whether `said` and `others` are true of the pictures.
        """
        if true is not None:
            yield from self._truth(rows, true, by_chance)
        known = [place for place, row in enumerate(rows) if row.captions]
        if not known:
            return
        references = [rows[place].captions for place in known]
        found = measure([said[place] for place in known], references)
        chance = None if others is None else measure([others[place] for place in known], references)
        groups = np.array([rows[place].group for place in known])
        for name, corpus in found.items():
            yield self._metric(name, corpus, None if chance is None else chance[name])
        for group in sorted({str(each) for each in groups if each}):
            some = groups == group
            for name, corpus in found.items():
                part = None if chance is None else _part(chance[name], some)
                yield self._metric(f"{name}[{group}]", _part(corpus, some), part)

    def submission(self, result: Result) -> list[dict[str, Any]]:
        """As the servers of COCO and NoCaps take it: `[{"image_id", "caption"}]`.

        The id is the number in a COCO file name, or the row's key: a number where that is one, as NoCaps's are.
        """
        written: Written = result.details
        return [
            {"image_id": _image_id(key), "caption": caption}
            for key, caption in zip(written.keys, written.captions, strict=True)
        ]

    def _truth(self, rows: Sequence[Row], true: Sequence[bool], by_chance: Sequence[bool] | None) -> Iterator[Metric]:
        groups = [row.group for row in rows]
        chance = None if by_chance is None else float(np.mean(by_chance))
        chances: dict[str, float] = {}
        if by_chance is not None:
            for group in set(groups):
                chances[group] = float(np.mean([hit for hit, of in zip(by_chance, groups, strict=True) if of == group]))
        units = [row.image_id for row in rows]
        yield from accuracies("true", list(map(float, true)), units, groups, chance, chances, self.resamples, self.seed)

    def _metric(self, name: str, corpus: Corpus, chance: Corpus | None) -> Metric:
        interval = corpus.interval(resamples=self.resamples, seed=self.seed)
        return Metric(name, *interval, n=len(corpus), chance=None if chance is None else chance.value)

    def _write(self, model: Any, source: Source, numbers: Sequence[int]) -> list[str]:
        if "encode_image" not in abilities_of(model):
            # One that sees no pictures says the same of all.
            texts = model.generate(None, self.generation, [self.prompt] if self.prompt else None, self.seed)
            return [without_prompt(texts[0][0], self.prompt)] * len(numbers)
        said: list[str] = []
        for start in range(0, len(numbers), self.chunk):
            images = encode_images(model, source, numbers[start : start + self.chunk], tokens=True)
            prompts = [self.prompt] * len(images.embedding) if self.prompt else None
            said += [texts[0] for texts in model.generate(images, self.generation, prompts, self.seed + start)]
        return [without_prompt(caption, self.prompt) for caption in said]


def without_prompt(caption: str, prompt: str) -> str:
    """A caption without the prompt that it begins with.

    Raises:
        ValueError: if it does not begin with it: tokenisers lower the case and join spaces, some do more.
    """
    begins, text = " ".join(prompt.split()).lower(), " ".join(caption.split())
    if not text.lower().startswith(begins):
        raise ValueError(
            f"the caption {caption!r:.80} does not begin with the prompt {prompt!r}, which this tokeniser spells "
            "otherwise; write the prompt as the tokeniser has it"
        )
    return text[len(begins) :].strip()


def _of_another(rows: Sequence[Row]) -> list[str] | None:
    """For each row the first caption of another picture; None if there is only one picture with captions."""
    found = []
    for place, row in enumerate(rows):
        # Half a turn: neighbours of a source may be of one kind.
        turned = (rows[(place + len(rows) // 2 + step) % len(rows)] for step in range(len(rows)))
        other = next((each for each in turned if each.image_id != row.image_id and each.captions), None)
        if other is None:
            return None
        found.append(other.captions[0])
    return found


def _part(corpus: Corpus, some: np.ndarray) -> Corpus:
    """A metric over some of the pictures, each scored as in the whole."""
    if corpus.sums is None or corpus.of is None:
        return Corpus(corpus.name, float(corpus.pictures[some].mean()), corpus.pictures[some])
    sums = corpus.sums[some]
    return Corpus(corpus.name, float(corpus.of(sums.sum(0, keepdims=True))[0]), corpus.pictures[some], sums, corpus.of)


def _image_id(key: str) -> int | str:
    found = _COCO_ID.search(key)
    if found:
        return int(found[1])
    # `007` is a name and no number: who looks for it would not find 7.
    return int(key) if key.isdecimal() and str(int(key)) == key else key
