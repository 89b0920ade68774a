from pathlib import Path

import pytest

from exporter.errors import ConfigError
from exporter.free_memory import read_free_bytes
from pipeline.admission import choose_task, find_budget
from pipeline.executor import Task


def tasks(*sizes):
    return [Task(str(index), Path(), size) for index, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("waiting", "running", "workers", "chosen"),
    [
        ((3, 2), (), 2, 0),
        ((3, 2), (5,), 2, 0),
        # Only the second fits beside what runs.
        ((6, 4), (5,), 2, 1),
        ((6, 6), (5,), 2, None),
        # No core is free.
        ((1,), (1, 1), 2, None),
        # Larger than the budget: alone, and nothing beside it.
        ((12, 1), (), 2, 1),
        ((12,), (), 2, 0),
        ((12,), (1,), 2, None),
        ((1,), (12,), 2, None),
        ((), (), 2, None),
        ((), (1,), 2, None),
        # Exactly the rest of the budget.
        ((5,), (5,), 2, 0),
    ],
)
def test_a_task_starts_when_a_core_and_its_memory_are_free(waiting, running, workers, chosen):
    assert choose_task(tasks(*waiting), tasks(*running), workers, budget_bytes=10) == chosen


def test_a_small_task_overtakes_no_more_than_a_hundred():
    large = (11,) * 99
    assert choose_task(tasks(*large, 1), tasks(5), 2, budget_bytes=10) == 99
    assert choose_task(tasks(11, *large, 1), tasks(5), 2, budget_bytes=10) is None
    assert choose_task(tasks(11, *large, 1), [], 2, budget_bytes=10) == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("12GiB", 12 << 30),
        ("1.5 GB", 1_500_000_000),
        ("800MiB", 800 << 20),
        ("64kB", 64_000),
        ("4096", 4096),
        ("4096 B", 4096),
        ("2TiB", 2 << 40),
    ],
)
def test_a_budget_is_read_as_a_size(text, size):
    assert find_budget(text) == size


@pytest.mark.parametrize("text", ["", "much", "12 GG", "-3GiB", "0", "0.2B", "1e9", "12 iB", "12GiB of it"])
def test_a_budget_that_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=r"executor\.memory_budget: .* is not a size; write for example 12GiB"):
        find_budget(text)


def test_without_a_setting_the_budget_is_most_of_what_is_free():
    assert 0.5 * read_free_bytes() < find_budget(None) < read_free_bytes()
