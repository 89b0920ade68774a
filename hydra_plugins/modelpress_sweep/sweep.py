"""A sweeper and a launcher that hand all jobs of a sweep over in one call, each composed as it is asked for.

Hydra's own launchers run job by job and stop at the first failure; its sweeper composes each job a second time to
see whether it can. Neither knows anything of exports: they would serve any application that takes a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.modelpress_sweep.shared_loader import share_loader

__all__ = ["BatchLauncher", "BatchSweeper"]


class BatchSweeper(BasicSweeper):
    """The basic sweeper's syntax, without its second composition and its multirun.yaml."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        """Launch the product of all swept values as one batch."""
        assert self.hydra_context is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (batch,) = self.split_arguments(overrides, None)
        return self.launcher.launch(batch, initial_job_idx=0)


class BatchLauncher(Launcher):
    """Hands the jobs over as an iterator of configs, `hydra` node included.

    Each is composed when it is asked for, which may be long after Hydra's own main function has returned: what is wrong
    with a job is raised to whoever takes it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(
        self,
        job_overrides: Sequence[Sequence[str]],
        initial_job_idx: int,  # noqa: ARG002  (our sweeper knows one batch only)
    ) -> Sequence[JobReturn]:
        assert self.task_function is not None
        returned = JobReturn()
        returned.return_value = self.task_function(self._compose(job_overrides))
        returned.status = JobStatus.COMPLETED
        return [returned]

    def _compose(self, job_overrides: Sequence[Sequence[str]]) -> Iterator[DictConfig]:
        assert self.hydra_context is not None
        assert self.config is not None
        loader = share_loader(self.hydra_context.config_loader)
        for overrides in job_overrides:
            yield loader.load_sweep_config(self.config, list(overrides))


_PACKAGE = "hydra_plugins.modelpress_sweep.sweep"


@dataclass
class _SweeperNode:
    _target_: str = f"{_PACKAGE}.BatchSweeper"
    params: dict[str, str] | None = field(default=None)


@dataclass
class _LauncherNode:
    _target_: str = f"{_PACKAGE}.BatchLauncher"


ConfigStore.instance().store(group="hydra/sweeper", name="modelpress", node=_SweeperNode, provider="modelpress")
ConfigStore.instance().store(group="hydra/launcher", name="modelpress", node=_LauncherNode, provider="modelpress")
