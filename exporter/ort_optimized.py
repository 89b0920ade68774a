"""model.ort.onnx: the saved model after ONNX Runtime's own graph optimisations, for who loads it there often.

An extra beside model.onnx, never in its place: it has operators of ONNX Runtime's own and runs nowhere else.
"""

from collections.abc import Sequence

import onnxruntime as ort
from torch import nn

from exporter.cases import Case
from exporter.directory import ExportDirectory
from exporter.errors import FailureKind, StepError
from exporter.noise_floor import settle
from exporter.parity import judge, open_session, run_cases
from exporter.result import TensorRecord
from exporter.sessions import make_options
from exporter.spec import ExportSpec

__all__ = ["prove_optimized", "write_optimized"]

# As in model.onnx: larger tensors go to the data file.
_MIN_EXTERNAL_BYTES = 256


def write_optimized(directory: ExportDirectory) -> None:
    """Write what ONNX Runtime makes of model.onnx for the CPU, weights in a file beside it as there.

    The level is "extended". The next one, "all", lays out weights for the processor it runs on, and such a file is
    right on that machine alone.

    Raises:
        StepError: ONNX Runtime cannot write the file.
    """
    options = make_options(1, prepack=True)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(directory.ort_model)
    if directory.model_data.exists():
        entry = "session.optimized_model_external_initializers"
        options.add_session_config_entry(f"{entry}_file_name", directory.ort_model_data.name)
        options.add_session_config_entry(f"{entry}_min_size_in_bytes", str(_MIN_EXTERNAL_BYTES))
    try:
        ort.InferenceSession(str(directory.model), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise StepError(
            FailureKind.optimize_error, f"{directory.ort_model.name}: {error}", "try export.ort_optimized=false"
        ) from error
    if directory.ort_model_data.exists() and directory.ort_model_data.stat().st_size == 0:
        directory.ort_model_data.unlink()


def prove_optimized(
    directory: ExportDirectory,
    module: nn.Module,
    spec: ExportSpec,
    example: Case,
    outputs: Sequence[TensorRecord],
    threads: int,
) -> None:
    """Load the file again and hold it against the eager module on the example, by the same gates and noise floor.

    Args:
        directory: Holds the file.
        module: The original, in eval mode.
        spec: Gives the inputs and the gates.
        example: The first case.
        outputs: As model.onnx declares them.
        threads: Of one operator.

    Raises:
        StepError: It does not load or run, or misses parity; the cause begins with the file's name.
    """
    try:
        session = open_session(directory.ort_model, prepack=False, threads=threads)
        judge(settle(list(run_cases(session, module, spec, [example], list(outputs))), spec.parity))
    except StepError as error:
        cause = f"{directory.ort_model.name}: {error.cause}"
        raise StepError(error.kind, cause, "try export.ort_optimized=false") from error
