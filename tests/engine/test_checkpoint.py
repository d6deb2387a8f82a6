"""Checkpoints: every tensor bit-exact, damage seen and said, and no moment at which a crash loses the last good one."""

import builtins
import io
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.engine import checkpoint, retention, shards
from multiway.engine.checkpoint import CheckpointError, load_into, load_latest, read, save
from multiway.engine.manifest import Manifest
from multiway.world import World

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["multiway.engine.run"])  # so that a child starts in milliseconds


def _tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, generator=generator)
    flat = torch.randn(6, generator=generator)
    return {
        "weight": weight.requires_grad_(),
        "tied.weight": weight,
        "transposed": weight.t(),
        "slice": flat[1:4],
        "other slice": flat[2:5],
        "half": torch.randn(5, generator=generator).bfloat16(),
        "special": torch.tensor([float("nan"), float("-inf"), -0.0, 1e-45]),
        "zero-dim": torch.tensor(2**53 + 1, dtype=torch.int64),
        "flag": torch.tensor(True),
        "flags": torch.tensor([[True, False]]),
        "empty": torch.empty(0, 7, dtype=torch.float64),
        "generator": generator.get_state(),
        "last/with.odd name": torch.arange(3, dtype=torch.int16),
    }


def _bits(tensor: torch.Tensor) -> tuple:
    data = tensor.detach().contiguous().reshape(-1)
    return tuple(tensor.shape), tensor.dtype, bytes(data.view(torch.uint8).tolist()) if data.numel() else b""


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(_bits(one[name]) == _bits(other[name]) for name in one)


def _shard(path: Path) -> Path:
    return next(path.glob("*.safetensors"))


def test_everything_survives_bit_for_bit_and_nothing_is_pickled(tmp_path: Path) -> None:
    scalars = {"step": 7, "best": float("-inf"), "lr": 0.1, "none": None, "nested": {"list": [1, [2.5, "x"]]}}
    path = save(tmp_path, 7, _tensors(), scalars)
    assert path.name == "step-00000007"
    names = sorted(each.name for each in path.iterdir())
    assert names == ["manifest.json", "shard-00001-model-00001-of-00001.safetensors", "state.json"]
    for each in path.iterdir():
        assert not each.read_bytes().startswith((b"\x80", b"PK"))  # a pickle, or torch.save's archive
    tensors, found = read(path)
    assert _same(tensors, _tensors())
    assert found == scalars


def test_tensors_are_restored_in_place_into_any_layout(tmp_path: Path) -> None:
    path = save(tmp_path, 1, _tensors(), {"a": 1})
    targets = {name: torch.zeros_like(tensor) for name, tensor in _tensors(1).items()}
    targets["transposed"] = torch.zeros(3, 4).t()
    targets["weight"] = torch.nn.Parameter(torch.zeros(3, 4))
    memory = {name: tensor.data_ptr() for name, tensor in targets.items()}
    assert load_into(targets, path) == {"a": 1}
    assert _same(targets, _tensors())
    assert memory == {name: tensor.data_ptr() for name, tensor in targets.items()}
    assert targets["weight"].requires_grad and targets["weight"].grad is None


_dtypes = st.sampled_from(
    [
        torch.float32,
        torch.float64,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.uint8,
        torch.bool,
        torch.complex64,
        torch.float8_e4m3fn,
    ]
)
_shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
_names = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__")


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(_names, st.tuples(_shapes, _dtypes), max_size=5), st.integers(0, 2**31))
def test_any_names_shapes_and_types_survive(tmp_path_factory: pytest.TempPathFactory, what: dict, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (shape, dtype) in what.items():
        size = torch.Size(shape).numel() * dtype.itemsize
        values = torch.randint(0, 2 if dtype == torch.bool else 256, (size,), generator=generator, dtype=torch.uint8)
        tensors[name] = values.view(dtype).reshape(shape)
    assert _same(read(save(tmp_path_factory.mktemp("any"), 3, tensors, {}))[0], tensors)


def test_large_states_are_spread_over_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "FILE_BYTES", 100)
    path = save(tmp_path, 1, _tensors(), {})
    assert len(list(path.glob("*.safetensors"))) >= 3
    assert _same(read(path)[0], _tensors())


