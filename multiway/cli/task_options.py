"""Options of `multiway eval` that only some tasks have: declared by what they are about; `tasks/options.py` checks them and puts them
into the task.

None means that an option was not given: the task's own default stays. An option reaches the task's field of its name; a task
without such a field refuses it, and so does one for which the value would change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from multiway.tasks.options import flag, with_options

__all__ = [
    "FigureOptions",
    "FrozenOptions",
    "GroundingOptions",
    "RankingOptions",
    "WritingOptions",
    "ZeroShotOptions",
    "flag",
    "with_options",
]


@dataclass(frozen=True)
class RankingOptions:
    """Of `retrieval`, `rerank`, `fusion`, `video-retrieval`, and of pairs that are told apart.

    Attributes:
        top: of `rerank`: items per query that the fused encoder scores again.
        mix: of `rerank` and `fusion`: weight of the cosine beside the log-odds of a match; by default 0, matching alone.
        tau: the cosine is divided by it before it is weighed. By default 1, whatever temperature the model has learned; give that
            one to weigh the logits that it was trained with.
        ks: of the retrieval tasks: the k of R@k; of `knn`: how many neighbours vote.
        frames: of `video-retrieval`: pictures of each video.
        by: of `winoground` and `pairs`: `match` (read together), `compare` (each by itself), or `auto`, the first if it is there.
    """

    top: int | None = None
    mix: float | None = None
    tau: float | None = None
    ks: tuple[int, ...] | None = None
    frames: int | None = None
    by: Literal["auto", "match", "compare"] | None = None


@dataclass(frozen=True)
class FrozenOptions:
    """Of `knn`, `probe` and `few-shot`.

    Attributes:
        train: the split that is learnt from, of the same data, or `data@split`.
        labels: of `probe`: which of its labels are seen, a share (`0.01`) or a file that lists pictures.
        shots: of `few-shot`: numbers of labelled pictures of each class.
        draws: of `few-shot`: how often these are drawn.
        features: `embedding`, or `pooled`, the mean of the last tokens; `auto` is the first if there is one.
        l2: strength of the penalty; of `probe` by default the best on a tenth of the training pictures.
        iterations: of `probe`: at most so many.
    """

    train: str | None = None
    labels: str | None = None
    shots: tuple[int, ...] | None = None
    draws: int | None = None
    features: Literal["auto", "embedding", "pooled"] | None = None
    l2: float | None = None
    iterations: int | None = None


@dataclass(frozen=True)
class ZeroShotOptions:
    """Of `zeroshot`.

    Attributes:
        prompts: `names` asks by bare class names, `template` by the first template, `ensemble` by the mean of all.
        templates: sentences in place of the data's, each with one {} for the name.
    """

    prompts: Literal["names", "template", "ensemble"] | None = None
    templates: tuple[str, ...] | None = None


@dataclass(frozen=True)
class WritingOptions:
    """Of `captions` and `vqa-generate`: how texts are written. Lengths count tokens, start, prompt and end included.

    Attributes:
        strategy: `greedy`, `beam`, or `nucleus`, which draws.
        beams: texts that beam search keeps.
        max_length: texts that have not ended by then are cut.
        min_length: no text ends before.
        length_penalty: of beam search, which ranks by log-probability / length^p; above 0 favours long texts.
        repetition_penalty: above 1 makes words that the text already has less likely.
        top_p: of `nucleus`: mass of the tokens that are drawn from.
        prompt: of `captions`: words that every caption begins with, cut off before it is measured.
    """

    strategy: Literal["greedy", "beam", "nucleus"] | None = None
    beams: int | None = None
    max_length: int | None = None
    min_length: int | None = None
    length_penalty: float | None = None
    repetition_penalty: float | None = None
    top_p: float | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class GroundingOptions:
    """Of `grounding`, and of `refcoco`.

    Attributes:
        block: whose attention is looked at, of those that fuse, from 0; negative counts from the last.
        tokens: `all` of the text, or `words`, without start and end.
        area: power of a region's area that its heat is divided by; 0 favours large ones, 1 is the mean heat.
        resolution: points a side that the map is drawn at.
        cells: of `refcoco`, where the data bring no candidates: of the grid, a side, whose rectangles are chosen among.
    """

    block: int | None = None
    tokens: Literal["all", "words"] | None = None
    area: float | None = None
    resolution: int | None = None
    cells: int | None = None


@dataclass(frozen=True)
class FigureOptions:
    """Of the figures themselves.

    Attributes:
        rows: of `captions`, `captioning` and `masked-words`: rows that are asked about, spread evenly over the data; of
            `matching`: rows within which wrong partners are found.
        temperature: of `knn` and `matching`: of the softmax over cosines; of `nucleus`: of the draws.
        resamples: of the bootstrap that gives the intervals.
        seed: of the bootstrap, and of whatever else is drawn.
    """

    rows: int | None = None
    temperature: float | None = None
    resamples: int | None = None
    seed: int | None = None
