"""Fixtures that more than one folder of tests needs."""

from pathlib import Path

import pytest
from project import Project, copy_project

# Else a failure there does not say with which values.
pytest.register_assert_rewrite("invariants")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the repository in which the zoo's release was run once; tests only look at it."""
    project = copy_project(tmp_path_factory.mktemp("zoo"))
    done = project.run("+release=zoo")
    (project.path / ".stdout").write_text(done.stdout)
    (project.path / ".stderr").write_text(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture
def folder(tmp_path: Path) -> Project:
    """An empty folder of a user's own: no git, no DVC, no configs."""
    return Project(tmp_path)
