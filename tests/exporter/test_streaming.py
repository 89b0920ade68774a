"""Weights that are copied from a checkpoint to the saved file: the same bytes as in the ordinary way, or a reason."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import checkpoint_models
import faulty_models
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exporter import ExportDirectory, FailureKind, Status, Step
from exporter.build import build_module
from exporter.checkpoint import hash_weights
from exporter.conductor import run_export
from exporter.errors import StepError
from exporter.evidence import WeightsMode
from exporter.measure import can_prepack
from exporter.result import FileRecord
from exporter.streaming import build
from exporter.weights import read_state


def spec_of(target, path, num_shards=1, change=dict):
    """A spec whose weights are another seed's, each tied one under its first name; `change` takes the state."""
    make = getattr(checkpoint_models, target)
    # The classes say x; nn.Sequential says input.
    argument = "x" if isinstance(make, type) else "input"
    spec = faulty_models.make_spec(f"checkpoint_models.{target}", inputs={argument: faulty_models.Input(["n", 8])})
    torch.manual_seed(77)
    state = make().state_dict()
    firsts = {tensor.data_ptr(): name for name, tensor in reversed(state.items())}.values()
    state = {name: tensor for name, tensor in state.items() if name in firsts}
    spec.model.weights = str(save_state(change(state), path, num_shards))
    return spec


def save_state(state, path, num_shards=1):
    path.mkdir(exist_ok=True)
    if num_shards == 1:
        save_file(state, path / "w.safetensors")
        return path / "w.safetensors"
    names = list(state)
    weight_map = {name: f"w-{index % num_shards}.safetensors" for index, name in enumerate(names)}
    for shard in set(weight_map.values()):
        save_file({name: state[name] for name in names if weight_map[name] == shard}, path / shard)
    index = path / "w.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return index


def both_ways(spec, path):
    """The results of the streamed and of the ordinary export, and whether all bytes are equal."""
    results = []
    for name, stream in (("streamed", True), ("loaded", False)):
        spec.export.stream_weights = stream
        result = run_export(spec, path / name, threads=1)
        assert (result.status, result.failure) == (Status.passed, None)
        results.append(result)
    assert results[1].weights.mode is WeightsMode.loaded
    assert results[1].weights.reason == "export.stream_weights is false"
    assert results[0].files == results[1].files
    assert results[0].num_parameters == results[1].num_parameters
    return results[0]


# torch warns of every recurrent layer, in whichever way its weights came.
RECURRENT = pytest.param("make_recurrent", marks=pytest.mark.filterwarnings("ignore"))
STREAMED = ["Layers", "make_normed", "make_spectral", "make_shared_layer", RECURRENT, "DrawsParameter"]


@pytest.mark.parametrize("target", STREAMED)
def test_streamed_weights_give_the_bytes_of_loaded_ones(tmp_path, target):
    result = both_ways(spec_of(target, tmp_path), tmp_path)
    assert (result.weights.mode, result.weights.reason) == (WeightsMode.streamed, "")


@pytest.mark.parametrize("optimize", ["none", "default"])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_so_do_shards_and_any_passes(tmp_path, num_shards, optimize):
    spec = spec_of("Layers", tmp_path, num_shards=num_shards)
    spec.export.optimize = optimize
    assert both_ways(spec, tmp_path).weights.mode is WeightsMode.streamed


ORDINARY = {
    "Looks": "the constructor needs values: RuntimeError: Tensor.item() cannot be called on meta tensors",
    "Derives": "the constructor computes 'norms' from parameters",
    "Keeps": "the constructor computes 'kept' from parameters",
    "Draws": "'noise' is not in the file, and the constructor draws it at random",
    "HasSpecial": "'weight' is a Special",
    "make_old_normed": "the constructor computes '0.weight' from parameters",
}


@pytest.mark.parametrize("target", ORDINARY)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_what_cannot_be_streamed_is_loaded_and_says_why(tmp_path, target):
    spec = spec_of(target, tmp_path)
    built = build(spec)
    assert (built.record.mode, built.record.reason) == (WeightsMode.loaded, ORDINARY[target])
    assert not built.places
    expected = build_module(spec.model).state_dict()
    for name, tensor in built.module.state_dict().items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("target", ["Looks", "Derives", "Draws"])
def test_an_export_that_cannot_be_streamed_is_the_ordinary_one(tmp_path, target):
    result = both_ways(spec_of(target, tmp_path), tmp_path)
    assert result.weights.mode is WeightsMode.loaded
    assert f"Weights loaded: {ORDINARY[target][:20]}" in ExportDirectory(tmp_path / "streamed").report.read_text()


def test_the_last_seed_is_a_seed_too(tmp_path):
    spec = spec_of("DrawsParameter", tmp_path)
    spec.model.seed = 2**32 - 1
    assert build(spec).record.mode is WeightsMode.streamed


