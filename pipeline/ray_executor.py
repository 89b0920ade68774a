"""Workers on a Ray cluster, this machine's or a larger one. docs/ray.md says who runs where.

Nothing here imports Ray: `pipeline.on_ray.gateway` does, in a process of its own.
"""

import sys
from collections.abc import Generator, Sequence
from dataclasses import replace
from importlib import metadata

from exporter.errors import ConfigError
from pipeline.executor import Ended, Ending, Event, Started, Task
from pipeline.on_ray.gateway_process import GatewayProcess
from pipeline.on_ray.messages import Options, Require, Run, Stop

__all__ = ["RayExecutor"]


class RayExecutor:
    """Runs exports as Ray tasks.

    Args:
        options: Where, and how many.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(self, options: Options) -> None:
        try:
            metadata.version("ray")
        except metadata.PackageNotFoundError as error:
            raise ConfigError("executor: Ray is not installed; pip install 'modelpress[ray]'") from error
        self._options = options
        self._gateway: GatewayProcess | None = None

    def prepare(self) -> None:
        self._gateway = self._gateway or GatewayProcess(replace(self._options, path=tuple(sys.path)))

    def require(self, tasks: Sequence[Task]) -> None:
        self._connect().ask(Require(tasks))

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> Generator[Event]:
        if not tasks:
            return
        gateway = self._connect()
        left = {task.id: task for task in tasks}
        started: set[str] = set()
        try:
            for event in gateway.run(Run(tasks, alone)):
                if isinstance(event, Started):
                    started.add(event.task.id)
                elif isinstance(event, Ended):
                    del left[event.task.id]
                yield event
        except (OSError, EOFError):
            # The exports that it watched over are lost; another round begins with another gateway.
            evidence = gateway.explain_end()
            self.close()
            for task in left.values():
                if task.id not in started:
                    yield Started(task)
                yield Ended(task, Ending.lost, 0, 0.0, evidence, alone)
        finally:
            if self._gateway is not None and not gateway.stop(Stop()):
                self.close()

    def close(self, *, at_once: bool = False) -> None:
        if self._gateway is None:
            return
        if at_once:
            self._gateway.kill()
        else:
            gateway, self._gateway = self._gateway, None
            gateway.close()

    def _connect(self) -> GatewayProcess:
        self.prepare()
        assert self._gateway is not None
        self._gateway.await_connection()
        return self._gateway
