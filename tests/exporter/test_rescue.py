"""The rescue ladder: each rung gets past a fault that stops the export without it, and nothing else changes."""

import faulty_models
import onnx_ir as ir
import pytest
import torch
from torch.onnx._internal.exporter import _capture_strategies, _registration

from exporter import ExportDirectory, ExportOptions, FailureKind, Input, PassName, Status, Step
from exporter.conductor import run_export
from exporter.passes import PASSES
from exporter.rescue import taking
from exporter.result import Rung


def spec_with(inputs=None, **options):
    spec = faulty_models.make_spec(inputs=inputs)
    spec.export = ExportOptions(**options)
    return spec


def break_optimizer(monkeypatch, damage):
    """Plant a fault in the default passes."""
    monkeypatch.setitem(PASSES, PassName.default, lambda program: damage(program.model.graph))


def break_optimize_step(monkeypatch, damage):
    """Plant a fault that is there without the passes too."""

    def plant(program, spec, scratch):
        damage(program.model.graph)
        return []

    monkeypatch.setattr("exporter.sequence.optimize.optimize", plant)


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
    result = run_export(spec_with(), tmp_path, faulty_models.Perceptron(), threads=1)
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
    result = run_export(spec_with(), tmp_path, faulty_models.Perceptron(), threads=1)
    assert (result.status, result.rescues, result.rescued_by) == (Status.passed, [], [])
    assert {record.attempt for record in result.steps} == {1}


def test_a_failure_that_no_rung_can_mend_stops_at_once(tmp_path):
    result = run_export(spec_with(), tmp_path, faulty_models.TakesSingularValues(), threads=1)
    assert result.failure.kind is FailureKind.unsupported_op
    assert [record.step for record in result.steps] == [Step.build, Step.capture]
    assert result.rescues == []


def test_where_no_rung_helps_the_first_failure_is_reported(tmp_path, monkeypatch):
    # The later attempts end in parity, which is not what the user has to hear of first.
    break_optimize_step(monkeypatch, negate_output)
    module, spec = faulty_models.AttendsOverHeads(), spec_with(inputs={"x": Input(["n", 6, 8])})
    result = run_export(spec, tmp_path, module, threads=1)
    assert (result.failure.step, result.failure.kind) == (Step.capture, FailureKind.translation_error)
    assert result.failure.hint.endswith("(tried in vain: decomposed_attention, no_optimize)")
    assert [(record.rung, record.kind, record.helped) for record in result.rescues] == [
        (Rung.decomposed_attention, FailureKind.translation_error, True),
        (Rung.no_optimize, FailureKind.parity_failed, False),
    ]
    # What is there is of the attempt that is reported.
    assert (result.rescued_by, result.files, result.cases) == ([], [], [])
    assert "only 4D query" in (tmp_path / "torch_onnx_report.md").read_text()
    assert not (tmp_path / "model.onnx").exists()


CAPTURE_FAULTS = [
    (
        faulty_models.AttendsUnderVmap,
        ["n", 3, 4, 6, 8],
        [(Rung.math_attention, FailureKind.dim_specialized, True)],
    ),
    (
        faulty_models.AttendsOverHeads,
        ["n", 6, 8],
        [(Rung.decomposed_attention, FailureKind.translation_error, True)],
    ),
    (faulty_models.DiffersUnderDynamo, ["n", 8], [(Rung.strict_capture, FailureKind.translation_error, True)]),
    (
        faulty_models.TurnsGradientsOn,
        ["n", 8],
        [
            (Rung.strict_capture, FailureKind.decomposition_error, False),
            (Rung.grad_capture, FailureKind.decomposition_error, True),
        ],
    ),
]


# vmap tells of its missing rule in eager mode too.
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(("model", "shape", "rescues"), CAPTURE_FAULTS, ids=[f[0].__name__ for f in CAPTURE_FAULTS])
def test_a_failed_capture_is_got_round(tmp_path, model, shape, rescues):
    result = run_export(spec_with(inputs={"x": Input(shape)}), tmp_path, model(), threads=1)
    assert (result.status, result.failure) == (Status.passed, None)
    assert [(record.rung, record.kind, record.helped) for record in result.rescues] == rescues
    assert result.rescued_by == [rescues[-1][0]]
    assert result.dims[0].proven_sizes == [1, 2, 4, 5, 7, 16]
    # The report on what failed first would be misread beside an export that passed.
    assert not (tmp_path / "torch_onnx_report.md").exists()


