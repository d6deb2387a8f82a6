"""Saving beside training: what is saved is of the moment of the call, all guarantees of a save that is waited for hold, and errors arrive."""

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from test_loop import SETTINGS, Rows, Toy
from test_loop import run as train_toy

from multiway.engine import checkpoint, shard_writer
from multiway.engine.background import Background, Copies
from multiway.engine.checkpoint import CheckpointError, load_latest, read
from multiway.engine.journal import read_metrics
from multiway.engine.loop import StepRecord
from multiway.engine.recorder import Recorder
from multiway.engine.rollback import Rollback
from multiway.engine.run import Run
from multiway.engine.settings import OPERATIONAL
from multiway.world import World

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["multiway.engine.run"])
OFTEN = replace(SETTINGS, checkpoint_every=2, log_every=1)


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, generator=generator)
    return {
        "weight": weight.requires_grad_(),
        "tied": weight,
        "transposed": weight.t(),
        "half": torch.randn(5, generator=generator).bfloat16(),
        "special": torch.tensor([float("nan"), -0.0, 1e-45]),
        "count": torch.tensor(7 + seed),
        "empty": torch.empty(0, 7),
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    def bits(tensor: torch.Tensor) -> tuple:
        return tuple(tensor.shape), tensor.dtype, tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()

    return one.keys() == other.keys() and all(bits(one[name]) == bits(other[name]) for name in one)


def open_run(path: Path) -> Run:
    return Run.open(path, {"a": 1}, tensorboard=False)


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch, saves: int = 1) -> Iterator[tuple[threading.Event, threading.Event]]:
    """The `saves`-th writing of tensors waits for the second event, having set the first."""
    write, reached, go = checkpoint.write_shards, threading.Event(), threading.Event()
    count = [0]

    def slow(*rest: object) -> None:
        count[0] += 1
        if count[0] == saves:
            reached.set()
            assert go.wait(60)
        write(*rest)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "write_shards", slow)
    try:
        yield reached, go
    finally:
        go.set()


def test_what_is_saved_is_of_the_moment_of_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, scalars = state(), {"lr": [0.1]}
    with open_run(tmp_path) as run, held(monkeypatch) as (reached, go):
        assert run.save_later(3, tensors, scalars)
        assert reached.wait(60) and run.steps == []  # under way, and not there before it is whole
        with torch.no_grad():
            for tensor in tensors.values():
                tensor.zero_()
        scalars["lr"].append(9.0)
        go.set()
        run.settle()
        assert run.steps == [3]
    found, said = read(tmp_path / "checkpoints" / "step-00000003")
    assert same(found, state()) and said == {"lr": [0.1]}


def test_the_files_are_those_of_a_save_that_is_waited_for(tmp_path: Path) -> None:
    with open_run(tmp_path / "a") as run:
        now = run.save(1, state(), {"x": 1}, score=0.5)
    with open_run(tmp_path / "b") as run:
        run.save_later(1, state(), {"x": 1}, score=0.5)
        run.settle()
        later = run.checkpoints / now.name
    assert sorted(each.name for each in now.iterdir()) == sorted(each.name for each in later.iterdir())
    one, other = (json.loads((path / "manifest.json").read_text()) for path in (now, later))
    assert one["tensors"] == other["tensors"] and one["score"] == other["score"] == 0.5
    assert {name: each["bytes"] for name, each in one["files"].items()} == {
        name: each["bytes"] for name, each in other["files"].items()
    }
    assert same(read(now)[0], read(later)[0])


def test_buffers_are_made_once() -> None:
    copies = Copies()
    first = copies.take(state())
    memory = {name: tensor.data_ptr() for name, tensor in first.items()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in state().values())
    assert copies.bytes == size
    second = copies.take(state(1))
    assert memory == {name: tensor.data_ptr() for name, tensor in second.items()} and same(second, state(1))
    assert (
        len({pointer for pointer in memory.values() if pointer}) == len(memory) - 1
    )  # shared memory is not shared here
    other = copies.take({"half": torch.ones(6)})
    assert list(other) == ["half"] and copies.bytes == 24
    with pytest.raises(TypeError, match=r"s is a torch\.sparse_coo"):
        copies.take({"s": torch.eye(2).to_sparse()})


def test_one_at_a_time_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run(tmp_path) as run, held(monkeypatch) as (reached, go):
        run.save_later(1, state(1), {}, keep_last=2, keep_best=0)
        assert reached.wait(60)
        threading.Timer(0.2, go.set).start()
        began = time.perf_counter()
        run.save_later(2, state(2), {}, keep_last=2, keep_best=0)
        assert time.perf_counter() - began > 0.15 and 1 in run.steps  # it has waited
        run.save_later(3, state(3), {}, keep_last=2, keep_best=0)
    assert run.steps == [2, 3]  # retired when the third was whole; leaving the run waits for it
    assert same(read(tmp_path / "checkpoints" / "step-00000002")[0], state(2))


