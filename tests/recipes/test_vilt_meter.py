"""ViLT and METER through the command line: trained on one's own data, saved, loaded, asked; and recipes that make no sense."""

from pathlib import Path

import pytest
import torch
from command_line import own_data

from multiway.cli.main import main
from multiway.cli.train import parse
from multiway.config import ConfigError
from multiway.engine.run import Run
from multiway.hub.load import load
from multiway.recipes.meter import meter
from multiway.recipes.vilt import vilt

TINY = [
    "--device", "cpu", "--precision", "fp32", "--threads", "1", "--log-every", "1", "--view.size", "16", "--batch", "16",
    "--tokenizer.vocabulary", "300", "--tokenizer.context", "24", "--method.width", "32",
]  # fmt: skip
SIZES = {
    "vilt": ["--method.size", "16", "--method.layers", "2", "--method.patch", "4", "--method.mpp", "1", "--method.keep", "3"],
    "meter": ["--method.image.size", "16", "--method.image.layers", "1", "--method.text.layers", "1",
              "--method.text.width", "32", "--method.fusion-layers", "1"],
}  # fmt: skip


@pytest.mark.parametrize("name", ["vilt", "meter"])
def test_trains_resumes_and_is_asked(caption_folder: Path, name: str) -> None:
    args = ["train", name, *own_data(caption_folder, "run"), *TINY, *SIZES[name]]
    assert main([*args, "--steps", "4", "--horizon", "6"]) == 0
    assert main([*args, "--steps", "6", "--horizon", "6"]) == 0
    lines = Run.read(caption_folder / "run").metrics()
    assert lines[-1]["step"] == 6
    wanted = {"itm", "mlm", "wpa", "mpp"} if name == "vilt" else {"itm", "mlm"}
    assert all(set(line["terms"]) == wanted for line in lines)
    model = load(caption_folder / "run")
    assert "compare" not in model.abilities()
    image = model.encode_image([caption_folder / "pictures" / "000.png"], tokens=True)
    text = model.encode_text(["red on the left"], tokens=True)
    assert image.embedding.shape == text.embedding.shape == (1, 0)
    assert torch.isfinite(model.match(image, text)).all()


def test_recipes_that_make_no_sense_are_refused() -> None:
    for args in (["vilt", "--masking.ratio", "0"], ["meter", "--masking.ratio", "0"]):
        with pytest.raises((SystemExit, ConfigError)):
            parse(args)
    with pytest.raises((SystemExit, ConfigError)):
        parse(["vilt", "--method.mpp", "1", "--view.mean", "0.4", "0.5", "0.5"])


def test_recipes_of_the_papers_sizes() -> None:
    """The papers' own numbers, section 4.2 and 4.1."""
    base = vilt("base").settings
    assert (base.steps, base.batch, base.lr, base.optimiser.weight_decay) == (100_000, 4096, 1e-4, 0.01)
    assert base.optimiser.decay == "linear" and base.optimiser.warmup == 0.1
    assert vilt("base").masking.ratio == 0.15 and vilt("base").masking.whole_words
    base = meter("base").settings
    assert (base.steps, base.batch, base.lr) == (100_000, 4096, 1e-5)
    assert meter("base").method.fusion_rate == 5.0 and meter("base").tokenizer.context == 50
