"""The directory of one export: the only place that knows the names of its files."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.files import hash_file, read_json, remove_cut_off
from exporter.plain_data import DataError, from_plain
from exporter.result import SCHEMA_VERSION, ExportResult, Failure, FileRecord, Step
from exporter.spec import ExportSpec

__all__ = [
    "ExportDirectory",
    "NewerSchemaError",
    "hash_parts",
]


class NewerSchemaError(DataError):
    """A newer modelpress wrote the file, and this one does not know what it means.

    Args:
        path: The file.
        version: Its schema.
        writer: The version of modelpress that the file says it is from; empty if it does not say.
    """

    def __init__(self, path: Path, version: int, writer: str) -> None:
        super().__init__(f"{path}: schema_version is {version}, this modelpress reads {SCHEMA_VERSION}")
        self.version = version
        self.writer = writer


def hash_parts(parts: Mapping[str, str]) -> str:
    """One sha256 for all parts of a fingerprint."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class ExportDirectory:
    """A worker fills one under runs/; the batch publishes it, whole, under exports/."""

    path: Path

    @property
    def model(self) -> Path:
        """The ONNX graph. The base name is fixed: the graph names its data file by it."""
        return self.path / "model.onnx"

    @property
    def model_data(self) -> Path:
        return self.path / "model.onnx.data"

    @property
    def ort_model(self) -> Path:
        """The model after ONNX Runtime's own optimisations, where `export.ort_optimized` asks for it."""
        return self.path / "model.ort.onnx"

    @property
    def ort_model_data(self) -> Path:
        return self.path / "model.ort.onnx.data"

    @property
    def model_debug(self) -> Path:
        """The graph with its trace, where `model.debug_metadata` asks for it; shares model.onnx.data."""
        return self.path / "model.debug.onnx"

    @property
    def model_files(self) -> tuple[Path, ...]:
        """The model in all its forms; most exports have the first one or two."""
        return self.model, self.model_data, self.model_debug, self.ort_model, self.ort_model_data

    @property
    def spec(self) -> Path:
        return self.path / "spec.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def fingerprint(self) -> Path:
        """What the export depends on; written by the batch before the worker starts."""
        return self.path / "fingerprint.json"

    @property
    def report(self) -> Path:
        return self.path / "report.md"

    @property
    def page(self) -> Path:
        """The report for a browser: rendered from the result, and no part of what is recorded or hashed."""
        return self.path / "report.html"

    @property
    def graph(self) -> Path:
        """The model's graph, to look at in a browser."""
        return self.path / "graph.html"

    @property
    def pages(self) -> tuple[Path, ...]:
        """What is made from the other files, and can be made again: no evidence by itself."""
        return self.page, self.graph

    @property
    def torch_report(self) -> Path:
        """The Markdown report that torch's exporter writes; kept where a conversion failed."""
        return self.path / "torch_onnx_report.md"

    @property
    def repro(self) -> Path:
        """A folder that reproduces a failure without modelpress."""
        return self.path / "repro"

    @property
    def log(self) -> Path:
        return self.path / "worker.log"

    @property
    def earlier_log(self) -> Path:
        """Of the first try, where there was a second."""
        return self.path / "worker-1.log"

    @property
    def current_step(self) -> Path:
        """The step at work, for progress displays and for who finds the worker dead."""
        return self.path / "current_step"

    @property
    def temporary(self) -> Path:
        """Where a step may put large files that it needs for a while; on the disk that the model goes to."""
        return self.path / ".temporary"

    @property
    def first_failure(self) -> Path:
        """Why the first attempt failed, while another is made: a worker that dies in that one must not hide it."""
        return self.path / "first_failure.json"

    @property
    def scratch(self) -> "ExportDirectory":
        """Where another attempt at a failed export writes, so that what the first one left stays as it is."""
        return ExportDirectory(self.path / "attempt")

    def adopt(self, other: "ExportDirectory") -> None:
        """Take over another directory's model, in place of one's own and of torch's report on why that failed."""
        self.torch_report.unlink(missing_ok=True)
        for own, its in zip(self.model_files, other.model_files, strict=True):
            own.unlink(missing_ok=True)
            if its.exists():
                its.replace(own)

    def clear(self) -> None:
        """Remove what an earlier export left, so that no file of it can pass for one of the next."""
        self.clear_unfinished()
        self.clear_model()
        for path in (self.result, self.report, self.page, self.graph, self.torch_report):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.repro, ignore_errors=True)

    def clear_model(self) -> None:
        """Remove the model in all its forms, which is what takes room."""
        for path in self.model_files:
            path.unlink(missing_ok=True)

    def clear_unfinished(self) -> None:
        """Remove what is of use only while a worker lives: notes on where it is, and files as large as the model."""
        for path in (
            self.scratch.path,
            self.temporary,
            *self.path.glob(".torchscript-*"),
            *self.path.glob(".dynamo-*"),
        ):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.current_step, self.first_failure):
            path.unlink(missing_ok=True)
        remove_cut_off(self.path)

    def read_spec(self) -> ExportSpec:
        return from_plain(ExportSpec, read_json(self.spec))

    def read_fingerprint(self) -> dict[str, str]:
        """The parts that the export depends on, each with its value or hash.

        Raises:
            DataError: The file is broken.
            FileNotFoundError: There is none: the export was not made by a batch.
        """
        return from_plain(dict[str, str], read_json(self.fingerprint), str(self.fingerprint))

    def read_current_step(self) -> Step | None:
        """The step at work, or at which a worker died; None before the first."""
        try:
            return Step(self.current_step.read_text())
        except (OSError, ValueError):
            return None

    def read_first_failure(self) -> Failure | None:
        """Why the first attempt failed, if a worker left in the middle of another."""
        try:
            return from_plain(Failure, read_json(self.first_failure))
        except (OSError, DataError):
            return None

    def read_result(self) -> ExportResult:
        """Read result.json.

        Raises:
            NewerSchemaError: A newer modelpress wrote it.
            DataError: It is broken.
            FileNotFoundError: There is none.
        """
        data = read_json(self.result)
        version = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            writer = data["versions"].get("modelpress") if isinstance(data.get("versions"), dict) else None
            raise NewerSchemaError(self.result, version, str(writer or ""))
        if version != SCHEMA_VERSION:
            raise DataError(f"{self.result}: schema_version is {version!r}, this modelpress reads {SCHEMA_VERSION}")
        return from_plain(ExportResult, data)

    def record_files(self) -> list[FileRecord]:
        """Size and sha256 of the model's files."""
        return [
            FileRecord(path=path.name, size_bytes=path.stat().st_size, sha256=hash_file(path))
            for path in self.model_files
            if path.exists()
        ]

    def damaged_files(self, result: ExportResult, hash_one: Callable[[Path], str] = hash_file) -> list[str]:
        """Names of recorded files that are missing or whose bytes are not the recorded ones."""
        return [record.path for record in result.files if not self._is_whole(record, hash_one)]

    def _is_whole(self, record: FileRecord, hash_one: Callable[[Path], str]) -> bool:
        path = self.path / record.path
        return path.is_file() and path.stat().st_size == record.size_bytes and hash_one(path) == record.sha256
