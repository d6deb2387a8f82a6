"""BEiT v2: codes of hidden patches, and the bottleneck of the class token."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from masked_batches import SMALL, TOKENISER, batch, built, step

from multiway.methods.beit import Beit, BeitConfig
from multiway.methods.method import Step


def beit(**changed: object) -> Beit:
    found = built("beit", **changed)
    assert isinstance(found, Beit)
    return found


@pytest.mark.parametrize("aggregate_from", [0, 1])
def test_the_loss_is_cross_entropy_of_the_whole_pictures_codes(aggregate_from: int) -> None:
    method = beit(aggregate_from=aggregate_from)
    rows = batch(method)
    images, mask = method.given(rows)
    codes = method.tokeniser.tokenise(images)
    said = method.encode(rows, Step())["said"]
    assert said.shape == (8, 16, 1 + aggregate_from, 16)
    found = step(method, rows)
    assert [key for key in found.terms if key != "probe"] == ["codes", "aggregated_codes"][: 1 + aggregate_from]
    for place, key in enumerate(["codes", "aggregated_codes"][: 1 + aggregate_from]):
        each = [
            F.cross_entropy(method.code_head(said[row, number, place]), codes[row, number])
            for row, number in mask.nonzero().tolist()
        ]
        torch.testing.assert_close(found.terms[key].value, torch.stack(each).mean())


@torch.no_grad()
def test_later_blocks_reach_the_aggregated_tokens_through_the_class_token_alone() -> None:
    method = beit().eval()
    images, mask = method.given(batch(method))
    before = method.look(images, mask)[1]
    # A later block that gives the class token as before and all patches otherwise.
    last = method.backbone.transformer.blocks[1]
    patches = torch.cat([torch.zeros(1, 1, 1), torch.ones(1, 16, 1)], 1)
    last.register_forward_hook(lambda m, a, o: o + patches * torch.randn_like(o))
    after = method.look(images, mask)[1]
    assert not torch.allclose(after[:, :, 0], before[:, :, 0]) and torch.equal(after[:, :, 1], before[:, :, 1])
    last.register_forward_hook(lambda m, a, o: o + (1 - patches) * torch.randn_like(o))
    assert not torch.allclose(method.look(images, mask)[1][:, :, 1], before[:, :, 1])


@torch.no_grad()
def test_aggregation_adds_a_loss_and_leaves_the_other_as_it_is() -> None:
    """Walking the blocks by hand is what the transformer does."""
    method, plain = beit().eval(), beit(aggregate_from=0).eval()
    plain.load_state_dict({key: each for key, each in method.state_dict().items() if not key.startswith("aggregate.")})
    given = method.given(batch(method))
    for one, two in zip(method.look(*given), plain.look(*given), strict=True):
        torch.testing.assert_close(one[:, :, :1] if one.ndim == 4 else one, two)


@pytest.mark.parametrize("aggregate_from", [0, 1])
def test_a_step_asks_of_hidden_patches_what_looking_at_all_of_them_gives(aggregate_from: int) -> None:
    """The last blocks compute hidden patches alone, of which every picture here has another number: values and gradients stay."""
    method = beit(aggregate_from=aggregate_from)
    rows = batch(method)
    images, mask = method.given(rows)
    mask = mask.clone()
    mask[0], mask[1, :7] = False, True
    rows = replace(rows, patch_mask=mask)
    features, every = method.look(images, mask)
    reps = method.encode(rows, Step())
    assert len(set(mask.sum(1).tolist())) > 1 and not bool(reps["said"][~mask].any())
    torch.testing.assert_close(reps["said"][mask], every[mask])
    torch.testing.assert_close(reps["features"], features)
    weights = [each for name, each in method.named_parameters() if name.startswith(("backbone.", "aggregate."))]
    wanted = torch.autograd.grad(every[mask].square().sum(), weights, allow_unused=True)
    found = torch.autograd.grad(reps["said"].square().sum(), weights, allow_unused=True)
    for one, two in zip(found, wanted, strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="--codes RUN"):
        Beit(BeitConfig())
    with pytest.raises(ValueError, match=r"tokeniser sees \(4, 4\) patches and the model \(2, 2\)"):
        beit(backbone=replace(SMALL, patch=8))
    for wrong in (
        {"aggregate_from": 2},
        {"backbone": replace(SMALL, pool="mean")},
        {"backbone": replace(SMALL, checkpoint=True)},
    ):
        with pytest.raises(ValueError, match="0 aggregates nothing"):
            beit(**wrong)


def test_published_sizes() -> None:
    """8,192 codes told from 768 channels, two aggregating blocks without a norm of their own."""
    config = replace(
        BeitConfig.preset("base"), tokeniser=replace(TOKENISER, image=replace(SMALL, size=224, patch=16), codes=8192)
    )
    with torch.device("meta"):
        method = Beit(config)
    assert method.aggregate is not None and config.aggregate_from == 9
    block = 12 * 768**2 + 13 * 768 + 2 * 768  # with both layer scales
    assert sum(each.numel() for each in method.aggregate.parameters()) == 2 * block
    assert sum(each.numel() for each in method.code_head.parameters()) == 769 * 8192
