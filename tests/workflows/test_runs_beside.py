"""What differs between configs, and which of several values is marked as the best."""

from multiway.tasks.task import Metric, Result
from multiway.workflows.runs_beside import differing, metric_lines, of_some_alone


def result(task: str, **values: tuple[float, float, float]) -> Result:
    metrics = {
        name.replace("__", "/"): Metric(name.replace("__", "/"), *own, n=10, chance=0.1) for name, own in values.items()
    }
    return Result(task, "toy", "test", metrics)


def test_only_settings_that_differ() -> None:
    one = {
        "recipe": "clip",
        "out": "runs/a",
        "settings": {"lr": 0.1, "betas": [0.9, 0.98]},
        "method": {"width": 8},
        "images": "",
    }
    other = {
        "recipe": "clip",
        "out": "runs/b",
        "settings": {"lr": 0.2, "betas": [0.9, 0.98]},
        "method": {"queue": 4},
        "images": "x",
    }
    assert differing([one, other]) == [
        ("settings.lr", ("0.1", "0.2")), ("method.width", ("8", "–")), ("images", ("none", "x")), ("method.queue", ("–", "4")),
    ]  # fmt: skip
    assert differing([one, one]) == []
    assert [name for name, values in differing([one, other]) if of_some_alone(values)] == [
        "method.width",
        "method.queue",
    ]


def test_the_best_is_marked_and_what_may_be_as_good() -> None:
    runs = [
        {"retrieval": result("retrieval", R=(0.5, 0.4, 0.6), median_rank=(3.0, 2.0, 4.0))},
        {"retrieval": result("retrieval", R=(0.7, 0.55, 0.8), median_rank=(9.0, 8.0, 10.0))},
        {"retrieval": result("retrieval", R=(0.1, 0.05, 0.2), median_rank=(3.0, 2.0, 4.0))},
        {},
    ]
    shares, ranks = metric_lines(runs)
    assert [(cell.best, cell.even) for cell in shares.cells] == [
        (False, True),
        (True, False),
        (False, False),
        (False, False),
    ]
    assert shares.cells[3].metric is None and not shares.lower and shares.chance == 0.1
    # Less is better, and two may share the first place.
    assert ranks.lower and [cell.best for cell in ranks.cells] == [True, False, True, False]


def test_nothing_is_best_alone_nor_of_what_only_describes() -> None:
    alone = metric_lines([{"captioning": result("captioning", with_picture__nats=(1.0, 0.9, 1.1))}, {}])
    assert not any(cell.best for cell in alone[0].cells) and alone[0].nats and alone[0].lower
    both = [
        {"captioning": result("captioning", other_picture__nats=(n, n, n), gain__nats=(n, n, n))} for n in (1.0, 2.0)
    ]
    other, gain = metric_lines(both)
    assert not any(cell.best for cell in other.cells)
    assert not gain.lower and [cell.best for cell in gain.cells] == [False, True]


def test_groups_are_left_out() -> None:
    made = Result("t", "toy", "test", {name: Metric(name, 0.5, 0.4, 0.6, 3) for name in ("R@1", "R@1[2 objects]")})
    assert [line.name for line in metric_lines([{"t": made}, {"t": made}])] == ["t: R@1"]
