"""Specs and results through JSON and back, and errors that name the place."""

import json
from enum import StrEnum

import faulty_models
import pytest

from exporter import (
    Dim,
    DType,
    ExportOptions,
    ExportResult,
    ExportSpec,
    Failure,
    FailureKind,
    Fill,
    FillKind,
    Input,
    ModelSpec,
    NoiseFloor,
    Output,
    ParityOptions,
    Precision,
    PrecisionName,
    Status,
    Step,
)
from exporter.evidence import CaseRecord, DimRecord, NoiseRecord, NoiseVerdict, OutputParity, RoundingError
from exporter.plain_data import DataError, flatten, from_plain, to_plain
from exporter.result import FileRecord, StepRecord, TensorRecord

SPEC = ExportSpec(
    id="a-1",
    model=ModelSpec(
        name="a",
        source={"_target_": "pkg.Model", "sizes": [1, 2.5, None, True], "inner": {"_target_": "pkg.Inner", "x": "y"}},
        inputs={
            "ids": Input(shape=["n", 3], dtype=DType.int64, fill=Fill(FillKind.randint, low=0, high=7)),
            "x": Input(shape=[], dtype=DType.float16, fill=Fill(FillKind.constant, value=-2.5)),
        },
        dims={"n": Dim(min=1, max=9, example=4)},
        outputs={"y": Output(shape=["n", 1], nonfinite=True), "z": Output()},
        weights="weights/a.safetensors",
        seed=11,
    ),
    precision=Precision(name=PrecisionName.fp32, rtol=1e-3, atol=0.0),
    export=ExportOptions(opset_version=18, optimize=["fold_constants", "cse"]),
    parity=ParityOptions(max_input_elements=1000, noise_floor=NoiseFloor.off, max_noise_ratio=8.0),
)

RESULT = ExportResult(
    spec=SPEC,
    status=Status.failed,
    failure=Failure(step=Step.parity, kind=FailureKind.parity_failed, cause="output 'y'", hint="try"),
    started_at="2026-01-01T00:00:00.000+00:00",
    ended_at="2026-01-01T00:00:01.000+00:00",
    duration_s=1.0,
    cpu_s=1.25,
    baseline_rss_bytes=5,
    steps=[StepRecord(step=Step.build, duration_s=0.5, peak_rss_bytes=None)],
    inputs=[TensorRecord(name="ids", dtype="int64", shape=["n", 3])],
    outputs=[TensorRecord(name="y", dtype="float32", shape=[])],
    dims=[DimRecord(name="n", min=1, max=9, example=4, proven_sizes=[1, 4])],
    cases=[
        CaseRecord(
            name="example",
            sizes={"n": 4},
            seed=11,
            outputs=[
                OutputParity(
                    output="y",
                    passed=False,
                    num_elements=4,
                    num_mismatched=4,
                    max_abs_diff=None,
                    max_rel_diff=0.25,
                    reason="why",
                    noise=NoiseRecord(
                        num_elements=4,
                        scale=1.0,
                        peak=2.0,
                        torch=RoundingError(rms=1e-8, max=2e-8, drift=0.0, in_tolerances=None),
                        ort=RoundingError(rms=1e-6, max=2e-6, drift=1e-7, in_tolerances=0.5),
                        ratio=100.0,
                        verdict=NoiseVerdict.wrong,
                    ),
                )
            ],
            noise_reason="why not",
        )
    ],
    files=[FileRecord(path="model.onnx", size_bytes=3, sha256="ab")],
    capture_strategy="TorchExportNonStrictStrategy",
    num_parameters=1,
    num_nodes=2,
    num_nodes_captured=3,
    op_counts={"Add": 1},
    latency_s=0.125,
    versions={"torch": "2"},
)


@pytest.mark.parametrize(("cls", "value"), [(ExportSpec, SPEC), (ExportResult, RESULT)])
def test_a_value_comes_back_equal_from_json(cls, value):
    assert from_plain(cls, json.loads(json.dumps(to_plain(value)))) == value


def test_enums_come_back_as_enums_not_as_strings():
    spec = from_plain(ExportSpec, json.loads(json.dumps(to_plain(SPEC))))
    assert isinstance(spec.model.inputs["ids"].dtype, DType)
    assert isinstance(spec.precision.name, PrecisionName)


def test_a_spec_with_defaults_comes_back_equal():
    spec = faulty_models.make_spec()
    assert from_plain(ExportSpec, to_plain(spec)) == spec


def test_keys_with_a_default_may_be_missing():
    plain = to_plain(SPEC)
    for key in ("export", "parity"):
        del plain[key]
    for key in ("dims", "outputs", "weights", "seed"):
        del plain["model"][key]
    spec = from_plain(ExportSpec, plain)
    assert (spec.export, spec.parity) == (ExportOptions(), ParityOptions())
    assert (spec.model.dims, spec.model.outputs, spec.model.weights, spec.model.seed) == ({}, {}, None, 0)


def put(plain, path, value):
    """Set, or with `...` delete, what stands at a path of keys and indices."""
    *parents, last = path
    for key in parents:
        plain = plain[key]
    if value is ...:
        del plain[last]
    else:
        plain[last] = value


