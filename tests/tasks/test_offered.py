"""Tasks of other packages: found through installed entry points, measured by the command, and reported where they are broken."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from task_fakes import Lookup, Shelf, random_vector

from multiway.batch import DataInfo, ViewSpec
from multiway.cli.main import main
from multiway.data import plugins
from multiway.data.plugins import PluginError
from multiway.data.processor import Processor
from multiway.data.source import stable_id
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.hub.file import write_model
from multiway.methods.clip import Clip, ClipConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.tasks import TASKS
from multiway.tasks.example_task import ExampleTask
from multiway.tasks.judging import Judging
from multiway.tasks.offered import ENTRY_POINTS, Tasks
from multiway.tasks.retrieval import Retrieval

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tasks" / "adding-a-task.md").read_text()
[CODE] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
[POINTS] = re.findall(r"```toml\n\[project\.entry-points\.\"multiway\.tasks\"\]\n(.*?)```", PAGE, re.S)


def install(site: Path, name: str, points: str, **modules: str) -> None:
    """A package as pip leaves it: modules, and the metadata that name its entry points."""
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text("")
    for module, code in modules.items():
        (site / name / f"{module}.py").write_text(code)
    info = site / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{points.replace(chr(34), '')}")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The package of the page, word for word, and three that are no good."""
    site = tmp_path / "site"
    install(site, "their_package", POINTS, word_order=CODE)
    install(site, "broken_package", "broken = broken_package.task:Task", task="import nothing_of_the_kind\n")
    install(site, "empty_package", "empty = empty_package:__name__")
    install(site, "taking_package", "retrieval = their_package.word_order:WordOrder")
    return site


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """An untrained CLIP."""
    words = Tokenizer.train(["red apple", "green apple, two leaves"] * 9, TokenizerSpec(300, 32))
    config = ClipConfig(
        image=VisionConfig(size=16, patch=8, width=16, layers=1, heads=2),
        text=TextConfig(width=16, layers=1, heads=2, causal=True, pool="eos", eos_id=words.special["eos"]),
        embedding=8,
    )
    torch.manual_seed(0)
    method = Clip(config.resolve(DataInfo(vocabulary=len(words), context=32, special=words.special)))
    write_model(tmp_path / "m.safetensors", method, Processor(ViewSpec(size=16), words))
    return tmp_path / "m.safetensors"


