"""What the tests of fine-tuning share: every method at a tiny size, and small annotated data that read no file."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from multiway_batches import INFO, WORDS
from PIL import Image
from toy import COLOURS, PLACES, toy_picture

from multiway.batch import Batch, ViewSpec
from multiway.config import to_json
from multiway.data.annotated.files import ExampleFiles
from multiway.data.augment import finish
from multiway.data.example_loader import ExampleLoader
from multiway.data.examples import Asked, Box, Chosen, Judged, Pointed
from multiway.data.source import BadRow
from multiway.methods import method_class
from multiway.methods.albef import AlbefConfig
from multiway.methods.beit3 import Beit3Config
from multiway.methods.bert import BertConfig
from multiway.methods.blip import BlipConfig
from multiway.methods.clip import ClipConfig
from multiway.methods.coca import CocaConfig
from multiway.methods.filip import FilipConfig
from multiway.methods.finetune import FineTune, FineTuneConfig
from multiway.methods.gpt import GptConfig
from multiway.methods.meter import MeterConfig
from multiway.methods.siglip import SiglipConfig
from multiway.methods.simvlm import SimvlmConfig
from multiway.methods.vilt import ViltConfig
from multiway.methods.vlmo import VlmoConfig
from multiway.nn.conv_stage import ConvStageConfig
from multiway.nn.multiway import MultiwayConfig
from multiway.nn.text import TextConfig
from multiway.nn.visual_tokeniser import VisualTokeniserConfig
from multiway.nn.vit import VisionConfig
from multiway.tasks import TASKS
from multiway.tasks.example_task import ExampleTask

_VISION = VisionConfig(size=16, patch=4, width=24, layers=2, heads=2)
_READER = TextConfig(width=32, layers=2, heads=2, causal=False, pool="class")
_WRITER = TextConfig(width=32, layers=2, heads=2, causal=True, pool="last")
_BLOCKS = MultiwayConfig(width=32, layers=2, heads=2, fusion_layers=1)
_CODES = VisualTokeniserConfig(VisionConfig(size=16, patch=4, width=16, layers=1, heads=2), codes=7, code_width=6)
_BEIT3 = Beit3Config(blocks=replace(_BLOCKS, key_bias=True), size=16, patch=4, stem="patch", tokeniser=_CODES)

# What reads pictures with texts, what reads each by itself, and what reads texts alone.
FUSED: dict[str, Any] = {
    "albef": AlbefConfig(image=_VISION, text=_READER, embedding=20, queue=16),
    "blip": BlipConfig(image=_VISION, text=replace(_READER, cross_width=24), embedding=20, queue=16),
    "vilt": ViltConfig(size=16, patch=4, width=32, layers=2, heads=2),
    "meter": MeterConfig(image=_VISION, text=_READER, fusion_layers=2, width=32, heads=2),
    "vlmo": VlmoConfig(blocks=_BLOCKS, size=16, patch=4, stem="patch", embedding=20),
    "beit3": _BEIT3,
    "coca": CocaConfig(
        image=replace(_VISION, pool="mean"), text=_WRITER, multimodal_layers=2, queries=6, pooler_heads=2, embedding=20
    ),
    "simvlm": SimvlmConfig(image=ConvStageConfig(size=16, patch=4, depths=()), text=replace(_WRITER, causal=False)),
}
DUAL: dict[str, Any] = {
    "clip": ClipConfig(image=_VISION, text=replace(_WRITER, pool="eos", eos_id=3), embedding=20),
    "siglip": SiglipConfig(image=replace(_VISION, pool="mean"), text=replace(_WRITER, causal=False)),
    "filip": FilipConfig(image=_VISION, text=_WRITER, embedding=20),
    "beit3-itc": replace(_BEIT3, objective="itc"),
}
BLIND: dict[str, Any] = {"bert": BertConfig(_READER), "gpt": GptConfig(_WRITER)}
METHODS = FUSED | DUAL | BLIND

VIEW = ViewSpec(size=16, crop="squash")
TASK_OF = {"asked": "vqa", "judged": "entailment", "two": "nlvr2", "chosen": "vcr", "pointed": "refcoco"}
KINDS = tuple(TASK_OF)


def tuned(name: str, kind: str = "asked", seed: int = 0, **options: Any) -> FineTune:
    """A method with a head for a kind of examples, `two` meaning judged ones about two pictures; in evaluation mode."""
    torch.manual_seed(seed)
    cls = method_class(name.partition("-")[0])
    of = to_json(METHODS[name].resolve(INFO))
    answers = {"asked": ANSWERS, "judged": VERDICTS, "two": TRUTH}.get(kind, ())
    config = FineTuneConfig(
        cls.name, of, "judged" if kind == "two" else kind, answers, 2 if kind == "two" else 1, **options
    )
    return FineTune(config).eval()


ANSWERS = ("red", "green", "blue", "yes", "no")
VERDICTS = ("entailment", "neutral", "contradiction")
TRUTH = ("false", "true")
_PLACES = list(PLACES)
_BOXES: dict[str, Box] = {
    "left": (0, 0, 0.5, 1), "right": (0.5, 0, 1, 1), "top": (0, 0, 1, 0.5), "bottom": (0, 0.5, 1, 1),
}  # fmt: skip


class ToyPictures:
    """A coloured half each; those in `broken` cannot be read. Counts how often each is."""

    def __init__(self, count: int = 12, broken: Sequence[int] = ()) -> None:
        self.count, self.broken, self.read = count, broken, [0] * count

    def __len__(self) -> int:
        return self.count

    def said(self, index: int) -> tuple[str, str]:
        return list(COLOURS)[index % 3], _PLACES[index // 3 % 4]

    def image(self, index: int) -> Image.Image:
        self.read[index] += 1
        if index in self.broken:
            raise BadRow(f"picture {index} is cut off")
        return toy_picture(*self.said(index), noise=index)


def toy_examples(kind: str = "asked", count: int = 24, broken: Sequence[int] = (), split: str = "train") -> Any:
    """Two examples about each picture; of `kind` `two`, about it and the next one."""
    pictures = ToyPictures(-(-count // 2), broken)
    rows = [_example(kind, pictures, number) for number in range(count)]
    labels = {"judged": VERDICTS, "two": TRUTH}.get(kind, ())
    return ExampleFiles("toy", split, "judged" if kind == "two" else kind, rows, pictures, labels)


def _example(kind: str, pictures: ToyPictures, number: int) -> Any:
    picture = number // 2
    (colour, place), key, where = pictures.said(picture), f"k{number}", f"toy, example {number}"
    group = "even" if number % 2 == 0 else "odd"
    if kind == "asked":
        given = (colour,) * (10 - number % 4) + ("no",) * (number % 4)
        return Asked(key, (picture,), f"what is {place}", where, group, given)
    if kind == "judged":
        return Judged(key, (picture,), f"the {place} is {colour}", where, group, number % 3)
    if kind == "two":
        shown = (picture, (picture + 1) % pictures.count)
        return Judged(key, shown, f"{colour} on the {place}", where, "", number % 2, f"twin{picture // 2}")
    if kind == "chosen":
        others = [each for each in ("red", "green", "blue", "black") if each != colour]
        choices = (*others[: number % 4], colour, *others[number % 4 :])[: 4 - number % 2 * (number % 4 < 3)]
        reasons = (f"the {place} is {colour}", f"the {place} is black", f"{colour} is not")
        return Chosen(key, (picture,), place, where, group, choices, choices.index(colour), reasons, 0)
    candidates = tuple(_BOXES[each] for each in _PLACES[: 2 + number % 3])
    meant = _PLACES[number % (2 + number % 3)]
    return Pointed(key, (picture,), f"{colour} {meant}", where, group, (_BOXES[meant],), candidates)


def tuning_loader(
    kind: str = "asked", batch: int = 8, examples: Any = None, view: ViewSpec = VIEW, **options: Any
) -> Any:
    task = TASKS[TASK_OF[kind]]
    assert isinstance(task, ExampleTask)
    wanted = task.wanted({"asked": ANSWERS, "judged": VERDICTS, "two": TRUTH}.get(kind, ()))
    return ExampleLoader(examples or toy_examples(kind), view, WORDS, wanted, batch, **options)


def tuning_batch(kind: str = "asked", batch: int = 8, step: int = 0, **options: Any) -> Batch:
    """A batch as a method gets it."""
    return finish(tuning_loader(kind, batch, **options).batch(step), VIEW)
