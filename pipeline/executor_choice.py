"""Which executor a config asks for, and how much of it at a time."""

from pipeline.admission import find_budget
from pipeline.config import Config, ExecutorKind
from pipeline.executor import Executor
from pipeline.local_executor import LocalExecutor, count_cores
from pipeline.on_ray.messages import Options
from pipeline.ray_executor import RayExecutor

__all__ = ["count_workers", "make_executor"]


def make_executor(config: Config) -> Executor:
    """The executor that a config asks for."""
    options = config.executor
    if options.kind is ExecutorKind.local:
        return LocalExecutor(options.workers or count_cores(), options.timeout_s, find_budget(options.memory_budget))
    has_budget = options.address is None or options.memory_budget is not None
    return RayExecutor(
        Options(
            address=options.address,
            workers=options.workers,
            timeout_s=options.timeout_s,
            budget_bytes=find_budget(options.memory_budget) if has_budget else None,
            runtime_env=options.runtime_env,
            outputs=(config.output.exports, config.output.runs, config.output.metrics),
        )
    )


def count_workers(config: Config, num_due: int) -> int:
    """Exports at a time, as far as is known beforehand; a cluster may have room for more."""
    own = count_cores() if config.executor.kind is ExecutorKind.local else 1
    return max(1, min(num_due, config.executor.workers or own))
