"""What is shown of which model, that figures are figures, and that the page stands alone and says what is missing."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy import ToySource

from multiway.batch import ViewSpec
from multiway.config import ConfigError
from multiway.data.processor import Processor
from multiway.data.scenes.source import Scenes
from multiway.data.source import BadRow, DataError
from multiway.explain.attention import over_patches
from multiway.explain.pairs import CannotShow, Look
from multiway.explain.seen import see
from multiway.hub.model import Model
from multiway.methods.classifier import ClassifierConfig, PictureClassifier
from multiway.methods.cpc import Cpc, CpcConfig
from multiway.methods.dino import Dino, DinoConfig
from multiway.methods.mae import Mae, MaeConfig
from multiway.methods.simclr import SimClr, SimClrConfig
from multiway.nn.resnet import ResNetConfig
from multiway.nn.vit import VisionConfig
from multiway.workflows.explain import Asked, Explained, explain, write_explanation
from multiway.workflows.explain_map import map_sections, spread_rows
from multiway.workflows.explain_sections import Given

VIT = VisionConfig(size=16, patch=4, width=16, layers=2, heads=2)
RESNET = ResNetConfig(depths=(1, 1), base=4, stem="cifar")
SOURCE = ToySource(40)
PICTURES = [(f"{row}.png", SOURCE.image(row)) for row in (0, 5)]


def model_of(method: torch.nn.Module) -> Model:
    return Model(method, Processor(ViewSpec(size=16, crop="squash")))


@pytest.fixture(scope="module")
def transformer() -> Model:
    torch.manual_seed(0)
    return model_of(Dino(DinoConfig(backbone=VIT)))


def titles(found: Explained) -> list[str]:
    return [section.title for section in found.sections]


def test_a_transformer_shows_its_attention(transformer: Model) -> None:
    found = explain(transformer, PICTURES, Asked(rows=30), SOURCE)
    assert titles(found) == [
        "Attention", "How far heads look", "Positions", "Patch filters", "Embeddings of toy@train", "Nearest neighbours",
    ]  # fmt: skip
    assert not found.absent
    assert [figure.file for figure in found.sections[0].figures] == ["attention-1.png", "attention-2.png"]
    assert found.numbers["mapped"] == 30 and np.array(found.numbers["attention_distance"]).shape == (2, 2)
    # At the start attention is nearly even, and so is its distance.
    assert np.allclose(found.numbers["attention_distance"], found.numbers["even_attention_distance"], rtol=0.05)


def test_pictures_are_looked_at_in_batches_as_at_once(transformer: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = explain(transformer, PICTURES)
    monkeypatch.setattr("multiway.workflows.explain._AT_ONCE", 1)
    one_by_one = explain(transformer, PICTURES)
    for first, second in zip(at_once.sections, one_by_one.sections, strict=True):
        assert [each.file for each in first.figures] == [each.file for each in second.figures]
    assert np.allclose(at_once.numbers["attention_distance"], one_by_one.numbers["attention_distance"], atol=1e-3)
    assert at_once.absent == one_by_one.absent == ["embeddings and neighbours: there is no data; name some with --data"]


def test_a_residual_network_says_that_it_has_none() -> None:
    torch.manual_seed(0)
    found = explain(model_of(SimClr(SimClrConfig(backbone=RESNET))), PICTURES, Asked(("red",), rows=20), SOURCE)
    assert titles(found)[:2] == ["Where features are strong", "First filters"] and "Attention" not in titles(found)
    assert found.absent[0].startswith("attention, rollout") and "grad-cam: simclr reads no texts" in found.absent


def test_a_masked_autoencoder_fills_in() -> None:
    torch.manual_seed(0)
    found = explain(model_of(Mae(MaeConfig(backbone=VIT))), PICTURES)
    assert "Filled in" in titles(found)


def test_a_network_that_reads_pictures_in_pieces_is_mapped_all_the_same() -> None:
    torch.manual_seed(0)
    method = Cpc(CpcConfig.preset("tiny"))
    model = Model(method, Processor(ViewSpec(size=32, crop="squash")))
    found = explain(model, PICTURES, Asked(rows=10), SOURCE)
    assert "in pieces" in found.absent[0] and titles(found)[-2:] == ["Embeddings of toy@train", "Nearest neighbours"]


def test_a_classifier_shows_what_speaks_for_its_class() -> None:
    torch.manual_seed(0)
    config = ClassifierConfig("simclr", SimClr(SimClrConfig(backbone=RESNET)).config_json(), ("cat", "dog"))
    found = explain(model_of(PictureClassifier(config)), PICTURES)
    assert "What speaks for the class" in titles(found)


def test_texts_in_pictures_of_a_fused_model(model: Model, source: Scenes) -> None:
    pictures = [("a", source.image(0)), ("b", source.image(1))]
    found = explain(model, pictures, Asked(("a red circle", "a star"), rows=20), source)
    sections = [each for each in found.sections if each.title.startswith("Where “")]
    assert [each.title for each in sections] == ["Where “a red circle” is seen", "Where “a star” is seen"]
    assert [figure.file for each in sections for figure in each.figures] == [
        "maps-1-1.png", "maps-1-2.png", "maps-2-1.png", "maps-2-2.png",
    ]  # fmt: skip
    kinds = ["attention", "rollout", "cross-attention", "grad-cam", "itc-cam", "occlusion"]
    assert [kind for kind, _ in sections[0].notes] == kinds
    assert {name.split("/")[2] for name in found.arrays if "/text-2/" in name} == {*kinds, "text"}
    words = found.numbers["maps of a red circle"][0]["kinds"]["grad-cam"]["best_patches"]
    assert [each["word"] for each in words] == ["a", "red", "circle"]
    mapped = next(each for each in found.sections if each.title.startswith("Embeddings"))
    assert "Coloured by kind" in mapped.text and "data:image/jpeg;base64," in mapped.drawing
    space = next(each for each in found.sections if each.title == "Pictures and texts in one space")
    assert space.table[1][0] == "modality gap" and space.drawing.count('class="d"') == 2 * found.numbers["mapped"]


def test_kinds_that_are_named_and_nothing_else(model: Model, source: Scenes) -> None:
    asked = Asked(("a red circle",), ("attention", "cross-attention"), Look(layers=(0,), heads=(1,)))
    found = explain(model, [("a", source.image(0))], asked, source)
    assert titles(found) == [
        "Where “a red circle” is seen", "Attention by layer and head", "Cross-attention by layer and head",
    ]  # fmt: skip
    assert found.arrays["picture-1/text-1/attention/head_heat"].shape == (1, 2, 2, 2) and not found.absent
    with pytest.raises(CannotShow, match="it has: attention, rollout"):
        explain(model, [("a", source.image(0))], Asked(("a red circle",), ("filip",)))
    # Of a picture alone.
    alone = explain(model, [("a", source.image(0))], Asked(kinds=("rollout",)))
    assert titles(alone) == ["Maps of the pictures"] and "picture-1/rollout/heat" in alone.arrays


def test_no_picture_is_its_own_neighbour(transformer: Model) -> None:
    own = spread_rows(SOURCE, 3)
    given = [Given.of(str(row), SOURCE.image(row), transformer.processor.view) for row in own]
    neighbours = map_sections(transformer, given, SOURCE, 40, 0, own)[1].numbers["neighbours"]
    assert all(str(row) not in [each["key"] for each in found] for row, found in zip(own, neighbours, strict=True))
    # Handed over as strangers they are found again, at a cosine of 1.
    strangers = map_sections(transformer, given, SOURCE, 40, 0)[1].numbers["neighbours"]
    assert [found[0]["key"] for found in strangers] == [str(row) for row in own]
    assert all(found[0]["cosine"] == pytest.approx(1, abs=1e-3) for found in strangers)


def test_rows_that_cannot_be_read_are_counted_up_to_a_ceiling(transformer: Model) -> None:
    class Broken(ToySource):
        bad = 2

        def image(self, index: int) -> Image.Image:
            if index < self.bad:
                raise BadRow(f"toy, row {index}: truncated")
            return super().image(index)

    given = [Given.of("a", SOURCE.image(9), transformer.processor.view)]
    some = Broken(40)
    assert "2 of 40 rows could not be read: toy, row 0" in map_sections(transformer, given, some, 40, 0)[0].text
    some.bad = 10
    with pytest.raises(DataError, match="10 of 40 rows"):
        map_sections(transformer, given, some, 40, 0)
    with pytest.raises(DataError, match="no rows to map"):
        map_sections(transformer, given, ToySource(0), 40, 0)


def test_what_means_nothing_is_refused(transformer: Model) -> None:
    with pytest.raises(ConfigError, match="no picture"):
        explain(transformer, [])
    with pytest.raises(ConfigError, match="no layer 2; the model has 2"):
        explain(transformer, PICTURES, Asked(look=Look(layers=(2,))))
    for wrong in ({"mass": 0.0}, {"ratio": 1.0}, {"rows": 1}, {"seed": -1}):
        with pytest.raises(ConfigError, match="expected a mass"):
            Asked(**wrong)


def test_the_page_stands_alone_and_escapes_names(transformer: Model, tmp_path: Path) -> None:
    found = explain(transformer, [("<script>$x$.png", SOURCE.image(0))], Asked(rows=20), SOURCE)
    page = write_explanation(found, tmp_path / "deep" / "out", "a <run>", "about").read_text(encoding="utf-8")
    assert "<script" not in page and "a &lt;run&gt;" in page
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    files = [figure for section in found.sections for figure in section.figures]
    figures = [link for link in links if link.startswith("data:image/png;base64,")]
    # The others are pictures on the map.
    assert len(figures) == sum(each.paged for each in files) == len(files) - 1 and all(
        link.startswith("data:image/jpeg;base64,") for link in set(links) - {*figures}
    )
    for figure in files:
        written = Image.open(io.BytesIO((tmp_path / "deep" / "out" / figure.file).read_bytes()))
        assert written.format == "PNG" and written.width > 100 and np.asarray(written.convert("L")).std() > 3


def test_the_same_twice(transformer: Model) -> None:
    first, second = (explain(transformer, PICTURES, Asked(rows=20, seed=4), SOURCE) for _ in range(2))
    for one, other in zip(first.sections, second.sections, strict=True):
        assert [each.png for each in one.figures] == [each.png for each in other.figures], one.title


def test_the_square_that_is_shown_is_the_one_that_is_seen() -> None:
    """A wide picture is cut in the middle; what is shown beside the maps must be cut alike."""
    wide = Image.new("RGB", (48, 16), "white")
    wide.paste((200, 0, 0), (16, 0, 32, 16))
    view = ViewSpec(size=16, crop="center")
    shown = np.asarray(Given.of("a", wide, view).square)[24:-24, 24:-24].astype(int)
    assert (abs(shown - [200, 0, 0]) < 12).all()


def test_maps_lie_the_right_way_up(transformer: Model) -> None:
    """Rows of tokens are rows of the picture: what is marked at the top right is shown there."""
    seen = see(transformer.method, transformer.processor.images([SOURCE.image(0)]))
    block = torch.zeros_like(seen.blocks[0])
    block[..., 0, 1 + 3] = 1.0  # the fourth patch of the first row
    heat = over_patches(block)[0, 0]
    assert heat[0, 3] == 1 and heat.sum() == 1