def multiway(site: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}
    return subprocess.run(
        [sys.executable, "-m", "multiway", *args], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same packages in this process."""
    plugins.report.cache_clear()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(TASKS, "_offered", plugins.offered(ENTRY_POINTS, TASKS._own))
    monkeypatch.setattr(TASKS, "_made", {})
    yield
    plugins.report.cache_clear()


def test_the_task_of_the_page_is_measured(site: Path, weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "order.json"
    done = multiway(
        site, "eval", str(weights), "--task", "word-order", "--data", "emoji@composition", "--predictions", str(file), "--json"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert said[0].startswith("multiway.tasks: `retrieval = ") and "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert found["task"] == "word-order" and found["metrics"]["accuracy"]["n"] == 200
    scores = [row["score"] for row in json.loads(file.read_text())]
    assert sum(scores) / 200 == pytest.approx(found["metrics"]["accuracy"]["value"]) and set(scores) <= {0.0, 0.5, 1.0}


def test_those_that_work_are_listed_and_the_others_reported(
    installed: None, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    own = [task.name for task in TASKS._own.values()]
    assert main(["list", "tasks", "--json"]) == 0
    listed = {row["name"]: row["what"] for row in json.loads(capsys.readouterr().out)["tasks"]}
    assert list(listed) == [*own, "word-order"], "those of multiway, then the one that works"
    assert listed["word-order"].startswith("Prefers captions to their own words, shuffled. Needs: encode_image")
    said = [record.message for record in caplog.records]
    assert len(said) == 2, said
    assert any("`broken = broken_package.task:Task` of broken-package 1.2 cannot be imported" in line for line in said)
    assert any("`empty = empty_package:__name__` of empty-package 1.2 is no task" in line for line in said)


def test_a_name_of_multiway_stays_its_own(installed: None, caplog: pytest.LogCaptureFixture) -> None:
    plugins.report.cache_clear()
    assert "retrieval" not in plugins.offered(ENTRY_POINTS, {"retrieval"})
    [record] = [each for each in caplog.records if "retrieval" in each.message]
    assert "of taking-package 1.2 is left out: multiway has a `retrieval` of its own" in record.message
    assert isinstance(TASKS["retrieval"], Retrieval)


def test_asking_for_a_broken_one_says_why(installed: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "no/run", "--task", "broken", "--data", "emoji@composition"]) == 1
    said = capsys.readouterr().err
    assert re.match(r"multiway: multiway\.tasks: `broken = .*nothing_of_the_kind.*repair or uninstall", said), said
    assert main(["eval", "no/run", "--task", "absent", "--data", "emoji@composition"]) == 1
    assert "there is no task 'absent'; there are: retrieval" in capsys.readouterr().err


# --- by themselves -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Theirs(Judging):
    """A task on examples, as it would stand in a package."""

    name: str = "theirs"


@dataclass(frozen=True)
class Other:
    """As little as a task can be."""

    name: str = "other"
    needs: Any = ("encode_image",)

    def run(self, model: Any, source: Any) -> Any:
        return None


@dataclass(frozen=True)
class Half(Other):
    kind: ClassVar[str] = "judged"


@dataclass(frozen=True)
class Needy(Other):
    size: int = 0

    def __post_init__(self) -> None:
        raise RuntimeError("give me a size")


class Bare:
    name, needs = "other", ("encode_image",)


named_other, unable, unnamed = Other(), Other(needs=("fly",)), Other(needs="encode_image")


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Entry points that the metadata of this process seem to have; what is reported is reported anew."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(plugins, "entry_points", lambda group: [each for each in found if each.group == group])
    monkeypatch.setitem(sys.modules, "offered_here", sys.modules[__name__])
    plugins.report.cache_clear()
    yield found
    plugins.report.cache_clear()


def offer(points: list[EntryPoint], name: str, value: str) -> None:
    points.append(EntryPoint(name, f"offered_here:{value}", ENTRY_POINTS))


def test_a_class_or_an_instance(points: list[EntryPoint]) -> None:
    offer(points, "theirs", "Theirs")
    offer(points, "other", "named_other")
    tasks = Tasks([Retrieval()])
    assert list(tasks) == ["retrieval", "theirs", "other"] and len(tasks) == 3
    assert isinstance(tasks["theirs"], ExampleTask) and tasks["theirs"] is tasks["theirs"]
    assert tasks["other"] is named_other and tasks.get("none") is None and "none" not in tasks


def test_nothing_is_imported_for_a_task_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(group: str) -> list[EntryPoint]:
        raise AssertionError("entry points are looked through")

    monkeypatch.setattr(plugins, "entry_points", looked)
    tasks = Tasks([Retrieval()])
    assert "retrieval" in tasks and tasks["retrieval"] == Retrieval()


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("Bare", "it is Bare, expected an instance of a dataclass"),
        ("Needy", r"cannot be made without arguments \(RuntimeError: give me a size\)"),
        ("Half", "it has a `kind` of examples, but no pictures, best, answers, wanted, submission"),
        ("unable", r"its `needs` is \('fly',\), expected a tuple of abilities: encode_image, "),
        ("unnamed", "its `needs` is 'encode_image'"),
        ("Theirs", "its `name` is 'theirs', expected 'other', the name of the entry point"),
        ("absent", r"cannot be imported \(AttributeError"),
    ],
)
def test_what_is_no_task(
    value: str, complaint: str, points: list[EntryPoint], caplog: pytest.LogCaptureFixture
) -> None:
    offer(points, "other", value)
    tasks = Tasks([Retrieval()])
    with pytest.raises(PluginError, match=f"multiway.tasks: `other = offered_here:{value}` .*{complaint}"):
        tasks["other"]
    with pytest.raises(PluginError):
        "other" in tasks  # noqa: B015 - asked for by name, it says what is wrong
    assert list(tasks) == ["retrieval"] == list(tasks) and len(tasks) == 1
    assert len(caplog.records) == 1, "it is said once"


def test_two_packages_with_one_name(points: list[EntryPoint], caplog: pytest.LogCaptureFixture) -> None:
    offer(points, "other", "named_other")
    offer(points, "other", "named_other")  # as when a package is on the path twice
    offer(points, "other", "unable")
    assert list(Tasks([])) == ["other"] and Tasks([])["other"] is named_other
    [record] = caplog.records
    assert "`other = offered_here:unable` is left out" in record.message and "uninstall one" in record.message


def test_the_task_of_the_page_is_right_where_the_answer_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models at random are at chance, those that know are right, ties are half a point."""
    page = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)  # dataclasses look their module up
    exec(compile(CODE, "page", "exec"), page.__dict__)
    task = page.__dict__["WordOrder"]()

    def of_text(text: str) -> torch.Tensor:
        return random_vector(stable_id(text) % 2**31)

    shelf = Shelf([(n, [f"word{n} of {n % 7} and more {n // 3}"], -1) for n in range(200)])
    metric = task.run(Lookup(random_vector, of_text), shelf).metrics["accuracy"]
    assert metric.chance == 0.5 and metric.low < 0.5 < metric.high and metric.n == 200
    # One that knows its captions, and nothing else.
    known = {row[1][0]: row[0] for row in shelf.rows}
    oracle = Lookup(random_vector, lambda text: random_vector(known.get(text, 10**6)))
    assert task.run(oracle, shelf).metrics["accuracy"].value == 0.9975, "one shuffle is none"
    single = task.run(Lookup(random_vector, of_text), Shelf([(0, ["one"], -1), (1, ["two"], -1)]))
    assert single.metrics["accuracy"].value == 0.5
