"""The part of repro.py that makes test inputs and arranges them as `forward` takes them.

What it makes is what `exporter.inputs` makes, to the bit; a test holds the two together.
"""

from collections.abc import Iterator
from typing import Any

from exporter.arguments import argument_of, nest
from exporter.repro_code import Code, fill_in, import_modules, render_axis, render_call, render_plain
from exporter.spec import DType, FillKind, Input, ModelSpec

__all__ = ["render_dynamic_shapes", "render_inputs"]

_COMPLEX = (DType.complex64, DType.complex128)

_MAKE = """\
def make_inputs(sizes, seed):
    $imports
    inputs = $tensors
    $factory
    return inputs
"""

_FACTORY = """\
made = $call
for name, tensor in made.items():
    if (tensor.dtype, tensor.shape) != (inputs[name].dtype, inputs[name].shape):
        raise TypeError(f"the input factory gives {name!r} as {tensor.dtype}{list(tensor.shape)}")
inputs.update(made)
"""

_GENERATOR = """\
def generator(seed, name):
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
"""

_READ_FILL = '''\
def read_fill(path, key, name, shape):
    """An array of a file, each axis repeated or cut to the size that is wanted."""
    data = load_file(path) if path.endswith(".safetensors") else np.load(path, allow_pickle=False)
    if not isinstance(data, np.ndarray):
        data = data[key or (name if len(data) > 1 else next(iter(data)))]
    data = torch.as_tensor(data)
    if data.ndim != len(shape):
        raise ValueError(f"{path} has shape {list(data.shape)}, needed is {shape}")
    for axis, size in enumerate(shape):
        if data.shape[axis] != size:
            data = data.index_select(axis, torch.arange(size) % max(1, data.shape[axis]))
    return data.contiguous()
'''

_ARGUMENTS = '''\
def arguments(module, inputs):
    """How forward is called: by name, and by position what it takes in no other way."""
    named = $named
    parameters = inspect.signature(module.forward).parameters
    starred = next((name for name, item in parameters.items() if item.kind is item.VAR_POSITIONAL), None)
    if starred in named:
        before = list(parameters)[: list(parameters).index(starred)]
    else:
        before = [name for name, item in parameters.items() if item.kind is item.POSITIONAL_ONLY]
    args = [named.pop(name) for name in before if name in named]
    return (*args, *named.pop(starred, ())), named
'''


def render_inputs(model: ModelSpec) -> Iterator[str]:
    """The functions that make the inputs and the call."""
    tensors = {name: Code(_render_tensor(name, item)) for name, item in model.inputs.items()}
    factory, imports = "", []
    if model.input_factory is not None:
        node = {**model.input_factory, "sizes": Code("dict(sizes)"), "generator": Code("generator(seed, '')")}
        factory, imports = fill_in(_FACTORY, call=render_call(node)), import_modules(node)
    inputs = fill_in(_MAKE, imports=imports, tensors=_spread(tensors), factory=factory)
    yield inputs
    if "generator(" in inputs:
        yield _GENERATOR
    if "read_fill(" in inputs:
        yield _READ_FILL
    yield fill_in(_ARGUMENTS, named=_render_named(model))


def render_dynamic_shapes(model: ModelSpec) -> str:
    """Which axes stay symbolic, nested as the arguments are."""
    axes = {
        name: {axis: Code("DYNAMIC") for axis, size in enumerate(item.shape) if isinstance(size, str)}
        for name, item in model.inputs.items()
    }
    return render_plain(nest(model, axes, with_constants=False))


def _render_named(model: ModelSpec) -> str:
    if not model.constants and all(argument_of(name, item) == name for name, item in model.inputs.items()):
        return "dict(inputs)"
    return render_plain(nest(model, {name: Code(f"inputs[{name!r}]") for name in model.inputs}), 1)


def _spread(values: dict[str, Any]) -> str:
    return "{\n" + "".join(f"        {name!r}: {value},\n" for name, value in values.items()) + "    }"


def _render_tensor(name: str, item: Input) -> str:
    """The expression for what `exporter.inputs` makes of an input."""
    sizes = [render_axis(size) for size in item.shape]
    shape = f"[{', '.join(sizes)}]"
    dtype = f"torch.{DType(item.dtype).value}"
    fill = item.fill
    match fill.kind:
        case FillKind.normal | FillKind.uniform if item.dtype in _COMPLEX:
            # Both parts from one generator, one after the other.
            first = _render_draw(item, shape, f"(drawn := generator(seed, {name!r}))")
            return f"torch.complex({first}, {_render_draw(item, shape, 'drawn')}).to({dtype})"
        case FillKind.normal | FillKind.uniform | FillKind.randint:
            return f"{_render_draw(item, shape, f'generator(seed, {name!r})')}.to({dtype})"
        case FillKind.arange if not sizes:
            return f"torch.zeros((), dtype={dtype})"
        case FillKind.arange:
            return f"torch.arange({sizes[-1]}).expand({shape}).clone().to({dtype})"
        case FillKind.ones:
            return f"torch.ones({shape}, dtype={dtype})"
        case FillKind.zeros:
            return f"torch.zeros({shape}, dtype={dtype})"
        case FillKind.constant:
            return f"torch.full({shape}, {fill.value!r}, dtype=torch.float64).to({dtype})"
        case FillKind.file:
            return f"read_fill({fill.path!r}, {fill.key!r}, {name!r}, {shape}).to({dtype})"


def _render_draw(item: Input, shape: str, generator: str) -> str:
    fill, seeded = item.fill, f"generator={generator}"
    if fill.kind is FillKind.normal:
        return f"torch.randn({shape}, {seeded})"
    if fill.kind is FillKind.uniform:
        return f"torch.rand({shape}, {seeded}).mul({fill.high - fill.low!r}).add({fill.low!r})"
    return f"torch.randint({int(fill.low)}, {int(fill.high)}, {shape}, {seeded})"
