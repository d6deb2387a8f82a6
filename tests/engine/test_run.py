"""Run folders: made, resumed, or refused by name; one writer at a time."""

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import multiway
from multiway.engine.lock import RunLock, RunLocked
from multiway.engine.provenance import commit
from multiway.engine.run import Run, RunError, RunMismatch

CONFIG = {
    "recipe": "clip",
    "seed": 0,
    "method": {"width": 64, "sizes": (1, 2)},
    "settings": {"steps": 100, "workers": 0},
}
OPERATIONAL = {"settings"}


def _open(path: Path, fingerprint: str = "f0", **changes: object) -> Run:
    return Run.open(path, {**CONFIG, **changes}, OPERATIONAL, fingerprint, tensorboard=False)


def test_a_new_run_and_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a"
    with _open(path) as run:
        assert not run.resumed
        assert {"format": 1, **run.config} == json.loads((path / "config.json").read_text())
        start = run.provenance["starts"][0]
        assert start["torch"] == torch.__version__
        assert start["multiway"] == multiway.__version__
        assert start["command"] == sys.argv
    with _open(path) as run:
        assert run.resumed
        assert [start["changed"] for start in run.provenance["starts"]] == [[], []]
    assert Run.read(path).provenance["data"] == "f0"


def test_identity_that_differs_is_refused_by_name_with_both_values(tmp_path: Path) -> None:
    with _open(tmp_path) as run:
        run.journal.log(1, {"loss": 1.0})
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(RunMismatch) as refused:
        _open(tmp_path, "f1", seed=1, method={"width": 128, "sizes": (1, 2)}, settings={"steps": 7, "workers": 4})
    message = str(refused.value)
    assert "seed: 0 in the folder, 1 asked for" in message
    assert "method.width: 64 in the folder, 128 asked for" in message
    assert "data fingerprint: 'f0' in the folder, 'f1' asked for" in message
    assert "settings" not in message.split("Choose")[0] and "sizes" not in message
    assert "--out" in message
    assert {path: path.read_bytes() for path in before} == before
    _open(tmp_path).close()  # and the refusal holds no lock


def test_what_never_made_a_step_may_be_put_right(tmp_path: Path) -> None:
    """The first batch refused an option: the corrected command is a new run in the same folder, and no stranger to it."""
    _open(tmp_path).close()
    (tmp_path / "tracking.json").write_text("{}")
    with _open(tmp_path, "f1", seed=1) as run:
        assert not run.resumed and run.provenance["data"] == "f1"
        assert not (tmp_path / "tracking.json").exists()
        assert run.provenance["starts"][1]["changed"] == ["seed: 0 -> 1"]
        run.journal.log(1, {"loss": 1.0})
    assert Run.read(tmp_path).config["seed"] == 1
    with pytest.raises(RunMismatch, match="seed: 1 in the folder, 0 asked for"):
        _open(tmp_path, "f1")


def test_operational_settings_go_on_and_are_noted(tmp_path: Path) -> None:
    _open(tmp_path).close()
    with _open(tmp_path, settings={"steps": 200, "workers": 0}) as run:
        assert run.provenance["starts"][1]["changed"] == ["settings.steps: 100 -> 200"]
    assert Run.read(tmp_path).config["settings"]["steps"] == 200


def test_a_group_does_not_cover_names_that_merely_begin_like_it(tmp_path: Path) -> None:
    with Run.open(tmp_path, {"work": 1, "workers": 1}, {"work"}, tensorboard=False) as run:
        run.save(1, {}, {})
    with pytest.raises(RunMismatch, match="workers"):
        Run.open(tmp_path, {"work": 2, "workers": 2}, {"work"}, tensorboard=False)


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RunError, match="is a file"):
        _open(file)
    with pytest.raises(RunError, match=r"not a run folder.*file"):
        _open(tmp_path)
    for missing, why in ((tmp_path / "none", "does not exist"), (tmp_path, "no config.json"), (file, "not a folder")):
        with pytest.raises(RunError, match=why):
            Run.read(missing)
    assert list(tmp_path.iterdir()) == [file]


def test_results_without_their_configuration_are_not_gone_on_with(tmp_path: Path) -> None:
    with _open(tmp_path) as run:
        run.save(1, {"w": torch.ones(2)}, {})
    (tmp_path / "config.json").unlink()
    with pytest.raises(RunError, match=r"config\.json"):
        _open(tmp_path)


def test_a_start_that_was_killed_half_way_can_be_repeated(tmp_path: Path) -> None:
    _open(tmp_path).close()
    for name in ("config.json", "metrics.jsonl", "timings.jsonl"):
        (tmp_path / name).unlink()
    with _open(tmp_path) as run:
        assert not run.resumed


@pytest.mark.parametrize("name", ["config.json", "provenance.json"])
@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str) -> None:
    _open(tmp_path).close()
    (tmp_path / name).write_text(content)
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        _open(tmp_path)
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        Run.read(tmp_path)


