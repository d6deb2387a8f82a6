"""Reconstruction of hidden patches against loops; its chance against the best constant patch."""

import pytest
import torch

from multiway.losses.reconstruction import normalise_patches, reconstruction
from multiway.world import World

ALONE = World()
MASK = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1]]).bool()


def draw(seed=0):
    return torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + seed


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("error", ["squared", "absolute"])
def test_equals_loops(error, normalised):
    said, true, each = draw().requires_grad_(), draw(1), []
    found = reconstruction(said, true, MASK, ALONE, error, normalised)
    for i, n in MASK.nonzero().tolist():
        aim = true[i, n]
        if normalised:
            aim = (aim - aim.mean()) / (((aim - aim.mean()) ** 2).sum() / 11 + 1e-6) ** 0.5
        difference = said[i, n] - aim
        each.append((difference**2 if error == "squared" else difference.abs()).mean())
    wanted = torch.stack(each).mean()
    torch.testing.assert_close(found.loss, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(loss, said)[0] for loss in (found.loss, wanted)))


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("error", ["squared", "absolute"])
def test_visible_patches_change_nothing(error, normalised):
    said, true = draw(), draw(1)
    before = reconstruction(said, true, MASK, ALONE, error, normalised)
    other = [torch.where(MASK[:, :, None], each, torch.randn_like(each) * 50) for each in (said, true)]
    after = reconstruction(*other, MASK, ALONE, error, normalised)
    assert torch.equal(before.loss, after.loss) and before.chance == after.chance


def test_chance_is_the_best_constant_patch() -> None:
    true = draw(1)
    found = reconstruction(true[MASK].mean(0).expand(3, 4, 12), true, MASK, ALONE)
    assert float(found.loss) == pytest.approx(found.chance) and found.chance > 0
    worse = reconstruction((true[MASK].mean(0) + 0.1).expand(3, 4, 12), true, MASK, ALONE)
    assert float(worse.loss) > worse.chance
    # Normalised patches have variance 1, so that a constant gets close to it.
    many = torch.randn(40, 4, 48)
    every = torch.ones(40, 4, dtype=torch.bool)
    assert reconstruction(many, many, every, ALONE, normalised=True).chance == pytest.approx(1.0, abs=0.05)


def test_normalised_patches() -> None:
    patches = normalise_patches(draw(3) * 7)
    assert torch.allclose(patches.mean(-1), torch.zeros(3, 4).double(), atol=1e-9)
    assert torch.allclose(patches.var(-1), torch.ones(3, 4).double(), atol=1e-5)
    flat = normalise_patches(torch.full((2, 3), 0.4))
    assert torch.equal(flat, torch.zeros(2, 3))


def test_nothing_hidden_half_precision_and_refusals() -> None:
    said = draw().requires_grad_()
    none = reconstruction(said, draw(1), torch.zeros(3, 4, dtype=torch.bool), ALONE)
    none.loss.backward()
    assert float(none.loss.detach()) == 0.0 and said.grad is not None and none.formula == "nothing hidden"
    half = reconstruction(draw().bfloat16(), draw(1).float(), MASK, ALONE)
    assert half.loss.dtype == torch.float32
    with pytest.raises(ValueError, match=r"mask \(3, 5\)"):
        reconstruction(draw(), draw(), torch.ones(3, 5), ALONE)
    with pytest.raises(ValueError, match="error is 'huber'"):
        reconstruction(draw(), draw(), MASK, ALONE, "huber")


@pytest.mark.parametrize("normalised", [False, True])
def test_equals_transformers_mae(normalised):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(
        image_size=8, patch_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        decoder_hidden_size=8, decoder_num_hidden_layers=1, decoder_num_attention_heads=1, decoder_intermediate_size=8,
        norm_pix_loss=normalised,
    )  # fmt: skip
    theirs = transformers.ViTMAEForPreTraining(config)
    pictures = torch.randn(3, 3, 8, 8)
    out = theirs(pictures, noise=torch.rand(3, 4))
    found = reconstruction(out.logits, theirs.patchify(pictures), out.mask.bool(), ALONE, normalised=normalised)
    torch.testing.assert_close(found.loss, out.loss)
