"""CPC against loops over sequences, times and steps, for each choice of negatives."""

import math

import pytest
import torch
import torch.nn.functional as F

from multiway.losses.cpc import cpc
from multiway.world import World

ALONE = World()


def draw(rows=3, length=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (rows, length, 4), (rows, length, 6), (2, 6, 4)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def twin(context, latents, weights, negatives):
    rows, length, _ = latents.shape
    steps, hits, chances = [], [], []
    for k in range(1, len(weights) + 1):
        losses, right = [], []
        for b in range(rows):
            for t in range(length - k):
                asked = weights[k - 1] @ context[b, t]
                seen = [
                    (s, u)
                    for s in range(rows)
                    for u in range(k, length)
                    if (s, u) == (b, t + k)
                    or negatives == "all"
                    or (negatives == "own" and s == b)
                    or (negatives == "others" and s != b)
                ]
                scores = {place: latents[place] @ asked for place in seen}
                losses.append(torch.logsumexp(torch.stack(list(scores.values())), 0) - scores[b, t + k])
                right.append(max(seen, key=lambda place: float(scores[place].detach())) == (b, t + k))
        steps.append(torch.stack(losses).mean())
        hits.append(sum(right) / len(right))
        chances.append(math.log(len(seen)))
    return torch.stack(steps), hits, chances


@pytest.mark.parametrize("negatives", ["all", "own", "others"])
def test_equals_loops_with_gradients(negatives):
    mine, slow = draw(), draw()
    found = cpc(*mine, ALONE, negatives, chunk=5)
    steps, hits, chances = twin(*slow, negatives)
    torch.testing.assert_close(found.steps, steps.detach())
    torch.testing.assert_close(found.loss, steps.mean())
    assert found.accuracy.tolist() == pytest.approx(hits)
    assert found.chance == pytest.approx(sum(chances) / 2)
    torch.testing.assert_close(found.information, torch.tensor(chances).double() - steps.detach())
    torch.testing.assert_close(torch.autograd.grad(found.loss, mine), torch.autograd.grad(steps.mean(), slow))


def test_equal_scores_score_chance_and_tell_nothing() -> None:
    context, latents, weights = (each.detach() for each in draw())
    found = cpc(context, latents, torch.zeros_like(weights), ALONE)
    assert float(found.loss) == pytest.approx(found.chance)
    assert found.formula == "mean of ln 12 to ln 9" and float(found.information.abs().max()) < 1e-9


def test_a_context_that_knows_its_future_finds_it() -> None:
    latents = 6 * F.normalize(torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    context = latents.roll(-1, 1)
    found = cpc(context, latents, torch.eye(8)[None], ALONE)
    assert float(found.accuracy[0]) == 1.0 and float(found.information[0]) > 0.9 * math.log(12)


def test_negatives_of_the_own_sequence_are_harder() -> None:
    """Sequences that differ more than their times do."""
    generator = torch.Generator().manual_seed(1)
    latents = 3 * torch.randn(4, 1, 8, generator=generator) + 0.3 * torch.randn(4, 6, 8, generator=generator)
    own, others = (cpc(latents, latents, torch.eye(8)[None], ALONE, each) for each in ("own", "others"))
    assert float(own.information[0]) < float(others.information[0])


def test_refusals() -> None:
    context, latents, weights = draw()
    with pytest.raises(ValueError, match="contexts are"):
        cpc(context[:, :3], latents, weights, ALONE)
    with pytest.raises(ValueError, match="S from 1 to 1"):
        cpc(context[:, :2], latents[:, :2], weights, ALONE)
    with pytest.raises(ValueError, match="negatives is 'some'"):
        cpc(context, latents, weights, ALONE, "some")
