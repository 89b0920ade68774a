"""The program that `exporter.export` gives back: called, optimized, proven again and saved."""

import gc
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import faulty_models
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import exporter
from exporter import Dim, DType, ExportFailedError, FailureKind, Input, Status, export, make_spec, open_program
from exporter import program as program_module
from exporter.errors import ConfigError, IntegrityError
from exporter.save import write_program

X = torch.linspace(-2, 2, 3 * 8).reshape(3, 8)


class Grows(nn.Module):
    """Has a weight that goes to the data file, and constants to fold."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 16)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x, mask=None, scale=1.0):
        return self.dropout(self.linear(x)) * scale, x + torch.ones(8) * 2


def make_program(**export_options):
    module = Grows()
    spec = make_spec(module, (X,), dynamic_shapes={"x": ["n", None]}, name="grows")
    for key, value in export_options.items():
        setattr(spec.export, key, value)
    exported = export(module, spec, threads=1)
    assert exported.passed, exported.failure
    return module, exported.program


def plant_a_bug(monkeypatch):
    """Have the passes of `Program.optimize` put a wrong weight into the graph."""

    def write_wrong(program, *args):
        for value in program.model.graph.initializers.values():
            array = value.const_value.numpy()
            if array.shape in ((8, 16), (16, 8)):
                value.const_value = program_module.ir.tensor(array * 1.01)
        write_program(program, *args)

    monkeypatch.setattr(program_module, "write_program", write_wrong)


@pytest.fixture(scope="module")
def grown():
    return make_program()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_program_is_called_as_forward_is_and_gives_its_tensors_in_order(grown):
    module, program = grown
    with torch.no_grad():
        wanted = module.eval()(X)
    for found in (program(X), program(x=X), program(X.clone().requires_grad_())):
        assert isinstance(found, tuple)
        assert len(found) == 2
        torch.testing.assert_close(found, wanted)
    assert program.output_names == ["output_0", "output_1"]
    assert program.input_names == ["x"]
    assert program(X[:1])[0].shape == (1, 16)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda program: program(), TypeError, "'x' is missing, for input 'x'"),
        (lambda program: program(y=X), TypeError, r"forward\(x, mask, scale\): got an unexpected keyword argument 'y'"),
        (lambda program: program(X, maks=None), TypeError, "did you mean 'mask'"),
        (lambda program: program(X, None, 1.0, 2), TypeError, "too many positional arguments"),
        # mask and scale were left out of the example, so the spec says nothing of them.
        (lambda program: program(X, X), TypeError, "'mask' is not in the spec"),
        (lambda program: program(X.double()), TypeError, r"float64\[3, 8\]; the graph takes torch.float32: convert"),
        (lambda program: program(X.numpy()), TypeError, "input 'x' is a ndarray; give a torch.Tensor"),
        (lambda program: program(X[0]), ValueError, r"1 axes; declared is \[n, 8\]"),
        (lambda program: program(X[:, :4]), ValueError, r"\[3, 4\]; declared is \[n, 8\] at n=3"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(grown, call, error, message):
    with pytest.raises(error, match=message):
        call(grown[1])


def test_a_size_beyond_what_was_tried_is_computed_with_a_warning(grown):
    with pytest.warns(UserWarning, match="n is 7; declared, and tried, is 1 to 6"):
        assert grown[1](torch.zeros(7, 8))[0].shape == (7, 16)


def test_a_constant_may_be_given_again_and_not_be_changed():
    module = Grows()
    program = export(module, make_spec(module, (X,), {"scale": 2.5}), threads=1).program
    torch.testing.assert_close(program(X, scale=2.5)[0], module.eval()(X, scale=2.5)[0])
    torch.testing.assert_close(program(X)[0], module(X, scale=2.5)[0])
    with pytest.raises(ValueError, match=r"scale: 3.0 is given, but 2.5 is baked into the graph"):
        program(X, scale=3.0)


class Nested(nn.Module):
    def forward(self, images, past, *rest, bias):
        return {"sum": images["left"] + past[0][1] * 2 + bias, "rest": [rest[0] - past[0][0], None]}


def test_nested_arguments_of_a_call_reach_their_inputs():
    parts = [torch.full((2, 3), float(i)) for i in range(5)]
    args, kwargs = ({"left": parts[0]}, [(parts[1], parts[2])], parts[3]), {"bias": parts[4]}
    module = Nested()
    shapes = {"images": {"left": ["n", 3]}, "past": [(["n", 3], {0: "n"})], "rest": [{0: "n"}], "bias": {0: "n"}}
    exported = export(module, make_spec(module, args, kwargs, dynamic_shapes=shapes), threads=1)
    assert exported.failure is None
    program = exported.program
    wanted = module(*args, **kwargs)
    assert program.output_names == ["sum", "rest_0_out"]
    torch.testing.assert_close(program(*args, **kwargs), (wanted["sum"], wanted["rest"][0]))
    for broken, message in (
        (({"right": parts[0]}, *args[1:]), "images: the graph takes no 'right'; it takes left"),
        (({}, *args[1:]), "'images.left' is missing, for input 'images_left'"),
        ((args[0], [(parts[1],)], parts[3]), r"past\[0\]: is a tuple of 1; needed is a tuple of 2"),
        ((args[0], parts[1], parts[3]), "past: is a Tensor; needed is a list of 1"),
        (args[:2], "'rest' is missing|rest: is a"),
    ):
        with pytest.raises(TypeError, match=message):
            program(*broken, **kwargs)
    with pytest.raises(ValueError, match=r"declared is \[n, 3\] at n=2"):
        program(args[0], [(parts[1], torch.zeros(3, 3))], parts[3], **kwargs)


class Casts(nn.Module):
    def forward(self, x):
        return torch.view_as_real(x).sum(-1), torch.view_as_real(x).to(torch.bfloat16), torch.view_as_real(x) > 0


def test_complex_and_bfloat16_go_through_a_call():
    x = torch.complex(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5]))
    module = Casts()
    program = export(module, make_spec(module, (x,)), threads=1).program
    torch.testing.assert_close(program(x), module(x))


def test_two_programs_live_in_one_process_and_outlive_what_gave_them():
    (first, one), (second, two) = make_program(), make_program()
    gc.collect()
    assert one.path != two.path
    assert not torch.equal(one(X)[0], two(X)[0])
    torch.testing.assert_close(one(X), first.eval()(X))
    torch.testing.assert_close(two(X), second.eval()(X))


def test_a_temporary_folder_goes_with_its_last_user():
    _, program = make_program()
    folder, graph = program.path.parent, program.model
    assert folder.exists()
    del program
    gc.collect()
    assert graph.graph.initializers["linear.weight"].const_value.numpy().shape in ((16, 8), (8, 16))
    del graph
    gc.collect()
    assert not folder.exists()


def test_a_spec_that_is_changed_later_does_not_change_the_program():
    module = Grows()
    spec = make_spec(module, (X,))
    exported = export(module, spec, threads=1)
    spec.model.inputs["x"].dtype = DType.float64
    torch.testing.assert_close(exported.program(X), module.eval()(X))


def test_a_module_is_in_the_mode_that_it_was_in():
    module = Grows().train()
    module.linear.eval()
    exported = export(module, make_spec(module, (X,)), threads=1)
    assert exported.passed
    exported.program.prove()
    assert module.training
    assert module.dropout.training
    assert not module.linear.training


def test_optimizing_again_what_the_export_optimized_changes_nothing_and_leaves_the_proof(grown):
    _, program = grown
    before = program.path
    (record,) = program.optimize()
    assert record.name == "default"
    assert record.op_changes == {}
    assert program.path == before
    assert program.is_proven


def test_a_program_that_optimize_changed_is_unproven_until_proven_again(tmp_path):
    module, program = make_program(optimize="none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program.save(tmp_path / "before.onnx")
    before = len(program.model_proto.graph.node)
    records = program.optimize(["fold_constants", "dead_code"])
    assert [record.name for record in records] == ["fold_constants", "dead_code"]
    assert len(program.model_proto.graph.node) < before
    assert program.proof is None
    assert not program.is_proven
    assert "not proven since optimize" in repr(program)
    with pytest.warns(UserWarning, match="not proven since optimize"):
        program.save(tmp_path / "after.onnx")
    torch.testing.assert_close(program(X), module.eval()(X))
    proof = program.prove()
    assert proof.failure is None
    assert proof is program.proof
    assert program.is_proven
    assert proof.cases[0].name == "example"
    assert proof.dims[0].proven_sizes == [1, 2, 3, 4, 5, 6]
    assert proof.passes == records
    assert [record.sha256 for record in proof.files] == [
        sha256(path) for path in sorted(program.path.parent.glob("model.onnx*"))
    ]


def test_a_pass_that_breaks_the_program_is_found_by_prove(monkeypatch, tmp_path):
    _, program = make_program(optimize="none")
    plant_a_bug(monkeypatch)
    program.optimize()
    proof = program.prove()
    assert proof.status is Status.failed
    assert proof.failure.kind is FailureKind.parity_failed
    assert not program.is_proven
    with pytest.warns(UserWarning, match="not proven: parity: parity_failed"):
        program.save(tmp_path / "wrong.onnx")


def test_an_unknown_pass_and_one_that_fails_leave_the_program_as_it_was(monkeypatch):
    _, program = make_program(optimize="none")
    path = program.path
    with pytest.raises(ConfigError, match="there is no pass 'fold_constant'; did you mean 'fold_constants'"):
        program.optimize(["fold_constant"])

    def fail(_program, _names):
        raise exporter.errors.StepError(FailureKind.optimize_error, "pass default: no")

    monkeypatch.setattr(program_module, "run_passes", fail)
    with pytest.raises(RuntimeError, match="pass default: no"):
        program.optimize()
    assert program.path == path
    assert program.is_proven


def test_saved_under_the_exports_own_name_the_bytes_are_the_exports(grown, tmp_path):
    _, program = grown
    path = program.save(tmp_path / "new" / "model.onnx")
    assert path.read_bytes() == program.path.read_bytes()
    data = program.path.with_name("model.onnx.data").read_bytes()
    assert path.with_name("model.onnx.data").read_bytes() == data


def test_saved_under_another_name_it_loads_there_and_the_data_is_the_same(grown, tmp_path):
    module, program = grown
    path = program.save(str(tmp_path / "mlp.onnx"))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mlp.onnx", "mlp.onnx.data"]
    assert sha256(tmp_path / "mlp.onnx.data") == sha256(program.path.with_name("model.onnx.data"))
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": X.numpy()})
    torch.testing.assert_close(torch.from_numpy(found[0]), module.eval()(X)[0].detach())
    # And over itself, again.
    before = sha256(path)
    assert sha256(program.save(path)) == before


def test_saving_over_the_programs_own_file_leaves_it(grown):
    _, program = grown
    before = sha256(program.path)
    program.save(program.path)
    assert sha256(program.path) == before


def test_a_program_without_a_data_file_leaves_none_of_another_behind(tmp_path):
    (tmp_path / "tiny.onnx.data").write_bytes(b"an older model's")
    module = nn.ReLU()
    export(module, make_spec(module, (X,)), threads=1).program.save(tmp_path / "tiny.onnx")
    assert [one.name for one in tmp_path.iterdir()] == ["tiny.onnx"]


def test_model_proto_has_the_weights_and_is_a_copy(grown):
    module, program = grown
    proto = program.model_proto
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
    assert any((array == module.linear.bias.detach().numpy()).all() for array in weights.values() if array.size == 16)
    proto.graph.ClearField("node")
    assert len(program.model_proto.graph.node) > 0
    # For who has used torch's: it can be run from memory.
    assert onnxruntime.InferenceSession(program.model_proto.SerializeToString()).get_inputs()[0].name == "x"


def test_a_model_that_no_protobuf_message_holds_is_refused_before_it_is_read(grown, monkeypatch):
    monkeypatch.setattr(program_module, "_MAX_PROTO_BYTES", 1000)
    with pytest.raises(ValueError, match=r"a protobuf message at most 2; use \.model"):
        _ = grown[1].model_proto


def test_a_failed_export_gives_the_failure_the_reports_and_no_program():
    module = faulty_models.TakesSingularValues()
    exported = export(module, make_spec(module, (X,), name="svd"), threads=1)
    assert exported.status is Status.failed
    assert not exported.passed
    assert exported.failure.kind is FailureKind.unsupported_op
    assert "unsupported_op" in exported.report.read_text()
    assert exported._repr_markdown_() == exported.report.read_text()
    assert "unsupported_op" in repr(exported)
    assert exported.torch_report.read_text()
    assert not exported.has_program
    with pytest.raises(ExportFailedError, match="there is no program: capture: unsupported_op") as caught:
        _ = exported.program
    assert str(exported.report) in str(caught.value)


def test_an_export_that_failed_parity_gives_its_program_unproven(tmp_path):
    exported = export(None, faulty_models.make_spec("faulty_models.TakesLogarithm"), threads=1)
    assert exported.failure.kind is FailureKind.nonfinite
    assert exported.torch_report is None
    program = exported.program
    assert not program.is_proven
    with pytest.warns(UserWarning, match="not proven: parity: nonfinite"):
        program.save(tmp_path / "log.onnx")


def test_without_a_module_the_specs_source_is_built_for_the_export_and_for_the_proof(tmp_path):
    exported = export(None, faulty_models.make_spec(), tmp_path / "out", threads=1)
    assert exported.passed
    assert exported.directory.path == tmp_path / "out"
    assert exported.program.prove().failure is None


def test_an_export_is_opened_again_and_proven_with_its_module(tmp_path):
    module = Grows()
    exported = export(module, make_spec(module, (X,)), tmp_path / "out", threads=1)
    program = open_program(tmp_path / "out", threads=1)
    torch.testing.assert_close(program(X), exported.program(X))
    assert program.is_proven
    with pytest.raises(ConfigError, match="give it to open_program"):
        program.prove()
    assert open_program(tmp_path / "out", module, threads=1).prove().failure is None
    with pytest.raises(FileNotFoundError):
        open_program(tmp_path)
    data = tmp_path / "out" / "model.onnx.data"
    data.write_bytes(data.read_bytes()[::-1])
    with pytest.raises(IntegrityError, match=r"model.onnx.data missing, or not as exported"):
        open_program(tmp_path / "out")


def test_a_spec_without_source_needs_a_module(tmp_path):
    spec = make_spec(Grows(), (X,))
    with pytest.raises(ConfigError, match=r"model.source: the key _target_ is missing"):
        export(None, spec, tmp_path)


def test_arguments_in_the_old_order_are_refused(tmp_path):
    with pytest.raises(TypeError, match="the module comes first"):
        export(make_spec(Grows(), (X,)), tmp_path)


def test_an_interrupt_passes_through(tmp_path):
    class Interrupts(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    module = Interrupts().train()
    spec = make_spec(module, (X,))
    with pytest.raises(KeyboardInterrupt):
        export(module, spec, threads=1)
    assert module.training


def test_ctrl_c_at_a_notebooks_process_ends_the_export_and_leaves_no_folder(tmp_path):
    script = tmp_path / "notebook.py"
    script.write_text(NOTEBOOK)
    root = Path(exporter.__file__).parents[1]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(scratch)}
    process = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True)
    killer = threading.Timer(120, process.kill)
    killer.start()
    try:
        assert process.stdout.readline() == "forward\n"
        assert list(scratch.glob("modelpress-*"))
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate()
    finally:
        killer.cancel()
        process.kill()
    assert rest == "interrupted\n"
    assert not list(scratch.glob("modelpress-*"))


NOTEBOOK = """
import time
import torch
import exporter

class Sleeps(torch.nn.Module):
    def forward(self, x):
        print("forward", flush=True)
        time.sleep(600)
        return x

module = Sleeps()
spec = exporter.make_spec(module, (torch.zeros(2, 2),))
try:
    exporter.export(module, spec, threads=1)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_a_declared_spec_needs_neither_source_nor_precision(tmp_path):
    model = exporter.ModelSpec(
        name="tiny", inputs={"x": Input(shape=["n", 8])}, dims={"n": Dim(min=1, max=8, example=3)}
    )
    exported = export(Grows(), exporter.ExportSpec(id="tiny", model=model), tmp_path, threads=1)
    assert exported.failure is None
    assert (exported.result.spec.precision.rtol, exported.result.spec.precision.atol) == (1e-4, 1e-5)
