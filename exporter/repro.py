"""The bundle of a failed export: its spec, torch's report, and a script that reproduces it without modelpress.

Imports the standard library alone: the parent writes bundles of workers that crashed, and loads no torch.
"""

import logging
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from string import Template
from typing import Any

from exporter.cases import choose_cases
from exporter.directory import ExportDirectory
from exporter.errors import FailureKind
from exporter.repro_script import CHECK_OUTPUTS, CHECK_RANGES, CHECK_REPEAT, SCRIPT
from exporter.result import ExportResult, Step
from exporter.spec import ExportSpec, FillKind, Input, ModelSpec

__all__ = ["render_script", "write_bundle"]

log = logging.getLogger(__name__)

_WIDTH = 88

_CHECKS = {
    FailureKind.nondeterministic: CHECK_REPEAT,
    FailureKind.dim_narrowed: CHECK_RANGES,
    FailureKind.dim_specialized: CHECK_RANGES,
}


def write_bundle(directory: ExportDirectory, result: ExportResult, *, is_given: bool = False) -> None:
    """Write repro/ beside the result of a failed export.

    Args:
        directory: Of the export; has spec.json.
        result: With a failure.
        is_given: The module was handed over, not built from the spec's source.
    """
    bundle = directory.repro
    bundle.mkdir(exist_ok=True)
    for path in (directory.spec, directory.torch_report):
        if path.exists():
            shutil.copyfile(path, bundle / path.name)
    try:
        text = render_script(result, is_given=is_given)
    except Exception:
        # The export's failure is what counts; a script for it is an extra.
        log.exception("repro.py could not be written")
        return
    (bundle / "repro.py").write_text(text, encoding="utf-8")


def render_script(result: ExportResult, *, is_given: bool = False) -> str:
    """The text of repro.py."""
    spec = result.spec
    assert result.failure is not None
    check = _CHECKS.get(result.failure.kind, CHECK_OUTPUTS)
    declared = {name: (dim.min, dim.max) for name, dim in spec.model.dims.items()}
    example = choose_cases(spec)[0]
    return Template(SCRIPT).substitute(
        story="\n".join(_tell_story(result)),
        opset=spec.export.opset_version,
        rtol=spec.precision.rtol,
        atol=spec.precision.atol,
        example=repr((dict(example.sizes), example.seed)),
        case=repr(_failing_case(result)),
        dynamic_shapes=_render_value(_dynamic_shapes(spec.model), 0),
        build=_render_build(spec.model, is_given=is_given),
        inputs=_render_inputs(spec.model),
        optimize=_render_optimize(spec),
        check=Template(check).safe_substitute(declared=repr(declared)).rstrip(),
    )


def _tell_story(result: ExportResult) -> Iterator[str]:
    failure = result.failure
    assert failure is not None
    facts = {
        "export": result.id,
        "step": str(failure.step or "before the first"),
        "kind": failure.kind.value,
        "cause": failure.cause,
        "to do": failure.hint,
        "versions": ", ".join(f"{name} {version}" for name, version in result.versions.items() if version),
    }
    for name, text in facts.items():
        lines = textwrap.wrap(" ".join(text.split()), _WIDTH) or [""]
        yield f"#   {name:9} {lines[0]}".rstrip()
        yield from (f"#   {'':9} {line}" for line in lines[1:])


def _failing_case(result: ExportResult) -> tuple[dict[str, int], int]:
    """Sizes and seed of a case that failed; those of the example where it failed before any case."""
    cases = choose_cases(result.spec)
    failed = [case for case in result.cases if not case.passed]
    if failed:
        wanted = result.divergence.case if result.divergence is not None else failed[0].name
        record = next((case for case in failed if case.name == wanted), failed[0])
        return dict(record.sizes), record.seed
    # In parity the case that stopped halfway is the one after those on record.
    stopped = len(result.cases) if result.failure is not None and result.failure.step is Step.parity else 0
    case = cases[stopped if stopped < len(cases) else 0]
    return dict(case.sizes), case.seed


def _dynamic_shapes(model: ModelSpec) -> dict[str, dict[int, str]]:
    return {
        name: {axis: size for axis, size in enumerate(item.shape) if isinstance(size, str)}
        for name, item in model.inputs.items()
    }