def test_an_error_comes_once_with_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*rest: object) -> None:
        raise OSError(28, "No space left on device")

    with open_run(tmp_path) as run:
        run.save(1, state(), {})
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "write_shards", full)
            assert run.save_later(2, state(), {})
            while not run.saving_failed:
                time.sleep(0.001)
        with pytest.raises(
            CheckpointError, match=r"no room for checkpoint .*step-00000002.*earlier checkpoints are intact"
        ):
            run.save_later(3, state(), {})
        assert not run.saving_failed and [path.name for path in run.checkpoints.iterdir()] == ["step-00000001"]
        run.save_later(3, state(), {})
        run.settle()
        assert run.steps == [1, 3]
        run.save_later(4, {"s": torch.eye(2).to_sparse()}, {})
        with pytest.raises(TypeError, match=r"s is a torch\.sparse_coo"):
            run.settle()


def test_leaving_a_run_hides_neither_its_error_nor_that_of_its_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*rest: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "write_shards", broken)
    with pytest.raises(CheckpointError, match="could not be written"), open_run(tmp_path) as run:
        run.save_later(1, state(), {})
    with pytest.raises(ZeroDivisionError), open_run(tmp_path) as run:
        run.save_later(1, state(), {})
        raise ZeroDivisionError
    assert "Input/output error" in caplog.text
    open_run(tmp_path).close()  # the lock is free


def test_whoever_asks_twice_to_stop_is_not_kept_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("multiway.engine.run.HURRY", 0.1)
    with held(monkeypatch) as (reached, go):
        with pytest.raises(KeyboardInterrupt), open_run(tmp_path) as run:
            run.save_later(1, state(), {})
            assert reached.wait(60)
            raise KeyboardInterrupt
        assert "still being written" in caplog.text and run.steps == []
        left = next(each for each in threading.enumerate() if each.name == "checkpoint")
        go.set()
        left.join(60)


def test_without_memory_for_copies_the_caller_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Copies, *rest: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Copies, "take", none)
    with open_run(tmp_path) as run:
        assert not run.save_later(1, state(), {}) and run.steps == [1] and run.copied_bytes == 0


# --- in the loop ------------------------------------------------------------------------------------------------------


def toy(path: Path, **changes: object) -> tuple[Toy, Run, list[str]]:
    """A run of the toy in a folder; method, folder and what was said."""
    chosen, said = replace(OFTEN, **changes), []
    method = Toy(dropout=0.3)
    with open_run(path) as run:
        train_toy(method, chosen, Recorder(run, chosen, said.append))
    return method, run, said


def lines(run: Run) -> bytes:
    return (run.path / "metrics.jsonl").read_bytes()


def test_a_run_is_the_same_with_and_without(tmp_path: Path) -> None:
    _, one, quiet = toy(tmp_path / "waited", checkpoint_async=False)
    _, other, said = toy(tmp_path / "beside")
    assert lines(one) == lines(other) and one.steps == other.steps == [10, 12]
    assert same(load_latest(one.checkpoints).tensors, load_latest(other.checkpoints).tensors)
    assert quiet == [] and len(said) == 1 and "written beside training, from a copy of" in said[0]
    for run in (one, other):
        timings = run.timings()
        assert timings[0]["checkpoint_seconds"] == 0 and any(each["checkpoint_seconds"] > 0 for each in timings)
        for each in timings:
            assert each["loop_seconds"] > each["checkpoint_seconds"] and each["loop_seconds"] > each["step_seconds"]
    assert "checkpoint_async" in OPERATIONAL


@pytest.mark.parametrize("saves", [1, 2, 4])
def test_a_disk_that_fills_up_stops_the_run_at_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: int
) -> None:
    straight, one, _ = toy(tmp_path / "straight")
    write, count = checkpoint.write_shards, [0]
    failed = threading.Event()

    def full(*rest: object) -> None:
        count[0] += 1
        if count[0] == saves:
            failed.set()
            raise OSError(28, "No space left on device")
        write(*rest)  # type: ignore[arg-type]

    class Patient(Rows):
        """The step after the save that fails comes once it has failed."""

        def batches(self, start: int, stop: int):
            for step, batch in enumerate(super().batches(start, stop), start):
                if step == 2 * saves and start == 0:
                    assert failed.wait(60)
                    time.sleep(0.1)
                yield batch

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_shards", full)
        with pytest.raises(CheckpointError, match="no room for checkpoint"), open_run(tmp_path / "full") as run:
            train_toy(Toy(dropout=0.3), OFTEN, Recorder(run, OFTEN, print), loader=Patient())
    assert read_metrics(run.path / "metrics.jsonl")[-1]["step"] == 2 * saves + 1
    assert run.steps == list(range(2, 2 * saves, 2))[-2:]
    again, run, _ = toy(tmp_path / "full")
    assert lines(run) == lines(one) and same(dict(again.state_dict()), dict(straight.state_dict()))


