import subprocess

import faulty_models

from exporter import ExportDirectory
from exporter.files import write_json
from exporter.provenance import model_properties, read_provenance
from exporter.result import Provenance


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_read_and_whether_files_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    directory = ExportDirectory(tmp_path / "out")
    assert read_provenance(directory) == Provenance()
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    assert read_provenance(directory) == Provenance(git_commit=commit)
    (tmp_path / "file").write_text("2")
    assert read_provenance(directory) == Provenance(git_commit=commit, git_dirty=True)


def test_a_machine_without_git_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_provenance(ExportDirectory(tmp_path)) == Provenance()


def test_a_broken_fingerprint_is_none(tmp_path):
    directory = ExportDirectory(tmp_path)
    model = faulty_models.make_spec().model
    directory.fingerprint.write_text("{")
    assert set(model_properties(model, directory)) == {"modelpress.name", "modelpress.version"}
    write_json(directory.fingerprint, {"a": "b"})
    assert len(model_properties(model, directory)["modelpress.fingerprint"]) == 64
