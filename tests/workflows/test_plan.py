"""From a trace to hours: the roofline, ranks and links, what is proposed, and what real steps take."""

import math
import time
from dataclasses import replace

import pytest
import torch
from small_recipes import small

from multiway.recipes.recipe import Recipe
from multiway.workflows.plan import STARTING, Plan, plan
from multiway.workflows.plan_batch import Rows, open_rows
from multiway.workflows.plan_check import measured
from multiway.workflows.plan_devices import ACCELERATORS, Accelerator, PlanError, accelerator, measure
from multiway.workflows.plan_fit import checkpoint_flags, compares_rows, fit, proposed
from multiway.workflows.plan_meter import BACKWARD, FORWARD, GRADIENTS, OPTIMISER, PARAMETERS, UPDATE, Operation
from multiway.workflows.plan_ranks import Hardware, communication, sharded_memory
from multiway.workflows.plan_report import command
from multiway.workflows.plan_step import Trace

DEVICE = Accelerator("test", 2**30, 100e12, 10e12, 1e12, 100e9, "made up", 1e-6, 0.5, 0.5)


def made_up(*operations: Operation, peak: dict[str, int] | None = None, sent: int = 0) -> Trace:
    """A step of known operations and memory: 100 MB of parameters in four blocks and a rest."""
    kept = {PARAMETERS: 100_000_000, OPTIMISER: 200_000_000}
    at_peak = kept | {GRADIENTS: 100_000_000, "activations: image": 600_000_000} | (peak or {})
    return Trace(at_peak, kept, 0, operations, sent, 25_000_000, 25_000_000, 100_000_000, (20_000_000,) * 5, 8, 0, {})


def of(*operations: Operation, device: Accelerator = DEVICE, **hardware: int) -> Plan:
    recipe = small("clip", "--batch", "8", "--steps", "3600")
    return Plan(recipe, Hardware(device, **hardware), made_up(*operations), "none", 0, 0.0, "")


def test_the_roofline() -> None:
    """Half of 100 TFLOP/s and of 1 TB/s: 1 TFLOP of products in 20 ms, 10 GB in 20 ms, whatever is longer."""
    product = Operation("mm", FORWARD, 1e12, 5e9, 0, True, 1)
    traffic = Operation("add", BACKWARD, 0, 10e9, 0, True, 2)
    whole = Operation("mm", BACKWARD, 1e12, 0, 0, False, 1)
    found = of(product, traffic, whole)
    assert found.seconds == pytest.approx({"products": 0.02 + 0.2, "memory traffic": 0.04})
    assert found.step_seconds == pytest.approx(0.26) and found.hours == pytest.approx(0.26)
    assert found.used == pytest.approx(2e12 / 0.26 / 10e12) and found.bottleneck.startswith("products, 85%")


def test_what_starts_an_operation() -> None:
    """A GPU works meanwhile; a processor does not."""
    few = [Operation("add", UPDATE, 0, 1e3, 0, False, 1)] * 100
    assert of(*few).seconds[STARTING] == pytest.approx(100e-6 - 100 * 2e-9, rel=1e-3)
    assert of(*few, device=replace(DEVICE, gpu=False)).seconds[STARTING] == pytest.approx(100e-6)
    large = Operation("mm", FORWARD, 1e12, 0, 0, True, 1)
    assert STARTING not in of(large, *few).seconds


def test_a_processor_computes_functions_and_small_products_more_slowly() -> None:
    slow = replace(DEVICE, functions=1e9, batched=(1e12, 1e12))
    assert slow.seconds(Operation("gelu", FORWARD, 0, 8, 1_000_000, False, 1)) == pytest.approx(1e-3)
    assert slow.seconds(Operation("bmm", FORWARD, 1e12, 8, 0, True, 1)) == pytest.approx(1.0)
    assert slow.seconds(Operation("mm", FORWARD, 1e12, 8, 0, True, 1)) == pytest.approx(0.02)


