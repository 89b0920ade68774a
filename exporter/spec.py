"""What is asked for one export: plain data that YAML, JSON and a notebook can all write.

The standard library alone is imported here, so that reading a spec never loads torch. The classes are not
frozen because OmegaConf merges YAML into them; nothing changes a spec after it is composed.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = [
    "DType",
    "Device",
    "Dim",
    "ExportOptions",
    "ExportSpec",
    "Fill",
    "FillKind",
    "Input",
    "ModelSpec",
    "NoiseFloor",
    "Output",
    "ParityOptions",
    "PassName",
    "Precision",
    "PrecisionName",
]

# OmegaConf matches an enum by the NAME of its members, so names are spelled as users type them.


class DType(StrEnum):
    """Element types that an input can have."""

    float32 = "float32"
    float64 = "float64"
    float16 = "float16"
    bfloat16 = "bfloat16"
    float8_e4m3fn = "float8_e4m3fn"
    float8_e5m2 = "float8_e5m2"
    # The graph has a last axis of 2 for these, real and imaginary part: ONNX Runtime takes no complex tensors.
    complex64 = "complex64"
    complex128 = "complex128"
    int8 = "int8"
    int16 = "int16"
    int32 = "int32"
    int64 = "int64"
    uint8 = "uint8"
    uint16 = "uint16"
    uint32 = "uint32"
    uint64 = "uint64"
    bool = "bool"


class FillKind(StrEnum):
    """How an input's elements are drawn."""

    normal = "normal"
    uniform = "uniform"
    randint = "randint"
    arange = "arange"
    ones = "ones"
    zeros = "zeros"
    constant = "constant"
    file = "file"


class Device(StrEnum):
    """Where PyTorch runs the model."""

    cpu = "cpu"
    # The first NVIDIA GPU that CUDA_VISIBLE_DEVICES shows; docs/gpu.md says what was tried of this.
    cuda = "cuda"


class PassName(StrEnum):
    """Graph passes that `export.optimize` can list; docs/passes.md says what each does."""

    default = "default"
    inline = "inline"
    fold_constants = "fold_constants"
    rewrite = "rewrite"
    dead_code = "dead_code"
    identities = "identities"
    cse = "cse"
    lift_constants = "lift_constants"
    deduplicate_initializers = "deduplicate_initializers"
    infer_shapes = "infer_shapes"
    fuse_conv_affine = "fuse_conv_affine"
    fuse_hardswish = "fuse_hardswish"
    fuse_gemm = "fuse_gemm"
    remove_expand = "remove_expand"


class NoiseFloor(StrEnum):
    """Whether PyTorch's own rounding error is measured, and judges beside the tolerance."""

    auto = "auto"
    off = "off"


class PrecisionName(StrEnum):
    """Number formats that a model can be exported in."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8_dynamic = "int8_dynamic"
    int8_weights = "int8_weights"


@dataclass
class Dim:
    """A named size that stays symbolic in the ONNX graph and is proven from `min` to `max`."""

    min: int
    max: int
    # The size at which the model is captured.
    example: int
    # Only multiples of this are sizes; min, max and example are some.
    multiple_of: int = 1


@dataclass
class Fill:
    """Where an input's elements come from; all are seeded and the same on every machine."""

    kind: FillKind = FillKind.normal
    # uniform: low <= x < high. randint: low <= x < high, whole numbers.
    low: float = 0.0
    high: float = 1.0
    # constant: every element has this value.
    value: float = 0.0
    # file: a .npy, .npz or .safetensors file. Each axis is repeated or cut to the size of the case.
    path: str | None = None
    # file: which of the arrays in it, where there are several.
    key: str | None = None


@dataclass
class Input:
    """One tensor that `forward` takes, by the name it gets in the graph."""

    # For each axis a whole number, the name of one of the model's dims, or arithmetic on them: `2*seq`, `past + seq`.
    shape: list[Any]
    dtype: DType = DType.float32
    fill: Fill = field(default_factory=Fill)
    # Where it goes in the call of forward: `mask`, `states[0]` (list), `states(0)` (tuple), `batch.left` (dict).
    # null: the argument of the input's own name.
    argument: str | None = None
    # As many inputs of this kind; `{i}` in the name and in the argument stands for 0, 1, 2, ...
    repeat: int | None = None


@dataclass
class Output:
    """One tensor that `forward` returns, by the name it gets in the graph."""

    # Checked against the saved graph where given: whole numbers, dims and arithmetic on them.
    shape: list[Any] | None = None
    # Allow NaN and infinity; they must then stand in the same places in torch and ONNX Runtime.
    nonfinite: bool = False
    # As many outputs of this kind; `{i}` in the name stands for 0, 1, 2, ...
    repeat: int | None = None