def test_a_cast_is_done_in_the_ordinary_way(tmp_path):
    spec = spec_of("Layers", tmp_path, change=lambda state: state | {"scale": state["scale"].half()})
    result = both_ways(spec, tmp_path)
    assert result.weights.reason == "'scale' is torch.float16 in the file and torch.float32 in the model"


def test_other_files_than_safetensors_are_loaded(tmp_path):
    spec = spec_of("Layers", tmp_path)
    torch.save(read_state(Path(spec.model.weights)), tmp_path / "w.pt")
    spec.model.weights = str(tmp_path / "w.pt")
    assert both_ways(spec, tmp_path).weights.reason == "only safetensors are streamed"


def test_weights_of_the_seed_and_a_module_that_is_given_are_told_apart(perceptron, tmp_path):
    assert perceptron.result.weights.mode is WeightsMode.given
    assert run_export(perceptron.spec, tmp_path, threads=1).weights.mode is WeightsMode.seeded


def test_the_module_that_parity_runs_has_the_checkpoints_memory_and_its_ties(tmp_path):
    built = build(spec_of("Layers", tmp_path))
    module = built.module
    assert module.head.weight is module.table.weight
    assert not [part.training for part in module.modules() if part.training]
    assert all(parameter.data_ptr() in built.places for parameter in module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(module.frequencies, 1.0 / torch.arange(1.0, 9.0))
    assert module.norm.num_batches_tracked.item() == 0


def test_the_module_can_be_copied_and_changed_without_touching_the_file(tmp_path):
    spec = spec_of("Layers", tmp_path)
    before = Path(spec.model.weights).read_bytes()
    module = build(spec).module
    doubled = copy.deepcopy(module).double()
    assert doubled.head.weight is doubled.table.weight
    x = torch.randn(3, 8)
    assert torch.allclose(doubled(x.double()).float(), module(x), atol=1e-4)
    with torch.no_grad():
        module.hidden.weight.zero_()
    assert Path(spec.model.weights).read_bytes() == before


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda state: {k: v for k, v in state.items() if k != "scale"}, 'Missing key(s) in state_dict: "scale"'),
        (lambda state: state | {"more": torch.zeros(1)}, 'Unexpected key(s) in state_dict: "more"'),
        (lambda state: state | {"scale": torch.zeros(9)}, "size mismatch for scale"),
        (lambda state: state | {"scale": torch.zeros(8).double()}, "'scale' is torch.float64 in the file"),
        (lambda state: state | {"head.weight": torch.zeros(32, 8)}, "'table.weight' and 'head.weight' are one tensor"),
    ],
)
def test_weights_that_do_not_fit_are_the_same_error_in_both_ways(tmp_path, num_shards, stream, change, cause):
    spec = spec_of("Layers", tmp_path, num_shards, change)
    spec.export.stream_weights = stream
    with pytest.raises(StepError) as caught:
        build(spec)
    assert caught.value.kind is FailureKind.weights_error
    assert caught.value.cause.startswith(f"{spec.model.weights}: ")
    assert cause in caught.value.cause


def test_a_constructor_that_fails_in_both_ways_fails_with_its_own_error(tmp_path):
    spec = spec_of("Layers", tmp_path)
    spec.model.source = {"_target_": "checkpoint_models.Layers", "no_such_argument": 1}
    result = run_export(spec, tmp_path / "out", threads=1)
    assert (result.failure.step, result.failure.kind) == (Step.build, FailureKind.build_error)
    assert "no_such_argument" in result.failure.cause


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("stream", [True, False])
def test_weights_of_the_declared_hash_are_taken_and_others_are_refused(tmp_path, num_shards, stream):
    spec = spec_of("Layers", tmp_path, num_shards)
    spec.export.stream_weights = stream
    found = hash_weights(Path(spec.model.weights))
    spec.model.weights_sha256 = found.upper()
    build(spec)
    spec.model.weights_sha256 = "0" * 64
    with pytest.raises(StepError) as caught:
        build(spec)
    assert caught.value.kind is FailureKind.weights_error
    assert caught.value.cause == f"{spec.model.weights}: its sha256 is {found}; model.weights_sha256 says {'0' * 64}"


def test_a_missing_file_with_a_declared_hash_is_a_weights_error(tmp_path):
    spec = faulty_models.make_spec(weights=str(tmp_path / "gone.safetensors"), weights_sha256="0" * 64)
    with pytest.raises(StepError) as caught:
        build(spec)
    assert caught.value.kind is FailureKind.weights_error


