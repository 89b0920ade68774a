"""Puts a module into eval mode for a while; whose module it is finds it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["in_eval_mode"]


@contextmanager
def in_eval_mode(module: "nn.Module | None") -> Iterator[None]:
    """Eval mode within, and after it for each part the mode it had before; no module, nothing to do."""
    modes = [] if module is None else [(part, part.training) for part in module.modules()]
    if module is not None:
        module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            # Not train(), which goes down to the parts of parts.
            part.training = training
