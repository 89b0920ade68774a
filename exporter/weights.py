"""Puts a checkpoint's tensors into a module, with ties and dtypes right.

Nothing in a file is ever run: safetensors, or `torch.load(weights_only=True)` without a fallback. Which bytes a
checkpoint has is `exporter.checkpoint`'s business.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from exporter.checkpoint import find_files, hash_weights, is_safetensors, locate_tensors
from exporter.errors import FailureKind, StepError

__all__ = ["copy_weights", "fit_state", "read_state", "require_hash", "same_bytes", "weights_error"]


def weights_error(path: Path, error: Exception) -> StepError:
    """The failure of a build whose weights do not fit or cannot be read."""
    # The class of one's own errors says nothing that their text does not.
    text = str(error) if str(error).startswith(f"{path}: ") else f"{path}: {type(error).__name__}: {error}"
    return StepError(FailureKind.weights_error, text)


def require_hash(path: Path, wanted: str | None) -> None:
    """Refuse a checkpoint that is not the declared one.

    Raises:
        StepError: Its sha256 is another, or it cannot be read.
    """
    if wanted is None:
        return
    try:
        found = hash_weights(path)
    except (OSError, ValueError) as error:
        raise weights_error(path, error) from error
    if found != wanted.lower():
        raise StepError(
            FailureKind.weights_error,
            f"{path}: its sha256 is {found}; model.weights_sha256 says {wanted}",
            "fetch the weights again, or declare their sha256 if they are meant to be others",
        )


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by name, mapped: a tensor's bytes enter memory when it is read."""
    if not is_safetensors(path):
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    # The library says of a broken file what is wrong; what an index says is ours to hold against the shards.
    tensors = {name: tensor for file in find_files(path)[1:] or [path] for name, tensor in load_file(file).items()}
    locate_tensors(path)
    return tensors


def copy_weights(module: nn.Module, path: Path) -> None:
    """Copy a checkpoint into the memory that the module has already.

    Raises:
        StepError: The weights do not fit, or cannot be read.
    """
    try:
        # Copied, not assigned: assigning would part tied weights.
        module.load_state_dict(fit_state(module, read_state(path)), strict=True)
    except Exception as error:
        raise weights_error(path, error) from error


def fit_state(module: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with every name of a tied tensor, and with narrower floats widened to the module's.

    Raises:
        TypeError: A dtype is another one, and not a float that the module's holds exactly.
        ValueError: Two names of one tensor have different bytes.
    """
    own = module.state_dict()
    fitted = dict(state)
    for name, tensor in state.items():
        if name in own:
            fitted[name] = _widen(name, tensor, own[name].dtype)
    for names in find_ties(module):
        tied = [name for name in names if name in own]
        given = [name for name in tied if name in fitted]
        for name in given[1:]:
            if not same_bytes(fitted[given[0]], fitted[name]):
                raise ValueError(f"{given[0]!r} and {name!r} are one tensor in the model, and differ in the file")
        fitted.update({name: fitted[given[0]] for name in tied if given})
    return fitted


def find_ties(module: nn.Module) -> list[list[str]]:
    """The names of each parameter or buffer that has more than one."""
    names: dict[int, list[str]] = {}
    tensors: Iterable[tuple[str, torch.Tensor]] = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in tensors:
        names.setdefault(id(tensor), []).append(name)
    return [found for found in names.values() if len(found) > 1]


def _widen(name: str, tensor: torch.Tensor, wanted: torch.dtype) -> torch.Tensor:
    if tensor.dtype is wanted:
        return tensor
    is_float = tensor.is_floating_point() and wanted.is_floating_point
    if is_float and torch.promote_types(tensor.dtype, wanted) is wanted:
        return tensor.to(wanted)
    raise TypeError(
        f"{name!r} is {tensor.dtype} in the file and {wanted} in the model; only a float is cast, to a wider one"
    )


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are one another's copy, NaN and all."""
    if one.device != other.device or one.shape != other.shape or one.dtype is not other.dtype:
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
