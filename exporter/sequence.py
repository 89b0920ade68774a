"""The steps of one export in their order, and what each hands to the next.

Imports torch and ONNX Runtime; `exporter.conductor` loads it when an export begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from exporter import (
    build,
    capture,
    check,
    device,
    diagnosis,
    inputs,
    measure,
    noise_floor,
    optimize,
    ort_optimized,
    parity,
    rescue,
    save,
    streaming,
)
from exporter.arguments import arguments_of
from exporter.assumptions import Assumption, add_cases
from exporter.binding import record_arguments
from exporter.cases import Case, choose_cases
from exporter.directory import ExportDirectory
from exporter.divergence import DivergenceSearch
from exporter.evidence import CaseRecord
from exporter.operator_registry import kept_registry
from exporter.precision import prepare_module
from exporter.result import PassRecord, Rung, Step, TensorRecord
from exporter.spec import ExportSpec
from exporter.steps import StepRecorder
from exporter.trace import Trace, read_trace
from exporter.translation_table import TranslationTable, build_table

__all__ = ["run_steps", "set_threads"]


def set_threads(threads: int | None) -> int:
    """Set the threads of a torch operator, where a number is given; returns what now holds."""
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def run_steps(
    spec: ExportSpec,
    directory: ExportDirectory,
    module: nn.Module | None,
    threads: int,
    recorder: StepRecorder,
    findings: dict[str, Any],
) -> None:
    """Build the module, then make attempts at its export until one passes or no way round is left.

    What the steps find goes into `findings` at once, so that a failure later on keeps it.

    Raises:
        StepFailed: No attempt passed.
    """
    with recorder.step(Step.build):
        built = streaming.build(spec) if module is None else streaming.take(module)
        module, findings["weights"] = device.place_module(built.module, spec.export.device), built.record
        build.check_signature(module, spec.model)
        findings["arguments"] = record_arguments(module)
        findings["num_parameters"] = measure.count_parameters(module)
        # After the module, whose file is what registers a user's own operators.
        table = build_table(spec.export.custom_translation_table)
    rescue.climb(_Attempt(built, table, threads, recorder), spec, directory, recorder, findings)


@dataclass(frozen=True)
class _Made:
    """What the steps that make the file hand to those that prove it; nothing of the ONNX program, which is large."""

    example: dict[str, torch.Tensor]
    cases: list[Case]
    ranges: list[capture.DimRange]
    assumptions: list[Assumption]
    trace: Trace


@dataclass(frozen=True)
class _Attempt:
    """From the module to a proven file, one step after the other; may be made again in another way."""

    built: streaming.Built
    table: TranslationTable | None
    threads: int
    recorder: StepRecorder

    def __call__(
        self, spec: ExportSpec, directory: ExportDirectory, rungs: Sequence[Rung], findings: dict[str, Any]
    ) -> None:
        made = self._make(spec, directory, rungs, findings)
        with self.recorder.step(Step.check):
            graph = check.check(directory.model, spec, made.ranges, made.cases)
            findings.update(inputs=graph.inputs, outputs=graph.outputs, op_counts=graph.op_counts)
        with self.recorder.step(Step.parity), device.exact_float32(spec.export.device):
            self._prove(spec, directory, made, graph.outputs, findings)
        with self.recorder.step(Step.measure):
            prepack = measure.can_prepack(self.built.record.mode, findings["files"])
            providers = device.choose_providers(spec.export.device)
            findings["latency_prepacked"] = prepack
            findings["latency_s"] = measure.measure_latency(
                directory.model, made.example, self.threads, prepack=prepack, providers=providers
            )

    def _make(
        self, spec: ExportSpec, directory: ExportDirectory, rungs: Sequence[Rung], findings: dict[str, Any]
    ) -> _Made:
        """Capture, optimize and save. The program holds copies of folded initializers, and is gone on return."""
        cases = choose_cases(spec)
        with self.recorder.step(Step.capture):
            example = inputs.make_inputs(spec.model, cases[0], spec.export.device)
            try:
                module = prepare_module(self.built.module, spec.precision.name)
                # A rung may take functions out of the copy, and so comes after.
                with kept_registry(), rescue.taking(rungs):
                    captured = capture.capture(module, spec, example, directory.torch_report, self.table)
            except Exception as error:
                call = arguments_of(self.built.module, spec.model).arrange(example)
                diagnosis.explain_capture(error, self.built.module, call, directory.torch_report)
                raise
            streaming.refer_to_checkpoint(captured.program, self.built.places)
            findings["capture_strategy"] = captured.strategy
            cases = add_cases(spec, cases, captured.assumptions)
            findings["num_nodes_captured"] = optimize.count_nodes(captured.program)
        with self.recorder.step(Step.optimize):
            passes: list[PassRecord] = []
            findings["passes"] = passes
            passes.extend(optimize.optimize(captured.program, spec, directory.temporary))
            findings["num_nodes"] = optimize.count_nodes(captured.program)
        with self.recorder.step(Step.save):
            trace = read_trace(captured)
            save.save(captured, directory, spec.model)
            self.built.require_unchanged()
            findings["files"] = directory.record_files()
        return _Made(example, cases, captured.ranges, captured.assumptions, trace)

    def _prove(
        self,
        spec: ExportSpec,
        directory: ExportDirectory,
        made: _Made,
        outputs: list[TensorRecord],
        findings: dict[str, Any],
    ) -> None:
        module, providers = self.built.module, device.choose_providers(spec.export.device)
        session = parity.open_session(directory.model, prepack=False, threads=self.threads, providers=providers)
        findings["ort_providers"] = session.get_providers()
        # One by one: the cases before a failure stay on record.
        records: list[CaseRecord] = []
        findings["cases"] = records
        search = DivergenceSearch(made.trace, spec, module, directory.model, self.threads)
        with search.explains(made.cases, records, findings):
            records.extend(parity.run_cases(session, module, spec, made.cases, outputs))
            records[:] = noise_floor.settle(records, spec.parity)
            findings["dims"] = parity.prove_dims(spec, records)
            parity.judge(records, [*made.assumptions, *capture.assume_ranges(made.ranges)])
        del session
        if spec.export.ort_optimized:
            ort_optimized.write_optimized(directory)
            ort_optimized.prove_optimized(directory, module, spec, made.cases[0], outputs, self.threads)
            findings["files"] = directory.record_files()

    def uses_attention(self, spec: ExportSpec) -> bool:
        example = inputs.make_inputs(spec.model, choose_cases(spec)[0], spec.export.device)
        return diagnosis.uses_attention(self.built.module, arguments_of(self.built.module, spec.model).arrange(example))
