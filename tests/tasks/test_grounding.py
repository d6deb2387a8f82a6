"""Grounding: maps that are known in advance, ALBEF's own scoring as a slow twin, and a model that knows nothing."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from multiway.abilities import Encoded, LacksAbility
from multiway.batch import DataInfo, ViewSpec
from multiway.data.annotated.files import ExampleFiles
from multiway.data.annotated.scenes import open_scenes
from multiway.data.examples import Pointed
from multiway.data.processor import Processor
from multiway.data.source import DataError
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.model import Model
from multiway.methods.albef import Albef, AlbefConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.tasks.grounding import Grounding
from multiway.tasks.heat_maps import heat_maps

GRID = 4


class Pictures:
    """Pictures that are their number, of any size."""

    def __init__(self, count: int, size: tuple[int, int] = (40, 40)) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Image.Image:
        return Image.new("L", self.size, index)


class Looker:
    """Looks at (pictures, GRID, GRID) heat: odds are the sum of attention times what it should be, so that the slope is known.

    Attention is 1 everywhere in two blocks; the slope of block 0 is the heat, that of block 1 minus it.
    """

    def __init__(self, heat: torch.Tensor, front: int = 1) -> None:
        self.heat, self.front = heat, front
        self.method, self.device = self, torch.device("cpu")
        self.processor = SimpleNamespace(
            view=ViewSpec(size=16, crop="squash"), tokenizer=SimpleNamespace(special={"bos": 0, "eos": 1})
        )

    def abilities(self) -> tuple[str, ...]:
        return ("encode_image", "encode_text", "match_with_maps")

    def encode_image(self, images: Any, tokens: bool = False) -> Encoded:
        numbers = torch.tensor([float(image.getpixel((0, 0))) for image in images])
        return Encoded(torch.zeros(len(numbers), 0), numbers[:, None, None])

    def encode_text(self, texts: Any, tokens: bool = False) -> Encoded:
        count = len(texts)
        mask = torch.arange(4) < torch.tensor([3 + number % 2 for number in range(count)])[:, None]
        return Encoded(torch.zeros(count, 0), torch.zeros(count, 4, 1), mask, torch.tensor([[0, 7, 1, 9]] * count))

    @torch.inference_mode()
    def by_rows(self, count: int, ask: Any) -> list[Any]:
        return [ask(torch.arange(start, min(start + 2, count))) for start in range(0, count, 2)]

    def match_with_maps(self, image: Encoded, text: Encoded) -> tuple[torch.Tensor, list[torch.Tensor]]:
        assert image.tokens is not None
        own = self.heat[image.tokens[:, 0, 0].long()].flatten(1)
        slope = torch.cat([torch.full((len(own), self.front), 99.0), own], 1)[:, None, None]
        length = text.tokens.shape[1]  # type: ignore[union-attr]
        words = torch.tensor([0.0, 1.0, 0.0, 50.0])[None, None, :length, None]  # the last is padding in every other row
        maps = [torch.ones(len(own), 2, length, slope.shape[-1]).requires_grad_() for _ in range(2)]
        odds = (maps[0] * slope * words).flatten(1).sum(1) - (maps[1] * slope * words).flatten(1).sum(1)
        return odds, maps


def spots(*cells: tuple[int, int]) -> torch.Tensor:
    heat = torch.zeros(len(cells), GRID, GRID)
    for number, (row, column) in enumerate(cells):
        heat[number, row, column] = 1.0
    return heat


def cell(row: int, column: int, high: int = 1, wide: int = 1) -> tuple[float, float, float, float]:
    return (column / GRID, row / GRID, (column + wide) / GRID, (row + high) / GRID)


def pointed(boxes: Any, candidates: Any = (), size: tuple[int, int] = (40, 40), groups: Any = None) -> Any:
    rows = [
        Pointed(str(n), (n,), "it", "", groups[n] if groups else "", tuple(own), tuple(candidates))
        for n, own in enumerate(boxes)
    ]
    return ExampleFiles("regions", "test", "pointed", rows, Pictures(len(rows), size))


def test_the_map_is_the_mean_over_real_tokens_of_the_clipped_slope() -> None:
    heat = torch.randn(3, GRID, GRID)
    model = Looker(heat)
    images = Encoded(torch.zeros(3, 0), torch.arange(3.0)[:, None, None])
    texts = model.encode_text(["it"] * 3)
    means = torch.tensor([1 / 3, 51 / 4, 1 / 3])[:, None, None]  # over three tokens, or four
    assert torch.allclose(heat_maps(model, images, texts, 0), means * heat.clamp(min=0))
    assert torch.allclose(heat_maps(model, images, texts, -1), means * (-heat).clamp(min=0))
    assert torch.allclose(heat_maps(model, images, texts, None), means * (-heat).clamp(min=0))  # the last of two
    words = torch.tensor([1.0, 51 / 2, 1.0])[:, None, None]
    assert torch.allclose(heat_maps(model, images, texts, 0, (0, 1)), words * heat.clamp(min=0))
    with pytest.raises(ValueError, match="no block 2; the model fuses in 2"):
        heat_maps(model, images, texts, 2)
    with pytest.raises(ValueError, match="no square"):
        heat_maps(Looker(heat, front=7), images, texts)


class One(Looker):
    """Fuses in one block; the default of those that fuse in two is their last, which this one's only is."""

    def match_with_maps(self, image: Encoded, text: Encoded) -> tuple[torch.Tensor, list[torch.Tensor]]:
        odds, maps = super().match_with_maps(image, text)
        return odds, maps[:1]


