"""Captioning and filtering in parts: what a model says of one picture at a time, in tables and in shards that open as data."""

import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from multiway_batches import INFO, WORDS
from toy import ToySource
from tuning import METHODS, VIEW

from multiway.abilities import LacksAbility
from multiway.config import ConfigError
from multiway.data.open import open_source
from multiway.data.processor import Processor
from multiway.data.shard_writer import write_shards
from multiway.data.source import BadRow
from multiway.hub.model import Model
from multiway.methods import method_class
from multiway.nn.generate import Generation
from multiway.tasks.embed import encode_images, encode_texts
from multiway.workflows.bulk import Asked
from multiway.workflows.bulk_caption import Caption, caption
from multiway.workflows.bulk_filter import Filter, Filtered, filter_pairs, way_of
from multiway.workflows.bulk_folder import BulkError
from multiway.world import World

ROWS = 30


def tiny(name: str) -> Model:
    torch.manual_seed(0)
    method = method_class(name)(METHODS[name].resolve(INFO))
    with torch.no_grad():  # at the usual start all pairs and words are nearly alike
        for parameter in method.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Model(method, Processor(VIEW, WORDS))


@pytest.fixture(scope="module")
def blip() -> Model:
    return tiny("blip")


class Broken(ToySource):
    def image(self, index: int):
        if index == 4:
            raise BadRow("toy, row 4: cut off")
        return super().image(index)


def asked(out: Path, **more) -> Asked:
    return Asked(out, {}, **{"rows_per_part": 12, "batch": 8, **more})


def table(folder: Path, kind: str) -> list[dict]:
    return [line for path in sorted((folder / kind).glob("*.parquet")) for line in pq.read_table(path).to_pylist()]


def test_captions_are_those_of_the_model(blip: Model, tmp_path: Path) -> None:
    source = Broken(ROWS)
    how = Caption(Generation("beam", max_length=8, beams=3, texts=2))
    totals = caption(blip, source, how, asked(tmp_path / "out"), World())
    lines = table(tmp_path / "out", "captions")
    assert [line["row"] for line in lines] == [row for row in range(ROWS) if row != 4] and totals.skipped == 1
    for row in (0, 13, 29):
        tokens = encode_images(blip, source, [row], tokens=True)
        wanted = [text for text in dict.fromkeys(blip.generate(tokens, how.generation)[0]) if text]
        line = next(line for line in lines if line["row"] == row)
        assert line["captions"] == wanted and tuple(line["given"]) == source.row(row).captions
    shards = open_source(str(tmp_path / "out" / "shards"))
    assert shards.split == "train" and shards.classes == source.classes
    said = {line["image_id"]: line["captions"] for line in lines if line["captions"]}
    assert {shards.row(i).image_id: list(shards.row(i).captions) for i in range(len(shards))} == said
    assert shards.image(0).size == (16, 16)
    with tarfile.open(tmp_path / "out" / "shards" / "train-000001.tar") as tar:
        facts = json.load(tar.extractfile(next(m for m in tar if m.name.endswith(".json"))))
    assert set(facts["origins"]) == {"synthetic"} and facts["given"] == list(source.row(12).captions)


def test_draws_depend_on_seed_and_row_alone(blip: Model, tmp_path: Path) -> None:
    """Parts end where batches do, so that cutting differently draws the same; the table alone, if asked for."""
    how = Caption(Generation("nucleus", max_length=8, texts=2), shards=False)
    for name, per_part in (("one", 8), ("other", 16)):
        caption(blip, ToySource(ROWS), how, asked(tmp_path / name, rows_per_part=per_part), World())
    again = replace(how, seed=1)
    caption(blip, ToySource(ROWS), again, asked(tmp_path / "again"), World())
    one, other, third = (table(tmp_path / name, "captions") for name in ("one", "other", "again"))
    assert one == other and one != third and not (tmp_path / "one" / "shards").exists()


def test_a_prompt_is_cut_off(blip: Model, tmp_path: Path) -> None:
    how = Caption(Generation(max_length=10), prompt="red on", shards=False)
    caption(blip, ToySource(5), how, asked(tmp_path / "out"), World())
    plain = blip.generate(encode_images(blip, ToySource(5), range(5), tokens=True), how.generation, ["red on"] * 5)
    said = [line["captions"] for line in table(tmp_path / "out", "captions")]
    assert [texts[0] if texts else "" for texts in said] == [each[0].removeprefix("red on").strip() for each in plain]


