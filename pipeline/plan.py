"""Before anything starts: are the jobs sound together, and which of them is there work for?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.arguments import find_roots
from exporter.checkpoint import CheckpointError, find_files
from exporter.cuda import find_device_problem
from exporter.directory import ExportDirectory
from exporter.errors import ConfigError
from exporter.plain_data import DataError
from exporter.result import ExportResult, Status
from exporter.spec import Device, ExportSpec, ModelSpec
from exporter.suggestion import suggest
from pipeline.fingerprint import explain_change, take_fingerprint
from pipeline.source_code import Forward, find_forward, find_names, find_target, has_module

__all__ = ["PlannedExport", "plan_exports", "require_sound"]

# Letters in common, from 0 to 1, that make a name a misspelling: `input_idz` has 0.89 of them with `input_ids`.
_MISSPELT = 0.85


@dataclass(frozen=True)
class PlannedExport:
    """A spec and what is to be done about it."""

    spec: ExportSpec
    fingerprint: dict[str, str]
    # Why it has to be exported; empty if the published export is up to date.
    reason: str
    # The published result, if it is up to date.
    published: ExportResult | None = None


def require_sound(specs: Sequence[ExportSpec]) -> None:
    """See that no two exports share a directory, that each source takes the inputs, and that a GPU asked for is there.

    Raises:
        ConfigError: With every problem on a line of its own.
    """
    problems = [*_find_duplicates(specs)]
    # Of the machine, not of a model: once is enough.
    on_gpu = next((spec for spec in specs if spec.export.device is not Device.cpu), None)
    if on_gpu is not None and (problem := find_device_problem(on_gpu)):
        problems.append(problem)
    checked: set[int] = set()
    for spec in specs:
        if id(spec.model) not in checked:
            checked.add(id(spec.model))
            problems.extend(f"{spec.model.name}: {problem}" for problem in _find_source_problems(spec.model))
        table = spec.export.custom_translation_table
        if table is not None:
            found = _find_target_problems("export.custom_translation_table", str(table["_target_"]))
            problems.extend(f"{spec.model.name}: {problem}" for problem in found)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))


def plan_exports(specs: Sequence[ExportSpec], exports: Path, *, force: bool) -> list[PlannedExport]:
    """Tell for each spec whether its published export is still what it would become, and whole."""
    return [_plan(spec, ExportDirectory(exports / spec.id), force=force) for spec in specs]


def _plan(spec: ExportSpec, published: ExportDirectory, *, force: bool) -> PlannedExport:
    parts = take_fingerprint(spec)
    if not published.path.is_dir():
        return PlannedExport(spec, parts, "new")
    if force:
        return PlannedExport(spec, parts, "force=true")
    try:
        result = published.read_result()
        recorded = published.read_fingerprint()
    except (OSError, DataError):
        return PlannedExport(spec, parts, "the published export has no readable record")
    reason = explain_change(recorded, parts)
    damaged = published.damaged_files(result)
    if not reason and damaged:
        reason = f"published bytes changed: {', '.join(damaged)}"
    if not reason and result.status is not Status.passed:
        reason = "the published export did not pass"
    return PlannedExport(spec, parts, reason, None if reason else result)


def _find_duplicates(specs: Sequence[ExportSpec]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for spec in specs:
        # File systems that fold case would give both one directory.
        folded = spec.id.casefold()
        if folded in seen:
            yield f"id: two exports are named {spec.id!r}; sweep a value only once, or set id=NAME for one of them"
        seen[folded] = spec.id


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
