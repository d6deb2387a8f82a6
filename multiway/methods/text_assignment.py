"""Text assignment: ALBEF's pre-training for two pictures.

Li, Selvaraju, Gotmare, Joty, Xiong, Hoi, Align before Fuse, NeurIPS 2021, arXiv 2107.07651, section 5 (NLVR2). Between
pre-training and NLVR2 the doubled blocks learn what a pair of pictures is, from pictures with captions alone: a text is shown with
two pictures, and belongs to the left one, to the right one, or to neither.

    L = L_ta = CE(head(fused class token), which)        chance: ln 3

Begun from a run of ALBEF (`--init`), for one epoch in the paper; what it gives is tuned as any run is. The head is the loss's own and
stays behind.

Departures: two pictures that are the same, or whose caption is, are never shown as right and wrong, and never the same one twice; the
wrong pictures may be annealed from random to alike (`hard_from`, `hard_until`); cosines are over the learned temperature where the
released code has 0.07.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from multiway.batch import Batch
from multiway.losses.classification import classification
from multiway.losses.same import Same
from multiway.losses.ta import arrange, thirds
from multiway.methods.albef import AlbefConfig
from multiway.methods.method import Losses, Pairs, Reps, Step, Term
from multiway.methods.two_pictures import AlbefTwo
from multiway.world import World

__all__ = ["TextAssignment"]


class TextAssignment(AlbefTwo):
    """ALBEF for two pictures, and a head with three answers. Twin, queue, word head and matching head rest."""

    name = "albef-ta"
    own_state: ClassVar[tuple[str, ...]] = (*AlbefTwo.own_state, "ta_head.")

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__(config)
        self.ta_head = nn.Linear(config.text.width, 3)
        nn.init.trunc_normal_(self.ta_head.weight, std=0.02)
        nn.init.zeros_(self.ta_head.bias)

    def encode(self, batch: Batch, step: Step) -> Reps:
        """Features of the pictures, and tokens of both sides."""
        assert batch.images is not None and batch.text is not None and batch.text_mask is not None
        image, image_tokens = self.student.encode_image(batch.images)
        _, text_tokens = self.student.encode_text(batch.text, batch.text_mask)
        return {"image": image, "image_tokens": image_tokens, "text_tokens": text_tokens}

    def mine(self, reps: Reps, batch: Batch, world: World, step: Step) -> Pairs:
        """Which two pictures of this rank's batch each text is shown with, and which of them is its own."""
        assert batch.sample_index is not None
        similarity = reps["image"] @ reps["image"].T / self.temperature
        labels = thirds(batch.sample_index, step.epoch)
        shown = arrange(similarity, Same(batch.image_id, batch.text_id), labels, self.hardness(step), self.least_weight)
        return {"left": shown.left, "right": shown.right, "labels": shown.labels}

    def losses(self, reps: Reps, pairs: Pairs, batch: Batch, world: World, step: Step) -> Losses:
        """Which picture the text belongs to."""
        images, left, right = reps["image_tokens"], pairs["left"], pairs["right"]
        fused = self._fuse_two(images[left], images[right], reps["text_tokens"], batch.text_mask)
        found = classification(self.ta_head(fused), pairs["labels"])
        cosines = (reps["image"][left] * reps["image"][right]).sum(1).detach()
        return Losses(
            {"ta": Term(found.loss, chance=found.chance, formula=found.formula)},
            report={
                "ta_accuracy": found.accuracy,
                "hardness": torch.tensor(self.hardness(step)),
                "shown_cosine": cosines.mean(),  # of the two pictures, the harder to tell apart the higher
                "left_out": (pairs["labels"] < 0).float().mean(),
            },
            features={"image": reps["image"].detach()},
        )

    def after_step(self, step: Step, updates: Mapping[str, Tensor]) -> None:
        """Nothing: without contrast there is no twin to lead and no queue to fill."""
