"""Every family of `transformers` that is read, end to end: its folder, from pictures and strings as they are, out again and in again.

Theirs draws and reads by its own processor and tokeniser, ours by what it took from the same folder.
"""

from pathlib import Path

import pytest
import torch
import transformers as peers
from hub.families import FAMILIES, Said
from hub.vit_peers import opened, same_state
from safetensors import safe_open
from safetensors.torch import load_file

from multiway.hub.file import read_model, write_model
from multiway.hub.layouts import COUNTERPARTS, LAYOUTS, to_transformers
from multiway.hub.load import load
from multiway.hub.model import Model

TOLERANCE = 1e-5  # fp32, relative to the largest where that is above 1


def loaded(name: str, folder: Path) -> Model:
    part = FAMILIES[name].part
    return load(f"hf:{folder}" + (f"#{part}" if part else ""))


def same(found: Said, wanted: Said) -> None:
    assert found.keys() == wanted.keys()
    for what, tensor in wanted.items():
        assert (
            found[what].shape == tensor.shape and tensor.std(0).max() > 0.01
        )  # rows differ, so the comparison can fail
        assert (found[what] - tensor).abs().max() < TOLERANCE * max(1.0, float(tensor.abs().max())), what


def test_every_layout_is_among_them() -> None:
    assert {name.partition(" ")[0] for name in FAMILIES} == set(LAYOUTS)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_from_pictures_and_strings_in_out_and_in_again(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    theirs = family.save(tmp_path / "theirs")
    wanted = family.theirs(theirs)
    ours = loaded(name, tmp_path / "theirs")
    same(family.ours(ours), wanted)

    # The report has every tensor of the file in one place.
    report, file = ours.report, tmp_path / "theirs" / "model.safetensors"
    assert report is not None
    with safe_open(file, "pt") as held:
        names = sorted(held.keys())
    placed = [
        *report.matched,
        *report.renamed,
        *report.left,
        *(each for some in report.aside.values() for each in some),
    ]
    assert len(placed) == len(names) and not report.new and not report.left

    # One file of ours keeps tensors, pictures and tokeniser.
    write_model(tmp_path / "kept.safetensors", ours.method, ours.processor)
    kept = read_model(tmp_path / "kept.safetensors")
    assert kept.processor.view == ours.processor.view and kept.method.config == ours.method.config
    for what, tensor in family.ours(kept).items():
        assert torch.equal(tensor, family.ours(ours)[what])

    if family.part or ours.name not in COUNTERPARTS:
        return
    # Out: theirs finds every tensor, and says the same by the processor and the tokeniser that were written. In again: to the bit.
    to_transformers(ours, tmp_path / "out", family.kind or None)
    pooler = {"add_pooling_layer": False} if type(theirs).__name__ in ("BertModel", "ViTModel", "DeiTModel") else {}
    again = opened(getattr(peers, type(theirs).__name__), tmp_path / "out", **pooler)
    same(family.theirs(again, tmp_path / "out"), wanted)
    back = loaded(name, tmp_path / "out")
    held, written = (load_file(tmp_path / each / "model.safetensors") for each in ("theirs", "out"))
    if name not in ("deit", "roberta"):  # a sum of two of theirs, and rows that are never read
        assert all(torch.equal(tensor, held[name]) for name, tensor in written.items() if name in held)
    if ours.name != "blip":  # of which what there are no weights for begins anew
        same_state(back.method.state_dict(), ours.method.state_dict())
    assert back.processor.view == ours.processor.view and back.method.config == ours.method.config
