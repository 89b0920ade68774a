"""What `forward` returns, as containers that torch can take apart.

torch.export knows tuples, lists, dicts and what was registered with it (transformers registers its ModelOutput); a
plain dataclass it refuses. The eager module and the captured one see the same form here.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils import _pytree as pytree

__all__ = ["open_dataclasses", "returns_containers"]


def open_dataclasses(value: Any) -> Any:
    """The value with each dataclass that torch does not know as a dict of its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and type(value) not in pytree.SUPPORTED_NODES:
        return {field.name: open_dataclasses(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if type(value) in (list, tuple):
        return type(value)(open_dataclasses(item) for item in value)
    if type(value) is dict:
        return {key: open_dataclasses(item) for key, item in value.items()}
    return value


@contextmanager
def returns_containers(module: nn.Module) -> Iterator[None]:
    """Have a module return dicts in place of dataclasses, as long as the context lasts."""
    handle = module.register_forward_hook(lambda _module, _arguments, returned: open_dataclasses(returned))
    try:
        yield
    finally:
        handle.remove()