def test_what_ranks_share() -> None:
    """A quarter of parameters, gradients and moments; two blocks and what is beside them whole; gradients of two on their way."""
    trace, four = made_up(), Hardware(DEVICE, 4)
    assert sharded_memory(trace, four, "none") == trace.at_peak
    found = sharded_memory(trace, four, "full")
    assert found[PARAMETERS] == 25e6 and found[GRADIENTS] == 25e6 and found[OPTIMISER] == 50e6
    assert found["gathered weights"] == 20e6 + 2 * 20e6 and found["activations: image"] == 600e6
    over_nodes = Hardware(DEVICE, 4, 2)
    assert sharded_memory(trace, over_nodes, "hybrid") == found and over_nodes.shards("full") == 8


def test_what_links_carry() -> None:
    """A ring over 4: an all-reduce of 100 MB sends 150 MB; at 100 GB/s 1.5 ms, which a backward pass of 1 ms hides in part."""
    trace = made_up(sent=50_000_000)
    four = Hardware(DEVICE, 4)
    waits = communication(trace, four, "none", 1e-3, 1e-3, apart=False)
    assert waits["gradients"] == pytest.approx(0.5e-3) and waits["gathered features and statistics"] == pytest.approx(
        0.5e-3
    )
    assert communication(trace, four, "none", 1e-3, 1e-3, apart=True)["gradients"] == pytest.approx(1.5e-3)
    # The last message waits for the last gradient.
    assert communication(trace, four, "none", 1.0, 1.0, False)["gradients"] == pytest.approx(
        2 * 25 * 2**20 * 0.75 / 100e9
    )
    # FSDP gathers weights twice and sends gradients once: 75 MB each.
    assert communication(trace, four, "full", 0, 0, False)["weights"] == pytest.approx(3 * 0.75e-3)
    assert communication(trace, Hardware(DEVICE), "none", 0, 0, False) == {}
    # Over nodes everything goes at the network's pace, but for a hybrid's weights.
    two = Hardware(DEVICE, 4, 2, network=10e9)
    assert two.link == 10e9 and two.ranks == 8
    full, hybrid = (communication(trace, two, kind, 0, 0, False)["weights"] for kind in ("full", "hybrid"))
    assert full == pytest.approx(3 * 100e6 * 7 / 8 / 10e9)
    assert hybrid == pytest.approx(3 * 0.75e-3 + 2 * 25e6 / 2 / 10e9)


def test_the_table_is_of_dense_products() -> None:
    """No data sheet's sparse figure: no 16-bit rate is more than 16 times that of plain 32 bits but A100's, which is exactly that."""
    for each in ACCELERATORS.values():
        assert 1 <= each.half / each.full <= 29 and each.source and each.gpu
        assert 100e9 < each.bandwidth < 10e12 and 10e9 < each.link < 1e12 and 10 * 2**30 < each.memory < 300 * 2**30
    assert ACCELERATORS["h100"].half == 989.5e12 and ACCELERATORS["a100-80"].half == 312e12


def test_accelerators_by_name() -> None:
    given = accelerator("h200", tflops=500, memory=100)
    assert given.rate(True) == 500e12 and given.memory == 100 * 2**30 and "500 TFLOP/s as given" in given.source
    with pytest.raises(PlanError, match="h100, h200"):
        accelerator("h300")
    with pytest.raises(PlanError, match="above 0"):
        accelerator("h100", tflops=-1)
    with pytest.raises(PlanError, match="gpus 0"):
        Hardware(DEVICE, 0)


def test_measuring_this_processor() -> None:
    found = measure(torch.device("cpu"), (128, 256))
    assert not found.gpu and 1e8 < found.full < 1e15 and 1e8 < found.bandwidth < 1e13 and 0 < found.overhead < 1e-2
    assert found.functions < math.inf and found.batched[1] < math.inf and found.memory > 2**28


SHALLOW = ("--method.image.layers", "2", "--method.text.layers", "1")


@pytest.fixture(scope="module")
def clip() -> tuple[Recipe, Rows]:
    recipe = small("clip", "--batch", "64", *SHALLOW)
    return recipe, open_rows(recipe)


def room(gib: float, ranks: int = 1) -> Hardware:
    return Hardware(replace(ACCELERATORS["h100"], memory=gib * 2**30), ranks, headroom=0.0)


