"""SLIP: CLIP with a head for views; and CLIP itself where the head weighs nothing."""

from dataclasses import replace

import pytest
import torch
from toy import ToySource

from multiway.abilities import abilities_of
from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.config import from_json, to_json
from multiway.data.augment import finish
from multiway.data.loader import Loader
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.data.view_presets import simclr_cifar
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.method import Step
from multiway.methods.slip import Slip, SlipConfig
from multiway.nn.mlp_head import MlpHeadConfig
from multiway.nn.resnet import ModifiedResNetConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

INFO = DataInfo(vocabulary=300, context=16, special={"eos": 3})
TOWERS = {
    "image": VisionConfig(size=16, patch=4, width=16, layers=1, heads=2),
    "text": TextConfig(width=16, layers=1, heads=2),
    "embedding": 12,
}
VIEWS = replace(simclr_cifar(16), plain=True)
WORLD = World()


def rows(count: int = 12) -> Batch:
    source = ToySource(count)
    words = Tokenizer.train([c for i in range(count) for c in source.row(i).captions], TokenizerSpec(300, 16))
    view = ViewSpec(size=16)
    return finish(Loader(source, view, words, batch=count, views=VIEWS).batch(0), view, VIEWS)


def built(**changed: object) -> Slip:
    torch.manual_seed(0)
    given = TOWERS | {"projector": MlpHeadConfig(3, 16, 8)} | changed
    return Slip(SlipConfig(**given).resolve(INFO)).train()  # type: ignore[arg-type]


def test_without_weight_it_is_clip_to_the_bit() -> None:
    batch = rows()
    torch.manual_seed(0)
    clip = Clip(ClipConfig(**TOWERS).resolve(INFO)).train()  # type: ignore[arg-type]
    slip = built(view_weight=0.0)
    assert set(slip.state_dict()) == set(clip.state_dict())
    for method in (clip, slip):
        method.training_step(batch, WORLD, Step()).total.backward()
    for (name, own), (_, its) in zip(slip.named_parameters(), clip.named_parameters(), strict=True):
        assert torch.equal(own, its) and torch.equal(own.grad, its.grad), name  # type: ignore[arg-type]


def test_its_parts_of_clip_learn_what_clip_does_where_views_have_no_say() -> None:
    """The text tower has nothing to do with views: the same gradient, to the bit, whatever they weigh."""
    batch, found = rows(), []
    for weight in (0.0, 3.0):
        method = built(view_weight=weight)
        method.training_step(batch, WORLD, Step()).total.backward()
        found.append(method)
    without, with_views = found
    assert torch.equal(without.text.embed.words.weight.grad, with_views.text.embed.words.weight.grad)  # type: ignore[arg-type]
    weights = [method.image.patches.project.weight.grad for method in found]  # type: ignore[union-attr]
    assert not torch.allclose(weights[0], weights[1])  # type: ignore[arg-type]


def test_the_loss_is_algorithm_1() -> None:
    """Against its pseudo-code: cross entropies of z_1 among the other view's and its own, itself left out."""
    method, batch = built(), rows()
    losses = method.training_step(batch, WORLD, Step())
    reps = method.encode(batch, Step())
    first, second = (torch.nn.functional.normalize(reps[f"projected/{view}"], dim=1) for view in range(2))
    labels, total = torch.arange(len(batch)), 0.0
    for own, other in ((first, second), (second, first)):
        itself = own @ own.T / 0.1 - 1e9 * torch.eye(len(batch))
        logits = torch.cat([own @ other.T / 0.1, itself], 1)
        total = total + torch.nn.functional.cross_entropy(logits, labels) / 2
    torch.testing.assert_close(losses.terms["nt_xent"].value, total)
    torch.testing.assert_close(losses.total, losses.terms["itc"].value + total)


def test_the_plain_picture_is_for_captions_and_views_for_the_head() -> None:
    method, batch = built(), rows()
    reps = method.encode(batch, Step())
    other = method.encode(replace(batch, images=batch.images * 2.0), Step())  # type: ignore[operator]
    assert not torch.equal(reps["image"], other["image"])
    assert all(torch.equal(reps[name], other[name]) for name in ("text", "projected/0", "projected/1"))
    other = method.encode(replace(batch, views=(batch.views[0] * 2.0, batch.views[1])), Step())
    assert not torch.equal(reps["projected/0"], other["projected/0"])
    assert all(torch.equal(reps[name], other[name]) for name in ("image", "text", "projected/1"))


def test_the_views_loss_may_be_simsiams_whose_target_is_stopped() -> None:
    method, batch = built(view_loss="simsiam", predictor=MlpHeadConfig(2, 4, 0)), rows()
    losses = method.training_step(batch, WORLD, Step())
    assert set(losses.terms) == {"itc", "cosine"} and losses.terms["cosine"].chance is not None
    reps = {name: each.detach().requires_grad_() for name, each in method.encode(batch, Step()).items()}
    method.losses(reps, {}, batch, WORLD, Step()).terms["cosine"].value.backward()
    assert reps["projected/0"].grad is None and bool(reps["predicted/0"].grad.any())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "image", [TOWERS["image"], ModifiedResNetConfig(size=32, depths=(1, 1, 1, 1), base=8, heads=4, output=12)]
)
def test_every_parameter_learns_and_it_is_able_to_do_what_clip_is(image: object) -> None:
    method, batch = built(image=image), rows()
    if isinstance(image, ModifiedResNetConfig):
        grown = [torch.nn.functional.interpolate(each, size=32) for each in (batch.images, *batch.views)]
        batch = replace(batch, images=grown[0], views=tuple(grown[1:]))
    method.training_step(batch, WORLD, Step()).total.backward()
    assert all(each.grad is not None for each in method.parameters())
    torch.manual_seed(0)
    assert abilities_of(method) == abilities_of(Clip(ClipConfig(**TOWERS).resolve(INFO)))  # type: ignore[arg-type]


def test_a_batch_without_views_is_refused() -> None:
    with pytest.raises(ValueError, match="two views of each picture and the batch has 0; use the recipe `slip`"):
        built().encode(replace(rows(), views=()), Step())


def test_the_papers_sizes() -> None:
    for name in ("tiny", "vit-s-16", "vit-b-16", "vit-l-16"):
        config = SlipConfig.preset(name)
        assert from_json(SlipConfig, to_json(config)) == config
    with pytest.raises(KeyError, match="there are: tiny, vit-s-16"):
        SlipConfig.preset("nothing")
    with torch.device("meta"):
        method = Slip(SlipConfig.preset("vit-b-16"))
    assert (
        sum(each.numel() for each in method.image.parameters()) == 86_567_656 - 769 * 1000
    )  # ViT-B without its classifier
    head = (768 + 1) * 4096 + 4097 * 4096 + 4097 * 256 + 4 * 4096  # two batch norms
    assert sum(each.numel() for each in method.projector.parameters()) == head  # type: ignore[union-attr]
    text = (49408 + 77) * 512 + 12 * (12 * 512**2 + 13 * 512) + 2 * 512
    assert sum(each.numel() for each in method.parameters()) == 85_798_656 + head + text + (768 + 512) * 512 + 1
