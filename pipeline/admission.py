"""Decides which export may start next: one for which a core and its expected memory are free."""

import re
from collections.abc import Collection, Sequence
from itertools import islice

from exporter.errors import ConfigError
from exporter.free_memory import read_free_bytes
from pipeline.executor import Task

__all__ = ["choose_task", "find_budget"]

# The rest is for the parent, the page cache, and for what expectations miss.
_SHARE = 0.8
# How far down the line to look for one that fits; what is asked several times a second must not grow with a sweep.
_MAX_LOOKED_AT = 100
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def choose_task(waiting: Sequence[Task], running: Collection[Task], workers: int, budget_bytes: int) -> int | None:
    """The index of the task to start now; None if none may.

    The first one that fits goes: a small one not far behind may overtake a large one that has to wait. One that is
    larger than the budget runs alone, which is the most that can be done for it.

    Args:
        waiting: In the order of preference.
        running: What has a worker already.
        workers: The most at a time.
        budget_bytes: The most memory that all running ones together may be expected to need.
    """
    if len(running) >= workers:
        return None
    room = budget_bytes - sum(task.memory_bytes for task in running)
    fitting = (index for index, task in enumerate(islice(waiting, _MAX_LOOKED_AT)) if task.memory_bytes <= room)
    return next(fitting, None if running or not waiting else 0)


def find_budget(memory_budget: str | None) -> int:
    """The bytes that all workers together may use; without a setting, most of what is free now.

    Raises:
        ConfigError: The setting is not a size.
    """
    if memory_budget is None:
        return int(_SHARE * read_free_bytes())
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?) ?([kKMGT]?i?B|)", memory_budget.strip())
    size = float(found[1]) * _UNITS.get(found[2], 0) if found else 0
    if size < 1:
        raise ConfigError(f"executor.memory_budget: {memory_budget!r} is not a size; write for example 12GiB or 8GB")
    return int(size)