def _render_build(model: ModelSpec, *, is_given: bool) -> str:
    if is_given:
        note = [
            "# PUT YOUR MODULE HERE. The export was given a module that existed already, and how it was made is not",
            "# known. The spec says of it:",
            *(f"#     {line}" for line in _render_value(model.source, 0).splitlines()),
            'raise NotImplementedError("return the module here")',
        ]
        return textwrap.indent("\n".join(note), "    ")
    modules = sorted({_find_module(target) for target in _collect_targets(model.source)})
    lines = [
        *(f"import {name}" for name in modules if name),
        "",
        f"random.seed({model.seed})",
        f"np.random.seed({model.seed})",
        f"torch.manual_seed({model.seed})",
        f"module = {_render_value(model.source, 0)}",
        *_render_weights(model.weights),
        "return module",
    ]
    return textwrap.indent("\n".join(lines), "    ")


def _render_weights(weights: str | None) -> list[str]:
    if weights is None:
        return []
    if weights.endswith(".safetensors"):
        load = ["from safetensors.torch import load_file", "", f"state = load_file({weights!r})"]
    else:
        load = [f"state = torch.load({weights!r}, map_location='cpu', weights_only=True)"]
    return [*load, "module.load_state_dict(state)"]


def _collect_targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _collect_targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _collect_targets(value)


def _find_module(target: str) -> str:
    """The part of a dotted path that is a module: what is imported already, else up to the first capital letter."""
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        if ".".join(parts[:length]) in sys.modules:
            return ".".join(parts[:length])
    end = next((place for place, part in enumerate(parts) if part[:1].isupper()), len(parts) - 1)
    return ".".join(parts[:end])


def _render_value(node: Any, depth: int) -> str:
    """A config node as Python: a dict with `_target_` is a call; what is long goes over several lines."""
    if isinstance(node, dict) and "_target_" in node:
        rest = {key: value for key, value in node.items() if key not in ("_target_", "_args_")}
        named = {key: value for key, value in rest.items() if str(key).isidentifier()}
        items = [_render_value(value, depth + 1) for value in node.get("_args_", [])]
        items += [f"{key}={_render_value(value, depth + 1)}" for key, value in named.items()]
        if len(named) < len(rest):
            odd = {key: value for key, value in rest.items() if key not in named}
            items.append(f"**{_render_value(odd, depth + 1)}")
        return _enclose(f"{node['_target_']}(", items, ")", depth)
    if isinstance(node, Mapping):
        items = [f"{key!r}: {_render_value(value, depth + 1)}" for key, value in node.items()]
        return _enclose("{", items, "}", depth)
    if isinstance(node, list):
        return _enclose("[", [_render_value(value, depth + 1) for value in node], "]", depth)
    return repr(node)


def _enclose(start: str, items: list[str], end: str, depth: int) -> str:
    flat = f"{start}{', '.join(items)}{end}"
    if len(flat) + 4 * depth <= _WIDTH and "\n" not in flat:
        return flat
    inner = "".join(f"{'    ' * (depth + 1)}{item},\n" for item in items)
    return f"{start}\n{inner}{'    ' * depth}{end}"


def _render_inputs(model: ModelSpec) -> str:
    items = "".join(f"        {name!r}: {_render_tensor(name, item)},\n" for name, item in model.inputs.items())
    return f"    return {{\n{items}    }}"


def _render_tensor(name: str, item: Input) -> str:
    """The expression for what `exporter.inputs` makes of an input, to the bit."""
    sizes = [f"sizes[{size!r}]" if isinstance(size, str) else str(size) for size in item.shape]
    shape = f"[{', '.join(sizes)}]"
    seeded = f"generator=generator(seed, {name!r})"
    dtype = f"torch.{item.dtype.value}"
    fill = item.fill
    match fill.kind:
        case FillKind.normal:
            return f"torch.randn({shape}, {seeded}).to({dtype})"
        case FillKind.uniform:
            return f"torch.rand({shape}, {seeded}).mul({fill.high - fill.low!r}).add({fill.low!r}).to({dtype})"
        case FillKind.randint:
            return f"torch.randint({int(fill.low)}, {int(fill.high)}, {shape}, {seeded}).to({dtype})"
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
            return f"read_fill({fill.path!r}, {fill.key!r}, {shape}).to({dtype})"


def _render_optimize(spec: ExportSpec) -> str:
    if spec.export.optimize == "default":
        return "    program.optimize()"
    return "    # Captured only: export.optimize is none."
