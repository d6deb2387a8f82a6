"""The examples for clusters: what they say to bash, Slurm, Kubernetes, torchrun and `multiway train` exists there."""

import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import get_args_parser

from multiway.recipes.command import parse

EXAMPLES = Path(__file__).parents[1] / "examples"
SBATCH = EXAMPLES / "slurm" / "train.sbatch"
JOB = EXAMPLES / "kubernetes" / "job.yaml"

# Of `man sbatch`, Slurm 22.05.
SBATCH_OPTIONS = {
    "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem", "time", "signal", "requeue",
    "open-mode", "output",
}  # fmt: skip


def slurm_command() -> list[str]:
    """The launcher's words as bash hands them to srun, its variables filled in."""
    text = SBATCH.read_text().replace("\\\n", " ")
    (line,) = [each for each in text.splitlines() if each.startswith("srun")]
    values = {
        "$SLURM_JOB_NUM_NODES": "2",
        "$gpus": "8",
        "$SLURM_JOB_ID": "1",
        "$head_node": "n1",
        "$out": "runs/a",
        '"$@" &': "",
    }
    for name, value in values.items():
        line = line.replace(name, value)
    return shlex.split(line.partition("torchrun ")[2])


def job() -> dict[str, Any]:
    return next(each for each in yaml.safe_load_all(JOB.read_text()) if each["kind"] == "Job")


def job_command() -> list[str]:
    (line,) = job()["spec"]["template"]["spec"]["containers"][0]["args"]
    return shlex.split(re.sub(r"\$\(.*?\)", "true", line).partition("torchrun ")[2])


@pytest.mark.parametrize("words", [slurm_command(), job_command()], ids=["slurm", "kubernetes"])
def test_the_launcher_and_the_command_take_every_option(words: list[str]) -> None:
    launch = get_args_parser().parse_args(words)  # exits on an option that torchrun lacks
    assert launch.module and launch.training_script == "multiway" and launch.training_script_args[0] == "train"
    recipe = parse(launch.training_script_args[1:])  # exits on one that `multiway train` lacks
    assert recipe.out and recipe.preset == "vit-b-16"
    ranks = int(launch.nnodes) * int(launch.nproc_per_node)
    assert recipe.settings.batch % ranks == 0
    with pytest.raises(SystemExit):
        parse([*launch.training_script_args[1:], "--no-such-option", "1"])
    assert replace(recipe, out="") != recipe


def test_the_batch_script_is_bash_and_its_options_are_sbatchs() -> None:
    subprocess.run(["bash", "-n", str(SBATCH)], check=True)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", SBATCH.read_text(), re.M))
    assert set(options) == SBATCH_OPTIONS
    # What the launcher grants its processes fits into what Slurm grants the launcher.
    granted = int(options["signal"].partition("@")[2])
    assert get_args_parser().parse_args(slurm_command()).shutdown_timeout < granted


@pytest.mark.parametrize("restarted", [False, True])
def test_the_batch_script_is_queued_again_only_when_its_time_is_up(tmp_path: Path, restarted: bool) -> None:
    """With stand-ins for Slurm's commands: srun waits for SIGTERM, which scancel brings; scontrol says what it was asked."""
    stands = {
        "srun": 'trap "exit 1" TERM; echo $$ > pid; '
        + ("exit 0" if restarted else "for i in $(seq 200); do sleep 0.05; done"),
        "scancel": 'echo "scancel $*" >> said; kill -TERM $(cat pid)',
        "scontrol": 'if [ $1 = show ]; then echo n1; else echo "scontrol $*" >> said; fi',
    }
    for name, text in stands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]",
                   "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "4"}  # fmt: skip
    (tmp_path / "said").touch()
    process = subprocess.Popen(["bash", str(SBATCH)], cwd=tmp_path, env=environment)
    if not restarted:
        for _ in range(500):
            if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.02)
        process.send_signal(10)  # SIGUSR1, as --signal=B:USR1 sends it
    code = process.wait(20)
    said = (tmp_path / "said").read_text().splitlines()
    assert (code, said) == ((0, []) if restarted else (1, ["scancel --signal=TERM 7", "scontrol requeue 7"]))


def test_the_job_is_one_that_finds_itself() -> None:
    service, batch = yaml.safe_load_all(JOB.read_text())
    spec, pod = batch["spec"], batch["spec"]["template"]["spec"]
    assert service["spec"]["clusterIP"] == "None" and pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": batch["metadata"]["name"]}
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    launch = get_args_parser().parse_args(job_command())
    assert int(launch.nnodes) == spec["completions"]
    host, _, port = launch.rdzv_endpoint.partition(":")
    assert host == f"{batch['metadata']['name']}-0.{pod['subdomain']}"
    assert int(port) == service["spec"]["ports"][0]["port"] == pod["containers"][0]["ports"][0]["containerPort"]
    assert int(launch.nproc_per_node) == pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    # podFailurePolicy is refused with any other; and the launcher has to be through before the pod is killed.
    assert pod["restartPolicy"] == "Never" and launch.shutdown_timeout < pod["terminationGracePeriodSeconds"]
