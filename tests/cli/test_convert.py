"""`multiway convert` as a person uses it: from a run to each layout and back, what it says, and the card beside what it wrote."""

import json
from pathlib import Path

import torch
from hub.families import FAMILIES
from hub.stand_ins import TimmVit, random_everywhere
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from multiway.batch import ViewSpec
from multiway.cli.main import main
from multiway.hub.load import load
from multiway.workflows.model_card import caveats, licence_of

TEXTS = ["red on the left", "the top is blue"]


@torch.no_grad()
def test_a_run_is_opened_by_transformers_and_comes_back(tiny_run: Path, tmp_path: Path, capsys) -> None:
    """From pixels and strings, to 1e-5; back to the bit."""
    out = tmp_path / "out"
    assert main(["convert", str(tiny_run), str(out), "--layout", "transformers"]) == 0
    said = capsys.readouterr().out
    assert "every one accounted for" in said and "pictures of 16 pixels" in said and "a tokeniser of" in said
    theirs, ours = CLIPModel.from_pretrained(out).eval(), load(tiny_run)
    pixels = torch.randint(
        0, 256, (3, 20, 20, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    ).numpy()
    pictures = [Image.fromarray(each) for each in pixels]
    images = CLIPImageProcessor.from_pretrained(out)(pictures, return_tensors="pt")["pixel_values"]
    words = PreTrainedTokenizerFast.from_pretrained(out)(TEXTS, padding=True, return_tensors="pt")
    found = theirs(input_ids=words["input_ids"], attention_mask=words["attention_mask"], pixel_values=images)
    assert (ours.encode_image(pictures).embedding - found.image_embeds).abs().max() < 1e-5
    assert (ours.encode_text(TEXTS).embedding - found.text_embeds).abs().max() < 1e-5
    assert main(["convert", f"hf:{out}", str(tmp_path / "back.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "CLIPModel: " in said and "renamed, joined or cut; they fill" in said
    back = load(tmp_path / "back.safetensors")
    assert all(torch.equal(each, back.method.state_dict()[name]) for name, each in ours.method.state_dict().items())
    assert back.origin == [{"weights": f"{out}", "kind": "CLIPModel"}]


def test_every_export_has_a_card(tiny_run: Path, tmp_path: Path) -> None:
    for layout, target, loads in (
        ("transformers", "hf", 'CLIPModel.from_pretrained("hf")'), ("open_clip", "oc", 'local-dir:oc"'),
        ("multiway", "one.safetensors", 'mw.load("one.safetensors")'),
    ):  # fmt: skip
        assert main(["convert", str(tiny_run), str(tmp_path / target), "--layout", layout]) == 0
        file = tmp_path / target / "README.md" if layout != "multiway" else tmp_path / "one.md"
        card = file.read_text()
        head = dict(line.split(": ", 1) for line in card.split("---\n")[1].splitlines())
        assert json.loads(head["license"]) == "unknown" and "clip" in json.loads(head["tags"])
        assert loads in card and "whose licence is not known here; say it before you publish" in card
        assert "- steps: `30`" in card and "- recipe: `clip`" in card and '"embedding":' in card
        metric = next(line for line in card.splitlines() if "image_retrieval/R@1" in line)
        assert metric.startswith("|") and float(metric.split("|")[2]) >= 0
        assert "## Preprocessing" in card and "16 pixels" in card


def test_the_licence_of_data_that_come_with_it_is_said(tiny_run: Path) -> None:
    class Run:
        def __init__(self, data: str, init: str = "") -> None:
            self.config = {"data": data, "init": init}

    model = load(tiny_run)
    assert licence_of(model, None)[0] == "unknown" and "captions.jsonl" in licence_of(model, None)[1]
    model.origin = []  # of an older version: the run says it
    assert licence_of(model, Run("emoji"))[0] == "ofl-1.1"  # type: ignore[arg-type]
    assert "SIL Open Font License" in licence_of(model, Run("emoji@random"))[1]  # type: ignore[arg-type]
    assert licence_of(model, Run("emoji*2 + scenes:easy"))[0] == "other"  # type: ignore[arg-type]
    short, said = licence_of(model, Run("scenes", init="hf:somebody/clip"))  # type: ignore[arg-type]
    assert (
        short == "unknown"
        and "drawn by multiway itself" in said
        and said.startswith(
            "These weights began as those of `hf:somebody/clip`, whose licence is not stated there: look it up before you publish them."
        )
    )
    model.origin = [{"weights": "x", "licence": "mit"}]
    assert licence_of(model, None) == ("mit", "These weights began as those of `x`, under mit, as stated there.")


def test_the_licence_that_a_folder_states_is_kept(tiny_run: Path, tmp_path: Path) -> None:
    assert main(["convert", str(tiny_run), str(tmp_path / "hf")]) == 0
    card = tmp_path / "hf" / "README.md"
    card.write_text("---\nlicense: mit\ntags: []\n---\n# clip\n")
    assert main(["convert", f"hf:{tmp_path / 'hf'}", str(tmp_path / "kept.safetensors")]) == 0
    assert 'license: "mit"' in (tmp_path / "kept.md").read_text()
    assert load(tmp_path / "kept.safetensors").origin[0]["licence"] == "mit"


def test_what_is_left_over_is_named_and_allowed(tmp_path: Path, capsys) -> None:
    state = random_everywhere(TimmVit()).state_dict()
    torch.save(state | {"surprise": torch.zeros(1)}, tmp_path / "vit.pth")
    assert main(["convert", str(tmp_path / "vit.pth"), str(tmp_path / "out")]) == 1
    assert "does not: surprise; if they may stay unused, name them: --allow 'PATTERN'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert (
        main(["convert", str(tmp_path / "vit.pth"), str(tmp_path / "out"), "--allow", "^surprise$", "--size", "48"])
        == 0
    )
    said = capsys.readouterr().out
    assert "1 left over there, as allowed: surprise" in said and "1 resized to another grid: backbone.positions" in said
    assert load(f"hf:{tmp_path / 'out'}").processor.view.size == 48


def test_targets_that_do_not_fit_are_refused(tiny_run: Path, tmp_path: Path, capsys) -> None:
    for args, said in (
        (["out.safetensors", "--layout", "open_clip"], "writes a folder, and"), (["out", "--layout", "multiway"], "writes one file, and"),
        (["full"], "is not empty"), (["out", "--allow", "x"], "every tensor of it is taken"),
    ):  # fmt: skip
        (tmp_path / "full").mkdir(exist_ok=True)
        (tmp_path / "full" / "file").write_text("")
        assert main(["convert", str(tiny_run), str(tmp_path / args[0]), *args[1:]]) == 1
        assert said in capsys.readouterr().err


def test_what_the_other_library_does_otherwise_is_said(tiny_run: Path) -> None:
    model = load(tiny_run)
    assert caveats(model, "multiway") == []
    model.processor.view = ViewSpec(16, "pad", background=127)
    assert any("fitted on a background of 127" in each for each in caveats(model, "transformers"))
    model.processor.view = ViewSpec(16, shortest=20)
    assert any("16 are cut out of 20" in each for each in caveats(model, "open_clip"))


def test_the_class_that_is_written_can_be_named(tmp_path: Path, capsys) -> None:
    """A RoBERTa is one again, a model of texts says nothing of pictures, and what does not fit is said."""
    FAMILIES["roberta"].save(tmp_path / "in")
    assert main(["convert", f"hf:{tmp_path / 'in'}", str(tmp_path / "one.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "RobertaForMaskedLM: " in said and "pictures of" not in said and "epsilon 1e-05; a tokeniser of" in said
    written = ["convert", str(tmp_path / "one.safetensors"), str(tmp_path / "out"), "--kind"]
    assert main([*written, "RobertaForMaskedLM"]) == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["RobertaForMaskedLM"]
    for kind, complaint in (
        ("ViTModel", "cannot be written as a ViTModel; expected one of BertForMaskedLM"),
        ("BertModel", "a head on masked words and cannot be a BertModel; expected BertForMaskedLM"),
    ):
        assert main([*written[:2], str(tmp_path / kind), "--kind", kind]) == 1
        assert complaint in capsys.readouterr().err and not (tmp_path / kind).exists()
    assert main([*written[:2], str(tmp_path / "two.safetensors"), "--kind", "BertModel"]) == 1
    assert "--layout multiway has none" in capsys.readouterr().err


def test_models_from_elsewhere_are_measured(tmp_path: Path, capsys) -> None:
    """By a task of each kind of head, from the folder and from what was made of it: the same figures."""
    for name, task, data in (
        ("clip", "retrieval", "emoji@composition"),
        ("vilt verdicts", "nlvr2", "scenes:easy,objects=1-3@test"),
    ):
        folder, file = tmp_path / task, tmp_path / f"{task}.safetensors"
        FAMILIES[name].save(folder)
        if task == "nlvr2":
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "False", "1": "True"}}))
        assert main(["convert", f"hf:{folder}", str(file)]) == 0
        found = []
        for source in (f"hf:{folder}", str(file)):
            capsys.readouterr()
            assert main(["eval", source, "--task", task, "--data", data, "--json"]) == 0
            found.append(json.loads(capsys.readouterr().out)["metrics"])
        assert found[0] == found[1] and found[0]
