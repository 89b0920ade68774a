"""What an export asks of a node, and that what no node can give is said instead of waited for."""

from pathlib import Path

import pytest

from exporter.errors import ConfigError
from pipeline.executor import Task
from pipeline.on_ray.demand import Demand, Node, choose_threads, find_demand, require_room, whole

GIB = 1 << 30
SMALL = Node("1", "small, 10.0.0.1", num_cpus=2, memory_bytes=4 * GIB, num_gpus=0)
LARGE = Node("2", "large, 10.0.0.2", num_cpus=6, memory_bytes=64 * GIB, num_gpus=1)


def make_task(memory_bytes: int = GIB, *, on_gpu: bool = False) -> Task:
    return Task("bert", Path("bert"), memory_bytes, on_gpu)


@pytest.mark.parametrize(("num_workers", "threads"), [(1, 6), (2, 3), (3, 2), (4, 2), (5, 1), (8, 1), (100, 1)])
def test_cores_are_shared_among_the_workers_node_by_node(num_workers, threads):
    assert choose_threads([SMALL, LARGE], num_workers) == threads


def test_an_export_has_a_thread_also_where_there_is_no_node():
    assert choose_threads([], 3) == 1


def test_a_demand_is_for_the_export_and_for_what_watches_over_it():
    demand = find_demand(make_task(), 2, [SMALL], None)
    assert (demand.num_cpus, demand.num_gpus) == (2, 0)
    assert GIB < demand.memory_bytes < 2 * GIB
    assert find_demand(make_task(on_gpu=True), 1, [LARGE], None).num_gpus == 1


def test_an_export_over_the_budget_gets_all_the_memory_of_the_largest_node():
    assert find_demand(make_task(100 * GIB), 1, [SMALL, LARGE], 8 * GIB).memory_bytes == 64 * GIB
    assert find_demand(make_task(9 * GIB), 1, [SMALL, LARGE], 8 * GIB).memory_bytes == 64 * GIB
    assert find_demand(make_task(2 * GIB), 1, [SMALL, LARGE], 8 * GIB).memory_bytes < 4 * GIB


def test_what_some_node_holds_is_accepted():
    require_room({"a": Demand(6, 60 * GIB, 1), "b": Demand(2, 4 * GIB)}, [SMALL, LARGE])


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        (Demand(7, GIB), "a needs 7 cores and 1,024 MiB of memory"),
        (Demand(1, 65 * GIB), "a needs 1 core and 66,560 MiB of memory"),
        (Demand(1, GIB, 2), "a needs 1 core, 1,024 MiB of memory and 2 GPU"),
    ],
)
def test_what_no_node_can_ever_hold_is_an_error_that_names_the_largest(demand, words):
    with pytest.raises(ConfigError) as caught:
        require_room({"a": demand, "b": Demand(1, GIB)}, [SMALL, LARGE])
    lines = str(caught.value).splitlines()
    assert lines[0] == words
    assert "the largest one (large, 10.0.0.2) has 6 cores, 65,536 MiB of memory and 1 GPU" in lines[1]
    assert not any(line.startswith("b ") for line in lines)


def test_no_single_node_has_what_two_have_together():
    with pytest.raises(ConfigError):
        require_room({"a": Demand(4, 4 * GIB)}, [SMALL, SMALL])


def test_many_problems_are_a_few_lines():
    with pytest.raises(ConfigError) as caught:
        require_room({f"m{number}": Demand(99, GIB) for number in range(100)}, [SMALL])
    assert len(str(caught.value).splitlines()) == 8


def test_alone_is_all_that_a_node_has_free_and_no_less_than_the_export_needs():
    assert whole(LARGE, Demand(1, GIB, 1)) == Demand(6, 64 * GIB, 1)
    assert whole(Node("3", "busy", 1, GIB, 0), Demand(2, 3 * GIB)) == Demand(2, 3 * GIB)
