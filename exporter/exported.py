"""What a notebook calls: a module and a spec in, the result and a callable program out.

Imports the standard library alone. The steps themselves are `exporter.conductor`'s.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.conductor import run_export
from exporter.directory import ExportDirectory
from exporter.errors import ExportFailedError, IntegrityError
from exporter.eval_mode import in_eval_mode
from exporter.result import ExportResult, Failure, Status, Step
from exporter.spec import ExportSpec
from exporter.temporary_folder import TemporaryFolder

if TYPE_CHECKING:
    from torch import nn

    from exporter.program import Program

__all__ = ["Exported", "export", "open_program"]


@dataclass(frozen=True)
class Exported:
    """What came of an export: the result, the files and the program.

    In a notebook it shows its report.
    """

    result: ExportResult
    directory: ExportDirectory
    _module: "nn.Module | None" = field(default=None, repr=False)
    _threads: int | None = field(default=None, repr=False)
    # Where no directory was named; gone when this object and the program are.
    _folder: TemporaryFolder | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Exported({self.result.id}: {self.failure or self.status}; {self.report})"

    def _repr_markdown_(self) -> str:
        return self.report.read_text(encoding="utf-8")

    @property
    def status(self) -> Status:
        return self.result.status

    @property
    def passed(self) -> bool:
        return self.status is Status.passed

    @property
    def failure(self) -> Failure | None:
        """Which step failed, the kind, the cause and what to do; None if passed."""
        return self.result.failure

    @property
    def report(self) -> Path:
        """The verdict and its evidence, in Markdown."""
        return self.directory.report

    @property
    def torch_report(self) -> Path | None:
        """Torch's own Markdown report on a conversion that failed; None where there is none."""
        return self.directory.torch_report if self.directory.torch_report.exists() else None

    @property
    def has_program(self) -> bool:
        """A file was saved. Of an export that failed after that, it is not proven: `program.is_proven` is false."""
        return self.directory.model.exists()

    @cached_property
    def program(self) -> "Program":
        """The exported model, to call, optimize and save.

        Raises:
            ExportFailedError: The export failed before there was one; with the cause, and the report to read.
        """
        if not self.has_program:
            hint = f"\n{self.failure.hint}" if self.failure is not None else ""
            raise ExportFailedError(f"there is no program: {self.failure}{hint}\nThe report is {self.report}")
        from exporter.program import Program

        return Program(self.directory, self.result, self._module, threads=self._threads, folder=self._folder)


def export(
    module: "nn.Module | None",
    spec: ExportSpec,
    directory: Path | str | None = None,
    *,
    threads: int | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Exported:
    """Export one model to ONNX, check the file, prove it against PyTorch and measure it.

    Args:
        module: The model; its mode (train or eval) is the same afterwards. None: built from the spec's source.
        spec: What to export; `exporter.make_spec` writes one from example arguments.
        directory: For model.onnx (and model.onnx.data), spec.json, result.json and report.md. Created if missing; files
            of an earlier export in it are overwritten. None: a temporary one, there as long as what this returns.
        threads: Of torch and ONNX Runtime; None leaves torch's own default.
        on_step: Called with each step as it begins.

    Returns:
        The result and the program, failed or passed: a model that does not export is no exception here.

    Raises:
        ConfigError: The spec contradicts itself, or the directory is one that a batch published.
    """
    if isinstance(module, ExportSpec) or not isinstance(spec, ExportSpec):
        raise TypeError("export(module, spec): the module comes first (None: built from the spec's source)")
    folder = TemporaryFolder() if directory is None else None
    # Absolute, since a notebook may change its working directory.
    target = ExportDirectory((folder.path if folder is not None else Path(str(directory))).absolute())
    with in_eval_mode(module):
        # A copy: a notebook changes a spec and exports again, and this program is still the one of today.
        result = run_export(deepcopy(spec), target.path, module, threads=threads, on_step=on_step)
    return Exported(result, target, module, threads, folder)


def open_program(directory: Path | str, module: "nn.Module | None" = None, *, threads: int | None = None) -> "Program":
    """Open the program of an export that was made before, such as `exports/mlp`.

    Args:
        directory: Of the export.
        module: For `Program.prove`, where the spec has no source to build it from.
        threads: Of ONNX Runtime; None: as many as torch uses.

    Raises:
        FileNotFoundError: There is no export.
        ExportFailedError: It failed before there was a program.
        IntegrityError: The files are not the ones that were exported.
    """
    target = ExportDirectory(Path(directory).absolute())
    result = target.read_result()
    damaged = target.damaged_files(result)
    if damaged:
        raise IntegrityError(f"{target.path}: {', '.join(damaged)} missing, or not as exported")
    return Exported(result, target, module, threads).program