def test_resume_cuts_the_journal_back_to_the_checkpoint(tmp_path: Path) -> None:
    weight = torch.zeros(2)
    with _open(tmp_path) as run:
        assert run.restore({"w": weight}) is None
        for step in range(1, 6):
            run.journal.log(step, {"loss": 1.0 / step})
            if step == 3:
                run.save(step, {"w": torch.tensor([3.0, 4.0])}, {"step": step})
    with _open(tmp_path) as run:
        found = run.restore({"w": weight})
        assert (found.step, found.scalars, run.steps) == (3, {"step": 3}, [3])
        assert weight.tolist() == [3.0, 4.0]
        assert [line["step"] for line in run.metrics()] == [1, 2, 3]


def test_killed_before_the_first_checkpoint_starts_from_nothing(tmp_path: Path) -> None:
    with _open(tmp_path) as run:
        run.journal.log(1, {"loss": 1.0})
    with _open(tmp_path) as run:
        assert run.restore() is None
        assert run.metrics() == []


def test_readers_neither_lock_nor_write(tmp_path: Path) -> None:
    with _open(tmp_path):
        before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
        reader = Run.read(tmp_path)
        assert reader.metrics() == reader.timings() == reader.skipped() == reader.steps == []
        with pytest.raises(RunError, match="for reading"):
            reader.save(1, {}, {})
        assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_two_writers_are_one_too_many(tmp_path: Path) -> None:
    with _open(tmp_path), pytest.raises(RunLocked, match=rf"process {os.getpid()} on .* since"):
        _open(tmp_path)
    _open(tmp_path).close()


_HOLD = """
import os, sys, time
from pathlib import Path
from importlib.util import spec_from_file_location, module_from_spec
spec = spec_from_file_location("lock", sys.argv[1]); lock = module_from_spec(spec); spec.loader.exec_module(lock)
held = lock.RunLock(Path(sys.argv[2]))
if os.fork() == 0:  # a loader worker that outlives its parent
    time.sleep(60)
sys.stdout.write("held"); sys.stdout.flush()
time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_taken_over_though_its_worker_lives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = sys.modules[RunLock.__module__].__file__
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(source), str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert child.stdout.read(4) == b"held"
        with pytest.raises(RunLocked, match=f"process {child.pid}"):
            RunLock(tmp_path)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        with caplog.at_level(logging.WARNING):
            RunLock(tmp_path).release()
        assert f"process {child.pid}" in caplog.text
    finally:
        os.killpg(child.pid, signal.SIGKILL)  # the worker, in the session that this test made


def test_the_commit_is_ours_or_none(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True, text=True
        ).stdout

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    assert commit(package) is None
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "somebody else's")
    assert commit(package) is None  # inside a repository, but not part of it
    git("add", ".")
    git("commit", "-q", "-m", "ours")
    assert commit(package) == git("rev-parse", "HEAD").strip()
    (package / "__init__.py").write_text("changed = True\n")
    assert commit(package).endswith("+changes")


def _rank(rank: int, folder: Path, seed_of_rank_zero: int, answers: multiprocessing.Queue) -> None:
    import torch.distributed as dist

    from multiway.world import World

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{seed_of_rank_zero}", rank=rank, world_size=2)
    try:
        seed = seed_of_rank_zero if rank == 0 else 0
        with Run.open(folder / "run", {"seed": seed}, world=World(rank, 2), tensorboard=False) as run:
            weight = torch.zeros(2)
            found = run.restore({"w": weight})
            if rank == 1:
                run.journal.skip(9, ["row of rank 1"])  # after the checkpoint: written again by a replay
            run.save(4, {"w": weight + 1}, {})
            answers.put((rank, found.step if found else None))
    except RunError as error:
        answers.put((rank, str(error)))
    finally:
        dist.destroy_process_group()


def test_two_ranks_open_resume_and_are_refused_together(tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["multiway.engine.run"])
    for attempt, seed in ((0, 0), (1, 0), (2, 5)):
        for meeting in tmp_path.glob("meet*"):
            meeting.unlink()
        answers = context.Queue()
        ranks = [context.Process(target=_rank, args=(rank, tmp_path, seed, answers)) for rank in range(2)]
        for each in ranks:
            each.start()
        said = dict(answers.get(timeout=60) for _ in ranks)
        for each in ranks:
            each.join(timeout=60)
        if attempt < 2:
            assert said == dict.fromkeys((0, 1), 4 if attempt else None)
        else:
            assert said[0] == said[1] and "seed: 0 in the folder, 5 asked for" in said[0]
    assert [line["why"] for line in Run.read(tmp_path / "run").skipped()] == ["row of rank 1"]


def test_the_format_of_a_configuration_is_told(tmp_path: Path) -> None:
    """One without a number is from before there was one; one of a later version is refused by name, to resume and to read."""
    with Run.open(tmp_path / "run", {"recipe": "clip", "seed": 0}, tensorboard=False):
        pass
    file = tmp_path / "run" / "config.json"
    kept = json.loads(file.read_text())
    assert kept.pop("format") == 1
    file.write_text(json.dumps(kept))
    assert Run.read(tmp_path / "run").config == kept
    with Run.open(tmp_path / "run", kept, tensorboard=False) as run:
        assert run.resumed
    file.write_text(json.dumps(kept | {"format": 7}))
    for opened in (lambda: Run.read(tmp_path / "run"), lambda: Run.open(tmp_path / "run", kept, tensorboard=False)):
        with pytest.raises(RunError, match=r"config\.json has format 7, and this version of multiway reads format 1"):
            opened()
