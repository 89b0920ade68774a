"""Checks and proves a saved file anew: for a program that was changed after its export.

The steps are the export's own, and the gates too.
"""

import time
from dataclasses import replace

from torch import nn

from exporter import device, noise_floor, parity
from exporter.cases import Case, choose_cases
from exporter.check import check
from exporter.conductor import describe_result
from exporter.directory import ExportDirectory
from exporter.evidence import CaseRecord, DimRecord
from exporter.result import ExportResult, Step, TensorRecord
from exporter.steps import StepFailed, StepRecorder

__all__ = ["prove"]


def prove(directory: ExportDirectory, result: ExportResult, module: nn.Module, threads: int) -> ExportResult:
    """Run the check and parity steps on a directory's model.

    Args:
        directory: Holds the model.
        result: Of the export that it comes from; gives the spec, and cases that break an assumption of the graph.
        module: In eval mode.
        threads: Of one operator.

    Returns:
        That result with what holds now, passed or failed.
    """
    spec, started = result.spec, time.time()
    recorder = StepRecorder()
    cases = _choose(result)
    inputs: list[TensorRecord] = []
    outputs: list[TensorRecord] = []
    op_counts: dict[str, int] = {}
    records: list[CaseRecord] = []
    dims: list[DimRecord] = []
    ort_providers: list[str] = []
    failure = None
    try:
        with recorder.step(Step.check):
            # The captured ranges were held against the declared dims when the program was exported.
            graph = check(directory.model, spec, (), cases)
            inputs, outputs, op_counts = graph.inputs, graph.outputs, graph.op_counts
        with recorder.step(Step.parity), device.exact_float32(spec.export.device):
            providers = device.choose_providers(spec.export.device)
            session = parity.open_session(directory.model, prepack=False, threads=threads, providers=providers)
            ort_providers = session.get_providers()
            records.extend(parity.run_cases(session, module, spec, cases, outputs))
            records[:] = noise_floor.settle(records, spec.parity)
            dims = parity.prove_dims(spec, records)
            parity.judge(records)
    except StepFailed as stopped:
        failure = stopped.failure
    told = describe_result(spec, failure, started)
    return replace(
        result,
        status=told.status,
        failure=failure,
        started_at=told.started_at,
        ended_at=told.ended_at,
        duration_s=told.duration_s,
        steps=recorder.records,
        inputs=inputs,
        outputs=outputs,
        op_counts=op_counts,
        cases=records,
        ort_providers=ort_providers,
        dims=dims,
        divergence=None,
        files=directory.record_files(),
        num_nodes=sum(op_counts.values()),
        latency_s=None,
        torchscript=None,
    )


def _choose(result: ExportResult) -> list[Case]:
    cases = choose_cases(result.spec)
    names = {case.name for case in cases}
    return cases + [
        Case(name=one.name, sizes=one.sizes, seed=one.seed) for one in result.cases if one.name not in names
    ]
