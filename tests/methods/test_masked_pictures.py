"""Masked image modelling: what all its methods share, and what none of them may see."""

from dataclasses import replace

import pytest
import torch
from masked_batches import SMALL, WORLD, batch, built, step
from torch import Tensor

from multiway.batch import Batch
from multiway.methods import method_class
from multiway.methods.masked_pictures import MaskedPictures
from multiway.methods.method import Step
from multiway.nn.hidden_patches import cut, join

NAMES = ["mae", "simmim", "maskfeat", "denoising-autoencoder", "beit"]
PIXELS = ["mae", "simmim", "denoising-autoencoder"]


def hidden_changed(method: MaskedPictures, rows: Batch) -> Batch:
    """The same batch, with other pixels where they are hidden."""
    assert rows.patch_mask is not None
    images, side = rows.views[0], method.hides
    noise = join(cut(torch.randn(images.shape), side) * rows.patch_mask[..., None], (16, 16), side)
    return replace(rows, views=(images + noise,))


@pytest.mark.parametrize("stem", ["patch", "conv"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_hidden_is_not_seen(name: str, stem: str) -> None:
    """To the bit, and also by a convolutional stem, which looks beyond a patch."""
    method = built(name, backbone=replace(SMALL, stem=stem)).eval()
    rows = batch(method)
    other = hidden_changed(method, rows)
    assert not torch.equal(rows.views[0], other.views[0])
    one, two = (method.encode(each, Step()) for each in (rows, other))
    assert set(one) == {"said", "features"}
    for key in one:
        assert torch.equal(one[key], two[key]), key
    shown = replace(rows, patch_mask=~rows.patch_mask)  # and what is visible is
    assert not torch.equal(
        method.encode(shown, Step())["said"], method.encode(replace(other, patch_mask=shown.patch_mask), Step())["said"]
    )


@pytest.mark.parametrize("name", ["mae", "simmim", "maskfeat", "beit"])
def test_the_loss_counts_hidden_patches_alone(name: str) -> None:
    method = built(name)
    rows = batch(method)
    images, mask = method.given(rows)
    said = method.encode(rows, Step())["said"].detach()
    wrong = said.clone()
    wrong[~mask] += 9.0
    one, two = (method.judge(each, images, mask, WORLD).total for each in (said, wrong))
    assert torch.equal(one, two)
    wrong = said.clone()
    wrong[mask] += torch.randn_like(wrong[mask])
    assert not torch.equal(one, method.judge(wrong, images, mask, WORLD).total)


def test_a_denoising_autoencoder_gives_back_everything() -> None:
    method = built("denoising-autoencoder")
    rows = batch(method)
    images, mask = method.given(rows)
    assert mask.shape == (8, 256) and method.hides == 1
    said = method.encode(rows, Step())["said"].detach()
    loss = method.judge(said, images, mask, WORLD).terms["reconstruction"].value
    assert torch.allclose(loss, (said - cut(images, 4)).square().mean())


@pytest.mark.parametrize("name", NAMES)
def test_everything_learns_and_the_probe_leaks_nothing(name: str) -> None:
    method, blind = built(name), built(name)
    blind.probe = None
    rows = batch(method)
    for each in (method, blind):
        step(each, rows).total.backward()
    own, without = (
        {key: each.grad for key, each in part.named_parameters() if each.grad is not None} for part in (method, blind)
    )
    assert set(own) - set(without) == {"probe.weight", "probe.bias"}
    learns = {key for key, each in method.named_parameters() if each.requires_grad}
    assert set(own) == learns and not any(key.startswith("tokeniser.") for key in learns)
    for key, each in without.items():
        assert each is not None and own[key] is not None and torch.equal(own[key], each), key


@pytest.mark.parametrize("name", NAMES)
def test_a_step_changes_nothing_and_rows_are_independent(name: str) -> None:
    method = built(name)
    rows = batch(method)
    before = {key: each.clone() for key, each in method.state_dict().items()}
    found = step(method, rows)
    method.after_step(Step(), found.updates)
    assert all(torch.equal(before[key], each) for key, each in method.state_dict().items())
    together, apart = method.encode(rows, Step()), method.encode(rows.rows(3, 5), Step())
    for key in together:
        torch.testing.assert_close(together[key][3:5], apart[key])


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_beat_chance(name: str) -> None:
    """On one batch of pictures with something in them: its terms fall below what a constant scores."""
    method = built(name)
    rows = batch(method)
    places = torch.linspace(-3, 3, 16)
    phases = torch.arange(8.0)[:, None, None]
    waves = (places * (1 + phases % 4) + phases).sin() + (places[:, None] + phases).cos()
    rows = replace(rows, views=(waves[:, None].expand(-1, 3, -1, -1).contiguous(),))
    optimiser = torch.optim.AdamW([each for each in method.parameters() if each.requires_grad], lr=5e-3)
    for _ in range(40):
        optimiser.zero_grad()
        step(method, rows).total.backward()
        optimiser.step()
    found = step(method, rows)
    for key, term in found.terms.items():
        share = 0.95 if key == "probe" else 0.8  # of features that others decide on
        assert term.chance is not None and float(term.value.detach()) < share * term.chance, key
    assert found.report["probe_accuracy"] > 0.2 and found.report["hidden"] == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_it_is_measured_by_its_encoder_on_whole_pictures(name: str) -> None:
    method = built(name).eval()
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        encoded = method.encode_image(images)
        wanted = method.backbone(images)
    assert torch.equal(encoded.embedding, torch.nn.functional.normalize(wanted.pooled, dim=1))
    assert encoded.tokens is not None and torch.equal(encoded.tokens, wanted.tokens)


@torch.no_grad()
@pytest.mark.parametrize("name", PIXELS)
def test_reconstructions_keep_what_was_visible(name: str) -> None:
    method = built(name).eval()
    rows = batch(method)
    images, mask = method.given(rows)
    found: Tensor = method.reconstruct(images, mask)  # type: ignore[operator]
    assert found.shape == images.shape
    if name != "denoising-autoencoder":
        assert torch.equal(cut(found, 4)[~mask], cut(images, 4)[~mask])
        assert not torch.equal(cut(found, 4)[mask], cut(images, 4)[mask])
    # What was said, where nothing was normalised.
    if name == "simmim":
        assert torch.equal(cut(found, 4)[mask], method.encode(rows, Step())["said"][mask])


@pytest.mark.parametrize("name", NAMES)
def test_batches_without_masks_or_with_others_are_refused(name: str) -> None:
    method = built(name)
    rows = batch(method)
    with pytest.raises(ValueError, match=r"no mask; set the recipe's patches.ratio"):
        step(method, replace(rows, patch_mask=None))
    with pytest.raises(ValueError, match=r"the mask is of 9 squares .* set --patches.patch"):
        step(method, replace(rows, patch_mask=torch.zeros(8, 9, dtype=torch.bool)))


@pytest.mark.parametrize("name", NAMES)
def test_presets_are_named_when_one_is_missing(name: str) -> None:
    with pytest.raises(KeyError, match="there are: tiny"):
        method_class(name).config_class.preset("nothing")


@pytest.mark.parametrize("name", NAMES)
def test_without_labels_there_is_no_probe(name: str) -> None:
    method = built(name)
    found = step(method, replace(batch(method), labels=torch.full((8,), -1)))
    assert "probe" not in found.terms and "probe" in step(method, batch(method)).terms
