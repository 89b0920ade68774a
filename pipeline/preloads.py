"""What the server that workers are forked from should import for a batch, told from the source without importing it.

Three models of transformers spend a second each in importing its modules, if each worker has to. Only installed
packages count: the project's own modules change between runs and do what they like, and only workers import them.
"""

import ast
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from exporter.spec import ExportSpec
from exporter.targets import collect_targets
from pipeline.source_code import find_sources, find_target, is_installed, parse_source

__all__ = ["find_preloads"]

# There anyway: the template imports them.
_THERE = {*sys.stdlib_module_names, "torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "numpy"}


def find_preloads(spec: ExportSpec) -> tuple[str, ...]:
    """Dotted names of classes, functions and modules in installed packages, which the export will import.

    They are the `_target_`s that lead into installed code, and what the project's own files import of it at their top
    level.
    """
    model, table = spec.model, spec.export.custom_translation_table
    names: set[str] = set()
    for dotted in collect_targets([model.source, model.input_factory, model.constants, table]):
        names.update(_find_names(dotted))
    return tuple(sorted(names))


def _find_names(dotted: str) -> Iterator[str]:
    target = find_target(dotted)
    if target is None:
        return
    if is_installed(target.path):
        candidates: Iterable[str] = [dotted]
    else:
        files = find_sources(target).files.values()
        candidates = (name for path in files for name in _imported_at_once(path))
    yield from (name for name in candidates if _is_worth_it(name))


def _imported_at_once(path: Path) -> Iterator[str]:
    """What a file imports as it is imported itself, its package's own modules left out."""
    tree = parse_source(path)
    for statement in _run_at_once(tree.body if tree is not None else []):
        match statement:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=str(module), names=aliases, level=0):
                yield from (module if alias.name == "*" else f"{module}.{alias.name}" for alias in aliases)


def _run_at_once(statements: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in statements:
        yield statement
        # A condition is not for us to judge: TYPE_CHECKING, or whether there is a GPU.
        if isinstance(statement, ast.Try | ast.With):
            yield from _run_at_once(statement.body)


def _is_worth_it(name: str) -> bool:
    if name.partition(".")[0] in _THERE or not all(part.isidentifier() for part in name.split(".")):
        return False
    # find_target wants a name in a module.
    target = find_target(f"{name}._")
    return target is not None and is_installed(target.path)