def test_the_block_is_the_middle_one_and_not_the_first() -> None:
    heat, examples = spots((0, 0), (2, 3)), pointed([[cell(0, 0)], [cell(2, 3)]])

    def pointing(model: Looker, block: int | None = None) -> float:
        return Grounding(resamples=5, block=block).run(model, examples).metrics["pointing"].value

    # The second block says the opposite of the first: nothing is hot but what is wrong, or all alike.
    assert pointing(Looker(heat), 0) == 1.0 and pointing(Looker(-heat), 1) == pointing(Looker(-heat)) == 1.0
    assert pointing(Looker(heat)) == pointing(Looker(heat), -1) == pytest.approx(1 / 16)
    assert pointing(One(heat)) == 1.0
    with pytest.raises(ValueError, match="no block 1; the model fuses in 1"):
        pointing(One(heat), 1)


def test_points_and_regions_that_are_known() -> None:
    candidates = [cell(0, 0), cell(2, 3), cell(3, 0)]
    examples = pointed([[cell(0, 0)], [cell(2, 3)], [cell(3, 0)]], candidates, groups=["a", "b", "a"])
    metrics = Grounding(resamples=5, block=0).run(Looker(spots((0, 0), (2, 3), (0, 0))), examples).metrics
    assert metrics["accuracy@0.5"].value == metrics["pointing"].value == pytest.approx(2 / 3)
    assert metrics["accuracy@0.5"].chance == pytest.approx(1 / 3)
    assert metrics["pointing"].chance == pytest.approx(1 / 16)
    assert metrics["pointing[a]"].value == 0.5 and metrics["accuracy@0.5[b]"].value == 1.0
    result = Grounding(resamples=5, block=0).run(Looker(spots((0, 0), (2, 3), (0, 0))), examples)
    assert Grounding().submission(result)[1] == {
        "key": "1", "box": list(cell(2, 3)), "point": list(result.details.points[1]),
    }  # fmt: skip


def test_a_map_that_says_nothing_scores_chance() -> None:
    candidates = [cell(0, 0), cell(2, 3), cell(3, 0), cell(1, 1, 2, 2)]
    examples = pointed([[cell(0, 0), cell(0, 1)], [cell(2, 3, 2, 1)]], candidates)
    metrics = Grounding(resamples=5, block=0).run(Looker(torch.zeros(2, GRID, GRID)), examples).metrics
    for name in ("accuracy@0.5", "pointing"):
        assert metrics[name].value == pytest.approx(metrics[name].chance)
    assert metrics["pointing"].chance == pytest.approx(2 / 16)


def test_boxes_that_overlap_are_not_counted_twice() -> None:
    examples = pointed([[cell(0, 0, 2, 2), cell(1, 1, 2, 2)]])
    metrics = Grounding(resamples=5, block=0).run(Looker(spots((0, 0))), examples).metrics
    assert metrics["pointing"].chance == pytest.approx(7 / 16) and "accuracy@0.5" not in metrics


