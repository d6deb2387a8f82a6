"""The published recipes on pictures alone: as the page says, at their real size on paper, and for a step on miniatures."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from annotated.test_binary_pictures import SETS
from PIL import Image

from multiway.batch import DataInfo, ViewSpec
from multiway.cli.evaluate import Evaluate
from multiway.cli.main import main
from multiway.cli.task_options import with_options
from multiway.data.processor import Processor
from multiway.engine.run import Run
from multiway.engine.schedule import schedule
from multiway.engine.settings import Settings
from multiway.hub.file import write_model
from multiway.hub.load import load
from multiway.methods.vqkd import Vqkd, VqkdConfig
from multiway.nn.resnet import ResNetConfig
from multiway.nn.swin import SwinConfig
from multiway.nn.visual_tokeniser import VisualTokeniserConfig
from multiway.nn.vit import VisionConfig
from multiway.recipes import recipe_function
from multiway.recipes.classifier import ClassifyRecipe
from multiway.recipes.command import edited, parse
from multiway.recipes.training import run_recipe
from multiway.tasks import TASKS
from multiway.world import World

PAGE = Path(__file__).parents[2] / "docs" / "published-pictures.md"
NAMES = ("simclr", "simsiam", "byol", "moco", "moco-v3", "swav", "dino", "ibot", "instdisc", "invaspread", "cmc", "cpc",
         "mae", "simmim", "maskfeat", "denoising-autoencoder", "beit")  # fmt: skip
TRAINED_ON = {"cifar10": 50_000, "stl10": 100_000, "imagenet": 1_281_167}
QUICK = ["--device", "cpu", "--precision", "fp32", "--threads", "1", "--log-every", "1"]


def presets(name: str) -> list[str]:
    with pytest.raises(KeyError) as error:
        recipe_function(name)("nothing")
    return str(error.value.args[0]).split("there are: ")[1].split(", ")


PUBLISHED = [(name, preset) for name in NAMES for preset in presets(name) if preset != "tiny"]


def set_of(recipe: Any) -> str:
    return str(recipe.data).partition(":")[0]


# The page.


def rows_of_page() -> dict[tuple[str, str], dict[str, str]]:
    """(recipe, preset) -> the cells of its row, by column."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    columns: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| recipe | preset "):
            columns = cells
        elif line.startswith("| `") and columns:
            row = dict(zip(columns, cells, strict=True))
            key = (row["recipe"].strip("`"), row["preset"].strip("`"))
            assert key not in found, f"{key} is listed twice"
            found[key] = row
        elif not line.startswith("|"):
            columns = []
    return found


def test_the_page_lists_every_preset_with_its_settings() -> None:
    page = rows_of_page()
    assert set(page) == set(PUBLISHED)
    for (name, preset), row in page.items():
        recipe: Any = recipe_function(name)(preset)
        settings, where = recipe.settings, f"{name} {preset}"
        batch, epochs = int(row["batch"].replace(",", "")), int(row["epochs"].replace(",", ""))
        assert batch == settings.batch, where
        assert row["data"] == {"cifar10": "CIFAR-10", "stl10": "STL-10", "imagenet": "ImageNet"}[set_of(recipe)], where
        kind, rate = row["optimiser, rate"].split(" ")
        assert kind.lower().rstrip(",") == settings.optimiser.kind, where
        assert float(rate) == pytest.approx(settings.lr, rel=2e-3), where
        # Steps are whole epochs, or whole epochs but for the rows that do not fill a batch.
        each = 1250 if preset.startswith("dinov2") else TRAINED_ON[set_of(recipe)] / batch
        assert settings.steps in (epochs * int(each), int(epochs * each)), where
        sides = [int(side) for count, side in re.findall(r"(\d+) × (\d+)", row["views"]) for _ in range(int(count))]
        assert sides == [each.size for each in recipe.views.views], where