def test_going_back_waits_for_the_checkpoint_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.tensor([4.0])
    with open_run(tmp_path) as run, held(monkeypatch) as (reached, go):
        rollback = Rollback(2, run.checkpoints, {"w": weight}, print, settle=run.settle)
        run.save_later(4, {"w": weight}, {})
        assert reached.wait(60)
        weight.fill_(float("nan"))
        threading.Timer(0.1, go.set).start()
        assert rollback.after(5, False) == {} and rollback.after(6, False) == {"rolled_back_to": 4}
        assert weight.item() == 4.0


def test_clocks_that_stand_still_or_go_back(tmp_path: Path) -> None:
    record = StepRecord(1, 0, 1.0, {}, {}, {}, 0.1, 1.0, True)
    with open_run(tmp_path) as run:
        recorder = Recorder(run, SETTINGS, print)
        recorder.resume(Toy(), torch.optim.AdamW([{"params": [], "names": []}]))
        recorder.log(record, 0.0, 0.0, 8)
        recorder.log(replace(record, step=2), -3600.0, -1.0, 8)
        recorder.log(replace(record, step=3), 0.5, 0.1, 8)
        found = run.timings()
    assert [(each["step_seconds"], each["data_seconds"]) for each in found] == [(0.0, 0.0), (0.0, 0.0), (0.5, 0.1)]
    assert [each.get("samples_per_second") for each in found] == [None, None, 16.0]


# --- several ranks ----------------------------------------------------------------------------------------------------


def _rank(rank: int, folder: Path, act: str, answers: multiprocessing.Queue) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{act}", rank=rank, world_size=2)
    world = World(rank, 2)
    whole = torch.arange(15.0).reshape(5, 3)
    tensors = {
        "sharded": distribute_tensor(whole, init_device_mesh("cpu", (2,)), [Shard(0)]),
        "replica": torch.full((2,), float(rank)),
    }
    write, answer = shard_writer.save_file, None
    try:
        with Run.open(folder / act, {"a": 1}, world=world, tensorboard=False) as run:

            def slow(tensors: dict, path: str, metadata: dict) -> None:
                time.sleep(0.05)
                if act == "full" and rank == 1 and "00000003" in path:
                    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
                write(tensors, path, metadata)

            shard_writer.save_file = slow
            if act == "sparse" and rank == 1:
                tensors["s"] = torch.eye(2).to_sparse()
            votes, at = 0, []
            for step in range(1, 6):
                run.save_later(step, tensors, {"step": step})
                # Collectives of training, many of them while both ranks talk about the checkpoint.
                for _ in range(20):
                    vote = torch.tensor([1.0])
                    dist.all_reduce(vote)
                    votes += int(vote)
                    if not world.all_agree(not run.saving_failed):
                        at.append(step)
                        run.settle()
            run.settle()
            answer = (votes, run.steps, at, run.copied_bytes)
    except (CheckpointError, TypeError) as error:
        answer = (str(error), at, run.steps)
    answers.put((rank, answer))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture
def both(tmp_path: Path) -> Callable[[str], list]:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")

    def start(act: str) -> list:
        answers = FORKS.Queue()
        ranks = [FORKS.Process(target=_rank, args=(rank, tmp_path, act, answers)) for rank in range(2)]
        for each in ranks:
            each.start()
        said = dict(answers.get(timeout=120) for _ in ranks)
        for each in ranks:
            each.join(timeout=60)
            assert each.exitcode == 0
        return [said[rank] for rank in range(2)]

    return start


def test_two_ranks_save_while_they_reduce(both: Callable[[str], list], tmp_path: Path) -> None:
    # Three rows and two of what both have parts of; what both have alike is copied and written by the first alone.
    assert both("well") == [(200, [4, 5], [], 36 + 8), (200, [4, 5], [], 24)]
    found = load_latest(tmp_path / "well" / "checkpoints")
    assert found.step == 5 and torch.equal(found.tensors["sharded"], torch.arange(15.0).reshape(5, 3))
    assert found.tensors["replica"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("act", "named", "left"), [("full", "no room", [1, 2]), ("sparse", "s is a torch.sparse", [])])
def test_what_one_rank_cannot_do_stops_both_at_the_same_step(
    both: Callable[[str], list], act: str, named: str, left: list[int]
) -> None:
    one, other = both(act)
    assert named in one[0] and named in other[0]
    assert one[1:] == other[1:] and one[2] == left


def test_a_background_without_work_has_nothing_to_wait_for() -> None:
    background = Background(World())
    background.wait()
    assert not background.failed and background.copies.bytes == 0