def test_what_fits_is_left_as_it_is(clip: tuple[Recipe, Rows]) -> None:
    (only,) = fit(*clip, room(80))
    assert only.fits and proposed([only]) is only and only.arguments == ()


def test_what_is_switched_on(clip: tuple[Recipe, Rows]) -> None:
    """fp32 was asked for, in half the room: everything proposed fits by its own plan, and runs with these very options."""
    recipe, rows = clip
    whole = plan(recipe, rows, room(80))
    options = fit(recipe, rows, room(0.45 * whole.peak / 2**30))
    names = [" + ".join(each.names) for each in options]
    assert names[:3] == ["as asked", "bf16", "bf16 + recomputed blocks"] and "gradient caching" in names[3]
    assert not options[0].fits and not any(each.changes for each in options)
    best = proposed(options)
    assert best is not None and best.plan is not None and best.fits
    assert best.plan.step_seconds == min(each.plan.step_seconds for each in options if each.plan and each.fits)
    again = small("clip", "--batch", "64", *SHALLOW, *best.arguments)
    assert plan(again, rows, best.plan.hardware).peak == pytest.approx(best.plan.peak)
    assert command(["clip", "--batch", "64"], best, best.plan.hardware).startswith(
        "multiway train clip --batch 64 --precision bf16"
    )


def test_what_changes_the_loss_comes_last_and_says_so(clip: tuple[Recipe, Rows]) -> None:
    recipe, rows = clip
    options = fit(recipe, rows, room(0.001))
    assert proposed(options) is None
    assert [each.changes != "" for each in options] == [False] * (len(options) - 1) + [True]
    assert "micro-batch alone" in options[-1].changes and "accumulation" in options[-1].names[-1]


def test_rows_that_are_scored_one_by_one_are_accumulated(clip: tuple[Recipe, Rows]) -> None:
    recipe = small("mae", "--method.backbone.layers", "2", "--batch", "64", "--precision", "bf16")
    rows = open_rows(recipe)
    assert not compares_rows(recipe, rows) and compares_rows(*clip)
    options = fit(recipe, rows, room(0.5 * plan(recipe, rows, room(80)).peak / 2**30))
    best = proposed(options)
    assert best is not None and not any("caching" in name for each in options for name in each.names)
    parts = next(each for each in options if "--accumulate" in each.arguments)
    assert parts.fits and not parts.changes


@pytest.mark.slow
def test_a_shorter_queue_is_offered_where_it_weighs() -> None:
    recipe = small("moco", "--batch", "4", "--precision", "bf16", "--method.queue", "262144")
    rows = open_rows(recipe)
    whole = plan(recipe, rows, room(80))
    options = fit(recipe, rows, room(0.5 * whole.peak / 2**30))
    last = next(each for each in options if "queue" in each.names[-1])
    assert last.arguments == ("--method.queue", "65536") and "65,536 negatives" in last.changes
    assert last.plan is not None and whole.peak - last.plan.peak > 3 / 4 * 262144 * 128 * 4


def test_commands(clip: tuple[Recipe, Rows]) -> None:
    recipe, rows = clip
    (only,) = fit(recipe, rows, room(80, 2))
    assert command(["clip"], only, room(80, 2)) == "torchrun --standalone --nproc-per-node 2 -m multiway train clip"
    apart = Hardware(DEVICE, 8, 2)
    assert "--nnodes 2 --rdzv-backend c10d --rdzv-endpoint NODE1:29400 --nproc-per-node 8" in command(
        ["clip"], only, apart
    )
    assert set(checkpoint_flags(recipe.method)) == {"--method.image.checkpoint", "--method.text.checkpoint"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "albef", "mae", "moco"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_time_by_rates_measured_in_the_same_process(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a factor of 2, in seconds of the processor on one thread: the machine may be others' too."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    recipe = small(name, "--batch", "64", "--precision", precision)
    rows, cpu = open_rows(recipe), torch.device("cpu")
    before = measure(cpu)
    real = measured(recipe)
    after = measure(cpu)
    found = [plan(recipe, rows, Hardware(device)).step_seconds for device in (before, after)]
    assert min(found) / 2 < real.seconds < 2 * max(found), (found, real)
