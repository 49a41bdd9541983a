"""`-m` runs a table's grid: Hydra's side of `experiments.sweep`."""

from __future__ import annotations

import contextlib
import os
import sys
from multiprocessing import resource_tracker
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig


class GridSweeper(Sweeper):
    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.launcher: Any = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from experiments import grid, sweep  # here, so that finding the plugin costs nothing

        assert self.config is not None and self.hydra_context is not None
        loader, name = self.hydra_context.config_loader, self.config.hydra.job.config_name

        def compose(overrides: list[str]) -> DictConfig:
            return loader.load_configuration(name, overrides, run_mode=RunMode.RUN, from_shell=False)

        def launch(jobs: list[list[str]], first: int) -> list[Any]:
            out = []
            for i, ret in enumerate(self.launcher.launch(jobs, initial_job_idx=first), first):
                try:
                    out.append(ret.return_value)
                except Exception as e:  # before its runs could leave records: the others' results still count
                    print(f"job {i} failed: {type(e).__name__}: {e}", file=sys.stderr)
                    out.append({f"job {i}": "failed"})
            return out

        # sweep.stopping blocks SIGINT for the workers to inherit. Both resource trackers unblock it when they
        # start, so they start before.
        resource_tracker.ensure_running()
        with contextlib.suppress(ImportError):
            from joblib.externals.loky.backend import resource_tracker as of_loky

            of_loky.ensure_running()
        # submitit's local executor starts a process for every job at once, whatever the number of cores
        local = type(self.launcher).__name__ == "LocalLauncher"
        return sweep.run(arguments, grid.cached(compose), launch, at_once=os.cpu_count() if local else None)


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="grid",
    provider="experiments",
    node={"_target_": "hydra_plugins.grid_sweeper.grid_sweeper.GridSweeper"},
)
