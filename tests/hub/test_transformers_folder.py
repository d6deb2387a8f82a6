"""Folders of `transformers`: weights in one file or several, nothing unpickled, and errors that name file and remedy."""

import json
import re
from pathlib import Path

import pytest
import torch
from hub.families import FAMILIES, TEXTS
from hub.vit_peers import same_state
from safetensors.torch import load_file, save_file

from multiway.cli.main import main
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.file import WeightsError
from multiway.hub.load import load
from multiway.hub.transformers_folder import read_tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    FAMILIES["clip"].save(tmp_path / "clip")
    return tmp_path / "clip"


def test_weights_in_several_files(folder: Path, tmp_path: Path) -> None:
    """As theirs writes large models, and as it wrote them before safetensors."""
    whole = load(f"hf:{folder}").method.state_dict()
    parts = tmp_path / "parts"
    FAMILIES["clip"].model().save_pretrained(parts, max_shard_size="60KB")  # type: ignore[operator]
    assert len(list(parts.glob("*.safetensors"))) > 2 and not (parts / "model.safetensors").exists()
    same_state(load(f"hf:{parts}").method.state_dict(), whole)
    tensors, old = load_file(folder / "model.safetensors"), tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text((folder / "config.json").read_text())
    files = {name: f"pytorch_model-0000{1 + number % 2}-of-00002.bin" for number, name in enumerate(tensors)}
    for file in set(files.values()):
        torch.save({name: tensors[name] for name in tensors if files[name] == file}, old / file)
    index = old / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    same_state(load(f"hf:{old}").method.state_dict(), whole)

    index.write_text(json.dumps({"weight_map": files | {"more": files["logit_scale"]}}))
    with pytest.raises(WeightsError, match=r"index\.json lack more, which it lists"):
        read_tensors(old)
    index.write_text(json.dumps({"weight_map": {"logit_scale": "../clip/model.safetensors"}}))
    with pytest.raises(WeightsError, match="is none of its own folder"):
        read_tensors(old)
    index.write_text(json.dumps({"weight_map": files}))
    (old / files["logit_scale"]).unlink()
    with pytest.raises(WeightsError, match=r"of-00002\.bin does not exist"):
        read_tensors(old)
    index.write_text("{}")
    with pytest.raises(WeightsError, match="no `weight_map`"):
        read_tensors(old)


def changed(folder: Path, **stated: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | stated))


def without(folder: Path, *names: str, more: dict[str, torch.Tensor] | None = None) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: each for name, each in tensors.items() if name not in names}
    save_file(kept | (more or {}), folder / "model.safetensors", metadata={"format": "pt"})


class Evil:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale": Evil(folder / "ran")}, folder / "pytorch_model.bin")


def narrower(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["vision_config"]["num_attention_heads"]  # then 12, which 32 is not a multiple of
    (folder / "config.json").write_text(json.dumps(config))


MANY = [f"{a}{b}{c} " * 3 for a in "bcdfgh" for b in "aeiou" for c in "lmnprst"]
WRONG = {
    "a pickle": (pickled, r"pytorch_model\.bin cannot be read as tensors alone: it holds \w+, an object.*\.safetensors"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has neither model.safetensors nor pytorch_model.bin"),
    "half a file": (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:999]),
                    r"model\.safetensors cannot be read"),
    "a missing tensor": (lambda f: without(f, "logit_scale"), r"lacks the tensor logit_scale; is it a CLIPModel\?.*--allow"),
    "a tensor more": (lambda f: without(f, more={"head.weight": torch.zeros(2)}), r"does not: head\.weight.*--allow"),
    "an unknown family": (lambda f: changed(f, model_type="gpt2"), r"of type 'gpt2'; those that can be converted are: align"),
    "a config without a field": (narrower, r"cannot be built here: width 32 is not divisible by 12 heads"),
    "another model's config": (lambda f: changed(f, projection_dim=24), r"image_projection\.weight"),
    "no config": (lambda f: (f / "config.json").unlink(), r"has no config\.json; expected a folder"),
    "a config that is none": (lambda f: (f / "config.json").write_text("<html>"), r"config\.json is not JSON.*fetch the file anew"),
    "another model's tokeniser": (lambda f: (f / "tokenizer.json").write_text(Tokenizer.train([*TEXTS, *map(str, MANY)], TokenizerSpec(400)).to_json()),
                                  r"tokeniser beside .* has 400 ids and the model embeddings of 300"),
    "an unknown activation": (lambda f: changed(f, text_config={"hidden_act": "silu"}), "activation 'silu' is unknown"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_a_person_gets_wrong(case: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line: one line, no traceback, nothing written, nothing run."""
    change, said = WRONG[case]
    change(folder)
    assert main(["convert", f"hf:{folder}", str(tmp_path / "out.safetensors")]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("multiway: ") and re.search(said, told), told
    assert not (tmp_path / "out.safetensors").exists() and not (folder / "ran").exists()


def test_a_name_that_is_neither_folder_nor_reachable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", f"hf:{tmp_path / 'nowhere'}", str(tmp_path / "out.safetensors")]) == 1
    assert "neither a folder here nor reachable on the hub" in capsys.readouterr().err
