"""The rescue ladder: each rung gets past a fault that stops the export without it, and nothing else changes."""

import faulty_models
import onnx_ir as ir
import pytest
import torch

from exporter import ExportDirectory, ExportOptions, FailureKind, Status, Step, export
from exporter.result import Rung


def spec_with(**options):
    spec = faulty_models.make_spec()
    spec.export = ExportOptions(**options)
    return spec


def break_optimizer(monkeypatch, damage):
    """Plant a fault behind the passes of torch's `ONNXProgram.optimize()`."""
    monkeypatch.setattr(torch.onnx.ONNXProgram, "optimize", lambda program: damage(program.model.graph))


def raise_pass_error(graph):
    raise ir.passes.PassError("planted")


def negate_output(graph):
    node = ir.node("Neg", [graph.outputs[0]])
    node.outputs[0].shape, node.outputs[0].type = graph.outputs[0].shape, graph.outputs[0].type
    graph.append(node)
    graph.outputs[0] = node.outputs[0]


def misspell_operator(graph):
    for node in graph:
        node.op_type = f"{node.op_type}z"


OPTIMIZER_FAULTS = [
    (raise_pass_error, Step.optimize, FailureKind.optimize_error),
    (misspell_operator, Step.check, FailureKind.invalid_onnx),
    (negate_output, Step.parity, FailureKind.parity_failed),
]


@pytest.mark.parametrize(("damage", "step", "kind"), OPTIMIZER_FAULTS)
def test_a_fault_of_the_optimizer_is_got_round_without_it(tmp_path, monkeypatch, damage, step, kind):
    break_optimizer(monkeypatch, damage)
    result = export(spec_with(), tmp_path, faulty_models.Perceptron(), threads=1)
    assert (result.status, result.failure) == (Status.passed, None)
    assert [(record.rung, record.step, record.kind, record.helped) for record in result.rescues] == [
        (Rung.no_optimize, step, kind, True)
    ]
    assert result.rescues[0].cause
    assert result.rescued_by == [Rung.no_optimize]
    assert result.num_parameters == 8 * 16 + 16
    directory = ExportDirectory(tmp_path)
    assert directory.read_result() == result
    assert directory.damaged_files(result) == []
    assert not directory.scratch.path.exists()


def test_a_model_that_needs_no_rescue_has_none(tmp_path):
    result = export(spec_with(), tmp_path, faulty_models.Perceptron(), threads=1)
    assert (result.status, result.rescues, result.rescued_by) == (Status.passed, [], [])
    assert {record.attempt for record in result.steps} == {1}


def test_a_failure_that_no_rung_can_mend_stops_at_once(tmp_path):
    result = export(spec_with(), tmp_path, faulty_models.TakesSingularValues(), threads=1)
    assert result.failure.kind is FailureKind.unsupported_op
    assert [record.step for record in result.steps] == [Step.build, Step.capture]
    assert result.rescues == []


def test_where_no_rung_helps_the_first_failure_is_reported(tmp_path, monkeypatch):
    # The second attempt ends elsewhere, which is not what the user has to hear of.
    break_optimizer(monkeypatch, negate_output)
    result = export(spec_with(), tmp_path, faulty_models.NeedsEvenSize(), threads=1)
    assert result.failure.kind is not FailureKind.parity_failed
    assert result.failure.step is Step.parity


def test_without_rescue_there_is_one_attempt(tmp_path, monkeypatch):
    break_optimizer(monkeypatch, raise_pass_error)
    result = export(spec_with(rescue=False), tmp_path, faulty_models.Perceptron(), threads=1)
    assert (result.status, result.failure.kind) == (Status.failed, FailureKind.optimize_error)
    assert result.rescues == []
    assert {record.attempt for record in result.steps} == {1}


def test_without_passes_there_is_nothing_to_turn_off(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "exporter.sequence.optimize.optimize", lambda program, passes: negate_output(program.model.graph)
    )
    result = export(spec_with(optimize="none"), tmp_path, faulty_models.Perceptron(), threads=1)
    assert result.failure.kind is FailureKind.parity_failed
    assert result.rescues == []
