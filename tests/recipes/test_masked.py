"""Recipes of masked image modelling: they train from the command line, and what is hidden is a matter of seed, epoch and sample."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from multiway.batch import ViewSpec
from multiway.cli.main import main
from multiway.config import ConfigError, from_json, to_json
from multiway.data.processor import Processor
from multiway.engine.run import Run
from multiway.engine.schedule import schedule
from multiway.hub.file import write_model
from multiway.hub.load import load
from multiway.methods.vqkd import Vqkd, VqkdConfig
from multiway.nn.visual_tokeniser import VisualTokeniserConfig
from multiway.nn.vit import VisionConfig
from multiway.recipes import masked, recipe_function
from multiway.recipes.training import prepare, run_recipe
from multiway.world import World

NAMES = ["mae", "simmim", "maskfeat", "denoising-autoencoder", "beit"]
LARGE = [("mae", "vit-b-16"), ("mae", "vit-l-16"), ("mae", "vit-h-14"), ("simmim", "vit-b-16"), ("maskfeat", "vit-b-16"),
         ("maskfeat", "vit-l-16"), ("denoising-autoencoder", "vit-b-16"), ("beit", "base"), ("beit", "large")]  # fmt: skip
FEW = ["--data", "digits", "--steps", "2", "--batch", "8", "--device", "cpu", "--precision", "fp32", "--threads", "1",
       "--log-every", "1", "--method.backbone.layers", "2"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES[:4])
def test_it_trains_and_is_loaded(name: str, tmp_path: Path) -> None:
    assert main(["train", name, *FEW, "--out", str(tmp_path / "run")]) == 0
    last = Run.read(tmp_path / "run").metrics()[-1]
    assert set(last["terms"]) >= {"probe"} and last["report"]["probe_accuracy"] >= 0
    model = load(str(tmp_path / "run"))
    assert model.name == name and model.abilities() == ("encode_image",)


@pytest.mark.parametrize("name", NAMES[:4])
def test_masks_are_drawn_by_seed_epoch_and_sample(name: str) -> None:
    recipe = recipe_function(name)("tiny")
    recipe = replace(recipe, data="digits", settings=replace(recipe.settings, batch=8))
    ready, again = (prepare(recipe, World(rank=0, size=1)) for _ in range(2))
    one, two = ready.loader.batch(3), again.loader.batch(3)
    assert one.patch_mask is not None and torch.equal(one.patch_mask, two.patch_mask)
    assert not torch.equal(one.patch_mask, ready.loader.batch(4).patch_mask)
    assert len({int(row.sum()) for row in one.patch_mask}) == 1
    finished = ready.finish(one)
    assert finished.images is None and len(finished.views) == 1
    ready.method.given(finished)  # the mask is of the patches that the method has


@pytest.mark.parametrize(("name", "preset"), LARGE)
def test_published_settings_fit_together(name: str, preset: str) -> None:
    """Without building them: sizes agree, the config survives JSON."""
    recipe = recipe_function(name)(preset)
    side = recipe.method.square if name == "denoising-autoencoder" else recipe.method.backbone.patch
    assert recipe.patches.patch == side and recipe.preset == preset
    assert recipe.view.size == recipe.views.views[0].size == recipe.method.backbone.size == 224
    assert recipe.view.size % recipe.patches.side == 0
    assert from_json(type(recipe), to_json(recipe)) == recipe


def test_maes_published_settings() -> None:
    settings = masked.mae("vit-l-16").settings
    spec = settings.optimiser
    assert settings.batch == 4096 and settings.lr == pytest.approx(2.4e-3)
    assert settings.steps == pytest.approx(800 * 1_281_167 / 4096, abs=1)
    assert (spec.betas, spec.weight_decay, spec.warmup, spec.clip) == ((0.9, 0.95), 0.05, 0.05, 0.0)


@pytest.mark.parametrize(
    ("name", "preset", "end"),
    [
        ("mae", "vit-b-16", 0.0),
        ("maskfeat", "vit-b-16", 1e-6),  # COSINE_END_LR
        ("beit", "base", 1e-5),  # --min_lr
    ],
)
def test_the_rate_ends_where_the_released_code_lets_it(name: str, preset: str, end: float) -> None:
    settings = recipe_function(name)(preset).settings
    steps = settings.steps
    assert settings.lr * schedule(steps, steps, settings.optimiser) == pytest.approx(end, abs=1e-12)
    assert recipe_function(name)(preset).data == "imagenet:data/imagenet"


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    """An image tokeniser at random, as a run of `multiway train vqkd` writes it."""
    image = VisionConfig(size=16, patch=4, width=16, layers=1, heads=2)
    torch.manual_seed(0)
    method = Vqkd(VqkdConfig(VisualTokeniserConfig(image, codes=7, code_width=6), teacher=image))
    write_model(tmp_path / "codes.safetensors", method, Processor(ViewSpec(16, mean=(1, 1, 1), std=(0.5,) * 3), None))
    return tmp_path / "codes.safetensors"


def test_beit_trains_on_codes_that_it_keeps(codes: Path, tmp_path: Path) -> None:
    recipe = masked.beit()
    recipe = replace(
        recipe,
        codes=str(codes),
        data="digits",
        out=str(tmp_path / "run"),
        settings=replace(recipe.settings, steps=2, batch=8, device="cpu", precision="fp32", threads=1),
        view=replace(recipe.view, size=16),
        views=replace(recipe.views, views=(replace(recipe.views.views[0], size=16),)),
        patches=replace(recipe.patches, patch=4),
        method=replace(
            recipe.method, aggregate_from=1, backbone=VisionConfig(size=16, patch=4, width=16, layers=2, heads=2)
        ),
    )
    run_recipe(recipe, World())
    kept, lent = load_file(tmp_path / "run" / "model.safetensors"), load_file(codes)
    named = [name for name in lent if name.startswith("tokeniser.")]
    assert named and all(torch.equal(kept[name], lent[name]) for name in named)
    assert Run.read(tmp_path / "run").config["lent"]
    with pytest.raises(ConfigError, match=r"--codes .* mean"):
        prepare(replace(recipe, view=replace(recipe.view, mean=(0.5, 0.5, 0.5))), World())
    with pytest.raises(ConfigError, match="--codes RUN"):
        prepare(replace(recipe, codes=""), World())
