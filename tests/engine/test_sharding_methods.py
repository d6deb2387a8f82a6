"""Every other kind of method on one rank, and on two by DDP and in parts: three steps in float64, to 1e-9."""

from dataclasses import replace

import pytest
import ranks
import torch
from multiway_batches import INFO, toy_batch
from ranks import HEAD, NET, ROWS, Case, Rows, error, run, spawned

from multiway.batch import Batch
from multiway.methods import method_class
from multiway.nn.conv_stage import ConvStageConfig
from multiway.nn.mlp_head import MlpHeadConfig
from multiway.nn.multiway import MultiwayConfig
from multiway.nn.text import TextConfig
from multiway.nn.visual_tokeniser import VisualTokeniserConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

VIT = VisionConfig(size=16, patch=4, width=16, layers=2, heads=2)
CODES = VisualTokeniserConfig(replace(VIT, layers=1), codes=7, code_width=6)
GPT = TextConfig(width=16, layers=2, heads=2, pool="last")
BERT = TextConfig(width=16, layers=2, heads=2, causal=False, pool="class")
BLOCKS = MultiwayConfig(width=32, layers=3, heads=2, fusion_layers=1)
MEAN = replace(VIT, pool="mean")
PAIRS: dict[str, dict[str, object]] = {
    "albef-two": {"image": VIT, "text": BERT, "fusion_layers": 2, "embedding": 8, "queue": 31},
    "bert": {"text": BERT},
    "beit3": {"blocks": replace(BLOCKS, key_bias=True), "size": 16, "patch": 4, "tokeniser": CODES},
    "blip": {"image": VIT, "text": replace(BERT, cross_width=16), "embedding": 8, "queue": 31, "momentum": 0.9},
    "coca": {"image": MEAN, "text": GPT, "multimodal_layers": 2, "queries": 5, "embedding": 8},
    "declip": {"image": VIT, "text": GPT, "projector": MlpHeadConfig(3, 16, 8, output_norm="batch"), "predictor": MlpHeadConfig(2, 4, 0)},
    "filip": {"image": VIT, "text": GPT, "embedding": 8},
    "gpt": {"text": GPT},
    "meter": {"image": VIT, "text": replace(BERT, layers=1), "fusion_layers": 2, "width": 16, "heads": 2},
    "siglip": {"image": MEAN, "text": replace(GPT, causal=False)},
    "simvlm": {"image": ConvStageConfig(size=16, patch=4), "text": replace(BERT, pool="last")},
    "slip": {"image": VIT, "text": GPT, "projector": MlpHeadConfig(3, 16, 8)},
    "vilt": {"size": 16, "patch": 4, "width": 32, "layers": 2, "heads": 2},
    "vlmo": {"blocks": BLOCKS, "size": 16, "patch": 4, "stem": "patch", "embedding": 20},
    "mae": {"backbone": VIT},
    "maskfeat": {"backbone": VIT},
    "simmim": {"backbone": VIT},
}  # fmt: skip
VIEWS: dict[str, dict[str, object]] = {
    **{name: {"backbone": VIT} for name in ("dino", "ibot", "moco-v3", "simsiam", "swav")},
    **{name: {"backbone": NET, "projector": HEAD} for name in ("instdisc", "invaspread")},
}


class Anything(Rows):
    """Everything that any of them reads; `ranks.Rows` has pairs or views."""

    def batch(self, number: int) -> Batch:
        pairs = None if self.name in VIEWS else Rows("clip", self.world, self.dtype).batch(number)
        views = Rows("moco", self.world, self.dtype).batch(number)
        index = views.sample_index % 32
        more = {"labels": index % 3, "sample_index": index}
        if pairs is None:
            hidden = torch.arange(32).expand(len(index), 32) % 3 == index[:, None] % 3
            return replace(views, patch_mask=hidden, image_id=index, **more)
        hidden = toy_batch(ROWS, number, self.world.rank, self.world.size).patch_mask
        return replace(
            pairs,
            views=views.views if self.name in ("slip", "declip") else (),
            patch_mask=hidden if self.name in ("beit3", "mae", "maskfeat", "simmim", "vlmo") else None,
            **more,
        )


@pytest.mark.slow
def test_ranks_change_nothing(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, info = {}, replace(INFO, samples=32)
    for name, sizes in {**PAIRS, **VIEWS}.items():
        kind = method_class(name)
        monkeypatch.setitem(ranks.CONFIGS, name, (kind, kind.config_class(**sizes).resolve(info)))
        case = Case(name, steps=3, kind="sgd", lr=0.1)
        cases |= {name: case, f"{name} full": replace(case, shard="full")}
    two = spawned(cases, tmp_path / "two", rows=Anything, configs=ranks.CONFIGS)
    one = run({name: cases[name] for name in (*PAIRS, *VIEWS)}, World(), tmp_path / "one", rows=Anything)
    errors = {key: error(two[key], one[case.name]) for key, case in cases.items()}
    assert not {key: each for key, each in errors.items() if not each < 1e-9}
