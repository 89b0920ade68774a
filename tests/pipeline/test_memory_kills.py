import pytest

from pipeline import memory_kills
from pipeline.memory_kills import KillCounts


@pytest.fixture
def group(monkeypatch, tmp_path):
    monkeypatch.setattr(memory_kills, "find_groups", lambda: [tmp_path])
    monkeypatch.setattr(memory_kills, "_VMSTAT", tmp_path / "vmstat")
    (tmp_path / "vmstat").write_text("pgfault 7\noom_kill 40\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [("memory.events", "oom 9\noom_kill {}\noom_group_kill 0\n"), ("memory.oom_control", "under_oom 0\noom_kill {}\n")],
    ids=["version 2", "version 1"],
)
def test_a_rise_of_the_group_s_count_is_the_evidence(group, name, text):
    (group / name).write_text(text.format(2))
    before = KillCounts.read()
    assert before.explain_rise(KillCounts.read()) == ""
    (group / name).write_text(text.format(3))
    (group / "vmstat").write_text("oom_kill 41\n")
    assert before.explain_rise(KillCounts.read()) == f"oom_kill in {group / name} rose by 1"


def test_the_machine_s_count_is_the_evidence_where_a_group_has_none(group):
    before = KillCounts.read()
    (group / "vmstat").write_text("oom_kill 42\n")
    assert before.explain_rise(KillCounts.read()) == f"oom_kill in {group / 'vmstat'} rose by 2"


def test_without_any_count_there_is_no_evidence(group):
    (group / "vmstat").unlink()
    before = KillCounts.read()
    assert before.counts == {}
    (group / "vmstat").write_text("oom_kill 42\n")
    assert before.explain_rise(KillCounts.read()) == ""
