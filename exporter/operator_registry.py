"""Keeps torch's registry of ONNX functions from one export to the next.

`torch.onnx.export(dynamo=True)` builds it in every call, from functions that stay the same: 0.3 of the 0.6 seconds of
CPU time that the export of a small model takes. No public way hands a registry over, so in the body of `kept_registry`
a private class method of torch is replaced: in the torch that this was written for and tested with. With any other,
exports take the ordinary way, and its time.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

__all__ = ["find_obstacle", "kept_registry"]

# The first two parts of torch's version.
_KNOWN_TORCH = ["2", "13"]
_DEFAULT_OPSET = 18
_CHOOSE = "_cleanup_registry_based_on_opset_version"


@dataclass(frozen=True)
class _Kept:
    """The functions of a registry, for all opsets, and what they were built from."""

    functions: dict[Any, list[Any]]
    sources: list[Any]
    # Operators that onnxscript has functions for and torch did not have: those of a torchvision not yet imported.
    missing: list[str]

    def is_current(self) -> bool:
        """Whether a registry that is built now would hold the same functions."""
        sources = _list_sources()
        is_same = len(sources) == len(self.sources) and all(map(_is, sources, self.sources))
        return is_same and not any(_has_operator(name) for name in self.missing)


# One for the process, as are the functions that it is built from.
_kept: _Kept | None = None


@contextmanager
def kept_registry() -> Iterator[None]:
    """Let torch.onnx.export in the body take a copy of the registry that the first one of this process has built.

    A copy, because a custom translation table's functions are put into it.
    """
    if find_obstacle():
        yield
        return
    registry = _registry_class()
    original = _original_method()
    registry.from_torchlib = classmethod(_copy_registry)
    try:
        yield
    finally:
        registry.from_torchlib = original


def find_obstacle() -> str:
    """Why the registry cannot be kept with the installed torch, in a few words; empty if it can be."""
    if torch.__version__.split(".")[:2] != _KNOWN_TORCH:
        return f"torch {torch.__version__} is not a {'.'.join(_KNOWN_TORCH)}"
    try:
        registry = _registry_class()
        parameters = inspect.signature(_original_method().__func__).parameters
        is_known = parameters["opset_version"].default == _DEFAULT_OPSET and [*parameters] == ["cls", "opset_version"]
        is_known = is_known and vars(registry()).keys() == {"_opset_version", "functions"}
        _list_sources()
    except (ImportError, AttributeError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    if not is_known:
        return "ONNXRegistry is another"
    if not hasattr(registry, _CHOOSE):
        return "ONNXRegistry chooses its functions in another way"
    return ""


def _copy_registry(cls: type[Any], opset_version: int = _DEFAULT_OPSET) -> Any:
    """Stands for ONNXRegistry.from_torchlib."""
    global _kept  # noqa: PLW0603
    if _kept is None or not _kept.is_current():
        _kept = _build()
    registry = cls()
    registry._opset_version = opset_version
    registry.functions = _kept.functions
    # Puts what the opset uses into a new dict of new lists.
    getattr(registry, _CHOOSE)()
    return registry


def _build() -> _Kept:
    registry = _registry_class()
    # Keeps the functions for all opsets, where its base drops those that the asked one does not use.
    whole = type("WholeRegistry", (registry,), {_CHOOSE: lambda _: None})
    functions = _original_method().__func__(whole).functions
    names = [name for name, _ in _onnxscript_functions().items()]
    return _Kept(functions, _list_sources(), [name for name in names if not _has_operator(name)])


def _list_sources() -> list[Any]:
    from torch.onnx._internal.exporter._torchlib import _torchlib_registry

    # onnxscript's own list of these takes 0.2 seconds: it translates each function's signature.
    overloaded = [functions for _, functions in _onnxscript_functions().items()]
    functions = [function for one in overloaded for function in (*one.overloads, *one.complex)]
    return [*_torchlib_registry.get_torchlib_ops(), *functions]


def _is(one: object, other: object) -> bool:
    return one is other


def _has_operator(name: str) -> bool:
    from torch.onnx._internal.exporter import _registration

    return _registration._get_overload(name) is not None  # noqa: SLF001


def _onnxscript_functions() -> Any:
    from onnxscript.function_libs.torch_lib import ops, registration

    # Importing them is what registers them.
    del ops
    return registration.default_registry


def _registry_class() -> Any:
    from torch.onnx._internal.exporter import _registration

    return _registration.ONNXRegistry


@cache
def _original_method() -> Any:
    """The class method as torch has it; first asked for before it is replaced."""
    method = vars(_registry_class())["from_torchlib"]
    if not isinstance(method, classmethod):
        raise TypeError("ONNXRegistry.from_torchlib is no class method")
    return method
