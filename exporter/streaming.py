"""Weights that never enter memory: from a safetensors checkpoint to the saved file, without a copy in between.

The module is built without its parameters' values (they are on the meta device) and then given the checkpoint's
tensors, mapped. Buffers are computed as ever, so what a checkpoint lacks (rotary frequencies, position ids) is right.
Capture reads shapes alone; after it, each initializer that still is one of the checkpoint's tensors is replaced by
a reference to its bytes, which the save step copies from file to file. Whatever does not go this way is loaded in
the ordinary one, and the result says why.
"""

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary

from exporter.build import build_module, construct, seed_everything
from exporter.checkpoint import Place, find_files, is_safetensors, locate_tensors
from exporter.errors import FailureKind, StepError
from exporter.evidence import WeightsMode, WeightsRecord
from exporter.spec import Device, ExportSpec, ModelSpec
from exporter.weights import fit_state, read_state, require_hash, same_bytes, weights_error

__all__ = ["Built", "build", "refer_to_checkpoint", "take"]


@dataclass(frozen=True)
class Built:
    """A module, how it came by its weights, and the places of those that are still in their file, by address."""

    module: nn.Module
    record: WeightsRecord
    places: Mapping[int, Place] = field(default_factory=dict)
    # What the file system said of the checkpoint's files before they were mapped.
    states: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)

    def require_unchanged(self) -> None:
        """Refuse a file that was saved from a checkpoint which somebody replaced meanwhile.

        Raises:
            StepError: A file of the checkpoint is not the one that the module was built from.
        """
        for path, state in self.states.items():
            if _file_state(path) != state:
                raise StepError(
                    FailureKind.weights_error,
                    f"{path}: changed while the model was exported",
                    "run the same command again when the file is complete",
                )


def take(module: nn.Module) -> Built:
    """A module that exists already, made ready for inference."""
    return Built(module.eval(), WeightsRecord(mode=WeightsMode.given))


class CannotStreamError(Exception):
    """The reason why a module is built in the ordinary way."""


def build(spec: ExportSpec) -> Built:
    """Build the model of a spec, its weights mapped where that can be done and loaded where not.

    Raises:
        StepError: As `build_module`; or the checkpoint is not the declared one.
    """
    model = spec.model
    if model.weights is None:
        return Built(build_module(model), WeightsRecord(mode=WeightsMode.seeded))
    path = Path(model.weights)
    require_hash(path, model.weights_sha256)
    reason = _why_not(spec, path)
    if not reason:
        try:
            module, places, states = _build_mapped(model, path)
            return Built(module, WeightsRecord(mode=WeightsMode.streamed), places, states)
        except CannotStreamError as error:
            reason = str(error)
    return Built(build_module(model), WeightsRecord(mode=WeightsMode.loaded, reason=reason))


def _why_not(spec: ExportSpec, path: Path) -> str:
    if not spec.export.stream_weights:
        return "export.stream_weights is false"
    if spec.export.device is not Device.cpu:
        # What is moved has another address than in the file, by which initializers are told.
        return f"export.device is {spec.export.device}, and only weights on the CPU are streamed"
    return "" if is_safetensors(path) else "only safetensors are streamed"


def refer_to_checkpoint(program: torch.onnx.ONNXProgram, places: Mapping[int, Place]) -> None:
    """Replace each initializer that is a tensor of the checkpoint by a reference to its bytes there.

    Passes that want its values read them through the reference, as they need them.
    """
    for graph in program.model.graphs():
        for value in graph.initializers.values():
            tensor = getattr(value.const_value, "raw", None)
            if not isinstance(tensor, torch.Tensor) or value.const_value is None:
                continue
            place = places.get(tensor.data_ptr())
            if place is None or place.num_bytes != tensor.nbytes or not tensor.is_contiguous():
                continue
            value.const_value = ir.ExternalTensor(
                # Absolute, without a base: onnx_ir refuses links out of a base, and model caches are full of them.
                os.fspath(place.path.absolute()),
                place.offset,
                place.num_bytes,
                value.const_value.dtype,
                shape=ir.Shape(list(tensor.shape)),
                name=str(value.name),
            )


