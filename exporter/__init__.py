"""One export, in this process: a torch module and a spec in, files and a result out.

Knows nothing of Hydra, MLflow or DVC. Importing it does not import torch; `export` does, when it is called.
"""

from exporter.conductor import export
from exporter.directory import ExportDirectory
from exporter.errors import ConfigError, ExitCode, FailureKind, ModelpressError
from exporter.repeats import expand_repeats
from exporter.result import ExportResult, Failure, Status, Step
from exporter.spec import (
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
    "Dim",
    "ExitCode",
    "ExportDirectory",
    "ExportOptions",
    "ExportResult",
    "ExportSpec",
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
]
