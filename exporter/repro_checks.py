"""The part of repro.py that sees whether the failure is there: one check for each sort of failure."""

import re
from collections.abc import Iterator

from exporter.errors import FailureKind
from exporter.evidence import CaseRecord
from exporter.repro_code import Code, fill_in, render_plain
from exporter.repro_noise import is_noise_judged, render_judgement, render_noise
from exporter.result import ExportResult
from exporter.spec import DType

__all__ = ["SIZE_KINDS", "UNPACK", "may_return_dataclass", "render_checks"]

# What an output is called where `forward` returns tensors, tuples and lists alone.
_UNNAMED = re.compile(r"output(_\d+)*")
# Seen in what was captured, without a run.
SIZE_KINDS = (FailureKind.dim_narrowed, FailureKind.dim_specialized, FailureKind.dim_conflict)
_EXTENDED = {
    DType.bfloat16: ("uint16", "BFLOAT16"),
    DType.float8_e4m3fn: ("uint8", "FLOAT8E4M3FN"),
    DType.float8_e5m2: ("uint8", "FLOAT8E5M2"),
}

UNPACK = '''\
def unpack(value):
    """What forward returns, with each dataclass as a dict: torch takes no others apart."""
    if dataclasses.is_dataclass(value) and type(value) not in pytree.SUPPORTED_NODES:
        return {field.name: unpack(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if type(value) in (list, tuple):
        return type(value)(unpack(item) for item in value)
    return {key: unpack(item) for key, item in value.items()} if type(value) is dict else value
'''

_IN_ORDER = '''\
def in_order(program, call):
    """The tensors of a call in the order in which the graph takes them."""
    taken = program.exported_program.call_spec.in_spec
    order = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(taken.num_leaves)), taken))[0]
    given = {pytree.keystr(path): leaf for path, leaf in pytree.tree_flatten_with_path(call)[0]}
    leaves = [given[pytree.keystr(path)] for path, _ in order]
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
'''

_RUN_TORCH = '''\
def real(tensor):
    """A complex tensor as the graph has it, real and imaginary part on a last axis."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def run_torch(module):
    args, kwargs = arguments(module, make_inputs(*CASE))
    with torch.inference_mode():
        leaves = pytree.tree_leaves(module(*args, **kwargs))
    return [real(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]
'''

_RUN_ONNX = """\
def run_onnx(module, program, path):
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    tensors = in_order(program, arguments(module, make_inputs(*CASE)))
    $run
"""

_PLAINLY = """\
feeds = {item.name: real(tensor).numpy() for item, tensor in zip(session.get_inputs(), tensors, strict=True)}
return [torch.as_tensor(array) for array in session.run(None, feeds)]
"""

_BY_VALUES = """\
feeds = {item.name: to_value(real(tensor)) for item, tensor in zip(session.get_inputs(), tensors, strict=True)}
return [to_tensor(value) for value in session.run_with_ort_values(None, feeds)]
"""

_VALUES = """\
# What numpy has no name for: how it is viewed, and ONNX's number of it.
EXTENDED = $extended


def to_value(tensor):
    if tensor.dtype not in EXTENDED:
        return ort.OrtValue.ortvalue_from_numpy(tensor.numpy())
    view, number = EXTENDED[tensor.dtype]
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(tensor.contiguous().view(view).numpy(), number)


def to_tensor(value):
    is_extended = value.element_type() in [number for _, number in EXTENDED.values()]
    return from_dlpack(value) if is_extended else torch.as_tensor(value.numpy())
"""

_COMPARE = '''\
def check(module, program, path):
    """Whether ONNX Runtime gives what torch gives."""
    expected, actual = run_torch(module), run_onnx(module, program, path)
    if len(expected) != len(actual):
        print(f"forward returns {len(expected)} tensors, the graph {len(actual)}")
        return False
    $exact
    passed = True
    for index, (one, two) in enumerate(zip(expected, actual, strict=True)):
        if one.shape != two.shape or one.dtype != two.dtype:
            forms = [f"{tensor.dtype}{list(tensor.shape)}" for tensor in (one, two)]
            print(f"output {index}: torch {forms[0]}, ONNX Runtime {forms[1]}")
            passed = False
            continue
        wide, other = one.double().numpy(), two.double().numpy()
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(other - wide)
        missed = ~(np.isfinite(difference) & (difference <= ATOL + RTOL * np.abs(wide)))
        if not one.is_floating_point():
            missed |= one.numpy() != two.numpy()
        $nonfinite
        passes, number, largest = not missed.any(), int(missed.sum()), float(difference.max(initial=0.0))
        print(f"output {index}: max_abs_diff {largest:.3g}, {number} of {one.numel()} elements out of tolerance")
        $noise
        passed = passed and passes
    return passed
'''

_NONFINITE = """\
if index in $allowed:
    # Declared to hold NaN and infinity, in the same places.
    missed &= ~((wide == other) | (np.isnan(wide) & np.isnan(other)))
"""