@pytest.mark.parametrize("area", [0.0, 0.5, 1.0])
def test_regions_are_scored_as_albefs_code_does(area: float) -> None:
    """Its loop: the map at the picture's size, pixels of a detection summed, over a power of its area in pixels."""
    side = 40
    generator = np.random.default_rng(3)
    heat = torch.rand(12, GRID, GRID, generator=torch.Generator().manual_seed(1))
    corners = generator.integers(0, side - 8, (6, 2))
    sizes = generator.integers(4, 9, (6, 2))
    pixels = [(int(x), int(y), int(w), int(h)) for (x, y), (w, h) in zip(corners, sizes)]
    candidates = [(x / side, y / side, (x + w) / side, (y + h) / side) for x, y, w, h in pixels]
    examples = pointed([[candidates[0]]] * 12, candidates)
    found = Grounding(resamples=5, block=0, area=area, resolution=side).run(Looker(heat), examples).details
    for number in range(12):
        drawn = F.interpolate(heat[number][None, None], (side, side), mode="bicubic")[0, 0].clamp(min=0)
        best, chosen = 0.0, None
        for box, (x, y, w, h) in zip(candidates, pixels):
            score = float(drawn[y : y + h, x : x + w].sum()) / (w * h) ** area
            if score > best:
                best, chosen = score, box
        assert found.boxes[number] == chosen


def test_boxes_are_looked_for_where_the_view_has_them() -> None:
    """A picture twice as wide as high, of which the middle half is seen: its left quarter is not."""
    model = Looker(spots((0, 0), (0, 0)))
    model.processor.view = ViewSpec(size=16, crop="center")
    seen, unseen = (0.25, 0.0, 0.375, 0.25), (0.0, 0.0, 0.125, 0.25)
    examples = pointed([[seen], [unseen]], [unseen, seen], size=(80, 40))
    result = Grounding(resamples=5, block=0).run(model, examples)
    assert result.details.hits == (1.0, 0.0) and result.details.boxes == (seen, seen)
    assert result.metrics["pointing"].chance == pytest.approx(1 / 16 / 2)


def test_withheld_regions_are_pointed_at_and_not_measured() -> None:
    result = Grounding(resamples=5, block=0).run(Looker(spots((1, 2))), pointed([[]], [cell(0, 0), cell(1, 2)]))
    assert result.metrics == {} and result.details.boxes == (cell(1, 2),)


def test_refusals() -> None:
    blind = Looker(spots((0, 0)))
    blind.abilities = lambda: ("encode_image", "encode_text")  # type: ignore[method-assign]
    with pytest.raises(LacksAbility, match="match_with_maps"):
        Grounding().run(blind, pointed([[cell(0, 0)]]))
    with pytest.raises(DataError, match="takes `pointed`"):
        Grounding().run(Looker(spots((0, 0))), replace(pointed([[cell(0, 0)]]), kind="asked"))
    with pytest.raises(DataError, match="tune for `refcoco`"):
        Grounding().wanted(())


def test_a_real_method_on_scenes() -> None:
    """Through `hub.model.Model`, whose passes run without gradients: the same maps as by hand, whatever the batch."""
    words = Tokenizer.train(["the red circle", "the blue star"], TokenizerSpec(vocabulary=270, context=24))
    config = AlbefConfig(
        image=VisionConfig(size=32, patch=8, width=16, layers=1, heads=2),
        text=TextConfig(context=0, width=16, layers=1, heads=2, causal=False, pool="class"),
        fusion_layers=3, embedding=8, queue=4,
    )  # fmt: skip
    torch.manual_seed(0)
    method = Albef(config.resolve(DataInfo(vocabulary=len(words), context=24)))
    for parameter in method.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    model = Model(method, Processor(ViewSpec(size=32, crop="squash"), words), batch=3)
    examples = open_scenes("expressions", "test", "easy,gallery=8")
    task = Grounding(resamples=5)
    result = task.run(model, examples)
    assert all(parameter.grad is None for parameter in method.parameters())
    assert result.metrics["pointing"].n == len(examples) and 0 < result.metrics["pointing"].chance < 0.5
    again = replace(task, chunk=5).run(Model(method, model.processor, batch=64), examples)
    assert again.details.points == result.details.points and again.details.boxes == result.details.boxes
    # By hand, one expression alone.
    row = examples.example(5)
    pixels = model.processor.images([examples.pictures.image(row.pictures[0])])
    tokens = words([row.text])
    odds, maps = method.match_with_maps(method.encode_image(pixels), method.encode_text(tokens.ids, tokens.mask))
    slope = torch.autograd.grad(odds.sum(), maps[1])[0].clamp(min=0)
    want = (maps[1].detach() * slope).mean(1)[0].mean(0)[1:].view(4, 4)
    image = model.encode_image(pixels, tokens=True)
    text = model.encode_text([row.text], tokens=True)
    assert torch.allclose(heat_maps(model, image, text)[0], want, atol=1e-7)
