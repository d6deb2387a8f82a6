"""Text-video retrieval by a model of pictures: a video is the mean of its frames.

Luo et al., CLIP4Clip, 2021, arXiv 2104.08860, section 3.3, the parameter-free similarity: with v_f the embedding of frame f at
length 1,

    v = normalize( 1/F sum_f v_f ),     s(video, text) = <v, w>

The mean has no order: a video and the same one backwards are one point, and what only the order tells (left or right, open or
close) cannot be found this way. Galleries, hits, ties, intervals and chance are those of `tasks/retrieval.py`; papers call
`video_retrieval/R@1` (text -> video) T2V and `text_retrieval/R@1` V2T.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL import Image

from multiway.abilities import Encoded, LacksAbility, require
from multiway.data.annotated.msrvtt import HasFrames
from multiway.data.source import DataError, Source
from multiway.tasks import statistics
from multiway.tasks.embed import encode_images, encode_texts
from multiway.tasks.retrieval import Gallery, RetrievalDetails, Ways, groups_of
from multiway.tasks.similarity import Similarity
from multiway.tasks.task import Metric, Result, collect, require_rows

__all__ = ["VideoRetrieval", "encode_videos"]


class _Frames:
    """The frames of some videos as pictures, one video's after the other's; those of one video are decoded together."""

    def __init__(self, source: Source, rows: Sequence[int], count: int) -> None:
        self.source, self.rows, self.count = source, rows, count
        self._open: tuple[int, list[Image.Image]] = (-1, [])

    def __len__(self) -> int:
        return len(self.rows) * self.count

    def image(self, index: int) -> Image.Image:
        video, place = divmod(index, self.count)
        if self._open[0] != video:
            frames = self.source.frames(self.rows[video], self.count)  # type: ignore[attr-defined]
            if len(frames) != self.count:
                raise DataError(
                    f"{self.source.row(self.rows[video]).where}: {len(frames)} frames were given where {self.count} were asked "
                    "for; correct the source's `frames`"
                )
            self._open = (video, frames)
        return self._open[1][place]


def encode_videos(model: Any, source: Source, rows: Sequence[int], frames: int = 12, batch: int = 256) -> Encoded:
    """Videos as the means of their frames.

    Args:
        model: has `encode_image` with an embedding.
        source: has `frames` (`HasFrames`).
        rows: numbers of rows in `source`, n of them.
        frames: of each video, evenly spread over it.
        batch: frames decoded and encoded at a time; always those of whole videos.

    Returns:
        Embeddings (n, D), L2-normalised.

    Raises:
        LacksAbility: if the model has no embedding to average.
    """
    shown, step = _Frames(source, rows, frames), max(1, batch // frames)
    parts = []
    for start in range(0, len(rows), step):
        stop = min(start + step, len(rows))
        encoded = encode_images(model, shown, range(start * frames, stop * frames), max(batch, frames))
        if not encoded.has_embedding:
            raise LacksAbility(
                "a video is the mean of its frames' embeddings, and this model has none: it compares token by token, or reads "
                "picture and text together; take a model with a shared space (clip, siglip, albef, blip, ...)"
            )
        parts.append(F.normalize(encoded.embedding.unflatten(0, (stop - start, frames)).mean(1), dim=1))
    return Encoded(torch.cat(parts))


@dataclass(frozen=True)
class VideoRetrieval:
    """Finds the videos of a text and the texts of a video, a video being the mean of its frames.

    Attributes:
        frames: of each video; CLIP4Clip takes 12 of MSR-VTT's.
        ks: the k of R@k.
        batch: frames decoded and encoded at a time.
        resamples, seed: of the bootstrap.
    """

    name: ClassVar[str] = "video-retrieval"
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "encode_text", "compare")

    frames: int = 12
    ks: tuple[int, ...] = (1, 5, 10)
    batch: int = 256
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def run(self, model: Any, source: Source) -> Result:
        """Encode every frame once, rank both ways, count.

        Raises:
            LacksAbility: if the model does not encode pictures and texts into one space.
            DataError: if the source has no rows, or its rows are no videos.
        """
        require(model, self.needs, self.name)
        require_rows(self.name, source)
        if not isinstance(source, HasFrames):
            raise DataError(
                f"task `{self.name}` is about videos, and {source.name}@{source.split} has pictures; expected msrvtt:FOLDER, "
                "scenes-video, or a source of your own with `frames`"
            )
        if self.frames < 1:
            raise ValueError(f"{self.frames} frames of each video were asked for; expected at least 1")
        gallery = Gallery.of(source)
        videos = encode_videos(model, source, gallery.rows, self.frames, self.batch)
        details = RetrievalDetails.of(gallery, Similarity.of(model, videos, encode_texts(model, gallery.texts)))
        return collect(self, source, self.metrics(details, groups_of(source, gallery)), details)

    def metrics(self, details: RetrievalDetails, groups: Sequence[str] = ()) -> Iterator[Metric]:
        """Those of retrieval, under the names that fit."""
        options = {"resamples": self.resamples, "seed": self.seed}
        for metric in Ways.of(details).metrics(self.ks, options, groups):
            yield replace(metric, name=metric.name.replace("image_retrieval", "video_retrieval"))
