"""`wandb` and `mlflow` as far as the adapters use them, in memory. What they take is compared with the real ones where these are."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Wandb(ModuleType):
    """Runs by id: `{"steps": [...], "config": ..., "exit": [...]}`. `keyed` False is a machine without a key."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: dict[str, dict[str, Any]] = {}
        self.keyed, self.mode = True, "online"

    def setup(self, settings: Any = None) -> Any:
        return SimpleNamespace(settings=SimpleNamespace(mode=self.mode))

    def login(self, key: str | None = None, prompt: bool = True) -> bool:
        assert not prompt, "it would ask on the terminal of a training run"
        return self.keyed

    def Settings(self, console: str = "auto", disable_git: bool = False, silent: bool = False) -> dict[str, Any]:
        return {"console": console, "disable_git": disable_git, "silent": silent}

    def init(self, entity: str | None = None, project: str | None = None, dir: str | None = None, id: str | None = None,
             name: str | None = None, config: dict[str, Any] | None = None, allow_val_change: bool | None = None,
             reinit: str | None = None, resume: str | None = None, settings: Any = None) -> Any:  # fmt: skip
        assert id is not None and resume == "allow"
        run = self.runs.setdefault(id, {"steps": [], "numbers": [], "exit": [], "preempted": 0})
        run |= {"entity": entity, "project": project, "name": name, "config": config, "dir": dir}
        return Run(id, run)


class Run:
    def __init__(self, id: str, kept: dict[str, Any]) -> None:
        self.id, self.kept = id, kept

    def log(self, data: dict[str, float], step: int | None = None) -> None:
        # W&B drops, with a warning, what comes for a step that is past.
        assert step is not None and step > (self.kept["steps"] or [-1])[-1]
        self.kept["steps"].append(step)
        self.kept["numbers"].append(data)

    def mark_preempting(self) -> None:
        self.kept["preempted"] += 1

    def finish(self, exit_code: int | None = None) -> None:
        self.kept["exit"].append(exit_code)


class Mlflow(ModuleType):
    """Runs by id, over all clients: `{"metrics": [(name, value, step)], "params": {...}, "status": ...}`."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.runs: dict[str, dict[str, Any]] = {}
        self.MlflowClient = lambda tracking_uri=None: Client(self.runs, tracking_uri)
        self.entities = ModuleType("mlflow.entities")
        self.entities.Metric = lambda key, value, timestamp, step: (key, value, step)  # type: ignore[attr-defined]
        self.entities.Param = lambda key, value: (key, value)  # type: ignore[attr-defined]

    def get_tracking_uri(self) -> str:
        return "sqlite:///mlflow.db"


class Client:
    def __init__(self, runs: dict[str, dict[str, Any]], tracking_uri: str | None) -> None:
        self.runs, self.uri = runs, tracking_uri

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def create_run(self, experiment_id: str, run_name: str | None = None) -> Any:
        id = f"{run_name}-{len(self.runs)}"
        self.runs[id] = {"experiment": experiment_id, "metrics": [], "params": {}, "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=id))

    def update_run(self, run_id: str, status: str | None = None) -> None:
        self.runs[run_id]["status"] = status

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(metrics) <= 1000 and len(params) <= 100
        for key, value in params:
            assert self.runs[run_id]["params"].setdefault(key, value) == value, "parameters cannot be changed"
        self.runs[run_id]["metrics"].extend(metrics)

    def set_terminated(self, run_id: str, status: str | None = None) -> None:
        self.runs[run_id]["status"] = status


def stand_in(patch: pytest.MonkeyPatch) -> tuple[Wandb, Mlflow]:
    """Both libraries replaced for one test, and the adapters imported anew over them."""
    wandb, mlflow = Wandb(), Mlflow()
    for name, module in (("wandb", wandb), ("mlflow", mlflow), ("mlflow.entities", mlflow.entities)):
        patch.setitem(sys.modules, name, module)
    for name in ("multiway.engine.tracking_wandb", "multiway.engine.tracking_mlflow"):
        patch.delitem(sys.modules, name, raising=False)
        # So that what is imported over the stand-ins is forgotten at the end of the test.
        patch.setitem(sys.modules, name, ModuleType(name))
        del sys.modules[name]
    return wandb, mlflow
