"""Each pass that `export.optimize` can name changes what it is for, says so, and leaves alone what it is not for."""

import faulty_models
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from exporter import FailureKind, Status, Step
from exporter.conductor import run_export
from exporter.errors import StepError
from exporter.passes import PASSES, count_ops, name_passes, run_passes
from exporter.plain_data import from_plain, to_plain
from exporter.report import render_report
from exporter.result import ExportResult
from exporter.spec import PassName

# For each pass a graph with something for it to do, and what it has to make of the operators. The text is ONNX's own.
HEADER = '<ir_version: 10, opset_import: ["": 20]>'
PLANTED = {
    PassName.default: ("(float[n,4] x) => (float[n,4] y) { a = Identity(x) y = Relu(a) }", {"Identity": -1}),
    PassName.fold_constants: (
        "(float[n,4] x) => (float[n,4] y) <float[1] c = {4.0}> { r = Sqrt(c) y = Mul(x, r) }",
        {"Sqrt": -1},
    ),
    PassName.rewrite: (
        "(float[n,4] x) => (float[n,4] y) { a = Transpose<perm=[1,0]>(x) y = Transpose<perm=[1,0]>(a) }",
        {"Identity": 1, "Transpose": -2},
    ),
    PassName.dead_code: ("(float[n,4] x) => (float[n,4] y) { a = Sqrt(x) y = Relu(x) }", {"Sqrt": -1}),
    PassName.identities: ("(float[n,4] x) => (float[n,4] y) { a = Identity(x) y = Relu(a) }", {"Identity": -1}),
    PassName.cse: ("(float[n,4] x) => (float[n,4] y) { a = Exp(x) b = Exp(x) y = Add(a, b) }", {"Exp": -1}),
    PassName.lift_constants: (
        "(float[n,4] x) => (float[n,4] y) { c = Constant<value=float[1] {4.0}>() y = Mul(x, c) }",
        {"Constant": -1},
    ),
    PassName.fuse_conv_affine: (
        """(float[n,1,4,4] x) => (float[n,1,4,4] y)
        <float[1,1,1,1] w = {2.0}, float[1] b = {1.0}, float s = {3.0}, float o = {4.0}>
        { a = Conv<pads=[0,0,0,0]>(x, w, b) m = Mul(a, s) y = Add(m, o) }""",
        {"Add": -1, "Mul": -1},
    ),
    PassName.fuse_hardswish: (
        """(float[n,4] x) => (float[n,4] y) <float three = {3.0}, float zero = {0.0}, float six = {6.0}>
        { a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six) }""",
        {"Add": -1, "Clip": -1, "Div": -1, "HardSwish": 1, "Mul": -1},
    ),
    PassName.fuse_gemm: (
        """(float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}, float[2] b = {5,6}>
        { m = MatMul(x, w) y = Add(m, b) }""",
        {"Add": -1, "Gemm": 1, "MatMul": -1},
    ),
    PassName.remove_expand: (
        """(float[3,4] x, float[4] z) => (float[3,4] y) <int64[2] s = {3, 4}>
        { e = Expand(z, s) y = Add(x, e) }""",
        {"Expand": -1},
    ),
}


def program_of(text: str) -> torch.onnx.ONNXProgram:
    proto = onnx.parser.parse_model(f"{HEADER} g {text}")
    onnx.checker.check_model(proto, full_check=True)
    return torch.onnx.ONNXProgram(ir.from_proto(proto), None)


def run(program, *names):
    return list(run_passes(program, [PassName(name) for name in names]))


@pytest.mark.parametrize("name", PLANTED)
def test_a_pass_changes_what_it_is_for_and_tells_it(name):
    text, changes = PLANTED[name]
    program = program_of(text)
    before = count_ops(program.model)
    (record,) = run(program, name)
    assert record.name == name
    assert record.op_changes == changes
    assert (record.num_nodes_before, record.num_nodes_after) == (before.total(), count_ops(program.model).total())
    onnx.checker.check_model(ir.to_proto(program.model), full_check=True)


@pytest.mark.parametrize("name", list(PassName))
def test_a_pass_leaves_alone_what_it_is_not_for(name):
    program = program_of("(float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}> { a = MatMul(x, w) y = Relu(a) }")
    (record,) = run(program, name)
    assert record.op_changes == {}
    assert [node.op_type for node in program.model.graph] == ["MatMul", "Relu"]