@dataclass
class ModelSpec:
    """What the model is, what it takes and what it gives back."""

    # Names the export's directory: letters, digits, dot, dash and underscore.
    name: str
    # In the order in which the ONNX graph shall take them.
    inputs: dict[str, Input]
    # `_target_` is the dotted path of a class or function, the rest its keyword arguments; may be nested. Empty only
    # where a module is handed to `exporter.export`.
    source: dict[str, Any] = field(default_factory=dict)
    dims: dict[str, Dim] = field(default_factory=dict)
    # Arguments of forward that are no tensors, by name or path: None, numbers, strings. They are baked into the graph.
    constants: dict[str, Any] = field(default_factory=dict)
    # A function for inputs that must agree with one another. `_target_` is its dotted path, the rest its keyword
    # arguments; it also gets `sizes`, a dict of the dims, and `generator`, a seeded torch.Generator on the CPU. What it
    # returns, a dict of tensors, replaces the fills of those inputs.
    input_factory: dict[str, Any] | None = None
    # In order. Where `forward` returns a dict, these are its keys. Empty: named after what `forward` returns.
    outputs: dict[str, Output] = field(default_factory=dict)
    # A state dict: a .safetensors file, the .safetensors.index.json of a sharded one, or a .pt file; without it the
    # weights are what the seed makes them.
    weights: str | None = None
    # Checked before the weights are used: the file's, or that of the output of `sha256sum INDEX SHARDS...`.
    weights_sha256: str | None = None
    # Seeds random weights and the test inputs.
    seed: int = 0
    # Also write model.debug.onnx, whose nodes carry their stack traces: paths and source lines of this machine.
    debug_metadata: bool = False


@dataclass
class ExportOptions:
    """How the model is turned into ONNX."""

    # The ONNX operator set. 18 to 25 are proven on the zoo; another is tried, and fails where the file is not of it.
    opset_version: int = 20
    # Try known ways round a failure before giving up; the verdict on what comes of it is no less strict.
    rescue: bool = True
    # Where the module and its inputs are; cuda needs an NVIDIA GPU, and a torch that is built for it.
    device: Device = Device.cpu
    # Also measure what the deprecated TorchScript exporter needs for this model, in a process of its own.
    compare_torchscript: bool = False
    # none; default: the passes of torch's own `ONNXProgram.optimize()`; or a list of passes (`PassName`), in order.
    optimize: Any = "default"
    # Write also model.ort.onnx: optimized by ONNX Runtime ("extended" level), for ONNX Runtime on the CPU alone.
    ort_optimized: bool = False
    # `_target_` is the dotted path of a function that gives a dict from operators to ONNX functions of one's own, the
    # rest its keyword arguments.
    custom_translation_table: dict[str, Any] | None = None
    # Copy safetensors weights from file to file, without loading them; false loads them as any others.
    stream_weights: bool = True


@dataclass
class Precision:
    """The number format, and how close ONNX Runtime must come to PyTorch in it.

    An element passes if `|actual - expected| <= atol + rtol * |expected|`, expected being PyTorch's, in float32
    whatever the format. Two gates, of which at least one is set: every element, and each output as a whole.
    """

    # The defaults are plain float32's. They leave room for another order of summation, and for nothing else.
    name: PrecisionName = PrecisionName.fp32
    # null for both: elements are not gated; null for one of them: it counts as 0.
    rtol: float | None = 1e-4
    atol: float | None = 1e-5
    # The most that `||actual - expected|| / ||expected||` may be for an output, in the Euclidean norm; null: not gated.
    max_rel_l2: float | None = None


@dataclass
class ParityOptions:
    """How far the parity cases go, and what judges them beside the tolerance."""

    # A dim is tried at its maximum as far as the inputs of one case stay under this many elements.
    max_input_elements: int = 4_194_304
    # auto: run the module in float64 too where memory allows, and hold ONNX Runtime's error against PyTorch's own. off:
    # the tolerance alone judges.
    noise_floor: NoiseFloor = NoiseFloor.auto
    # How many times PyTorch's own rounding error is wrong, however small; docs/parity.md says where 24 comes from.
    max_noise_ratio: float = 24.0


@dataclass
class ExportSpec:
    """One export: everything that decides the bytes of the result and its verdict."""

    # Names the directory under exports/.
    id: str
    model: ModelSpec
    precision: Precision = field(default_factory=Precision)
    export: ExportOptions = field(default_factory=ExportOptions)
    parity: ParityOptions = field(default_factory=ParityOptions)
