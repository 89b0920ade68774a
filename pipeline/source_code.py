"""Reads the source behind a `_target_` without importing it: where it lies, what it imports, which names it has.

The parent process never runs a model's code. What cannot be told from the source (a factory function, a class made
at run time) comes back as None, and the worker finds out.
"""

import ast
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import exporter

__all__ = [
    "Sources",
    "Target",
    "find_module",
    "find_names",
    "find_sources",
    "find_target",
    "forget_sources",
    "has_module",
    "is_installed",
    "is_modelpress",
    "parse_source",
    "resolve_import",
]


@dataclass(frozen=True)
class Target:
    """The module file that a dotted path leads into, and the names that remain within it."""

    module: str
    path: Path
    names: tuple[str, ...]


def forget_sources() -> None:
    """Let everything be read anew: what is told here holds for one invocation, however often it is asked."""
    for function in (
        find_target,
        find_sources,
        find_names,
        find_module,
        _imported_modules,
        parse_source,
        _library_folders,
    ):
        function.cache_clear()
    importlib.invalidate_caches()


@cache
def find_target(dotted: str) -> Target | None:
    """Find the file of the longest module in a dotted path; None if its first part is no module at all."""
    parts = dotted.split(".")
    found = None
    for length in range(1, len(parts)):
        spec = find_module(".".join(parts[:length]))
        if spec is None:
            break
        if spec.origin and spec.has_location:
            found = Target(".".join(parts[:length]), Path(spec.origin), tuple(parts[length:]))
    return found


def has_module(dotted: str) -> bool:
    """Whether the first part of a dotted path can be imported at all."""
    return find_module(dotted.split(".", 1)[0]) is not None


@cache
def find_module(module: str) -> ModuleSpec | None:
    """Where a module lies, found without importing it or its packages; None if it is not there."""
    parent, _, _ = module.rpartition(".")
    try:
        if not parent:
            return importlib.util.find_spec(module)
        # find_spec() of a submodule would import its parents.
        parent_spec = find_module(parent)
        if parent_spec is None or parent_spec.submodule_search_locations is None:
            return None
        folders = list(parent_spec.submodule_search_locations)
        return PathFinder.find_spec(module, folders)
    except (ImportError, ValueError):
        return None
    except KeyError:
        # A folder without __init__.py, for which Python asks the parent that we do not import.
        return _describe_bare_folder(module, folders)


def _describe_bare_folder(module: str, parents: list[str]) -> ModuleSpec:
    spec = ModuleSpec(module, None, is_package=True)
    folders = [Path(parent) / module.rpartition(".")[2] for parent in parents]
    spec.submodule_search_locations = [str(folder) for folder in folders if folder.is_dir()]
    return spec


def is_installed(path: Path) -> bool:
    """Whether a file belongs to an installed distribution or to Python itself, not to the user's project."""
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return any(path.is_relative_to(folder) for folder in _library_folders())


@cache
def _library_folders() -> tuple[str, ...]:
    return tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))


@dataclass(frozen=True)
class Sources:
    """The code behind a target: the project's own files, and the installed packages that they import."""

    # By their path from the folder that Python finds them in.
    files: dict[str, Path]
    packages: list[str]


@cache
def find_sources(target: Target) -> Sources:
    """The target's file and, through their imports, all others of the project; installed code by its package.

    Imports are those written as statements, wherever they stand. What code imports by a name that it computes, or reads
    as data, cannot be told from its source.
    """
    packages: set[str] = set()
    # To import a module is to run its packages' __init__.py first.
    pending = list(_prefixes(target.module))
    seen: set[str] = set()
    files: dict[str, Path] = {}
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        spec = find_module(name)
        if spec is None or not spec.origin or not spec.has_location:
            continue
        path = Path(spec.origin)
        if is_installed(path):
            packages.add(name.partition(".")[0])
        else:
            files[_file_name(name, path)] = path
            if not is_modelpress(path):
                pending.extend(_imported_modules(path, name))
    return Sources(dict(sorted(files.items())), sorted(packages - sys.stdlib_module_names))


def is_modelpress(path: Path) -> bool:
    """Whether a file is one of the exporter's own, which count together; its zoo does not, each model is for itself."""
    return path.parent == Path(exporter.__file__).parent


def _file_name(module: str, path: Path) -> str:
    """A module as a file: the same wherever its folder lies, and however Python comes to find it."""
    folder = module.replace(".", "/")
    return f"{folder}/__init__.py" if path.name == "__init__.py" else f"{folder}{path.suffix}"


@cache
def find_names(target: Target) -> set[str] | None:
    """What a module defines or imports at its top level; None where it may define more while it runs."""
    tree = parse_source(target.path)
    if tree is None or target.path.name == "__init__.py":
        return None
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update(alias.asname or alias.name.split(".")[0] for alias in aliases)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Name(id="globals" as name):
                names.add(name)
    # Names of inner scopes are in the set too, which makes it lenient, not wrong.
    return None if names & {"*", "__getattr__", "globals"} else names


@cache
def _imported_modules(path: Path, module: str) -> frozenset[str]:
    names: set[str] = set()
    tree = parse_source(path)
    for node in _statements(tree.body) if tree is not None else ():
        if isinstance(node, ast.Import):
            for alias in node.names:
                names.update(_prefixes(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = resolve_import(node, module, path)
            names.update(_prefixes(base))
            for alias in node.names:
                # `from package import *` also imports the modules that the package's __all__ names.
                passed_on = _listed_names(base) if alias.name == "*" else [alias.name]
                names.update(f"{base}.{name}" for name in passed_on if base)
    return frozenset(names)


def _statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Every statement, in whatever block; expressions are left out, which are most of a tree and import nothing."""
    for node in body:
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(node, block, ()))


def _listed_names(module: str) -> list[str]:
    """What a module's `__all__` lists, where it is written out."""
    spec = find_module(module)
    tree = parse_source(Path(spec.origin)) if spec is not None and spec.origin and spec.has_location else None
    for node in tree.body if tree is not None else ():
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=items) | ast.Tuple(elts=items)):
                return [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return []


def _prefixes(module: str) -> Iterator[str]:
    parts = module.split(".") if module else []
    yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def resolve_import(node: ast.ImportFrom, module: str, path: Path) -> str:
    """The module that `from ... import` names, dots resolved."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


@cache
def parse_source(path: Path) -> ast.Module | None:
    """A file's syntax tree; None for what is no Python, or cannot be read."""
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
