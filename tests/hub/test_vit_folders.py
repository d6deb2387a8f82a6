"""Folders of ViTs: which class is asked for, and what encoders are called in theirs."""

import json
from pathlib import Path

import pytest
import torch

from multiway.hub import transformers_beit, transformers_dinov2, transformers_vit
from multiway.hub.file import WeightsError
from multiway.hub.vit_tensors import stripped

MODULES = [transformers_vit, transformers_dinov2, transformers_beit]


@pytest.mark.parametrize("module", MODULES)
def test_a_folder_of_another_type_is_refused_with_the_classes_that_are_read(module, tmp_path: Path) -> None:
    for config, held in (({"model_type": "bert"}, "a model of no known class of type 'bert'"), ({}, "no known class of type None"),
                         ({"model_type": "bert", "architectures": ["BertModel"]}, "a BertModel of type 'bert'")):  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config))
        kinds = module.KINDS if isinstance(module.KINDS, tuple) else sum(module.KINDS.values(), ())
        with pytest.raises(WeightsError, match=f"{held}; expected one of {', '.join(kinds)}$"):
            module.from_transformers(str(tmp_path))


@pytest.mark.parametrize("module", MODULES)
def test_a_folder_that_names_no_class_holds_the_first_and_says_what_it_lacks(module, tmp_path: Path) -> None:
    kind = next(iter(module.KINDS))  # of DINOv2 the type
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": kind.removesuffix("Model").lower(), "num_hidden_layers": 1})
    )
    with pytest.raises(WeightsError, match=r"neither model\.safetensors nor"):
        module.from_transformers(str(tmp_path))


def test_the_encoder_is_found_by_whole_words() -> None:
    part = {"vit.layernorm.bias": torch.zeros(1), "classifier.bias": torch.zeros(1)}
    for roots in (("vit",), ("other", "vit")):
        assert set(stripped(part, *roots)) == {"layernorm.bias", "classifier.bias"}
    assert set(stripped(part, "vi")) == set(part)
    assert set(stripped({"layernorm.vit.bias": torch.zeros(1)}, "vit")) == {"layernorm.vit.bias"}
