"""The runs that CapFilt trains: captioner and filter from a pre-trained run, and a new model on the clean data.

Li et al., BLIP, 2022, arXiv 2201.12086, section 3.3: both begin from the same pre-trained weights and are fine-tuned on human
captions, each with its own losses, sharing nothing. (With shared weights the two confirm each other: table 4 of the paper.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from multiway.config import ConfigError, from_json
from multiway.data.open import parse
from multiway.data.scenes.noise import NoiseShares
from multiway.data.scenes.options import SceneOptions
from multiway.data.tokenizer import TokenizerSpec
from multiway.engine.run import Run
from multiway.methods.blip import BlipConfig
from multiway.recipes import recipe_function
from multiway.recipes.recipe import Recipe

__all__ = ["LOSSES_OF", "fine_tuned", "human_world", "recipe_of", "retrained"]

LOSSES_OF: dict[str, tuple[str, ...]] = {"captioner": ("lm",), "filter": ("itc", "itm")}
"""What each part is fine-tuned with."""


def recipe_of(run: Path | str) -> Recipe:
    """The recipe that a run was trained by, as its config.json has it.

    Raises:
        RunError: if it is no run folder.
        ConfigError: if it is not a run of BLIP, whose losses can be trained apart.
    """
    config = dict(Run.read(run).config)
    name = config.pop("recipe")
    default = recipe_function(name)()
    # What other weights it began from concerns the run that is there, not one that begins from it.
    recipe = from_json(type(default), {key: each for key, each in config.items() if key not in ("init_hash", "lent")})
    if not isinstance(recipe.method, BlipConfig):
        raise ConfigError(
            f"{run} is a run of {recipe.method_name}; CapFilt fine-tunes a captioner and a filter from one of blip: name one, "
            "or give both parts ready-made (--captioner, --filter)"
        )
    return recipe


def fine_tuned(
    run: Path | str, part: str, human: str, images: str, steps: int, batch: int, lr: float, seed: int
) -> Recipe:
    """The recipe of a captioner or a filter; `out` is left to the caller.

    Args:
        run: pre-trained.
        part: of `LOSSES_OF`.
        human: data with captions to trust.
        images: folder that a caption file's paths are relative to.
        steps: of training.
        batch: rows in a step; 0 is the run's own.
        lr: peak; 0 is 0.3 times the run's own.
        seed: of the run.
    """
    recipe = recipe_of(run)
    settings = replace(
        recipe.settings,
        steps=steps,
        horizon=0,
        batch=batch or recipe.settings.batch,
        lr=lr or 0.3 * recipe.settings.lr,
        seed=seed,
        checkpoint_every=max(1, min(recipe.settings.checkpoint_every, steps)),
    )
    return replace(
        recipe,
        settings=settings,
        data=human,
        images=images,
        image_column="",
        caption_column="",
        evaluate=(),
        init=str(run),
        init_except=(),
        # The weights' own tokeniser, wherever the run once had it from.
        tokenizer=replace(recipe.tokenizer, path=""),
        method=replace(recipe.method, losses=LOSSES_OF[part]),
    )


def retrained(run: Path | str, data: Path, tokenizer: Path, steps: int, seed: int) -> Recipe:
    """The recipe of a new model on clean data: the run's own, from random weights.

    Args:
        run: the first one, whose recipe and tokeniser are kept, so that figures compare.
        data: folder of clean shards.
        tokenizer: the run's `tokenizer.json`.
        steps: of training; 0 is the run's own.
        seed: of the run.
    """
    recipe = recipe_of(run)
    settings = replace(recipe.settings, seed=seed)
    if steps:
        settings = replace(settings, steps=steps, horizon=0)
    # Clean shards have no split but `train`: what was measured is measured on the data that it was measured on.
    held_out = str(replace(parse(recipe.data), split=""))
    measured = tuple(each.replace("=@", f"={held_out}@", 1) for each in recipe.evaluate)
    return replace(
        recipe,
        settings=settings,
        data=str(data),
        evaluate=measured,
        image_column="",
        caption_column="",
        init="",
        init_except=(),
        tokenizer=TokenizerSpec(recipe.tokenizer.vocabulary, recipe.tokenizer.context, str(tokenizer)),
    )


def human_world(data: str, rows: int) -> str:
    """True captions for those who clean scenes: the same world without noise, of other pictures.

    Args:
        data: what is cleaned.
        rows: how many.

    Returns:
        The data's name; empty where the data are no scenes, and human captions have to be given.
    """
    spec = parse(data)
    if spec.name != "scenes":
        return ""
    noisy = SceneOptions.parse(spec.path)
    # Another seed: with the same one the clean rows would be the noisy pictures with their true captions.
    clean = replace(noisy, noise=NoiseShares(), seed=noisy.seed + 1, samples=rows)
    return f"scenes:{clean.said(training=True)}"