def _build_mapped(model: ModelSpec, path: Path) -> tuple[nn.Module, dict[int, Place], dict[Path, tuple[int, ...]]]:
    module, drew = _construct_empty(model, model.seed)
    try:
        states = {file: _file_state(file) for file in find_files(path)}
        places, state = _read_mapped(path)
        fitted = fit_state(module, state)
    except Exception as error:
        raise weights_error(path, error) from error
    for name, tensor in state.items():
        if fitted[name].dtype is not tensor.dtype:
            raise CannotStreamError(f"{name!r} is {tensor.dtype} in the file and {fitted[name].dtype} in the model")
    try:
        _assign(module, fitted)
    except Exception as error:
        raise weights_error(path, error) from error
    _require_values(module)
    if drew:
        _require_same_for_any_seed(module, model, places)
    return module.eval(), places, states


def _read_mapped(path: Path) -> tuple[dict[int, Place], dict[str, torch.Tensor]]:
    """The tensors by name, and their places by address.

    A tensor that lies askew in its file is copied, since kernels need not take it: it has no place then.
    """
    places: dict[int, Place] = {}
    state = read_state(path)
    located = locate_tensors(path)
    for name, tensor in state.items():
        if tensor.data_ptr() % tensor.element_size():
            state[name] = tensor.clone()
        elif tensor.nbytes:
            places[tensor.data_ptr()] = located[name]
    return places, state


def _file_state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _construct_empty(model: ModelSpec, seed: int) -> tuple[nn.Module, bool]:
    """The module with its parameters on the meta device, and whether the constructor drew random numbers."""
    seed_everything(seed)
    before = _random_state()
    try:
        with _parameters_on_meta():
            module = construct(model.source)
    except StepError:
        raise
    except Exception as error:
        raise CannotStreamError(f"the constructor needs values: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise CannotStreamError("the source is no module")
    for name, parameter in module.named_parameters():
        if type(parameter) is not nn.Parameter:
            # Assigning would leave a plain parameter in its place.
            raise CannotStreamError(f"{name!r} is a {type(parameter).__name__}")
    return module, _random_state() != before


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Move each parameter to the meta device as a module gets it; buffers stay.

    `torch.device("meta")` would take the buffers with it, and what the checkpoint lacks of them would be lost.
    """
    original = nn.Module.register_parameter
    # A parameter that two modules get is one on the meta device too.
    moved = WeakIdKeyDictionary()

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        # Subclasses may do anything; they keep their memory until the checkpoint's tensor takes their place.
        if type(param) is nn.Parameter and not param.is_meta:
            if param not in moved:
                moved[param] = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
                moved[param].__dict__.update(param.__dict__)
            param = moved[param]
        original(self, name, param)

    nn.Module.register_parameter = register  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]


def _random_state() -> tuple[Any, ...]:
    numpy_state = np.random.get_state(legacy=True)
    return torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2:], random.getstate()  # type: ignore[index]


def _assign(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load by assigning; what the state has under two names stays one parameter."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    made: dict[int, nn.Parameter] = {}
    assigned = dict(state)
    for name, tensor in state.items():
        if name in parameters:
            if id(tensor) not in made:
                made[id(tensor)] = nn.Parameter(tensor, parameters[name].requires_grad)
                made[id(tensor)].__dict__.update(parameters[name].__dict__)
            assigned[name] = made[id(tensor)]
    module.load_state_dict(assigned, strict=True, assign=True)


def _require_values(module: nn.Module) -> None:
    for name, tensor in _find_tensors(module):
        if tensor.is_meta:
            raise CannotStreamError(f"the constructor computes {name!r} from parameters")


def _require_same_for_any_seed(module: nn.Module, model: ModelSpec, places: Mapping[int, Place]) -> None:
    """See that what is not from the file is not random.

    Parameters on the meta device draw nothing, so a tensor that is drawn after them comes out otherwise than in
    the ordinary way.
    """
    other, _ = _construct_empty(model, (model.seed + 1) % 2**32)
    others = dict(_find_tensors(other))
    for name, tensor in _find_tensors(module):
        is_foreign = tensor.numel() and tensor.data_ptr() not in places
        if is_foreign and (name not in others or not same_bytes(tensor, others[name])):
            raise CannotStreamError(f"{name!r} is not in the file, and the constructor draws it at random")


def _find_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, buffers, and tensors that are plain attributes or in lists of them."""
    for path, part in module.named_modules():
        for attribute, value in vars(part).items():
            for keys, leaf in pytree.tree_leaves_with_path(value):
                if isinstance(leaf, torch.Tensor):
                    name = attribute if attribute not in ("_parameters", "_buffers") else ""
                    yield ".".join(filter(None, (path, name, *(str(getattr(key, "key", "")) for key in keys)))), leaf