def commands() -> list[list[str]]:
    """Every command of the page's blocks, from its verb on."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line.partition("multiway ")[2], comments=True) for line in lines if "multiway " in line]


@pytest.mark.parametrize("args", commands(), ids=" ".join)
def test_the_pages_commands_are_understood(args: list[str]) -> None:
    verb, rest = args[0], args[1:]
    if verb == "train":
        recipe = parse(rest)
        assert (recipe.name, recipe.preset) in PUBLISHED
        published = recipe_function(recipe.name)(recipe.preset).settings
        assert (
            replace(recipe.settings, accumulate=1, workers=0) == published
        )  # nothing but what memory and speed ask for
    elif verb == "eval":
        assert with_options(TASKS[(asked := tyro.cli(Evaluate, args=rest)).task], asked.options).name == asked.task
    else:
        default = ClassifyRecipe(settings=Settings(steps=1, batch=1, lr=1.0), view=ViewSpec())
        recipe = edited(default, rest[1:], "multiway finetune RUN", None)
        assert verb == "finetune" and recipe.data != default.data and recipe.evaluate
    assert set_of(recipe if verb != "eval" else asked) in {"cifar10", "cifar100", "stl10", "imagenet"}


# The settings.


@pytest.mark.parametrize(
    ("name", "preset", "base", "rows"),
    [
        ("simclr", "rn50", 0.3, 256),  # appendix B.6
        ("simsiam", "rn50", 0.05, 256),  # section 3
        ("simsiam", "rn18-cifar", 0.03, 256),  # appendix D
        ("byol", "rn50", 0.2, 256),  # section 3.3
        ("byol", "rn50-300", 0.3, 256),  # the code's presets by epochs
        ("moco", "v2-rn50", 0.03, 256),
        ("moco-v3", "vit-b", 1.5e-4, 256),  # CONFIG.md
        ("moco-v3", "rn50", 0.3, 256),
        ("dino", "rn50", 0.03, 256),  # README
        ("dino", "vit-s-16", 5e-4, 256),
        ("ibot", "vit-s-16", 5e-4, 256),
        ("mae", "vit-l-16", 1.5e-4, 256),
        ("mae", "vit-t-2-cifar", 1.5e-4, 256),
        ("simmim", "vit-b-16", 1e-4, 512),
    ],
)
def test_rates_are_scaled_by_the_batch(name: str, preset: str, base: float, rows: int) -> None:
    settings = recipe_function(name)(preset).settings
    assert settings.lr == pytest.approx(base * settings.batch / rows)


@pytest.mark.parametrize(("name", "preset"), PUBLISHED)
def test_the_rate_rises_and_ends_as_published(name: str, preset: str) -> None:
    settings = recipe_function(name)(preset).settings
    spec, steps = settings.optimiser, settings.steps
    rates = [schedule(step, steps, spec) for step in range(0, steps, max(1, steps // 400))]
    warm = spec.warmup * (steps if spec.warmup < 1 else 1)
    assert max(rates) == pytest.approx(1.0, abs=1e-2) and warm <= 0.2 * steps
    assert rates[0] <= 0.1 if warm else rates[0] == 1.0
    last = {"cosine": spec.floor, "steps": spec.factor ** len(spec.steps), "constant": 1.0}[spec.decay]
    assert schedule(steps - 1, steps, spec) == pytest.approx(last, abs=1e-6)


SIZES = {  # numbers of the backbone without a classifier, as torchvision's and timm's networks have them
    ("simclr", "rn50"): 23_508_032,
    ("simclr", "rn18-cifar"): 11_168_832,
    ("byol", "rn18-adam-stl10"): 11_168_832,
    ("dino", "vit-s-16"): 21_665_664,
    ("dino", "vit-b-8"): 85_807_872,
    ("moco-v3", "vit-b"): 85_798_656,
    ("mae", "vit-l-16"): 303_301_632,
    ("maskfeat", "vit-b-16"): 85_798_656,
    ("simmim", "swin-b"): 86_678_712,
}


@pytest.mark.parametrize(("name", "preset"), [each for each in PUBLISHED if each[0] != "beit"])
def test_it_is_built_at_its_size(name: str, preset: str) -> None:
    """At the `meta` device: shapes and no numbers."""
    recipe: Any = recipe_function(name)(preset)
    info = DataInfo(samples=TRAINED_ON[set_of(recipe)], classes=1000)
    with torch.device("meta"):
        method: Any = recipe.build(info)
    weights = [each for each in method.parameters() if each.requires_grad]
    assert weights and all(each.is_meta for each in weights)
    if (name, preset) in SIZES:
        own = sum(each.numel() for each in method.backbone.parameters())
        assert own == pytest.approx(SIZES[name, preset], rel=0.01)


# A step on miniatures.


def imagenet(root: Path, each: int = 8) -> None:
    """Three classes in folders, pictures of several shapes, named as the originals are."""
    random, synsets = np.random.default_rng(3), ("n01440764", "n02012849", "n03126707")
    root.mkdir(parents=True)
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{each} thing {each}, more words\n" for each in synsets))
    for place, synset in enumerate(synsets):
        for number in range(each):
            names = f"train/{synset}/{synset}_{number}.JPEG", f"val/{synset}/ILSVRC2012_val_{place:04}{number:04}.JPEG"
            for file in (root / name for name in names):
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(0, 256, (40 + number, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(file, quality=95)


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The four sets in their original layouts: name -> `name:folder`."""
    root = tmp_path_factory.mktemp("published")
    for name, write in SETS.items():
        write(root / name, 8 if name == "cifar10" else 24)  # type: ignore[call-arg]
    imagenet(root / "imagenet")
    return lambda name: f"{name}:{root / name}"


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image tokeniser at random, for BEiT."""
    image = VisionConfig(size=32, patch=16, width=16, layers=1, heads=2)
    method = Vqkd(VqkdConfig(VisualTokeniserConfig(image, codes=7, code_width=6), teacher=image))
    path = tmp_path_factory.mktemp("codes") / "codes.safetensors"
    write_model(path, method, Processor(ViewSpec(32, "center", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), None))
    return str(path)


def reduced(recipe: Any, data: str, out: Path, codes: str) -> Any:
    """The recipe with a network of few channels on pictures of some 32 pixels. All else stays as published."""
    method, patch = recipe.method, getattr(recipe.method.backbone, "patch", 8)
    backbone, side = method.backbone, 28 if patch == 14 else 64 if recipe.patches.unit else 32
    if isinstance(backbone, ResNetConfig):
        backbone = replace(backbone, base=4, depths=(1,) * len(backbone.depths))
    elif isinstance(backbone, SwinConfig):
        backbone, side = replace(backbone, size=64, base=8, depths=(1, 1, 1, 1), head_width=8, window=2), 64
    else:
        backbone = replace(backbone, size=side, width=16, layers=2, heads=2)
    small: dict[str, Any] = {"backbone": backbone}
    for head in ("projector", "predictor", "patch_projector"):
        if getattr(method, head, None) is not None:
            own = getattr(method, head)
            kept = own.output and (16 if own.last == "linear" else 32)
            small[head] = replace(own, hidden=own.hidden and 16, output=kept, bottleneck=8)
    limits = {"queue": 16, "noise": 16, "prototypes": 16, "context": 16, "norm_groups": 2, "aggregate_from": 1}
    small |= {key: min(getattr(method, key), most) for key, most in limits.items() if hasattr(method, key)}
    if hasattr(method, "decoder"):
        small["decoder"] = replace(method.decoder, width=16, layers=1, heads=2)
    if recipe.name == "cpc":
        small["patch"] = 8
    full = recipe.view.size
    kinds = tuple(
        replace(each, size=side if each.size == full else side // 2, kernel=None) for each in recipe.views.views
    )
    more = {"codes": codes} if recipe.name == "beit" else {}
    return replace(
        recipe, data=data, out=str(out), method=replace(method, **small), views=replace(recipe.views, views=kinds),
        view=replace(recipe.view, size=side), patches=replace(recipe.patches, least=1), **more,
        settings=replace(recipe.settings, steps=1, batch=8, device="cpu", precision="fp32", threads=1),
    )  # fmt: skip


@pytest.mark.parametrize(("name", "preset"), PUBLISHED)
def test_every_preset_takes_a_step(
    name: str, preset: str, miniatures: Callable[[str], str], codes: str, tmp_path: Path
) -> None:
    recipe = recipe_function(name)(preset)
    split = "@unlabeled" if set_of(recipe) == "stl10" else ""
    outcome = run_recipe(reduced(recipe, miniatures(set_of(recipe)) + split, tmp_path / "run", codes), World())
    assert outcome.finished and outcome.skipped_steps == 0 and outcome.bad_rows == 0
    logged = Run.read(tmp_path / "run").metrics()[-1]
    assert all(np.isfinite(each["value"]) for each in logged["terms"].values())
    assert ("probe" in logged["terms"]) == (not split)  # unlabelled pictures have nothing to read off


# From the command line, as on the page but for sizes.


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


SMALL_RESNET = ["--method.backbone.base", "4", "--method.projector.hidden", "32"]
ENDS = [
    ("cifar10", "", "test", "simclr", "rn18-cifar", SMALL_RESNET),
    ("cifar100", "", "test", "byol", "rn18-adam-cifar", [*SMALL_RESNET, "--method.predictor.hidden", "32"]),
    ("stl10", "@unlabeled", "test", "simclr", "rn18-adam-stl10",
     [*SMALL_RESNET, "--view.size", "32", "--views.views.0.size", "32", "--views.views.1.size", "32"]),
    ("imagenet", "", "val", "mae", "vit-b-16",
     ["--view.size", "32", "--views.views.0.size", "32", "--method.backbone.size", "32", "--method.backbone.width", "32",
      "--method.backbone.heads", "2", "--method.backbone.layers", "2", "--method.decoder.width", "32",
      "--method.decoder.layers", "1", "--method.decoder.heads", "2"]),
]  # fmt: skip


@pytest.mark.parametrize(("data", "split", "test", "name", "preset", "small"), ENDS, ids=[each[0] for each in ENDS])
def test_from_pictures_to_a_classifier(
    data: str, split: str, test: str, name: str, preset: str, small: list[str], miniatures: Callable[[str], str],
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    where, run, tuned = miniatures(data), str(tmp_path / "run"), str(tmp_path / "tuned")
    train = ["train", name, "--preset", preset, "--data", f"{where}{split}", "--steps", "2", "--batch", "8"]
    assert main([*train, *QUICK, *small, "--evaluate", f"knn={where}@{test}", "--out", run]) == 0
    capsys.readouterr()
    asked = ["eval", run, "--data", f"{where}@{test}", "--json", "--task"]
    for task, options, metric in (
        ("knn", ["--ks", "5"], "accuracy/top-1[k=5]"),
        ("probe", [], "accuracy/top-1"),
        ("probe", ["--labels", "0.9"], "accuracy/top-1"),
        ("few-shot", ["--shots", "1", "--draws", "2"], "accuracy/top-1[shots=1]"),
    ):
        assert main([*asked, task, *options]) == 0
        measured = last_json(capsys)["metrics"][metric]
        assert 0.0 <= measured["value"] <= 1.0 and measured["chance"] >= 1 / 3
    tune = [
        "finetune",
        run,
        "--task",
        "classification",
        "--data",
        where,
        "--labels",
        "0.5",
        "--steps",
        "2",
        "--batch",
        "4",
    ]
    assert main([*tune, *QUICK, "--evaluate", f"classification=@{test}", "--out", tuned]) == 0
    rows = {"cifar10": 40, "cifar100": 24, "stl10": 24, "imagenet": 24}[data]
    assert f"{rows // 2} rows of" in capsys.readouterr().err.replace("\n", " ")
    assert main(["eval", tuned, "--task", "classification", "--data", f"{where}@{test}", "--json"]) == 0
    assert "accuracy/top-1" in last_json(capsys)["metrics"]
    method: Any = load(tuned).method
    assert len(method.classes) == 3
