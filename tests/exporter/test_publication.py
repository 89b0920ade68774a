import ctypes
import errno
import time
from pathlib import Path

import pytest

from exporter.conductor import describe_result, write_result
from exporter.directory import ExportDirectory
from exporter.files import write_json
from exporter.publication import publish
from exporter.result import ExportResult
from exporter.spec import ExportSpec, Input, ModelSpec, Precision, PrecisionName


def make_export(path: Path, graph: bytes) -> tuple[ExportDirectory, ExportResult]:
    """What a worker leaves, and a file that only this export has."""
    spec = ExportSpec(
        id="net",
        model=ModelSpec(name="net", source={"_target_": "my.Net"}, inputs={"x": Input(shape=[1])}),
        precision=Precision(PrecisionName.fp32, rtol=0.1, atol=0.1),
    )
    directory = ExportDirectory(path)
    directory.path.mkdir(parents=True)
    directory.model.write_bytes(graph)
    directory.model_data.write_bytes(b"weights of " + graph)
    (path / graph.decode()).touch()
    write_json(directory.spec, spec)
    result = describe_result(spec, None, time.time(), files=directory.record_files())
    write_result(directory, result)
    return directory, result


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(item.relative_to(path)): item.read_bytes() for item in path.rglob("*") if item.is_file()}


@pytest.fixture
def exports(tmp_path):
    (tmp_path / "exports").mkdir()
    return tmp_path / "exports"


class Libc:
    """A C library on a kernel or a file system that answers renameat2(2) with an error."""

    def __init__(self, code: int):
        self.code = code

    def renameat2(self, *_arguments):
        ctypes.set_errno(self.code)
        return -1


def test_a_first_export_is_moved_whole(tmp_path, exports):
    source, result = make_export(tmp_path / "runs" / "net", b"first")
    before = snapshot(source.path)
    publish(source, exports / "net", result)
    assert snapshot(exports) == {f"net/{name}": data for name, data in before.items()}
    assert not source.path.exists()


def test_an_export_takes_the_place_of_an_old_one_of_which_nothing_is_left(tmp_path, exports):
    old, old_result = make_export(tmp_path / "runs" / "1" / "net", b"old")
    publish(old, exports / "net", old_result)
    new, new_result = make_export(tmp_path / "runs" / "2" / "net", b"new")
    before = snapshot(new.path)
    inode = new.path.stat().st_ino
    publish(new, exports / "net", new_result)
    assert snapshot(exports) == {f"net/{name}": data for name, data in before.items()}
    assert (exports / "net").stat().st_ino == inode, "moved, not copied"
    assert not new.path.exists()


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
@pytest.mark.parametrize("damage", ["flipped", "lost"])
def test_damaged_bytes_are_refused_and_the_old_export_stays_as_it_was(tmp_path, exports, name, damage):
    old, old_result = make_export(tmp_path / "runs" / "1" / "net", b"old")
    publish(old, exports / "net", old_result)
    before = snapshot(exports)
    new, new_result = make_export(tmp_path / "runs" / "2" / "net", b"new")
    if damage == "lost":
        (new.path / name).unlink()
    else:
        (new.path / name).write_bytes(b"x" + (new.path / name).read_bytes()[1:])
    with pytest.raises(ValueError, match=f"^{name}: the bytes are not those that were checked$"):
        publish(new, exports / "net", new_result)
    assert snapshot(exports) == before
    assert new.path.is_dir()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_an_old_export_is_replaced_where_directories_cannot_be_exchanged(tmp_path, exports, monkeypatch, code):
    old, old_result = make_export(tmp_path / "runs" / "1" / "net", b"old")
    publish(old, exports / "net", old_result)
    new, new_result = make_export(tmp_path / "runs" / "2" / "net", b"new")
    before = snapshot(new.path)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc(code))
    publish(new, exports / "net", new_result)
    assert snapshot(exports) == {f"net/{name}": data for name, data in before.items()}
    assert list((tmp_path / "runs" / "2").iterdir()) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EXDEV])
def test_a_disk_that_will_not_is_an_os_error_and_the_old_export_stays_as_it_was(tmp_path, exports, monkeypatch, code):
    old, old_result = make_export(tmp_path / "runs" / "1" / "net", b"old")
    publish(old, exports / "net", old_result)
    before = snapshot(exports)
    new, new_result = make_export(tmp_path / "runs" / "2" / "net", b"new")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc(code))
    with pytest.raises(OSError, match=str(exports / "net")) as caught:
        publish(new, exports / "net", new_result)
    assert caught.value.errno == code
    assert snapshot(exports) == before
    assert new.path.is_dir()
