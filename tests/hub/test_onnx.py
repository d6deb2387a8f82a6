"""Every kind of model as graphs: equal to PyTorch for any batch and length, without torch, with 8 bits, and refused with reasons."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hub.exported_models import CAPTIONS, CASES, TOKENIZER, made
from PIL import Image
from toy import toy_picture

import multiway as mw
from multiway.hub import export_check, onnx_runtime
from multiway.hub.export_check import compared, sizes_of
from multiway.hub.graph import ExportError
from multiway.hub.graphs import graphs, parts_of
from multiway.hub.identity import model_identity
from multiway.hub.load import load
from multiway.hub.onnx_file import open_onnx, write_onnx
from multiway.hub.onnx_int8 import quantise
from multiway.hub.torch_file import open_torch, traced, write_torch
from multiway.nn.generate import Generation
from multiway.workflows import export as workflow
from multiway.workflows.export import Asked, Shown, export

PARTS = {
    "clip": ("image", "text"),
    "clip-resnet": ("image", "text"),
    "siglip": ("image", "text"),
    "filip": ("image", "text", "compare"),
    "albef": ("image", "text", "match"),
    "blip": ("image", "text", "match", "caption"),
    "coca": ("image", "text", "caption"),
    "vilt": ("image", "text", "match"),
    "vlmo": ("image", "text", "match"),
    "meter": ("image", "text", "match"),
    "simvlm": ("image", "text", "caption"),
    "beit3": ("image", "text"),
    "beit3-caption": ("image", "caption"),
    "dino": ("image",),
}
PICTURES = [
    toy_picture("red", "left"),
    toy_picture("green", "top").resize((24, 9)),
    toy_picture("blue", "right").convert("RGBA"),
]
SHOWN = Shown(PICTURES, CAPTIONS[:3])


def silent(sentence: str) -> None:
    pass


def write(case: str, folder: Path, **asked: object) -> workflow.Report:
    return export(made(case), Asked(folder, case, **asked), SHOWN, None, silent)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "onnx"
    write("clip", folder, int8=True)
    return folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip") / "onnx"
    report = write("blip", folder, parts=("caption",))
    assert report.parts == ("image", "caption") and report.captions == (3, 3)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_what_can_be_exported(case: str) -> None:
    assert parts_of(made(case)) == PARTS[case]


@pytest.mark.parametrize("case", ["filip", "vilt", pytest.param("beit3-caption", marks=pytest.mark.slow)])
def test_programs_of_any_batch_and_length(case: str) -> None:
    model = made(case)
    for graph in graphs(model, parts_of(model)):
        module = traced(graph).module()
        found = compared(graph, lambda inputs, graph=graph, module=module: list(module(*graph.nested(inputs))))
        assert found.worst < 1e-5 and found.cases == len(list(sizes_of(graph))), graph.name


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_graph_as_onnx(case: str, tmp_path: Path) -> None:
    model = made(case)
    for graph in graphs(model, parts_of(model)):
        write_onnx(graph, traced(graph), tmp_path / "graph.onnx")
        found = compared(graph, open_onnx(graph, tmp_path / "graph.onnx"))
        assert found.worst < 1e-4 and found.numbers > 0, graph.name


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 22])
def test_other_opsets(opset: int, tmp_path: Path) -> None:
    import onnx

    graph = graphs(made("albef"), ("match",))[0]
    write_onnx(graph, traced(graph), tmp_path / "graph.onnx", opset)
    assert compared(graph, open_onnx(graph, tmp_path / "graph.onnx")).worst < 1e-4
    assert onnx.load(tmp_path / "graph.onnx").opset_import[0].version == opset


def test_a_program_keeps_the_weights_that_it_uses(tmp_path: Path) -> None:
    model = made("clip")
    (graph,) = graphs(model, ("text",))
    write_torch(graph, traced(graph), tmp_path / "text.pt2")
    assert compared(graph, open_torch(graph, tmp_path / "text.pt2")).worst == 0.0
    program = torch.export.load(tmp_path / "text.pt2")
    used = {*model.method.text.state_dict(prefix="text.")} | {"text_projection.weight"}
    assert {name.removeprefix("method.") for name in program.state_dict} == used


def test_without_torch(clip: Path, blip: Path, tmp_path: Path) -> None:
    """The folder's own runtime, in a process to which torch and multiway are not there."""
    for number, picture in enumerate(PICTURES):
        picture.save(tmp_path / f"{number}.png")
    code = f"""
import json, sys
for name in ("torch", "multiway"):
    sys.modules[name] = None
sys.path.insert(0, {str(clip)!r})
from runtime import Exported
pictures = [f"{tmp_path}/{{n}}.png" for n in range(3)]
both, writer = Exported({str(clip)!r}), Exported({str(blip)!r})
print(json.dumps([both.similarity(pictures, {CAPTIONS!r}).tolist(),
                  writer.caption(pictures), writer.caption(pictures, "a red", max_length=8)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    similarity, captions, prompted = json.loads(done.stdout)

    model = made("clip")
    want = model.compare(model.encode_image(PICTURES), model.encode_text(CAPTIONS))
    assert torch.tensor(similarity).sub(want).abs().max() < 1e-4
    model = made("blip")
    images = model.encode_image(PICTURES, tokens=True)
    assert captions == [each[0] for each in model.generate(images)]
    eight = Generation(max_length=8)
    assert prompted == [each[0] for each in model.generate(images, eight, ["a red"] * 3)]


def test_as_a_model_of_multiway(clip: Path, blip: Path) -> None:
    """Tasks ask it as they ask any; what decoders can do, graphs can: beams, prompts of unlike length."""
    mine, theirs = made("clip"), mw.load(clip)
    assert theirs.abilities() == ("encode_image", "encode_text", "compare") and theirs.name == "clip-fp32"
    assert theirs.encode_text(CAPTIONS).embedding.sub(mine.encode_text(CAPTIONS).embedding).abs().max() < 1e-4
    mine, theirs = made("blip"), mw.load(blip)
    images, same = mine.encode_image(PICTURES, tokens=True), theirs.encode_image(PICTURES, tokens=True)
    beams, prompts = Generation("beam", beams=3, max_length=12), ["a", "the", "a blue"]
    assert theirs.generate(same, beams, prompts) == mine.generate(images, beams, prompts)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["albef", "blip"])
def test_matching_from_tokens_and_from_pixels(case: str, tmp_path: Path) -> None:
    write(case, tmp_path / "onnx", parts=("match",))
    mine, theirs = made(case), mw.load(tmp_path / "onnx")
    images, texts = mine.encode_image(PICTURES, tokens=True), mine.encode_text(CAPTIONS[:3], tokens=True)
    want = mine.match(images, texts)
    got = theirs.match(theirs.encode_image(PICTURES, tokens=True), theirs.encode_text(CAPTIONS[:3], tokens=True))
    assert got.sub(want).abs().max() < 1e-4
    ran = onnx_runtime.Exported(tmp_path / "onnx")
    assert np.abs(ran.match(PICTURES, CAPTIONS[:3]) - want.numpy()).max() < 1e-4


def test_what_is_kept_of_one_is_not_taken_for_the_other(clip: Path, blip: Path) -> None:
    found = [model_identity(mw.load(folder)) for folder in (clip, clip / "int8", blip)]
    assert len({each["config"] for each in found}) == 3


def test_eight_bits_are_near_and_smaller(clip: Path) -> None:
    whole, small = mw.load(clip), mw.load(clip / "int8")
    assert small.name == "clip-int8"
    near = (whole.encode_text(CAPTIONS).embedding * small.encode_text(CAPTIONS).embedding).sum(1)
    assert near.min() > 0.98 and near.max() < 1 - 1e-7  # near, and not the same graph
    about = json.loads((clip / "export.json").read_text())
    assert about["bytes"]["int8"] < 0.7 * about["bytes"]["fp32"]
    assert max(each["worst"] for each in about["checked"]["fp32"]) < 1e-4


def test_eight_bits_of_a_tied_word_head(blip: Path, tmp_path: Path) -> None:
    """The matrix that words are looked up in is the one that guesses them."""
    quantise(blip / "caption_prefill.onnx", tmp_path / "small.onnx")
    (graph,) = [each for each in graphs(made("blip"), ("caption",)) if each.name == "caption_prefill"]
    inputs = graph.example({"batch": 4, "length": 6}, seed=0)
    want, got = graph(inputs)[0], open_onnx(graph, tmp_path / "small.onnx")(inputs)[0]
    assert 0 < (want - got).norm() < 0.1 * want.norm()


def test_the_sidecar_says_everything(blip: Path) -> None:
    about = json.loads((blip / "export.json").read_text())
    method = made("blip").method
    assert about["caption"]["start"] == method.config.start_decode and about["caption"]["context"] == TOKENIZER.context
    assert (
        about["picture"]["size"] == 16 and about["picture"]["crop"] == "pad" and about["text"]["ids"] == len(TOKENIZER)
    )
    step = about["graphs"]["caption_step"]
    assert step["inputs"][1] == {
        "name": "past_key_values.0.decoder.key",
        "dtype": "float32",
        "shape": ["batch", 2, "past", 16],
    }
    assert [port["name"] for port in step["outputs"]][:2] == ["logits", "present.0.decoder.key"]
    assert {file.name for file in blip.iterdir()} == {
        "README.md", "export.json", "runtime.py", "tokenizer.json", *(f"{name}.onnx" for name in about["graphs"])
    }  # fmt: skip
    assert (blip / "runtime.py").read_text() == Path(onnx_runtime.__file__).read_text()


def test_what_cannot_be_is_refused_by_name(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(ExportError, match=r"clip cannot be exported for caption \(ability generate\).*encode_image"):
        parts_of(made("clip"), ("caption",))
    with pytest.raises(ExportError, match="no part speech; there are: image, text"):
        parts_of(made("clip"), ("speech",))
    with pytest.raises(ExportError, match="leave out --format torch"):
        Asked(tmp_path / "out", "clip", "torch", int8=True)
    with pytest.raises(ExportError, match="is there already"):
        Asked(clip, "clip")
    with pytest.raises(ValueError, match="pictures of one size"):
        load(clip, size=32)
    with pytest.raises(KeyError, match=r"has no graph 'match_pixels'; it has: image, text"):
        onnx_runtime.Exported(clip).match(PICTURES[:1], ["red"])
    with pytest.raises(ValueError, match="no variant 'int4'; there are: fp32, int8"):
        onnx_runtime.Exported(clip, "int4")


def test_a_difference_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_little(graph: object, path: Path) -> object:
        run = open_onnx(graph, path)  # type: ignore[arg-type]
        return lambda inputs: [each + 2e-4 for each in run(inputs)]

    monkeypatch.setattr(workflow, "open_onnx", off_by_little)
    with pytest.raises(ExportError, match=r"`text` differs from PyTorch by 0.0002 in text_tokens; at most 0.0001"):
        write("vilt", tmp_path / "out", parts=("text",))
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_none_are_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    (graph,) = graphs(made("vilt"), ("text",))
    with pytest.raises(ExportError, match="infinite or none"):
        compared(graph, lambda inputs: [torch.full_like(each, torch.nan) for each in graph(inputs)])
    with pytest.raises(ExportError, match="gives text_tokens as"):
        compared(graph, lambda inputs: [each[:, :1] for each in graph(inputs)])
    assert export_check.TOLERANCE == 1e-4


@pytest.mark.parametrize("crop", ["pad", "center", "squash"])
def test_the_runtime_draws_pictures_alike(crop: str, clip: Path) -> None:
    model, ran = made("clip"), onnx_runtime.Exported(clip)
    from dataclasses import replace

    for resample, shortest in (("bicubic", None), ("bilinear", 20 if crop == "center" else None)):
        view = replace(model.processor.view, crop=crop, resample=resample, shortest=shortest, background=200)  # type: ignore[arg-type]
        model.processor.view = view
        ran.about["picture"] |= {"crop": crop, "resample": resample, "shortest": shortest, "background": 200}
        more = [Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 47, 4), np.uint8), "RGBA")]
        for picture in (*PICTURES, *more):
            assert np.abs(ran.pixels([picture]) - model.processor.images([picture]).numpy()).max() < 1e-6