def test_functions_are_put_in_line():
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20, "own": 1]>
        g (float[n,4] x) => (float[n,4] y) { y = own.twice(x) }
        <domain: "own", opset_import: ["": 20]> twice (x) => (y) { y = Add(x, x) }
    """)
    program = torch.onnx.ONNXProgram(ir.from_proto(proto), None)
    (record,) = run(program, "inline")
    # The function's own body counts as nodes too, and goes with it.
    assert record.op_changes == {"own::twice": -1}
    assert [node.op_type for node in program.model.graph] == ["Add"]


def test_equal_initializers_become_one():
    program = program_of(
        "(float[n,2] x) => (float[n,2] y) <float[2] a = {1,2}, float[2] b = {1,2}> { c = Add(x, a) y = Mul(c, b) }"
    )
    (record,) = run(program, "deduplicate_initializers")
    assert (record.num_initializers_before, record.num_initializers_after) == (2, 1)


def test_shapes_are_inferred():
    program = program_of("(float[n,2] x) => (float[n,2] y) { a = Exp(x) y = Relu(a) }")
    run(program, "infer_shapes")
    assert str(next(iter(program.model.graph)).outputs[0].shape) == "[n,2]"


def test_there_is_a_pass_for_every_name_and_a_test_for_every_pass():
    assert set(PASSES) == set(PassName)
    assert set(PLANTED) == set(PassName) - {"inline", "deduplicate_initializers", "infer_shapes"}


@pytest.mark.parametrize(
    ("value", "names"),
    [("none", []), ("default", ["default"]), ([], []), ("cse", ["cse"]), (["cse", "rewrite", "cse"],) * 2],
)
def test_a_value_stands_for_passes_in_order(value, names):
    assert name_passes(value) == names


def test_a_pass_that_fails_is_named(monkeypatch):
    def fail(program):
        raise ir.passes.PassError("inner") from ValueError("no such axis")

    program = program_of(PLANTED[PassName.cse][0])
    monkeypatch.setitem(PASSES, PassName.rewrite, fail)
    records = []
    with pytest.raises(StepError) as caught:
        records.extend(run_passes(program, [PassName.cse, PassName.rewrite]))
    assert caught.value.kind is FailureKind.optimize_error
    assert caught.value.cause == "pass rewrite: ValueError: no such axis"


class Repeats(nn.Module):
    """The same twice, and a constant to fold."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.arange(8.0))

    def forward(self, x):
        return torch.exp(x * 0.1) * (self.table * 2 + 1).sqrt() + torch.exp(x * 0.1)


def test_an_export_tells_of_each_pass_and_its_report_too(tmp_path):
    spec = faulty_models.make_spec()
    spec.export.optimize = ["fold_constants", "cse"]
    result = run_export(spec, tmp_path, Repeats(), threads=1)
    assert result.status is Status.passed
    folded, merged = result.passes
    assert (folded.name, merged.name) == ("fold_constants", "cse")
    assert folded.op_changes["Sqrt"] == -1
    assert merged.op_changes["Exp"] == -1
    assert result.num_nodes_captured == folded.num_nodes_before
    assert folded.num_nodes_after == merged.num_nodes_before
    assert result.num_nodes == merged.num_nodes_after
    assert from_plain(ExportResult, to_plain(result)) == result
    text = render_report(result)
    assert "## Passes" in text
    assert f"| cse | {merged.num_nodes_before} to {merged.num_nodes_after} |" in text


def test_an_export_without_passes_has_no_record_of_one(tmp_path):
    spec = faulty_models.make_spec()
    spec.export.optimize = "none"
    result = run_export(spec, tmp_path, faulty_models.Perceptron(), threads=1)
    assert result.passes == []
    assert "## Passes" not in render_report(result)


def test_the_passes_before_one_that_fails_stay_on_record(tmp_path, monkeypatch):
    monkeypatch.setitem(PASSES, PassName.rewrite, lambda program: program.no_such_thing)
    spec = faulty_models.make_spec()
    spec.export.optimize = ["cse", "rewrite"]
    spec.export.rescue = False
    result = run_export(spec, tmp_path, Repeats(), threads=1)
    assert (result.failure.step, result.failure.kind) == (Step.optimize, FailureKind.optimize_error)
    assert [record.name for record in result.passes] == ["cse"]