SPEC_FAULTS = [
    (["wieghts"], 1, "ExportSpec: unknown key 'wieghts'"),
    (["model", "inputs", "x", "shpae"], [1], "ExportSpec.model.inputs.x: unknown key 'shpae'"),
    (["id"], ..., "'id'"),
    (["model", "dims", "n", "max"], ..., "ExportSpec.model.dims.n: "),
    (["id"], 3, "ExportSpec.id: expected str, found int 3"),
    (["id"], None, "ExportSpec.id: expected str, found NoneType None"),
    (["model"], [], "ExportSpec.model: expected dict, found list []"),
    (["model", "seed"], "1", "ExportSpec.model.seed: expected int, found str '1'"),
    (["model", "seed"], True, "ExportSpec.model.seed: expected int, found bool True"),
    (["model", "seed"], 1.0, "ExportSpec.model.seed: expected int, found float 1.0"),
    (["model", "weights"], 3, "ExportSpec.model.weights: expected str, found int 3"),
    (["model", "inputs", "x", "dtype"], "float31", "ExportSpec.model.inputs.x.dtype: 'float31' is not one of"),
    (["model", "inputs", "x", "dtype"], None, "ExportSpec.model.inputs.x.dtype: None is not one of"),
    (["model", "inputs", "x", "shape"], "n", "ExportSpec.model.inputs.x.shape: expected list, found str 'n'"),
    (["model", "outputs", "y", "nonfinite"], 1, "ExportSpec.model.outputs.y.nonfinite: expected bool, found int 1"),
    (["precision", "rtol"], "1e-3", "ExportSpec.precision.rtol: expected float, found str '1e-3'"),
    (["precision", "rtol"], True, "ExportSpec.precision.rtol: expected float, found bool True"),
]


@pytest.mark.parametrize(("path", "value", "message"), SPEC_FAULTS)
def test_a_fault_in_a_spec_is_named_with_its_place(path, value, message):
    plain = to_plain(SPEC)
    put(plain, path, value)
    with pytest.raises(DataError) as caught:
        from_plain(ExportSpec, plain)
    assert message in str(caught.value)


RESULT_FAULTS = [
    (["cases", 0, "outputs", 0, "passed"], "no", "ExportResult.cases[0].outputs[0].passed: expected bool, found str"),
    (["cases", 0, "sizes", "n"], 1.5, "ExportResult.cases[0].sizes.n: expected int, found float 1.5"),
    (["inputs", 0, "shape", 1], 1.5, "ExportResult.inputs[0].shape[1]: expected str, found float 1.5"),
    (["inputs", 0, "shape", 1], True, "ExportResult.inputs[0].shape[1]: expected str, found bool True"),
    (["steps", 0, "step"], "sleep", "ExportResult.steps[0].step: 'sleep' is not one of"),
    (["failure", "kind"], "bad_luck", "ExportResult.failure.kind: 'bad_luck' is not one of"),
    (["status"], "maybe", "ExportResult.status: 'maybe' is not one of"),
    (["status"], ..., "'status'"),
]


@pytest.mark.parametrize(("path", "value", "message"), RESULT_FAULTS)
def test_a_fault_in_a_result_is_named_with_its_place(path, value, message):
    plain = to_plain(RESULT)
    put(plain, path, value)
    with pytest.raises(DataError) as caught:
        from_plain(ExportResult, plain)
    assert message in str(caught.value)


def test_a_whole_number_is_read_where_a_float_stands():
    plain = to_plain(SPEC)
    plain["precision"]["atol"] = 1
    atol = from_plain(ExportSpec, plain).precision.atol
    assert (atol, type(atol)) == (1.0, float)


def test_a_place_can_be_given_a_name():
    with pytest.raises(DataError, match=r"^spec\.json: expected dict, found int 3$"):
        from_plain(ExportSpec, 3, "spec.json")


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(DataError) as caught:
        from_plain(dict[str, int], {"a": "b" * 10_000})
    assert len(str(caught.value)) < 200


class Colour(StrEnum):
    red = "r"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.red, "r"),
        ((1, (2, Colour.red)), [1, [2, "r"]]),
        ({Colour.red: 1, 2: None}, {"r": 1, "2": None}),
        (Dim(min=1, max=2, example=1), {"min": 1, "max": 2, "example": 1, "multiple_of": 1}),
        (True, True),
    ],
)
def test_plain_data_is_what_json_has(value, plain):
    found = to_plain(value)
    assert found == plain
    assert json.loads(json.dumps(found)) == plain


@pytest.mark.parametrize(
    ("nested", "flat"),
    [
        ({"a": {"b": 1, "c": {"d": [1, {"e": 2}]}}, "f": None}, {"a.b": 1, "a.c.d": [1, {"e": 2}], "f": None}),
        ({"a": {}}, {"a": {}}),
        ({}, {}),
    ],
)
def test_nested_keys_flatten_to_dotted_ones(nested, flat):
    assert flatten(nested) == flat
