"""What is cleaned by CapFilt, and how: settings of `workflows/capfilt.py`, checked before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from multiway.config import ConfigError
from multiway.nn.generate import Generation
from multiway.workflows.capfilt_runs import human_world
from multiway.workflows.capfilt_shards import KEEP, Verdict

__all__ = ["CapFilt"]


@dataclass(frozen=True)
class CapFilt:
    """What is cleaned, and how.

    Attributes:
        data: noisy pairs; its training split unless another is named.
        images, image_column, caption_column: of a caption file, as for training.
        human: pairs to trust, for fine-tuning and for the clean data; for scenes by default the same world without noise.
        human_images: folder that a caption file's paths are relative to.
        human_rows: of scenes without noise, where `human` is not given.
        captioner, filter: models to take as they are, in place of fine-tuning.
        captioner_steps, filter_steps: of fine-tuning; 0 takes RUN as it is.
        model_steps: of the models of further rounds; 0 is RUN's own.
        batch, lr: of fine-tuning; 0 is RUN's own batch, and 0.3 times its rate.
        strategy: `nucleus`, which is more diverse and trains better models, or `beam` (section 5.1 of the paper).
        top_p, beams, min_length, repetition_penalty: of generation; see `nn.generate.Generation`.
        texts: captions written for each picture.
        threshold: least match probability of what stays; 0 keeps all.
        keep: of `web`, `synthetic`, `human`. Without `synthetic` nothing is written.
        rows_per_shard: where the data are no shards.
        rounds: cleanings; before each but the first a new model is trained on what the last one left.
        seed: of everything random.
        device, precision: of captioner and filter at work.
    """

    data: str
    images: str = ""
    image_column: str = ""
    caption_column: str = ""
    human: str = ""
    human_images: str = ""
    human_rows: int = 2000
    captioner: str = ""
    filter: str = ""
    captioner_steps: int = 300
    filter_steps: int = 300
    model_steps: int = 0
    batch: int = 0
    lr: float = 0.0
    strategy: Literal["nucleus", "beam"] = "nucleus"
    top_p: float = 0.9
    beams: int = 3
    min_length: int = 0
    repetition_penalty: float = 1.0
    texts: int = 1
    threshold: float = 0.5
    keep: tuple[str, ...] = KEEP
    rows_per_shard: int = 1000
    rounds: int = 1
    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        if self.rounds < 1 or min(self.captioner_steps, self.filter_steps, self.model_steps, self.batch) < 0:
            raise ConfigError(
                f"rounds must be at least 1, steps and batch at least 0; given {self.rounds} rounds, captioner_steps "
                f"{self.captioner_steps}, filter_steps {self.filter_steps}, model_steps {self.model_steps}, batch {self.batch}"
            )
        try:  # their own checks, before anything is trained
            _ = self.verdict, self.generation(2)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def verdict(self) -> Verdict:
        """What stays."""
        return Verdict(self.threshold, self.keep)

    def generation(self, context: int) -> Generation:
        """How captions are written, of at most so many tokens."""
        return Generation(
            strategy=self.strategy,
            max_length=max(context, self.min_length),
            min_length=self.min_length,
            beams=self.beams,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
            texts=self.texts,
        )

    def with_human(self) -> CapFilt:
        """The same with the human pairs made explicit.

        Raises:
            ConfigError: if there are none and something needs them.
        """
        human = self.human or human_world(self.data, self.human_rows)
        tuned = (not self.captioner and self.captioner_steps and "synthetic" in self.keep) or (
            not self.filter and self.filter_steps
        )
        if not human and (tuned or "human" in self.keep):
            raise ConfigError(
                "captioner and filter are fine-tuned on captions to trust, which also go into the clean data; name them (--human "
                "captions.jsonl), or do without: --captioner-steps 0 --filter-steps 0 --keep web,synthetic"
            )
        return replace(self, human=human)