def test_all_that_differs_is_listed(tmp_path: Path) -> None:
    path = save(tmp_path, 1, {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(2), "d": torch.ones(1)}, {})
    targets = {"a": torch.zeros(2), "b": torch.zeros(4), "c": torch.zeros(2, dtype=torch.int64), "e": torch.zeros(1)}
    with pytest.raises(CheckpointError) as refused:
        load_into(targets, path)
    message = str(refused.value)
    assert "missing in the checkpoint: e" in message
    assert "wanted by nobody): d" in message
    assert "b is float32 (3,) there; expected float32 (4,)" in message
    assert "c is float32 (2,) there; expected int64 (2,)" in message
    assert str(path) in message and "a is" not in message
    assert not targets["a"].any()  # refused before anything was touched


def test_names_declared_optional_may_differ(tmp_path: Path) -> None:
    path = save(tmp_path, 1, {"a": torch.ones(2), "rank/3": torch.ones(3)}, {})
    targets = {"a": torch.zeros(2), "rank/0": torch.zeros(1)}
    load_into(targets, path, optional=["rank/"])
    assert targets["a"].tolist() == [1, 1] and targets["rank/0"].tolist() == [0]


@pytest.mark.parametrize(
    ("tensors", "scalars", "named"),
    [
        ({"s": torch.eye(2).to_sparse()}, {}, "s is a torch.sparse_coo"),
        ({"m": torch.ones(2, device="meta")}, {}, "m is .* on meta"),
        ({}, {"x": object()}, r"scalars\['x'\] is of type object"),
        ({}, {"x": {3: 4}}, "key 3"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(tmp_path: Path, tensors: dict, scalars: dict, named: str) -> None:
    with pytest.raises(TypeError, match=named):
        save(tmp_path / "c", 1, tensors, scalars)
    assert not (tmp_path / "c").exists()


# --- damage -----------------------------------------------------------------------------------------------------------


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "SHA-256": lambda path: _flip(_shard(path)),
    "bytes instead of": lambda path: os.truncate(_shard(path), 100),
    "safetensors is missing": lambda path: _shard(path).unlink(),
    "state.json is missing": lambda path: (path / "state.json").unlink(),
    "state.json has": lambda path: (path / "state.json").write_text("{"),
    "manifest.json is missing": lambda path: (path / "manifest.json").unlink(),
    "manifest.json cannot be read": lambda path: (path / "manifest.json").write_text("{"),
    "own digest": lambda path: (path / "manifest.json").write_text(
        (path / "manifest.json").read_text().replace("float32", "float64", 1)
    ),
    "does not belong": lambda path: shutil.copy(_shard(path), path / "more.safetensors"),
}


@pytest.mark.parametrize("why", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_and_said_so(
    tmp_path: Path, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        save(tmp_path, step, _tensors(step), {"step": step})
    newest = tmp_path / "step-00000002"
    DAMAGE[why](newest)
    targets = {name: torch.zeros_like(tensor) for name, tensor in _tensors().items()}
    with caplog.at_level(logging.WARNING):
        found = load_latest(tmp_path, targets)
    assert found.step == 1 and found.scalars == {"step": 1} and _same(targets, _tensors(1))
    assert [path for path, _ in found.rejected] == [newest]
    assert why in found.rejected[0][1] and why in caplog.text
    with pytest.raises(CheckpointError, match="cannot be used"):
        read(newest)


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = save(tmp_path, 1, {"w": torch.arange(4.0)}, {"x": 1.5}, score=0.5)
    chance = random.Random(0)
    for file in path.iterdir():
        whole = file.read_bytes()
        for place in chance.sample(range(len(whole)), min(25, len(whole))):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << chance.randrange(8)
            file.write_bytes(damaged)
            try:
                tensors, scalars = read(path)
            except CheckpointError:
                continue
            # JSON may say the same in other bytes (white space); then nothing is lost.
            assert file.name == "manifest.json" and scalars == {"x": 1.5} and tensors["w"].tolist() == [0, 1, 2, 3]
        file.write_bytes(whole)


def test_all_damaged_is_an_error_and_none_is_not(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "nothing") is None
    for step in (1, 2):
        _flip(_shard(save(tmp_path, step, _tensors(), {})))
    with pytest.raises(CheckpointError, match=r"(?s)every checkpoint.*step-00000002.*SHA-256.*step-00000001"):
        load_latest(tmp_path)


def test_a_disk_that_lies_is_caught_while_memory_still_has_the_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = save(tmp_path, 1, _tensors(), {})
    real = checkpoint.write_shards

    def lying(folder: Path, *rest: object) -> None:
        real(folder, *rest)
        _flip(_shard(folder))

    monkeypatch.setattr(checkpoint, "write_shards", lying)
    with pytest.raises(CheckpointError, match="check the disk"):
        save(tmp_path, 2, {"w": torch.zeros(1000)}, {})
    assert list(tmp_path.iterdir()) == [good]


# --- retention --------------------------------------------------------------------------------------------------------


def _steps(root: Path) -> list[int]:
    return sorted(step for step, _ in retention.finished(root))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.none() | st.sampled_from([0.1, 0.2, 0.3, float("nan")]), min_size=1, max_size=6),
    st.integers(1, 3),
    st.integers(0, 2),
    st.booleans(),
)
def test_the_last_and_the_best_stay(
    tmp_path_factory: pytest.TempPathFactory, scores: list, last: int, best: int, higher: bool
) -> None:
    root = tmp_path_factory.mktemp("keep")
    alive: dict[int, float | None] = {}
    for step, score in enumerate(scores, start=1):
        save(root, step, {}, {}, keep_last=last, keep_best=best, score=score, higher_is_better=higher)
        alive[step] = score
        ranked = [s for s in alive if alive[s] is not None and alive[s] == alive[s]]
        ranked.sort(key=lambda s: ((alive[s] if higher else -alive[s]), s), reverse=True)
        keep = set(sorted(alive)[-last:]) | set(ranked[:best])
        alive = {s: alive[s] for s in alive if s in keep}
        assert _steps(root) == sorted(alive)
    assert len(list(root.iterdir())) == len(alive)


def test_without_any_kept_nothing_could_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep_last is 0"):
        save(tmp_path, 1, {}, {}, keep_last=0)


def test_the_same_step_again_replaces(tmp_path: Path) -> None:
    save(tmp_path, 5, _tensors(0), {"x": 0})
    path = save(tmp_path, 5, _tensors(1), {"x": 1})
    assert _same(read(path)[0], _tensors(1))
    assert list(tmp_path.iterdir()) == [path]


def test_a_course_that_was_left_is_kept_aside_and_never_mixed_in(tmp_path: Path) -> None:
    for step in (2, 4):
        save(tmp_path, step, _tensors(step), {})
    _flip(_shard(tmp_path / "step-00000004"))
    assert load_latest(tmp_path).step == 2
    save(tmp_path, 3, _tensors(3), {})
    assert _steps(tmp_path) == [2, 3]
    assert (tmp_path / "abandoned-step-00000004").is_dir()
    assert load_latest(tmp_path).rejected == ()


def test_leftovers_of_a_killed_process_are_tidied(tmp_path: Path) -> None:
    save(tmp_path, 1, _tensors(1), {})
    save(tmp_path, 2, _tensors(2), {})
    for name in (".writing-step-00000003", ".removed-step-00000000", ".replaced-step-00000001"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
    (tmp_path / "step-00000002").rename(tmp_path / ".replaced-step-00000002")
    retention.tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
    assert load_latest(tmp_path).step == 2


# --- a full disk ------------------------------------------------------------------------------------------------------


class _Budget:
    """Lets a number of writing calls through, then the disk is full."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(28, os.strerror(28))


class _Metered(io.FileIO):
    budget: _Budget

    def write(self, data: object) -> int:  # type: ignore[override]
        self.budget.spend()
        return super().write(data)  # type: ignore[arg-type]


def _meter(monkeypatch: pytest.MonkeyPatch, budget: _Budget) -> None:
    real_open, real_mkdir, real_fsync = io.open, os.mkdir, os.fsync

    def metered(file: object, mode: str = "r", *rest: object, **named: object):  # type: ignore[no-untyped-def]
        if "w" not in mode:
            return real_open(file, mode, *rest, **named)  # type: ignore[call-overload]
        budget.spend()
        raw = _Metered(file, "wb")  # type: ignore[arg-type]
        raw.budget = budget
        return io.BufferedWriter(raw) if "b" in mode else io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")

    def mkdir(*rest: object, **named: object) -> None:
        budget.spend()
        real_mkdir(*rest, **named)  # type: ignore[arg-type]

    def fsync(descriptor: int) -> None:
        budget.spend()
        real_fsync(descriptor)

    monkeypatch.setattr(io, "open", metered)
    monkeypatch.setattr(builtins, "open", metered)
    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "fsync", fsync)


def test_a_disk_that_is_full_at_any_write_costs_nothing(tmp_path: Path) -> None:
    old = save(tmp_path, 1, _tensors(1), {"step": 1})
    failures = 0
    while True:
        with pytest.MonkeyPatch.context() as patch:
            _meter(patch, _Budget(failures))
            try:
                save(tmp_path, 2, _tensors(2), {"step": 2})
                break
            except CheckpointError as error:
                assert "no room" in str(error) and "step-00000002" in str(error) and "resume" in str(error)
        left = [each.name for each in tmp_path.iterdir()]
        if left != [old.name]:  # full only after the new one had its name: then it is whole
            assert sorted(left) == ["step-00000001", "step-00000002"]
            assert _same(read(tmp_path / "step-00000002")[0], _tensors(2))
            shutil.rmtree(tmp_path / "step-00000002")
        assert _same(read(old)[0], _tensors(1))
        failures += 1
    assert failures >= 10
    assert load_latest(tmp_path).step == 2


def test_too_little_room_is_seen_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    monkeypatch.setattr(checkpoint, "write_shards", lambda *rest: pytest.fail("wrote"))
    with pytest.raises(CheckpointError, match=r"takes about 4,\d{3},\d{3} bytes and 1,000,000 are free"):
        save(tmp_path, 1, {"w": torch.zeros(1_000_000)}, {})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_really_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = small_disk / "checkpoints"
    weight = torch.arange(100_000.0)  # 400 kB: two fit, three do not
    for step in (1, 2):
        save(root, step, {"w": weight + step}, {})
    free = shutil.disk_usage(root).free
    with pytest.raises(CheckpointError, match="no room"):
        save(root, 3, {"w": weight}, {})
    # The estimate may be wrong (another process fills the disk meanwhile): then the write itself fails.
    monkeypatch.setattr(checkpoint, "_make_room", lambda root, folder, needed: folder.mkdir())
    with pytest.raises(CheckpointError, match="no room"):
        save(root, 3, {"w": weight}, {})
    assert _steps(root) == [1, 2] and shutil.disk_usage(root).free == free
    assert torch.equal(load_latest(root).tensors["w"], weight + 2)


# --- crashes ----------------------------------------------------------------------------------------------------------


def _die_at(root: Path, calls: int, step: int) -> None:
    """Save once, and end the process without any clean-up at the n-th call that changes the disk."""
    left = calls
    torch.set_num_threads(1)

    def counted(function: Callable) -> Callable:
        def call(*rest: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)
            return function(*rest, **named)

        return call

    for module, names in ((os, ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync")), (io, ("open",))):
        for name in names:
            setattr(module, name, counted(getattr(module, name)))
    save(root, step, _tensors(step), {"step": step}, keep_last=1, keep_best=0)
    os._exit(0)


@pytest.mark.parametrize("again", [False, True], ids=["a new step", "the same step again"])
def test_a_crash_at_any_system_call_leaves_a_loadable_folder(tmp_path: Path, again: bool) -> None:
    save(tmp_path / "seed", 1, _tensors(2 if again else 1), {"step": 1})
    step = 1 if again else 2
    outcomes = []
    for calls in range(200):
        root = tmp_path / f"{calls}"
        shutil.copytree(tmp_path / "seed", root)
        child = FORKS.Process(target=_die_at, args=(root, calls, step))
        child.start()
        child.join(timeout=60)
        retention.tidy(root)
        for _, path in retention.finished(root):
            read(path)  # whatever carries a checkpoint's name is one
        found = load_latest(root)
        assert found.rejected == ()
        expected = _tensors(1) if found.step == 1 and child.exitcode == 0 else _tensors(2 if again else found.step)
        assert _same(found.tensors, expected) or (again and _same(found.tensors, _tensors(1)))
        outcomes.append(found.step)
        if child.exitcode == 0:
            break
        assert child.exitcode == 9
    assert calls > 15
    assert outcomes == sorted(outcomes)  # once the new one stands, a later crash does not take it away
    assert outcomes[-1] == step


def _save_forever(root: Path, ready: object) -> None:
    torch.set_num_threads(1)
    found = load_latest(root)
    step = found.step if found else 0
    ready.set()  # type: ignore[attr-defined]
    while True:
        step += 1
        save(root, step, {**_tensors(step), "large": torch.full((200_000,), float(step))}, {"step": step}, score=-step)


def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(0)
    last = 0
    for _ in range(10):
        ready = FORKS.Event()
        child = FORKS.Process(target=_save_forever, args=(tmp_path, ready))
        child.start()
        assert ready.wait(60)
        time.sleep(chance.uniform(0.01, 0.2))
        os.kill(child.pid, signal.SIGKILL)
        child.join(timeout=60)
        found = load_latest(tmp_path)
        if found is None:
            assert last == 0
            continue
        assert found.rejected == () and found.step >= last and found.scalars == {"step": found.step}
        large = found.tensors.pop("large")
        assert large.eq(found.step).all() and _same(found.tensors, _tensors(found.step))
        last = found.step
    assert last > 0
    save(tmp_path, last + 1, {}, {}, keep_last=1, keep_best=0)
    assert [path.name for path in tmp_path.iterdir()] == [retention.name_of(last + 1)]


# --- several ranks ----------------------------------------------------------------------------------------------------


def _ranks(rank: int, size: int, folder: Path, act: str, answers: multiprocessing.Queue) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{act}-{size}", rank=rank, world_size=size)
    world = World(rank, size)
    mesh = init_device_mesh("cpu", (size,))
    whole = torch.arange(15.0).reshape(5, 3)  # five rows do not divide evenly
    tensors = {"sharded": distribute_tensor(whole, mesh, [Shard(0)]), "replica": torch.full((2,), float(rank))}
    tensors["tied"] = tensors["sharded"]
    own = f"generator/{rank}"
    tensors[own] = torch.tensor([rank])
    try:
        if act == "save":
            save(folder / "c", 1, tensors, {"size": size}, world)
            answer = sorted(path.name for path in (folder / "c" / "step-00000001").iterdir())
        elif act == "full disk on rank 1":
            if rank == 1:
                _meter(pytest.MonkeyPatch(), _Budget(0))
            save(folder / "c", 2, tensors, {}, world)
        elif act == "sparse on rank 1":
            save(folder / "c", 2, {"a": torch.eye(2).to_sparse() if rank else torch.eye(2)}, {}, world)
        else:
            targets = {"sharded": distribute_tensor(whole * 0, mesh, [Shard(1)]), "replica": torch.zeros(2)}
            targets |= {"tied": torch.zeros(5, 3), own: torch.tensor([-1])}
            found = load_latest(folder / "c", targets, world, optional=["generator/"])
            full = targets["sharded"].full_tensor()
            answer = (found.step, found.scalars, full.tolist(), targets["tied"].tolist(), targets[own].item())
            answer += (targets["replica"].tolist(), [why for _, why in found.rejected])
    except (CheckpointError, TypeError) as error:
        answer = str(error)
    answers.put((rank, answer))
    dist.barrier()  # a rank that leaves first can abort the other
    dist.destroy_process_group()


def _on_ranks(size: int, folder: Path, act: str) -> list:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    answers = FORKS.Queue()
    ranks = [FORKS.Process(target=_ranks, args=(rank, size, folder, act, answers)) for rank in range(size)]
    for each in ranks:
        each.start()
    said = dict(answers.get(timeout=60) for _ in ranks)
    for each in ranks:
        each.join(timeout=60)
    return [said[rank] for rank in range(size)]


def test_shards_written_by_two_ranks_are_read_by_one_two_and_three(tmp_path: Path) -> None:
    files = _on_ranks(2, tmp_path, "save")
    assert files[0] == files[1]
    assert [name for name in files[0] if name.endswith(".safetensors")] == [
        "shard-00001-model-00001-of-00001.safetensors",
        "shard-00002-model-00001-of-00001.safetensors",
    ]
    whole = torch.arange(15.0).reshape(5, 3)
    alone = load_latest(tmp_path / "c")
    assert torch.equal(alone.tensors["sharded"], whole) and torch.equal(alone.tensors["tied"], whole)
    assert alone.tensors["replica"].tolist() == [0, 0]  # rank 0's
    assert [alone.tensors[f"generator/{rank}"].item() for rank in range(2)] == [0, 1]
    for size in (2, 3):
        for rank, answer in enumerate(_on_ranks(size, tmp_path, "load")):
            own = rank if rank < 2 else -1
            assert answer == (1, {"size": 2}, whole.tolist(), whole.tolist(), own, [0, 0], [])


def test_ranks_fail_and_fall_back_together(tmp_path: Path) -> None:
    _on_ranks(2, tmp_path, "save")
    for act, named in (("full disk on rank 1", "no room"), ("sparse on rank 1", "sparse_coo")):
        first, second = _on_ranks(2, tmp_path, act)
        assert named in first and named in second
        assert [each.name for each in (tmp_path / "c").iterdir()] == ["step-00000001"]
    shutil.copytree(tmp_path / "c" / "step-00000001", tmp_path / "c" / "step-00000002")
    _flip(tmp_path / "c" / "step-00000002" / "shard-00002-model-00001-of-00001.safetensors")
    for answer in _on_ranks(2, tmp_path, "load"):
        assert answer[0] == 1 and "SHA-256" in answer[-1][0]


def test_a_part_that_no_rank_wrote_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = checkpoint.write_shards
    monkeypatch.setattr(
        checkpoint, "write_shards", lambda folder, staged, *rest: real(folder, {"a": staged["a"]}, *rest)
    )
    with pytest.raises(CheckpointError, match=r"parts of b are missing.*same folder"):
        save(tmp_path, 1, {"a": torch.ones(2), "b": torch.ones(2)}, {})


def test_the_manifest_says_what_is_inside(tmp_path: Path) -> None:
    path = save(tmp_path, 9, {"w": torch.ones(2, 3).bfloat16()}, {}, score=0.25)
    body = json.loads((path / "manifest.json").read_text())
    assert body["tensors"] == {"w": {"shape": [2, 3], "dtype": "bfloat16"}}
    assert (body["step"], body["score"], Manifest.read(path).score) == (9, 0.25, 0.25)
    for name, record in body["files"].items():
        assert record["bytes"] == (path / name).stat().st_size
