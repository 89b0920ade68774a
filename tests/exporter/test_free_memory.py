import pytest

from exporter import control_group, free_memory


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """Control groups in a folder; what /proc/self/cgroup says is `own`."""
    monkeypatch.setattr(control_group, "_ROOT", tmp_path / "groups")
    monkeypatch.setattr(control_group, "_OWN", tmp_path / "own")
    (tmp_path / "groups").mkdir()
    return tmp_path / "groups"


def make_group(folder, names, limit, used, cached):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used, f"{names[3]} {cached}"), strict=False):
        (folder / name).write_text(f"{value}\n")


VERSION_2 = ("memory.max", "memory.current", "memory.stat", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_inactive_file")


def test_groups_of_both_versions_are_found_innermost_first(groups, tmp_path):
    (tmp_path / "own").write_text("4:cpu,memory:/a\n2:cpu:/c\n0::/job/step\n")
    for name in ("memory/a", "job/step", "c"):
        (groups / name).mkdir(parents=True)
    assert control_group.find_groups() == [
        groups / "memory/a",
        groups / "memory",
        groups / "job/step",
        groups / "job",
        groups,
    ]


def test_without_control_groups_there_are_none(groups):
    assert control_group.find_groups() == []


@pytest.mark.parametrize(
    ("names", "root", "line"),
    [(VERSION_2, "", "0::/job/step"), (VERSION_1, "memory", "7:memory:/job/step")],
    ids=["version 2", "version 1"],
)
def test_free_memory_is_that_of_the_tightest_control_group(groups, tmp_path, names, root, line):
    (tmp_path / "own").write_text(f"{line}\n")
    make_group(groups / root / "job" / "step", names, 3000, 1000, 100)
    assert free_memory.read_free_bytes() == 2100
    make_group(groups / root / "job", names, 2000, 1500, 200)
    assert free_memory.read_free_bytes() == 700


def test_a_group_without_a_limit_leaves_the_machine_s_own(groups, tmp_path):
    (tmp_path / "own").write_text("0::/job\n")
    make_group(groups / "job", VERSION_2, "max", 1000, 0)
    assert free_memory.read_free_bytes() > 2**20