def test_a_tensor_that_lies_askew_in_its_file_is_copied(tmp_path):
    linear = nn.Linear(8, 8)
    tensors = {"odd": torch.ones(1, dtype=torch.uint8), "weight": linear.weight.detach(), "bias": linear.bias.detach()}
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.numpy().tobytes()
        dtype = "U8" if name == "odd" else "F32"
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    spec = faulty_models.make_spec("checkpoint_models.Odd", weights=str(tmp_path / "w.safetensors"))
    built = build(spec)
    assert built.record.mode is WeightsMode.streamed
    assert built.module.weight.data_ptr() % 4 == 0
    assert torch.equal(built.module.weight, tensors["weight"])
    assert [place.num_bytes for place in built.places.values()] == [1]


def test_a_linked_checkpoint_is_streamed(tmp_path):
    spec = spec_of("Layers", tmp_path)
    blob = tmp_path / "blob"
    weights = Path(spec.model.weights)
    weights.rename(blob)
    weights.symlink_to(blob)
    os.link(blob, tmp_path / "another name")
    assert both_ways(spec, tmp_path).weights.mode is WeightsMode.streamed


def test_the_graph_names_no_other_file_than_its_own(tmp_path):
    spec = spec_of("Layers", tmp_path)
    spec.export.optimize = "none"
    run_export(spec, tmp_path / "out", threads=1)
    content = (tmp_path / "out" / "model.onnx").read_bytes()
    assert b"safetensors" not in content
    assert str(tmp_path).encode() not in content
    model = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False)
    places = {entry.value for t in model.graph.initializer for entry in t.external_data if entry.key == "location"}
    assert places == {"model.onnx.data"}


@pytest.mark.parametrize("how", ["replaced", "touched", "removed"])
def test_a_checkpoint_that_changes_during_the_export_fails_it(tmp_path, how):
    spec = spec_of("Layers", tmp_path)
    weights = Path(spec.model.weights)

    def disturb(step):
        if step is not Step.save:
            return
        if how == "touched":
            os.utime(weights, ns=(1, 1))
        elif how == "removed":
            weights.rename(tmp_path / "elsewhere")
        else:
            content = weights.read_bytes()
            (tmp_path / "new").write_bytes(content[:-1] + b"\0")
            (tmp_path / "new").replace(weights)

    result = run_export(spec, tmp_path / "out", threads=1, on_step=disturb)
    assert result.status is Status.failed
    assert result.failure.step is Step.save
    if how != "removed":
        assert result.failure.kind is FailureKind.weights_error
        assert result.failure.cause == f"{weights}: changed while the model was exported"


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        (WeightsMode.streamed, 2**30, True),
        (WeightsMode.streamed, 2**30 + 1, False),
        (WeightsMode.loaded, 2**31, True),
        (WeightsMode.given, 2**31, True),
    ],
)
def test_large_streamed_weights_are_not_prepacked(mode, size, expected):
    files = [
        FileRecord(path="model.onnx", size_bytes=0, sha256=""),
        FileRecord(path="model.onnx.data", size_bytes=size, sha256=""),
    ]
    assert can_prepack(mode, files) is expected


@pytest.mark.slow
@pytest.mark.parametrize("axes", [2, 3])
def test_streamed_weights_never_enter_memory(tmp_path, axes):
    """256 MiB in 64 layers, each export beside an earlier one of a single layer, which pays for the code."""
    # Made here: what that process once had in memory would hide what it takes later.
    for depth in (1, 64):
        save_file(
            {f"{i}.weight": torch.randn(1024, 1024) / 32 for i in range(depth)}, tmp_path / f"{depth}.safetensors"
        )
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), str(axes)], capture_output=True, text=True, check=True
    )
    streamed, loaded = map(int, done.stdout.split())
    assert streamed < 64 * 2**20, done.stdout
    assert loaded > 240 * 2**20, done.stdout


MEASURE = """
import sys
from pathlib import Path
from exporter import Dim, ExportSpec, Input, ModelSpec, Precision, PrecisionName
from exporter.conductor import run_export

folder, axes = Path(sys.argv[1]), int(sys.argv[2])
shape = ["n", *[3] * (axes - 2), 1024]

def peak(depth, stream):
    layer = {"_target_": "torch.nn.Linear", "in_features": 1024, "out_features": 1024, "bias": False}
    model = ModelSpec(
        name="tiny",
        source={"_target_": "torch.nn.Sequential", "_args_": [layer] * depth},
        dims={"n": Dim(min=1, max=4, example=2)},
        inputs={"input": Input(shape=shape)},
        weights=str(folder / f"{depth}.safetensors"),
    )
    spec = ExportSpec(id="tiny", model=model, precision=Precision(name=PrecisionName.fp32, rtol=1e-3, atol=1e-3))
    spec.export.stream_weights = stream
    result = run_export(spec, folder / "out", threads=1)
    assert result.failure is None, result.failure
    assert result.weights.mode == ("streamed" if stream else "loaded"), result.weights
    return result.export_peak_bytes

peak(1, True)
print(peak(64, True), peak(64, False))
"""