@pytest.mark.parametrize(("model", "shape"), [fault[:2] for fault in CAPTURE_FAULTS[1:]])
def test_without_rescue_a_failed_capture_stays_failed(tmp_path, model, shape):
    result = run_export(spec_with(inputs={"x": Input(shape)}, rescue=False), tmp_path, model(), threads=1)
    assert (result.status, result.failure.step, result.rescues) == (Status.failed, Step.capture, [])


@pytest.mark.parametrize("rescue", [True, False])
def test_a_parity_failure_says_whether_the_optimizer_is_at_fault(tmp_path, monkeypatch, rescue):
    break_optimize_step(monkeypatch, negate_output)
    result = run_export(spec_with(rescue=rescue), tmp_path, faulty_models.Perceptron(), threads=1)
    assert result.failure.kind is FailureKind.parity_failed
    assert result.failure.hint == "parity fails without the passes too: the optimizer is not at fault"
    assert [(record.rung, record.helped) for record in result.rescues] == [(Rung.no_optimize, False)]


def test_without_rescue_a_fault_of_the_optimizer_is_named_and_the_export_stays_failed(tmp_path, monkeypatch):
    break_optimizer(monkeypatch, negate_output)
    result = run_export(spec_with(rescue=False), tmp_path, faulty_models.Perceptron(), threads=1)
    assert (result.status, result.failure.kind) == (Status.failed, FailureKind.parity_failed)
    assert result.failure.hint == "parity holds without the passes: export.optimize=none"
    assert [(record.rung, record.helped) for record in result.rescues] == [(Rung.no_optimize, True)]
    assert (result.rescued_by, ExportDirectory(tmp_path).damaged_files(result)) == ([], [])
    # The file of the failing attempt, for who wants to look into it.
    assert result.num_nodes > result.num_nodes_captured


def test_ways_of_capturing_leave_torch_as_it_was():
    before = (
        vars(_registration.ONNXRegistry)["from_torchlib"],
        _capture_strategies.CAPTURE_STRATEGIES,
        torch.export.export,
    )
    with pytest.raises(RuntimeError), taking(list(Rung)):
        raise RuntimeError
    assert before == (
        vars(_registration.ONNXRegistry)["from_torchlib"],
        _capture_strategies.CAPTURE_STRATEGIES,
        torch.export.export,
    )


def test_without_rescue_there_is_one_attempt(tmp_path, monkeypatch):
    break_optimizer(monkeypatch, raise_pass_error)
    result = run_export(spec_with(rescue=False), tmp_path, faulty_models.Perceptron(), threads=1)
    assert (result.status, result.failure.kind) == (Status.failed, FailureKind.optimize_error)
    assert result.rescues == []
    assert {record.attempt for record in result.steps} == {1}


def test_without_passes_there_is_nothing_to_turn_off(tmp_path, monkeypatch):
    break_optimize_step(monkeypatch, negate_output)
    result = run_export(spec_with(optimize="none"), tmp_path, faulty_models.Perceptron(), threads=1)
    assert result.failure.kind is FailureKind.parity_failed
    assert result.rescues == []


def test_the_first_failure_is_on_disk_while_another_way_is_tried_and_not_after(tmp_path, monkeypatch):
    break_optimizer(monkeypatch, raise_pass_error)
    directory, seen = ExportDirectory(tmp_path), []
    result = run_export(
        spec_with(),
        tmp_path,
        faulty_models.Perceptron(),
        threads=1,
        on_step=lambda step: seen.append((step, directory.read_first_failure())),
    )
    assert result.rescued_by == [Rung.no_optimize]
    second = next(index for index, (step, _) in enumerate(seen[2:], 2) if step is Step.capture)
    assert {failure and failure.kind for _, failure in seen[:second]} == {None}
    assert {failure and failure.kind for _, failure in seen[second:]} == {FailureKind.optimize_error}
    assert not directory.first_failure.exists()
