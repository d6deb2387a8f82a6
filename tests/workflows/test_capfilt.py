"""CapFilt with captioners and filters whose answers are known: figures, shards, resuming, ranks, and one cleaning in earnest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fused import Cards, FusedModel
from PIL import Image
from toy import ToySource

from multiway.abilities import Encoded, LacksAbility
from multiway.config import ConfigError
from multiway.data.open import open_source
from multiway.data.scenes.source import Scenes
from multiway.data.shards import read_shards
from multiway.data.source import BadRow, KnowsTruth, Source
from multiway.engine.run import Run, RunError
from multiway.nn.generate import Generation
from multiway.workflows.blocks import blocks_of
from multiway.workflows.capfilt import capfilt
from multiway.workflows.capfilt_clean import clean
from multiway.workflows.capfilt_figures import BINS, tally
from multiway.workflows.capfilt_report import examples, histogram
from multiway.workflows.capfilt_runs import fine_tuned, human_world, recipe_of, retrained
from multiway.workflows.capfilt_scores import Caption, ModelCleaner, Scored, read_scores, score_rows, write_scores
from multiway.workflows.capfilt_settings import CapFilt
from multiway.workflows.capfilt_shards import Place, Verdict, clean_blocks
from multiway.world import World

WORLD = "scenes:easy,objects=1-3,samples=90"
NOISY = f"{WORLD},attribute=0.1,missing=0.1,junk=0.1,swap=0.2"


class Oracle:
    """A captioner that writes the truth for every second picture, and a filter that knows it for each."""

    def __init__(self) -> None:
        self.asked = 0

    def write(self, source: Source, rows: Sequence[int], seed: int) -> list[list[str]]:
        return [[source.noise(row).true if row % 2 == 0 else f"nothing {seed}"] for row in rows]

    def match(self, source: Source, rows: Sequence[int], texts: Sequence[str]) -> list[float]:
        self.asked += len(set(rows))
        return [0.9 if source.holds(row, text) else 0.1 for row, text in zip(rows, texts, strict=True)]


class Coin(Oracle):
    """A filter that does not look: it drops a third."""

    def match(self, source: Source, rows: Sequence[int], texts: Sequence[str]) -> list[float]:
        return [0.2 if (row * 7919) % 97 < 97 // 3 else 0.8 for row in rows]


def noisy(spec: str = NOISY) -> Scenes:
    source = open_source(spec)
    assert isinstance(source, Scenes)
    return source


def cleaned(folder: Path, source: Source, cleaner: object, rank: int = 0, size: int = 1, **fields) -> Place:
    place = Place(folder)
    place.make()
    blocks = blocks_of(source, 20)
    clean_blocks(source, blocks[rank::size], cleaner, Verdict(**fields), place, seed=3)  # type: ignore[arg-type]
    return place


def files(place: Place) -> dict[str, bytes]:
    kinds = (place.folder / "records", place.shards, place.folder / "done")
    return {
        str(path.relative_to(place.folder)): path.read_bytes()
        for kind in kinds
        for path in sorted(kind.iterdir())
        if not path.name.endswith(".index.json")
    }


def figures_of(place: Place, source: Source, **fields):
    return tally(
        (each for block in blocks_of(source, 20) for each in read_scores(place.records(block))), Verdict(**fields)
    )


# --- the record -------------------------------------------------------------------------------------------------------


def test_what_the_noise_dial_recorded_is_what_the_grammar_finds() -> None:
    source = noisy(NOISY.replace("samples=90", "samples=400"))
    assert isinstance(source, KnowsTruth) and not isinstance(ToySource(), KnowsTruth)
    kinds = set()
    for row in range(len(source)):
        kind = source.noise_kind(row)
        assert kind == source.noise(row).kind
        assert {source.holds(row, caption) for caption in source.row(row).captions} == {kind == "none"}
        assert source.holds(row, source.noise(row).true)
        kinds.add(kind)
    assert kinds == {"none", "attribute", "missing", "junk", "swap"}


# --- figures ----------------------------------------------------------------------------------------------------------


def test_an_oracle_is_perfect_and_its_data_are_clean(tmp_path: Path) -> None:
    source = noisy()
    place = cleaned(tmp_path, source, Oracle())
    figures = figures_of(place, source)
    value = {name: metric.value for name, metric in figures.metrics.items()}
    wrong = [row for row in range(90) if source.noise_kind(row) != "none"]
    captions = sum(len(source.row(row).captions) for row in range(90))
    of_wrong = sum(len(source.row(row).captions) for row in wrong)
    assert value["web/precision"] == value["web/recall"] == 1.0 and value["web/lost"] == value["clean/wrong"] == 0.0
    assert all(value[f"web/recall/{kind}"] == 1.0 for kind in ("attribute", "missing", "junk", "swap"))
    assert value["web/wrong"] == pytest.approx(of_wrong / captions) and figures.metrics["web/wrong"].n == captions
    assert value["web/kept"] == pytest.approx(1 - of_wrong / captions)
    assert value["synthetic/kept"] == value["synthetic/wrong"] == 0.5 and value["synthetic/precision"] == 1.0
    assert figures.pictures == 90 and figures.covered == 90 - sum(row % 2 for row in wrong)


def test_a_coin_has_the_precision_of_the_noise_and_the_recall_of_what_it_drops(tmp_path: Path) -> None:
    source = noisy(NOISY.replace("samples=90", "samples=1940"))
    scored = score_rows(source, range(len(source)), Coin(), synthetic=False, seed=0)
    metrics = tally(scored, Verdict()).metrics
    for name in ("web/precision", "web/recall", "web/lost"):
        metric = metrics[name]
        assert metric.chance is not None and metric.low <= metric.chance <= metric.high, metric
    assert metrics["web/precision"].chance == metrics["web/wrong"].value
    assert metrics["web/recall"].chance == pytest.approx(1 - metrics["web/kept"].value)
    assert metrics["web/wrong_kept"].chance == metrics["web/wrong"].value
    assert "clean/wrong" in metrics and not any(name.startswith("synthetic") for name in metrics)


def test_figures_are_those_of_counting_by_hand() -> None:
    scored = [
        Scored(0, "a", "swap", (Caption("x", "web", 0.1, False), Caption("y", "web", 0.7, False))),
        Scored(1, "b", "none", (Caption("x", "web", 0.5, True), Caption("z", "synthetic", 0.49, True))),
        Scored(2, "c", "none", (Caption("w", "web", 0.2, True), Caption("v", "synthetic", 1.0, False))),
        Scored(3, "d", unreadable="broken"),
    ]
    figures = tally(scored, Verdict(0.5))
    found = {name: (metric.value, metric.n) for name, metric in figures.metrics.items()}
    assert found == {
        "web/kept": (0.5, 4), "web/wrong": (0.5, 4), "web/wrong_kept": (0.5, 2), "web/precision": (0.5, 2),
        "web/recall": (0.5, 2), "web/lost": (0.5, 2), "web/recall/swap": (0.5, 2), "synthetic/kept": (0.5, 2),
        "synthetic/wrong": (0.5, 2), "synthetic/wrong_kept": (1.0, 1), "synthetic/precision": (0.0, 1),
        "synthetic/recall": (0.0, 1), "synthetic/lost": (1.0, 1), "clean/wrong": (pytest.approx(2 / 3), 3),
    }  # fmt: skip
    assert (figures.pictures, figures.unreadable, figures.covered) == (3, 1, 3)
    web = figures.histograms["web"]
    assert sum(web["true"]) == 2 == sum(web["false"]) and len(web["true"]) == BINS and web["true"][10] == 1
    only = tally(scored, Verdict(0.5, ("synthetic",)))
    assert only.metrics["web/kept"].value == 0.0 and only.covered == 1


def test_without_a_record_there_are_counts_and_no_verdict_on_the_filter() -> None:
    scored = [Scored(0, "a", "", (Caption("x", "web", 0.1), Caption("y", "synthetic", 0.7)))]
    figures = tally(scored, Verdict())
    assert set(figures.metrics) == {"web/kept", "synthetic/kept"} and set(figures.histograms["web"]) == {"unknown"}


def test_bars_stand_on_each_other_and_fill_the_highest_bin() -> None:
    plot = histogram({"true": [0] * 19 + [9], "false": [4] + [0] * 18 + [7]}, 0.5)
    last = [bar for bar in plot["bars"] if bar["bin"] == 19]
    assert [bar["truth"] for bar in last] == ["true", "false"] and last[1]["base"] == last[0]["height"]
    assert sum(bar["height"] for bar in last) == pytest.approx(1.0)
    assert plot["bars"][1]["height"] == pytest.approx((4 / 16) ** 0.5) and plot["most"] == 16


def test_examples_are_spread_over_all_rows_however_many(tmp_path: Path) -> None:
    source = ToySource(64)
    scored = [
        Scored(i, str(i), "", (Caption(str(i), "web", i / 64), Caption("s", "synthetic", 0.9))) for i in range(64)
    ]
    found = examples(source, scored, Verdict(0.5).keeps, count=4)
    kept = [int(each.caption.text) for each in found["web", True]]
    assert len(kept) == 4 and min(kept) < 44 and max(kept) > 52 and kept == sorted(kept) and min(kept) >= 32
    assert len(found["synthetic", True]) == 4 and found["synthetic", False] == []
    assert found["web", False][0].picture.startswith("data:image/png")


# --- shards -----------------------------------------------------------------------------------------------------------


def test_shards_hold_what_was_kept_and_nothing_else(tmp_path: Path) -> None:
    source = noisy()
    place = cleaned(tmp_path, source, Oracle())
    back = read_shards(str(tmp_path))["train"]
    rows = {back.row(i).image_id: (i, set(back.row(i).captions)) for i in range(len(back))}
    for row in range(90):
        own = source.row(row)
        wanted = set(own.captions) if source.noise_kind(row) == "none" else set()
        wanted |= {source.noise(row).true} if row % 2 == 0 else set()
        if wanted:
            number, captions = rows.pop(own.image_id)
            assert captions == wanted
            assert back.image(number).tobytes() == source.image(row).tobytes()
    assert not rows and not list(place.shards.glob(".*.part"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (dict(threshold=0.0), {"web", "synthetic"}),
        (dict(threshold=0.0, keep=("web",)), {"web"}),
        (dict(threshold=0.0, keep=("synthetic", "human")), {"synthetic"}),
    ],
)
def test_the_arms_of_the_paper_are_verdicts(tmp_path: Path, fields: dict, expected: set[str]) -> None:
    source = noisy()
    place = cleaned(tmp_path, source, Oracle(), **fields)
    origins, counts = set(), 0
    import tarfile

    for path in place.shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    facts = json.load(tar.extractfile(member))  # type: ignore[arg-type]
                    assert len(facts["origins"]) == len(facts["captions"]) == len(facts["match"])
                    origins |= set(facts["origins"])
                    counts += len(facts["captions"])
    assert origins == expected
    every = [each for block in blocks_of(source, 20) for each in read_scores(place.records(block))]
    assert counts == sum(len({c.text for c in each.captions if c.origin in expected}) for each in every)


def test_nothing_kept_leaves_no_shard_and_is_not_done_again(tmp_path: Path) -> None:
    source, oracle = noisy(), Oracle()
    place = cleaned(tmp_path, source, oracle, threshold=1.0)
    assert not list(place.shards.glob("*.tar")) and oracle.asked == 90
    cleaned(tmp_path, source, oracle, threshold=1.0)
    assert oracle.asked == 90


def test_two_ranks_write_what_one_writes(tmp_path: Path) -> None:
    source = noisy()
    one = files(cleaned(tmp_path / "one", source, Oracle()))
    for rank in (1, 0):
        two = cleaned(tmp_path / "two", source, Oracle(), rank, 2)
    assert files(two) == one and len(one) == 15


class Killed(Oracle):
    """Goes down in the middle of a shard."""

    def match(self, source: Source, rows: Sequence[int], texts: Sequence[str]) -> list[float]:
        if 45 in rows:
            raise KeyboardInterrupt
        return super().match(source, rows, texts)


def test_after_a_kill_in_mid_shard_the_bytes_are_the_same(tmp_path: Path) -> None:
    source = noisy()
    one = files(cleaned(tmp_path / "one", source, Oracle()))
    with pytest.raises(KeyboardInterrupt):
        cleaned(tmp_path / "two", source, Killed())
    (tmp_path / "two" / "records" / ".000002.jsonl.part").write_text('{"row": 40, "ke')
    place = Place(tmp_path / "two")
    blocks = blocks_of(source, 20)
    # As it is when the tar was there and its mark was not: then it is written again.
    place.done(blocks[1]).unlink()
    place.shard(blocks[1]).write_bytes(b"cut")
    oracle = Oracle()
    assert files(cleaned(tmp_path / "two", source, oracle)) == one
    assert oracle.asked == 50, "shards 0 and 1 are not scored again"


def test_what_is_drawn_depends_on_the_row_and_not_on_who_was_before(tmp_path: Path) -> None:
    source = noisy()
    alone = list(score_rows(source, range(40, 60), Oracle(), True, seed=3))
    again = list(score_rows(source, range(40, 60), Oracle(), True, seed=3))
    other = list(score_rows(source, range(40, 60), Oracle(), True, seed=4))
    assert alone == again != other


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    scored = [Scored(0, "ä", "swap", (Caption('a "b"\n', "web", 0.25, None),)), Scored(1, "k", unreadable="why")]
    write_scores(tmp_path / "r.jsonl", scored)
    assert list(read_scores(tmp_path / "r.jsonl")) == scored


class Broken(ToySource):
    """Two pictures that cannot be decoded."""

    def image(self, index: int) -> Image.Image:
        if index in (3, 5):
            raise BadRow(f"row {index} is broken")
        return super().image(index)


class Looking(Oracle):
    """Decodes the pictures, as models do."""

    def write(self, source: Source, rows: Sequence[int], seed: int) -> list[list[str]]:
        return [["written", " "] for row in rows if source.image(row)]

    def match(self, source: Source, rows: Sequence[int], texts: Sequence[str]) -> list[float]:
        return [0.75 for row in rows if source.image(row)]


def test_unreadable_pictures_are_counted_and_left_out(tmp_path: Path) -> None:
    scored = list(score_rows(Broken(8), range(8), Looking(), True, 0))
    assert [each.row for each in scored] == list(range(8))
    assert [bool(each.unreadable) for each in scored] == [i in (3, 5) for i in range(8)]
    assert [c.text for c in scored[0].captions] == [*ToySource(8).row(0).captions, "written"], "blanks are no captions"
    place = cleaned(tmp_path, Broken(8), Looking())
    assert sum(len(split) for split in read_shards(str(place.folder)).values()) == 6
    assert figures_of(place, Broken(8)).unreadable == 2


# --- models as captioner and filter -----------------------------------------------------------------------------------


def test_the_filter_is_asked_about_each_pair_as_it_stands() -> None:
    cards = Cards([(f"a {i}", f"b {i}") for i in range(6)])
    texts = [text for captions in cards.captions for text in captions]
    odds = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    model = FusedModel(odds, texts)
    scored = list(score_rows(cards, range(6), ModelCleaner(None, model, Generation()), False, 0, chunk=4))
    for each in scored:
        wanted = [torch.sigmoid(odds[each.row, texts.index(caption.text)]).item() for caption in each.captions]
        assert [caption.match for caption in each.captions] == pytest.approx(wanted, abs=1e-6)
        assert all(caption.true is None for caption in each.captions)
    assert model.calls["image"] == 6, "no picture is encoded twice"


class Both(FusedModel):
    """A filter that also writes: the number of the picture."""

    def abilities(self) -> tuple[str, ...]:
        return (*super().abilities(), "generate")

    def generate(self, images: Encoded, settings: Generation, seed: int = 0) -> list[list[str]]:
        assert images.tokens is not None
        return [[f"a {int(number)}"] * settings.texts for number in images.tokens[:, 0, 0]]


def test_one_model_in_both_parts_encodes_a_picture_once() -> None:
    cards = Cards([(f"b {i}",) for i in range(6)])
    texts = [f"{letter} {i}" for letter in "ab" for i in range(6)]
    model = Both(torch.zeros(6, 12), texts)
    cleaner = ModelCleaner(model, model, Generation("nucleus", texts=2))
    scored = list(score_rows(cards, range(6), cleaner, True, 0))
    assert [c.text for c in scored[4].captions] == ["b 4", "a 4", "a 4"] and model.calls["image"] == 6


def test_models_that_cannot_do_their_part_are_refused() -> None:
    blind = FusedModel(torch.zeros(2, 2), ["a", "b"])
    with pytest.raises(LacksAbility, match=r"capfilt, captioner.*generate"):
        ModelCleaner(blind, blind, Generation())


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(threshold=1.5), "threshold is 1.5; expected a probability"),
        (dict(keep=("web", "robots")), "keep is 'web,robots'"),
        (dict(keep=()), "expected one or more of web, synthetic, human"),
        (dict(rounds=0), "rounds must be at least 1"),
        (dict(strategy="beam", texts=5), "beam its beams"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_trained(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CapFilt("emoji", **fields)


def test_captions_to_trust_are_asked_for_where_something_needs_them() -> None:
    with pytest.raises(ConfigError, match="--human"):
        CapFilt("web.tar").with_human()
    with pytest.raises(ConfigError, match="--human"):
        CapFilt("web.tar", captioner_steps=0, filter_steps=0).with_human()
    bare = CapFilt("web.tar", captioner="a", filter="b", keep=("web", "synthetic"))
    assert bare.with_human() == bare
    assert CapFilt("web.tar", human="c.jsonl").with_human().human == "c.jsonl"


def test_the_world_without_noise_shows_other_pictures() -> None:
    name = human_world(f"{NOISY}@train", 50)
    clean_rows, web = open_source(name), noisy()
    assert len(clean_rows) == 50 and "swap" not in name and human_world("emoji", 5) == ""
    assert {clean_rows.row(i).image_id for i in range(50)}.isdisjoint(web.row(i).image_id for i in range(90))
    assert all(clean_rows.noise_kind(i) == "none" for i in range(50))  # type: ignore[attr-defined]


def test_a_folder_with_other_scores_is_refused_and_another_verdict_is_not(tmp_path: Path) -> None:
    source, oracle = noisy(), Oracle()
    asked = CapFilt(NOISY, keep=("web", "synthetic"), rows_per_shard=20)
    first = clean(source, asked, oracle, tmp_path, World(), {"filter": "one"})
    before = files(Place(tmp_path))
    assert first.figures.metrics["clean/wrong"].value == 0.0 and oracle.asked == 90
    with pytest.raises(ConfigError, match=r"filter: 'one' -> 'two'.*choose another --out"):
        clean(source, asked, oracle, tmp_path, World(), {"filter": "two"})
    lax = clean(source, replace(asked, threshold=0.0), oracle, tmp_path, World(), {"filter": "one"})
    assert oracle.asked == 90 and lax.figures.metrics["web/kept"].value == 1.0
    assert len(read_shards(str(tmp_path))["train"]) == 90
    clean(source, asked, oracle, tmp_path, World(), {"filter": "one"})
    assert files(Place(tmp_path)) == before and oracle.asked == 90


def test_shards_are_cleaned_as_they_are_cut(tmp_path: Path) -> None:
    place = cleaned(tmp_path / "first", noisy(), Oracle())
    source = read_shards(str(place.folder))["train"]
    blocks = blocks_of(source, 7)
    assert len(blocks) == 5 and sorted(row for block in blocks for row in block.rows) == list(range(len(source)))
    for block in blocks:
        assert len({source.row(row).key.split("/")[0] for row in block.rows}) == 1


# --- in earnest -------------------------------------------------------------------------------------------------------

TINY = [
    "--view.size", "16", "--method.image.size", "16", "--method.image.width", "32", "--method.image.layers", "1",
    "--method.image.heads", "2", "--method.text.width", "32", "--method.text.layers", "1", "--method.text.heads", "2",
    "--tokenizer.context", "40", "--evaluate", "matching=@val",
]  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from multiway.recipes.command import parse
    from multiway.recipes.training import run_recipe

    out = tmp_path_factory.mktemp("capfilt") / "pre"
    quick = ["--steps", "2", "--batch", "8", "--device", "cpu", "--precision", "fp32", "--threads", "1"]
    run_recipe(parse(["blip", "--data", NOISY + ",gallery=8", *quick, *TINY, "--out", str(out)]), World())
    return out


def test_the_parts_are_trained_by_their_own_losses_from_the_same_weights(pretrained: Path) -> None:
    own = recipe_of(pretrained)
    for part, losses in (("captioner", ("lm",)), ("filter", ("itc", "itm"))):
        recipe = fine_tuned(pretrained, part, "emoji", "", 7, 0, 0.0, 5)
        assert recipe.method == replace(own.method, losses=losses) and recipe.init == str(pretrained)
        assert (recipe.settings.steps, recipe.settings.batch, recipe.settings.seed) == (7, 8, 5)
        assert recipe.settings.lr == pytest.approx(0.3 * own.settings.lr) and recipe.evaluate == ()
    again = retrained(pretrained, Path("clean/shards"), Path("t.json"), 0, 9)
    assert again.data == "clean/shards" and again.init == "" and again.settings.steps == own.settings.steps
    assert again.evaluate == (f"matching={NOISY},gallery=8@val",) and again.tokenizer.path == "t.json"


def test_runs_of_others_are_refused(tmp_path: Path, tiny_run: Path) -> None:
    with pytest.raises(ConfigError, match="is a run of clip; CapFilt fine-tunes"):
        recipe_of(tiny_run)
    with pytest.raises(RunError, match="is not a run folder"):
        recipe_of(tmp_path)


def test_two_rounds_from_the_command_line(pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from multiway.cli.main import main

    out = tmp_path / "clean"
    args = ["capfilt", str(pretrained), "--data", NOISY, "--out", str(out), "--captioner-steps", "2", "--filter-steps", "2",
            "--model-steps", "2", "--human-rows", "24", "--rows-per-shard", "50", "--rounds", "2", "--threshold", "0.2",
            "--device", "cpu", "--json"]  # fmt: skip
    assert main(args) == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads((out / "capfilt.json").read_text())["rounds"] == printed["rounds"]
    first, second = printed["rounds"]
    assert first["pictures"] == second["pictures"] == 90 and first["human"] == 24
    assert second["model"] == str(out / "round-2" / "model")
    for name, losses in (("captioner", ["lm"]), ("filter", ["itc", "itm"]), ("round-2/model", ["itc", "itm", "lm"])):
        run = Run.read(out / name)
        assert run.config["method"]["losses"] == losses and list(run.metrics()[-1]["terms"]) == losses, name
    assert Run.read(out / "round-2" / "model").config["data"] == str(out / "shards")
    # The folder itself is data, in which human captions are as they were.
    data = open_source(str(out))
    human = open_source(human_world(NOISY, 24))
    assert {human.row(i).image_id for i in range(24)} <= {data.row(i).image_id for i in range(len(data))}
    page = (out / "report.html").read_text()
    assert (
        "round 2" in page and "Match probabilities" in page and "data:image/png" in page and "web recall swap" in page
    )
    # Once more: nothing is done again, and the same comes out.
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    assert main(args) == 0
    assert json.loads(capsys.readouterr().out) == printed
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")} == stamps


def test_captions_of_strangers_are_escaped(tmp_path: Path) -> None:
    class Web(ToySource):
        def row(self, index: int):
            return replace(super().row(index), captions=("<kbd>x</kbd>",))

    from multiway.workflows.capfilt_report import write_capfilt_report

    source = Web(8)
    asked = CapFilt("<kbd>", keep=("web", "synthetic"), rows_per_shard=20)
    done = clean(source, asked, Looking(), tmp_path, World(), {})
    scored = read_scores(Place(tmp_path).records(blocks_of(source, 20)[0]))
    page = write_capfilt_report(tmp_path / "report.html", "<kbd>", asked, source, scored, [done]).read_text()
    assert "<kbd>" not in page and "&lt;kbd&gt;x" in page and "do not know which captions are true" in page


def test_the_same_run_asked_in_vain(pretrained: Path, tmp_path: Path) -> None:
    """A filter that has learnt nothing gives one answer to all; whoever cleans with it is told."""
    said: list[str] = []
    asked = CapFilt(NOISY, captioner_steps=0, filter_steps=0, keep=("web",), threshold=0.99, device="cpu")
    (done,) = capfilt(str(pretrained), asked, tmp_path / "out", World(), said.append)
    assert done.figures.metrics["web/kept"].value == 0.0
    assert any("kept none of 346 captions" in text or "kept none of" in text for text in said)
