"""Errors of the depths in words: recognised as they really sound, with settings of this very run, and no others touched."""

from pathlib import Path

import pytest
import torch

from multiway.engine.failure import OutOfMemory, RankLost, explained, is_lost_rank, is_out_of_memory
from multiway.engine.run import Run, RunError

CONFIG = {
    "settings": {"batch": 64, "accumulate": 1, "cache": 0, "precision": "fp32"},
    "method": {"image": {"checkpoint": False}, "text": {"checkpoint": True, "blocks": {"checkpoint": False}}},
}


def said(error: BaseException, config: dict = CONFIG, steps: tuple[int, ...] = (100, 200), ranks: int = 1) -> str:
    found = explained(error, Path("runs/a"), config, steps, ranks)
    assert isinstance(found, RunError)
    return str(found)


def real_one() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 58)
    return caught.value


def test_the_cpu_allocators_own_error_is_known() -> None:
    assert (
        is_out_of_memory(real_one())
        and is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
        and is_out_of_memory(MemoryError())
    )
    text = said(real_one())
    assert text.startswith("out of memory in runs/a: [enforce fail") and "checkpoint of step 200 is intact" in text
    for advice in (
        "(--checkpoint-blocks)", "(--cache 32)", "(--accumulate 2;", "--precision bf16", "--batch 32",
    ):  # fmt: skip
        assert advice in text


def test_only_what_this_run_can_still_do_is_advised() -> None:
    cached = {"settings": {"batch": 64, "cache": 8, "precision": "bf16"}}
    text = said(MemoryError(), cached, ())
    assert "--cache 4" in text and "--accumulate" not in text and "bf16" not in text and "checkpoint (" not in text
    assert "begins anew" in text
    split = said(MemoryError(), {"settings": {"batch": 64, "accumulate": 4}})
    assert "--accumulate 8" in split and "--cache" not in split
    assert "a smaller batch or model" in said(MemoryError(), {"settings": {"batch": 1}})
    assert "--cache 16" in said(MemoryError(), CONFIG, ranks=2)  # half of a rank's own rows
    assert "(--shard full)" in said(MemoryError(), CONFIG, ranks=2) and "--shard" not in said(MemoryError(), CONFIG)
    done = {**CONFIG, "settings": {**CONFIG["settings"], "checkpoint_blocks": True, "shard": "full"}}
    assert "--checkpoint-blocks" not in said(MemoryError(), done) and "--shard" not in said(
        MemoryError(), done, ranks=2
    )
    assert "a smaller batch" in said(MemoryError(), {"settings": None})


@pytest.mark.parametrize(
    "text",
    [
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4711",
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Read error [127.0.0.1]:1: Connection reset by peer",
        "NCCL error ... remote process exited or there was a network error",
        "Timed out waiting 1800000ms for recv operation to complete",
    ],
)
def test_lost_ranks_are_known_by_what_the_backends_say(text: str) -> None:
    error = RuntimeError(text)
    assert is_lost_rank(error) and "another rank of runs/a has ended" in said(error, ranks=2)
    assert isinstance(explained(error, Path("r"), CONFIG, (), 2), RankLost)
    assert explained(error, Path("r"), CONFIG, (), 1) is None  # nobody to be lost


def test_other_errors_speak_for_themselves() -> None:
    for error in (RuntimeError("shape mismatch"), KeyError("x"), KeyboardInterrupt(), RankLost("connection closed")):
        assert explained(error, Path("r"), CONFIG, (), 2) is None


def test_a_run_that_ends_so_says_it_and_lets_go(tmp_path: Path) -> None:
    with (
        pytest.raises(OutOfMemory, match=r"step 3 is intact.*--batch 32") as caught,
        Run.open(tmp_path, CONFIG, tensorboard=False) as run,
    ):
        run.save(3, {"w": torch.ones(2)}, {})
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore\nlines")
    assert "\n" not in str(caught.value) and isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    with pytest.raises(ZeroDivisionError), Run.open(tmp_path, CONFIG, tensorboard=False):
        raise ZeroDivisionError
    Run.open(tmp_path, CONFIG, tensorboard=False).close()  # the lock is free
