"""One export, in this process: a torch module and a spec in, files and a result out.

Knows nothing of Hydra, MLflow or DVC. Importing it does not import torch; `export` does, when it is called.
docs/library.md is the tour for a notebook.
"""

from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, ExitCode, ExportFailedError, FailureKind, ModelpressError
from exporter.example_spec import make_spec
from exporter.exported import Exported, export, open_program
from exporter.repeats import expand_repeats
from exporter.result import ExportResult, Failure, Status, Step
from exporter.spec import (
    Device,
    Dim,
    DType,
    ExportOptions,
    ExportSpec,
    Fill,
    FillKind,
    Input,
    ModelSpec,
    NoiseFloor,
    Output,
    ParityOptions,
    PassName,
    Precision,
    PrecisionName,
)

__all__ = [
    "ConfigError",
    "DType",
    "Device",
    "Dim",
    "ExitCode",
    "ExportDirectory",
    "ExportFailedError",
    "ExportOptions",
    "ExportResult",
    "ExportSpec",
    "Exported",
    "Failure",
    "FailureKind",
    "Fill",
    "FillKind",
    "Input",
    "ModelSpec",
    "ModelpressError",
    "NoiseFloor",
    "Output",
    "ParityOptions",
    "PassName",
    "Precision",
    "PrecisionName",
    "Status",
    "Step",
    "expand_repeats",
    "export",
    "make_spec",
    "open_program",
]
