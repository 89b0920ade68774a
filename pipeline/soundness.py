"""Whether what a spec names is there: its code, its weights, its files, the GPU, and inputs that `forward` takes."""

from collections.abc import Iterator
from pathlib import Path

from exporter.arguments import find_roots
from exporter.checkpoint import CheckpointError, find_files
from exporter.spec import ExportSpec, ModelSpec
from exporter.suggestion import suggest
from pipeline.signature import Forward, find_forward
from pipeline.source_code import find_names, find_target, has_module

__all__ = ["find_spec_problems"]

# Letters in common, from 0 to 1, that make a name a misspelling: `input_idz` has 0.89 of them with `input_ids`.
_MISSPELT = 0.85


def find_spec_problems(spec: ExportSpec) -> Iterator[str]:
    """Each problem as a line that begins with the model's name."""
    problems = list(_find_source_problems(spec.model))
    table = spec.export.custom_translation_table
    if table is not None:
        problems.extend(_find_target_problems("export.custom_translation_table", str(table["_target_"])))
    yield from (f"{spec.model.name}: {problem}" for problem in problems)


def _find_source_problems(model: ModelSpec) -> Iterator[str]:
    if model.weights is not None:
        yield from _find_weights_problems(Path(model.weights))
    for name, item in model.inputs.items():
        path = item.fill.path
        if path is not None and not Path(path).is_file():
            yield f"model.inputs.{name}.fill.path: there is no file {path!r} (relative to {Path.cwd()})"
    if model.input_factory is not None:
        yield from _find_target_problems("model.input_factory", str(model.input_factory["_target_"]))
    dotted = str(model.source["_target_"])
    problems = list(_find_target_problems("model.source", dotted))
    yield from problems
    forward = find_forward(dotted) if not problems else None
    if forward is not None:
        yield from _find_input_problems(model, forward, dotted)


def _find_target_problems(key: str, dotted: str) -> Iterator[str]:
    """What of a `_target_` is not there, as far as its source says so."""
    target = find_target(dotted)
    if not has_module(dotted):
        yield (
            f"{key}._target_: there is no module {dotted.partition('.')[0]!r} for {dotted!r}, "
            "neither installed nor in this folder"
        )
    if target is None:
        return
    defined = find_names(target)
    if defined is not None and target.names and target.names[0] not in defined:
        near = suggest(target.names[0], defined)
        meant = f"; did you mean {target.module}.{near}?" if near else ""
        yield f"{key}._target_: there is no {target.names[0]!r} in {target.module} ({target.path}){meant}"


def _find_weights_problems(path: Path) -> Iterator[str]:
    if not path.is_file():
        yield f"model.weights: there is no file {str(path)!r} (relative to {Path.cwd()})"
        return
    try:
        find_files(path)
    except CheckpointError as error:
        yield f"model.weights: {error}"


def _find_input_problems(model: ModelSpec, forward: Forward, dotted: str) -> Iterator[str]:
    names = (*forward.required, *forward.optional)
    roots = find_roots(model)
    for root, key in roots.items():
        if root in names:
            continue
        # Where forward takes **kwargs, any name is right, unless it is all but that of an argument left out.
        near = suggest(root, names, _MISSPELT) if forward.takes_any_keyword else suggest(root, names)
        if not forward.takes_any_keyword or (near is not None and near not in roots):
            meant = f"; did you mean {near!r}?" if near else ""
            yield f"{key}: forward({', '.join(names)}) of {dotted} takes no {root!r}{meant}"
    for name in forward.required:
        if name not in roots:
            yield f"model.inputs: forward of {dotted} needs {name!r}, which is not declared"
