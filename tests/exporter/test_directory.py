"""The files of one export: written whole, read with care, and found damaged where they are."""

import hashlib
import json

import pytest

from exporter import ExportDirectory, FailureKind, Status, Step
from exporter.directory import hash_parts
from exporter.errors import FailureKind as Kind
from exporter.files import hash_file, read_json, write_json
from exporter.plain_data import DataError, to_plain
from exporter.result import FileRecord


@pytest.fixture
def directory(tmp_path):
    return ExportDirectory(tmp_path)


def test_json_is_written_readable_and_leaves_no_other_file(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [True, None, "ü"]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8").startswith('{\n  "b": 1,\n  "a": [')
    assert read_json(tmp_path / "a.json") == {"b": 1, "a": [True, None, "ü"]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_json_has_no_number_for_is_not_written_over_a_good_file(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": }', b'"\xff"', b"\x00"])
def test_a_broken_json_file_is_named(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.json: not valid JSON"):
        read_json(path)


def test_a_file_is_hashed_over_all_its_pieces(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert hash_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_the_hash_of_parts_knows_their_names_and_values_but_no_order():
    assert hash_parts({"a": "1", "b": "2"}) == hash_parts({"b": "2", "a": "1"})
    assert hash_parts({"a": "1", "b": "2"}) != hash_parts({"a": "2", "b": "1"})
    assert hash_parts({"a": "1"}) != hash_parts({"a": "1", "b": ""})


def test_a_result_comes_back_as_it_was_returned(perceptron):
    assert perceptron.directory.read_result() == perceptron.result
    assert perceptron.directory.read_spec() == perceptron.spec


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_a_result_of_another_schema_is_refused_with_both_versions(directory, perceptron, version):
    plain = to_plain(perceptron.result)
    plain["schema_version"] = version
    # A newer one may have any other content, too.
    plain["invented"] = 1
    directory.result.write_text(json.dumps(plain))
    with pytest.raises(DataError) as caught:
        directory.read_result()
    assert str(caught.value) == f"{directory.result}: schema_version is {version!r}, this modelpress reads 1"


@pytest.mark.parametrize("content", ["[]", "3", "null", "{}"])
def test_a_result_that_is_no_result_is_refused(directory, content):
    directory.result.write_text(content)
    with pytest.raises(DataError, match="schema_version is None"):
        directory.read_result()


def test_a_missing_result_is_missing_not_broken(directory):
    with pytest.raises(FileNotFoundError):
        directory.read_result()


def test_a_fault_in_a_result_names_its_place(directory, perceptron):
    plain = to_plain(perceptron.result)
    plain["files"][0]["size_bytes"] = "many"
    directory.result.write_text(json.dumps(plain))
    with pytest.raises(DataError, match=r"files\[0\]\.size_bytes: expected int, found str 'many'"):
        directory.read_result()


def test_a_fingerprint_holds_text_only(directory):
    write_json(directory.fingerprint, {"spec": "ab"})
    assert directory.read_fingerprint() == {"spec": "ab"}
    write_json(directory.fingerprint, {"spec": 3})
    with pytest.raises(DataError, match=r"fingerprint\.json\.spec: expected str, found int 3"):
        directory.read_fingerprint()


@pytest.mark.parametrize(
    ("content", "step"), [("parity", Step.parity), ("", None), ("par", None), (None, None), ("parity\n", None)]
)
def test_the_current_step_is_read_only_where_it_is_whole(directory, content, step):
    if content is not None:
        directory.current_step.write_text(content)
    assert directory.read_current_step() is step


def test_the_recorded_files_are_those_of_the_model_with_their_bytes(directory):
    directory.model.write_bytes(b"abc")
    directory.report.write_text("no model")
    assert directory.record_files() == [
        FileRecord(path="model.onnx", size_bytes=3, sha256=hashlib.sha256(b"abc").hexdigest())
    ]
    directory.model_data.write_bytes(b"")
    assert [record.path for record in directory.record_files()] == ["model.onnx", "model.onnx.data"]


def test_an_undamaged_export_has_no_damaged_files(perceptron):
    assert [record.path for record in perceptron.result.files] == ["model.onnx", "model.onnx.data"]
    assert perceptron.directory.damaged_files(perceptron.result) == []


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
def test_one_flipped_bit_is_damage(copied, name):
    path = copied.directory.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert copied.directory.damaged_files(copied.result) == [name]


def test_a_missing_file_and_a_folder_in_its_place_are_damage(copied):
    copied.directory.model.unlink()
    copied.directory.model_data.unlink()
    copied.directory.model_data.mkdir()
    assert copied.directory.damaged_files(copied.result) == ["model.onnx", "model.onnx.data"]


def test_clearing_leaves_nothing_that_could_pass_for_the_next_export(copied):
    copied.directory.current_step.write_text("save")
    copied.directory.torch_report.write_text("old")
    write_json(copied.directory.fingerprint, {"spec": "ab"})
    copied.directory.clear()
    # The batch writes these two before the worker starts.
    assert sorted(path.name for path in copied.directory.path.iterdir()) == ["fingerprint.json", "spec.json"]
    copied.directory.clear()


def test_the_names_of_statuses_and_kinds_are_what_files_hold():
    assert (Status("passed"), FailureKind("dim_narrowed")) == (Status.passed, Kind.dim_narrowed)
    assert all(kind.name == kind.value for kind in FailureKind)