def test_shards_in_and_shards_out_keep_pictures_and_splits(blip: Model, tmp_path: Path) -> None:
    for split, rows in (("train", 9), ("val", 5)):
        source = ToySource(rows)
        source.split = split
        write_shards(source, tmp_path / "in", rows_per_shard=5)
    joined = open_source(str(tmp_path / "in"), default_split="all")
    caption(blip, joined, Caption(Generation(max_length=8, min_length=6)), asked(tmp_path / "out"), World())
    names = sorted(path.name for path in (tmp_path / "out" / "shards").glob("*.tar"))
    assert names == ["train-000000.tar", "train-000001.tar", "val-000002.tar"]
    for split in ("train", "val"):
        before, after = (open_source(str(tmp_path / each), default_split=split) for each in ("in", "out/shards"))
        assert [before.encoded(i) for i in range(len(before))] == [after.encoded(i) for i in range(len(after))]
        assert [before.row(i).image_id for i in range(len(before))] == [
            after.row(i).image_id for i in range(len(after))
        ]


def slow_scores(model: Model, by: str, source: ToySource, rows: Sequence[int]) -> dict[tuple[int, str], float]:
    """Pair by pair."""
    found = {}
    for row in rows:
        image = encode_images(model, source, [row], tokens=True)
        for text in source.row(row).captions:
            words = encode_texts(model, [text], tokens=True)
            score = model.match(image, words).sigmoid() if by == "itm" else model.compare(image, words)[0]
            found[row, text] = float(score)
    return found


def run(model: Model, how: Filter, out: Path) -> Filtered:
    return filter_pairs(model, Broken(ROWS), how, asked(out), World())


@pytest.mark.parametrize(("name", "by"), [("albef", "itm"), ("clip", "itc"), ("filip", "itc"), ("vilt", "itm")])
def test_scores_are_those_of_each_pair(name: str, by: str, tmp_path: Path) -> None:
    model = tiny(name)
    assert way_of(model, None) == by
    run(model, Filter(by, keep=0.4), tmp_path / "out")
    lines = table(tmp_path / "out", "scores")
    wanted = slow_scores(model, by, Broken(ROWS), [row for row in range(ROWS) if row != 4])
    assert {(line["row"], line["caption"]) for line in lines} == set(wanted)
    for line in lines:
        assert line["score"] == pytest.approx(wanted[line["row"], line["caption"]], abs=2e-5)
    assert len({round(score, 4) for score in wanted.values()}) > 10


def test_what_scores_well_is_kept(blip: Model, tmp_path: Path) -> None:
    done = run(blip, Filter("itm", keep=0.25), tmp_path / "out")
    lines = table(tmp_path / "out", "scores")
    best = sorted(lines, key=lambda line: -line["score"])[: round(0.25 * len(lines))]
    assert done.threshold == best[-1]["score"] and done.kept.counts["pairs"] == len(best) and done.scored.skipped == 1
    shards = open_source(str(tmp_path / "out" / "shards"))
    stay = {(shards.row(i).image_id, text) for i in range(len(shards)) for text in shards.row(i).captions}
    assert stay == {(line["image_id"], line["caption"]) for line in best}
    with tarfile.open(next((tmp_path / "out" / "shards").glob("*.tar"))) as tar:
        facts = json.load(tar.extractfile(next(m for m in tar if m.name.endswith(".json"))))
    assert all(score >= round(done.threshold, 6) for score in facts["match"]) and len(facts["match"]) == len(
        facts["captions"]
    )


def test_another_threshold_asks_no_model(blip: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    first = run(blip, Filter("itm", keep=1.0), out)
    assert first.kept.counts["pairs"] == first.scored.counts["pairs"] == 2 * (ROWS - 1)
    monkeypatch.setattr(Model, "encode_image", lambda *_, **__: pytest.fail("the model was asked again"))
    bounded = run(blip, Filter("itm", threshold=first.quantiles["50"]), out)
    assert 0 < bounded.kept.counts["pairs"] <= ROWS and bounded.scored == first.scored
    none = run(blip, Filter("itm", threshold=1.1), out)
    assert none.kept.counts["pairs"] == 0 and not list((out / "shards").glob("*.tar"))
    assert run(blip, Filter("itm", keep=1.0), out).kept == first.kept
    with pytest.raises(BulkError, match=r"settings\.by: 'itm' -> 'itc'"):
        run(blip, Filter("itc", keep=1.0), out)


def test_what_cannot_be_done_is_refused(blip: Model, tmp_path: Path) -> None:
    with pytest.raises(LacksAbility, match="blip"):
        caption(tiny("clip"), ToySource(3), Caption(), asked(tmp_path), World())
    with pytest.raises(LacksAbility, match=r"match.*albef"):
        run(tiny("clip"), Filter("itm", 0.5), tmp_path)
    with pytest.raises(LacksAbility, match=r"compare.*clip"):
        run(tiny("vilt"), Filter("itc", 0.5), tmp_path)
    for wrong in ({}, {"threshold": 0.5, "keep": 0.5}, {"keep": 0.0}, {"keep": 1.5}):
        with pytest.raises(ConfigError, match="keep"):
            Filter("itm", **wrong)
