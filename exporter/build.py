"""The build step: a module from its `_target_`, seeded, with its weights, in eval mode."""

import importlib
import inspect
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from exporter.arguments import ArgumentError, Arguments, find_roots
from exporter.errors import FailureKind, StepError
from exporter.spec import ModelSpec
from exporter.suggestion import suggest
from exporter.weights import copy_weights

__all__ = ["build_module", "check_signature", "construct", "locate", "seed_everything"]


def build_module(model: ModelSpec) -> nn.Module:
    """Construct the model of a spec, load its weights and make it ready for inference.

    Raises:
        StepError: The target cannot be imported, is not a module, does not take the declared inputs, or the
            weights do not fit.
    """
    seed_everything(model.seed)
    module = construct(model.source)
    if not isinstance(module, nn.Module):
        raise StepError(
            FailureKind.build_error,
            f"source._target_ {model.source.get('_target_')!r} gives a {type(module).__name__}, not a torch.nn.Module",
        )
    if model.weights is not None:
        copy_weights(module, Path(model.weights))
    return module.eval()


def seed_everything(seed: int) -> None:
    """Seed every generator that a constructor may draw weights from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def construct(node: Any) -> Any:
    """Build what a config node describes: a dict with `_target_` is a call, anything else is itself.

    `_args_` holds positional arguments; all other keys are keyword arguments, built first.
    """
    if isinstance(node, list):
        return [construct(item) for item in node]
    if not isinstance(node, dict):
        return node
    values = {key: construct(value) for key, value in node.items()}
    if "_target_" not in values:
        return values
    target = locate(str(values.pop("_target_")))
    return target(*values.pop("_args_", []), **values)


def locate(target: str) -> Callable[..., Any]:
    """Import the class or function behind a dotted path.

    Raises:
        StepError: No module on the path can be imported, or it has no such attribute.
    """
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:length])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # Only if the module itself is missing; a missing import inside it is the user's to see.
            if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
                continue
            raise StepError(FailureKind.import_error, f"importing {module_name}: {error}") from error
        except Exception as error:
            message = f"importing {module_name}: {type(error).__name__}: {error}"
            raise StepError(FailureKind.import_error, message) from error
        return _get_attribute(found, parts[length:], target)
    raise StepError(FailureKind.import_error, f"no module for _target_ {target!r}")


def _get_attribute(found: Any, names: list[str], target: str) -> Callable[..., Any]:
    for name in names:
        if not hasattr(found, name):
            near = suggest(name, dir(found))
            hint = f"did you mean {near!r}?" if near else ""
            place = getattr(found, "__name__", type(found).__name__)
            raise StepError(FailureKind.import_error, f"{target!r}: no {name!r} in {place}", hint)
        found = getattr(found, name)
    if not callable(found):
        raise StepError(FailureKind.import_error, f"{target!r} is a {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return]


def check_signature(module: nn.Module, model: ModelSpec) -> None:
    """See that `forward` takes what the inputs and constants give it, all that it needs and nothing else.

    Raises:
        StepError: An input goes to no argument of `forward`, or an argument without default is given nothing.
    """
    parameters = inspect.signature(module.forward).parameters
    kinds = inspect.Parameter
    roots = find_roots(model)
    takes_any = any(parameter.kind is kinds.VAR_KEYWORD for parameter in parameters.values())
    for root, key in roots.items():
        if root not in parameters and not takes_any:
            near = suggest(root, parameters)
            raise StepError(
                FailureKind.signature_mismatch,
                f"{key}: {root!r} is no argument of forward({', '.join(parameters)})",
                f"did you mean {near!r}?" if near else "",
            )
    # An argument by position needs all those before it.
    has_later = False
    starred = next((name for name, item in parameters.items() if item.kind is kinds.VAR_POSITIONAL), None)
    for name, parameter in reversed(list(parameters.items())):
        by_position = parameter.kind is kinds.POSITIONAL_ONLY or (
            parameter.kind is kinds.POSITIONAL_OR_KEYWORD and starred in roots
        )
        is_needed = parameter.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD) and parameter.default is kinds.empty
        if name not in roots and (is_needed or (by_position and has_later)):
            raise StepError(
                FailureKind.signature_mismatch,
                f"forward needs {name!r}, which is not among the inputs",
                "declare it under inputs, or under constants if it is no tensor",
            )
        has_later |= name in roots and (by_position or parameter.kind is kinds.VAR_POSITIONAL)
    try:
        Arguments(model, parameters).arrange(dict.fromkeys(model.inputs))
    except ArgumentError as error:
        raise StepError(FailureKind.signature_mismatch, str(error)) from error
