"""Runs that were kept before a field existed are the same runs after it."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from multiway.config import LATER, ConfigError, differences, digest, from_json, identity_json, to_json
from multiway.engine.optim import OptimiserSpec
from multiway.engine.run import Run, RunMismatch
from multiway.methods.finetune_config import LATER as FINETUNED_LATER
from multiway.methods.finetune_config import FineTuneConfig
from multiway.recipes.albef import AlbefRecipe
from multiway.recipes.finetune import FinetuneRecipe
from multiway.recipes.recipe import Recipe

FROZEN = Path(__file__).parent / "fixtures"
KEPT = [("albef_run.json", AlbefRecipe), ("finetuned_run.json", FinetuneRecipe)]


def frozen(name: str) -> dict[str, Any]:
    """A run's config.json as it was written before `LATER` fields existed. These files never change."""
    value: dict[str, Any] = json.loads((FROZEN / name).read_text())
    return value


def rebuilt(name: str, kind: type[Recipe]) -> Any:
    value = frozen(name)
    del value["recipe"]
    return from_json(kind, value)


@pytest.mark.parametrize(("name", "kind"), KEPT)
def test_what_was_kept_is_still_the_identity(name: str, kind: type[Recipe]) -> None:
    kept, now = frozen(name), rebuilt(name, kind).identity()
    assert [str(each) for each in differences(kept, now)] == []
    # Cells of a comparison are found by a hash of this text; the order of its fields is the frozen one too.
    assert json.dumps(now) == json.dumps(kept) and digest(now) == digest(kept)


@pytest.mark.parametrize(("name", "kind"), KEPT)
def test_a_run_from_before_is_gone_on_with_and_another_is_refused(
    name: str, kind: type[Recipe], tmp_path: Path
) -> None:
    recipe = rebuilt(name, kind)
    with Run.open(tmp_path / "run", frozen(name), recipe.operational()):
        pass
    with Run.open(tmp_path / "run", recipe.identity(), recipe.operational()) as again:
        assert again.config == frozen(name)
        again.save(1, {}, {})
    settings = replace(recipe.settings, optimiser=replace(recipe.settings.optimiser, kind="sgd"))
    other = replace(recipe, settings=settings)
    assert other.identity()["settings"]["optimiser"]["kind"] == "sgd"
    with pytest.raises(RunMismatch, match=r"settings\.optimiser\.kind"):
        Run.open(tmp_path / "run", other.identity(), recipe.operational())


def test_fields_of_fine_tuning_that_came_later_are_kept_where_they_are_used() -> None:
    recipe = rebuilt("finetuned_run.json", FinetuneRecipe)
    assert not set(FINETUNED_LATER) & set(recipe.identity()["method"])
    told = replace(recipe, method=replace(recipe.method, freeze=("image",)))
    assert told.identity()["method"] == recipe.identity()["method"] | {"freeze": ["image"]}


@dataclass(frozen=True)
class Part:
    width: int = 3
    depth: int = field(default=1, metadata=LATER)
    names: tuple[str, ...] = field(default_factory=lambda: ("a",), metadata=LATER)


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...] = (Part(), Part(depth=2))
    table: dict[str, Part] = field(default_factory=lambda: {"x": Part(names=())})
    title: str = ""


def test_later_fields_at_their_default_are_left_out_at_any_depth() -> None:
    value = identity_json(Whole())
    assert value == {
        "parts": [{"width": 3}, {"width": 3, "depth": 2}],
        "table": {"x": {"width": 3, "names": []}},
        "title": "",
    }
    assert from_json(Whole, value) == Whole()  # and nothing is lost by it
    assert identity_json(Whole(), ("title", "parts")) == {"table": value["table"]}
    assert identity_json(Part(), ("width",)) == {}
    assert to_json(Part()) == {"width": 3, "depth": 1, "names": ["a"]}


def test_a_later_field_needs_a_default() -> None:
    @dataclass(frozen=True)
    class Wrong:
        size: int = field(metadata=LATER)

    with pytest.raises(ConfigError, match=r"Wrong\.size is marked as later and has no default"):
        identity_json(Wrong(3))


def test_every_later_field_of_the_optimiser_changes_the_identity_when_used() -> None:
    used = OptimiserSpec(
        kind="lars", momentum=0.8, nesterov=True, trust=0.01, decay="steps", steps=(0.5,), factor=0.2, weight_decay_end=0.4,
        constant_rate=("predictor",), exempt=False, unfreeze=(("^image", 0.5),), gradual=0.2,
    )  # fmt: skip
    plain, found = identity_json(OptimiserSpec()), identity_json(used)
    assert set(found) - set(plain) == {each for each in to_json(used) if each not in plain} and len(found) == 20
    assert from_json(OptimiserSpec, found) == used and from_json(OptimiserSpec, plain) == OptimiserSpec()

    assert FineTuneConfig() == from_json(FineTuneConfig, identity_json(FineTuneConfig(), FINETUNED_LATER))
