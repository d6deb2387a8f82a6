"""What ALBEF and BLIP share: contrast among a momentum twin's features and a queue, with the twin's soft targets.

Li et al., ALBEF, 2021, arXiv 2107.07651, sections 3.2, 3.4 and 3.5; Li et al., BLIP, 2022, arXiv 2201.12086, section 3.2.
A method that builds on it encodes with its student and its twin, calls `contrast` among its losses, and adds what it does
with picture and text together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from multiway.batch import Batch
from multiway.losses.itc import Candidates, itc
from multiway.losses.itm import itm
from multiway.methods.method import Losses, Method, Pairs, Reps, Step, Term
from multiway.methods.partners import draw_partners
from multiway.methods.shared_space import SharedSpace
from multiway.nn.queue import FeatureQueue
from multiway.nn.twin import copy_weights, follow, gap, twin_of
from multiway.world import World

__all__ = [
    "Contrast",
    "MomentumConfig",
    "MomentumContrast",
    "MomentumEncoders",
    "first",
    "judged",
    "matching",
    "pictures_shown",
]


class MomentumEncoders(Protocol):
    """What has a twin."""

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> (B, D) on the unit sphere, and (B, N, W) tokens."""

    def encode_text(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) -> (B, D) on the unit sphere, and (B, L, W) tokens."""


class MomentumConfig(Protocol):
    """Fields that the config of such a method has; see `AlbefConfig` for what they mean."""

    @property
    def embedding(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def temperature_bounds(self) -> tuple[float, float]: ...
    @property
    def queue(self) -> int: ...
    @property
    def queue_from(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def alpha(self) -> float: ...
    @property
    def alpha_ramp(self) -> float: ...
    @property
    def hard_from(self) -> float: ...
    @property
    def hard_until(self) -> float: ...
    @property
    def hardness(self) -> float: ...
    @property
    def negatives(self) -> Literal["all", "rank"]: ...


@dataclass(frozen=True)
class Contrast:
    """What `MomentumContrast.contrast` found.

    Attributes:
        term: the contrastive loss.
        report: scalars for the log, for the doctor among others.
        updates: rows for the queue, in the data's own order whatever the number of ranks.
        features: what is watched for collapse.
    """

    term: Term
    report: dict[str, Tensor]
    updates: dict[str, Tensor]
    features: dict[str, Tensor]


class MomentumContrast(SharedSpace, Method):
    """A student, its twin, a learned temperature and a queue.

    Args:
        student: encoders and projections; an `nn.Module` that satisfies `MomentumEncoders`.
        config: schedules and sizes.

    Attributes:
        least_weight: of a negative's being drawn; see `hard_negatives`.
    """

    least_weight: ClassVar[float] = 1e-6
    own_state: ClassVar[tuple[str, ...]] = ("twin.", "queue.")
    watched: ClassVar[dict[str, tuple[float, float]]] = {"temperature": (0.001, 0.5)}

    def __init__(self, student: nn.Module, config: MomentumConfig) -> None:
        super().__init__()
        self.config = config
        if config.negatives == "rank":
            self.lends = {}  # type: ignore[misc]
        self.student: nn.Module = student
        self.twin: nn.Module = twin_of(student)
        self.temperature = nn.Parameter(torch.tensor(config.temperature))
        widths = {"image": config.embedding, "text": config.embedding}
        self.queue = FeatureQueue(config.queue, widths, ids=("image_id", "text_id"))

    def started(self) -> None:
        """The twin equals the student again."""
        copy_weights([self.twin], [self.student])

    # Schedules.

    def alpha(self, step: Step) -> float:
        """Weight of the twin's targets: rises from 0 to the configured value (ALBEF, section 3.5)."""
        ramp = self.config.alpha_ramp
        return self.config.alpha * (min(1.0, step.progress / ramp) if ramp > 0 else 1.0)

    def hardness(self, step: Step) -> float:
        """Share of the negatives that are drawn by similarity."""
        start, stop = self.config.hard_from, self.config.hard_until
        risen = 1.0 if step.progress >= stop else max(0.0, (step.progress - start) / (stop - start))
        return self.config.hardness * risen

    # The step.

    def mine(self, reps: Reps, batch: Batch, world: World, step: Step) -> Pairs:
        """Hard negatives by the student's similarity (ALBEF, section 3.2), among the rows of all ranks or of this one."""
        image, text, hardness = reps["image"], reps["text"], self.hardness(step)
        return draw_partners(image, text, self.temperature, batch, self.among(world), hardness, self.least_weight)

    def among(self, world: World) -> World:
        """The ranks among whose rows negatives are mined."""
        return world if self.config.negatives == "all" else World()

    def mined_health(self, reps: Reps, pairs: Pairs, world: World, step: Step) -> dict[str, Tensor]:
        """For the log: how hard negatives are to be, and how hard they are."""
        return {"hardness": torch.tensor(self.hardness(step)), **_negative_health(reps, pairs, self.among(world))}

    def contrast(self, reps: Reps, batch: Batch, world: World, step: Step) -> Contrast:
        """ITC among the twin's features of all ranks' batch and of the queue (ALBEF, equations 1 to 3 and 6).

        Args:
            reps: (B, D) each, `image` and `text` of the student, `twin_image` and `twin_text`.
        """
        alpha = self.alpha(step)
        fresh = {name: world.gather(reps[f"twin_{name}"], "none") for name in ("image", "text")}
        for name, ids in (("image_id", batch.image_id), ("text_id", batch.text_id)):
            assert ids is not None
            fresh[name] = world.gather(ids, "none")
        queued = self.queue.read()
        candidates = Candidates(**fresh)
        if step.progress >= self.config.queue_from:
            candidates = Candidates(**{name: torch.cat([fresh[name], queued[name]]) for name in fresh})
        aligned = itc(reps["image"], reps["text"], 1.0 / self.temperature, world, candidates=candidates, soft=alpha)
        report = {
            "temperature": self.temperature.detach(),
            "image_to_text_accuracy": aligned.image_to_text_accuracy,
            "text_to_image_accuracy": aligned.text_to_image_accuracy,
            "alpha": torch.tensor(alpha),
            "momentum": torch.tensor(self.config.momentum),
            "twin_gap": gap([self.twin], [self.student]),
            **dict(_queue_health(reps, queued["text"])),
        }
        updates = {name: world.turns(rows) for name, rows in fresh.items()}
        features = {"image": reps["image"].detach(), "text": reps["text"].detach()}
        term = Term(aligned.loss, chance=aligned.chance, formula=aligned.formula)
        return Contrast(term, report, updates, features)

    @torch.no_grad()
    def after_step(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """ALBEF, sections 3.2 and 3.4: the temperature's bounds, the twin's step, the queue's new rows."""
        self.temperature.clamp_(*self.config.temperature_bounds)
        follow([self.twin], [self.student], self.config.momentum)
        self.queue.push(updates)


def first(tensor: Tensor, rows: int) -> Tensor:
    """The first rows; the tensor itself where it has no others, since a slice would cost a copy in the backward pass."""
    return tensor if len(tensor) == rows else tensor[:rows]


def matching(logits: Tensor, pairs: Pairs) -> Losses:
    """ITM's term and reports, from the logits (3B, 2) of pairs and of mined negatives; see `losses.itm`."""
    found = itm(logits, pairs["found"])
    report = {"itm_accuracy": found.accuracy, "match_positive": found.positive, "match_negative": found.negative}
    return Losses({"itm": Term(found.loss, chance=found.chance, formula=found.formula)}, report)


def judged(pairs: Pairs) -> dict[str, Tensor]:
    """What ITM's terms are means over, for `Method.counts`: pairs, and negatives where there are any."""
    wrong = 2 * pairs["found"].sum()
    every = wrong + len(pairs["found"])
    return {"itm": every, "itm_accuracy": every, "match_negative": wrong}


def pictures_shown(images: Tensor, wrong_image: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Pictures, and which of them each of 3B texts of ITM looks at: the pairs', those with wrong texts, and the wrong ones.

    Args:
        images: (M, N, W) tokens, those of the B scored rows first.
        wrong_image: (B,) which of them is shown with each text.
        rows: B.

    Returns:
        Tokens of the pictures that any text looks at, those of the scored rows first, and (3B,) rows of them.
    """
    own = torch.arange(rows, device=images.device)
    if len(images) > rows:  # partners that only lend their text would be projected to keys and values for nothing
        seen, place = torch.cat([own, wrong_image]).unique(return_inverse=True)
        images, wrong_image = images[seen], place[rows:]
    return images, torch.cat([own, own, wrong_image])


# What the doctor watches.


@torch.no_grad()
def _queue_health(reps: Reps, queued: Tensor) -> Iterator[tuple[str, Tensor]]:
    """How well the twin and its queue keep up with the student, from numbers that are there anyway."""
    image, fresh = reps["image"], reps["twin_text"]
    row = torch.arange(len(image), device=image.device)
    # Both among this batch's captions, so that they can be compared.
    yield "student_accuracy", ((image @ reps["text"].T).argmax(1) == row).float().mean()
    yield "twin_accuracy", ((reps["twin_image"] @ fresh.T).argmax(1) == row).float().mean()
    if len(queued):
        # Fresh and queued candidates are of one kind unless the queue is stale: their mean cosines then agree.
        here = image @ fresh.T
        apart = (here.mean() - (image.mean(0) * queued.mean(0)).sum()).abs()
        yield "queue_gap", apart / here.std().clamp(min=1e-6)
        yield "queue_age", torch.tensor(len(queued) / len(image))


@torch.no_grad()
def _negative_health(reps: Reps, pairs: Pairs, world: World) -> dict[str, Tensor]:
    """How hard the mined negatives are: cosines of pairs, of negatives, and of any two rows.

    Args:
        world: the ranks among whose rows they were drawn.
    """
    image, text = reps["image"], reps["text"]
    images, texts = (world.turns(world.gather(each)) for each in (image, text))
    own = (image * text).sum(1)
    wrong_text = (image * texts[pairs["text_of_image"]]).sum(1)
    wrong_image = (images[pairs["image_of_text"]] * text).sum(1)
    others = max(1, len(image) * (len(texts) - 1))
    return {
        "positive_cosine": own.mean(),
        "negative_cosine": 0.5 * (wrong_text.mean() + wrong_image.mean()),
        "random_cosine": ((image @ texts.T).sum() - own.sum()) / others,
        "negatives_above": 0.5 * ((wrong_text > own).float().mean() + (wrong_image > own).float().mean()),
    }
