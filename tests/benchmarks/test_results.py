"""When a benchmark's figure has fallen: the logic of `make bench-check`, on made-up reports."""

import json
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from contest import Contender, Times, interval, race
from results import Baseline, Result, baseline, falls, read_baseline, table, unmeasured

STORED = Path(__file__).parents[2] / "benchmarks" / "baseline.json"


def figure(name: str, value: float, kind: str = "ratio") -> Result:
    return Result(name, kind, value, value, value, 3)  # type: ignore[arg-type]


def kept(**values: float) -> Baseline:
    return Baseline({name: ("ratio", value) for name, value in values.items()}, {"ratio": 0.1, "share": 0.2}, {})


def test_a_fall_is_more_than_the_tolerance_and_the_worst_comes_first() -> None:
    stored = kept(a=2.0, b=1.0, c=1.5, d=1.0)
    found = falls([figure("a", 1.79), figure("b", 0.91), figure("c", 0.7), figure("d", 3.0)], stored)
    assert [fall.name for fall in found] == ["c", "a"]
    assert found[1].allowed == pytest.approx(1.8) and found[1].change == pytest.approx(-0.105)


def test_the_tolerance_is_that_of_the_kind() -> None:
    stored = Baseline({"a": ("ratio", 1.0), "b": ("share", 0.5)}, {"ratio": 0.1, "share": 0.3}, {})
    assert not falls([figure("a", 0.95), figure("b", 0.36, "share")], stored)
    assert [fall.name for fall in falls([figure("a", 0.95), figure("b", 0.34, "share")], stored)] == ["b"]
    with pytest.raises(ValueError, match="a share and its baseline a ratio"):
        falls([figure("a", 1.0, "share")], stored)


def test_what_is_no_number_has_fallen() -> None:
    assert falls([figure("a", math.nan)], kept(a=1.0))


def test_figures_on_one_side_alone_are_named_and_not_judged() -> None:
    stored = kept(a=1.0, gone=1.0)
    results = [figure("a", 1.0), figure("new", 0.01)]
    assert not falls(results, stored)
    assert unmeasured(results, stored) == (["gone"], ["new"])


def test_the_tolerance_follows_the_noise_of_repeated_reports() -> None:
    """Three times the pooled deviation from the medians, each kind by itself, and never less than a twentieth."""
    quiet = [[figure("a", 1.0 + 0.001 * n), figure("b", 0.5, "share")] for n in range(3)]
    found = baseline(quiet, {"machine": "x"})
    assert found.tolerance == {"ratio": 0.05, "share": 0.05} and found.about["reports"] == 3
    noisy = [[figure("a", value), figure("b", 2 * value)] for value in (0.9, 1.0, 1.1)]
    found = baseline(noisy, {})
    assert found.values["a"] == ("ratio", 1.0) and found.values["b"] == ("ratio", 2.0)
    assert found.tolerance["ratio"] == pytest.approx(3 * math.sqrt((0.1**2 + 0.1**2) / 2))
    assert not any(falls(report, found) for report in noisy), "reports that made a baseline do not fall below it"


def test_a_baseline_needs_reports_of_the_same_figures() -> None:
    with pytest.raises(ValueError, match="--repeats"):
        baseline([[figure("a", 1.0)]], {})
    with pytest.raises(ValueError, match="different figures"):
        baseline([[figure("a", 1.0)], [figure("b", 1.0)]], {})


def test_a_baseline_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    first = baseline([[figure("a/b", 1.25), figure("c", 0.5, "share")]] * 2, {"machine": 'a "b"'})
    first.write(path)
    assert read_baseline(path) == first


@pytest.mark.parametrize("text", ["", "{}", '{"about": {}, "tolerance": {}, "values": {"a": ["ratio", 1.0]}}',
                                  '{"about": {}, "tolerance": {"ratio": 0.1}, "values": {"a": ["ratio", 0]}}'])  # fmt: skip
def test_what_is_no_baseline_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"baseline\.json"):
        read_baseline(path)


def test_the_stored_baseline_holds_ratios_and_shares_and_says_where_it_is_from() -> None:
    stored = read_baseline(STORED)
    assert {"machine", "date", "versions", "reports", "threads"} <= set(stored.about)
    assert {kind for kind, _ in stored.values.values()} == {"ratio", "share"}
    assert all(kind == "ratio" or value < 1.0 for kind, value in stored.values.values())
    assert all(0 < share < 0.5 for share in stored.tolerance.values()), "a check that allows any fall checks nothing"
    assert not json.dumps(stored.about).count("seconds")


def test_turns_times_and_intervals() -> None:
    """With a clock that only the contenders move, times and ratios are known."""
    now = [0.0]

    def contender(name: str, cost: float) -> Contender:
        def step() -> float:
            now[0] += cost
            return cost

        return Contender(name, "fp32", step)

    ticks = iter(range(1_000_000))

    def clock() -> float:
        return now[0] + 1e-3 * next(ticks)  # a product of matrices takes a millisecond

    times = race([contender("slow", 3.0), contender("fast", 1.0)], rounds=4, steps=2, clock=clock)
    assert isinstance(times, Times) and times.first == {"slow": 3.0, "fast": 1.0}
    assert times.ratio("slow", "fast") == pytest.approx(3.0, rel=1e-2) and len(times.ratios("slow", "fast")) == 4
    low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert 1.0 <= low <= 3.0 <= high <= 5.0 and low < high
    assert interval([2.0, 2.0]) == (2.0, 2.0)


def test_the_table_has_a_line_for_each_figure() -> None:
    lines = table([figure("a", 1.5), figure("b", 0.25, "share")]).splitlines()
    assert lines[2].startswith("| a | 1.50x |") and lines[3].startswith("| b | 25% |")