_REPEAT = '''\
def check(module, program, path):
    """Whether torch, and ONNX Runtime, each give the same twice."""
    passed = True
    for name, run in (("torch", run_torch), ("ONNX Runtime", lambda module: run_onnx(module, program, path))):
        pairs = zip(run(module), run(module), strict=True)
        same = all(np.array_equal(one.double(), two.double(), equal_nan=True) for one, two in pairs)
        print(f"{name} run twice: {'the same' if same else 'different'}")
        passed = passed and same
    return passed
'''

_CHECK_SIZES = '''\
# The sizes of each dim, and the axes as they are declared, dims by themselves first.
DIMS = $dims
DECLARED = $declared


def check(module, program, path):
    """Whether each axis is symbolic, is the size that is declared, and the program holds for all of its sizes."""
    exported, inputs = program.exported_program, make_inputs(*EXAMPLE)
    values = {node.name: node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder"}
    sizes = [values[name].shape for name in exported.graph_signature.user_inputs if name in values]
    tensors = in_order(program, arguments(module, inputs))
    shapes = {id(tensor): size for tensor, size in zip(tensors, sizes, strict=True)}
    names = {name: sympy.Symbol(name, integer=True, nonnegative=True) for name in DIMS}
    symbols, passed = {}, True
    for name, axis, declared in DECLARED:
        size, wanted = shapes[id(inputs[name])][axis], eval(declared, dict(names))
        if isinstance(size, int):
            print(f"{name}, axis {axis}: declared {declared}, captured {size}")
            passed = False
            continue
        if size.node.expr.is_Symbol:
            symbols.setdefault(size.node.expr, wanted)
        found, bounds = size.node.expr.xreplace(symbols), exported.range_constraints.get(size.node.expr)
        if sympy.expand(found - wanted) != 0:
            print(f"{name}, axis {axis}: declared {declared}, captured {found}")
            passed = False
        elif declared in DIMS and bounds is not None:
            low, high = DIMS[declared]
            print(f"{name}, axis {axis}: declared {declared} from {low} to {high}, captured {bounds}")
            passed = passed and bool(bounds.lower <= low and bounds.upper >= high)
    return passed
'''


def render_checks(result: ExportResult, case: CaseRecord | None) -> Iterator[str]:
    """The function `check`, and what it calls.

    Args:
        result: With a failure.
        case: That it was seen in, if it was.
    """
    assert result.failure is not None
    kind = result.failure.kind
    yield _IN_ORDER
    if kind in SIZE_KINDS:
        yield _render_sizes(result)
        return
    yield _RUN_TORCH
    yield from _render_run(result)
    if kind is FailureKind.nondeterministic:
        yield _REPEAT
        return
    is_judged = case is not None and is_noise_judged(result, case)
    if is_judged:
        yield render_noise(result)
    allowed = _allow_nonfinite(result)
    yield fill_in(
        _COMPARE,
        exact="exact = run_float64(module)" if is_judged else "",
        noise=render_judgement() if is_judged else "",
        nonfinite=fill_in(_NONFINITE, allowed=repr(allowed)) if allowed else "",
    )


def may_return_dataclass(result: ExportResult) -> bool:
    """Whether `forward` returns, or may for all that is known, something with names in it."""
    names = [output.name for output in result.outputs]
    return not names or any(_UNNAMED.fullmatch(name) is None for name in names)


def _render_run(result: ExportResult) -> Iterator[str]:
    inputs = [DType(item.dtype) for item in result.spec.model.inputs.values()]
    outputs = [output.dtype for output in result.outputs]
    used = [dtype for dtype in _EXTENDED if dtype in inputs or dtype.value in outputs]
    yield fill_in(_RUN_ONNX, run=_BY_VALUES if used else _PLAINLY)
    if used:
        extended = {
            Code(f"torch.{dtype.value}"): (Code(f"torch.{view}"), Code(f"onnx.TensorProto.{number}"))
            for dtype, (view, number) in _EXTENDED.items()
            if dtype in used
        }
        yield fill_in(_VALUES, extended=render_plain(extended))


def _render_sizes(result: ExportResult) -> str:
    model = result.spec.model
    axes = [
        (name, axis, size)
        for name, item in model.inputs.items()
        for axis, size in enumerate(item.shape)
        if isinstance(size, str)
    ]
    # What is computed from dims is understood once the dims are known.
    ordered = sorted(axes, key=lambda found: found[2] not in model.dims)
    dims = {name: (dim.min, dim.max) for name, dim in model.dims.items()}
    return fill_in(_CHECK_SIZES, dims=render_plain(dims), declared=render_plain(ordered))


def _allow_nonfinite(result: ExportResult) -> list[int]:
    """The places of the outputs that may hold NaN and infinity."""
    declared = result.spec.model.outputs
    names = [output.name for output in result.outputs] or list(declared)
    return [place for place, name in enumerate(names) if name in declared and declared[name].nonfinite]
