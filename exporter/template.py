"""Makes a process warm: imports what an export needs, and does one tiny export where many will follow.

A fork server imports one of two modules by name, `exporter.template` or `exporter.warm_template`; each fork of it
then starts with everything loaded. A fork is safe only from a process without a live thread pool: no operator
may have run on more than one thread, ONNX Runtime must hold no session, and CUDA must not have started.
"""

import gc

import torch

from exporter import cuda, sequence  # noqa: F401  (imported for its imports: torch, onnx, onnxscript, onnxruntime)

__all__ = ["freeze", "warm_up"]

# Set before any operator runs; a worker raises it after the fork.
torch.set_num_threads(1)


def warm_up() -> None:
    """Export a tiny model, which makes torch import some 700 modules more than `import torch` does."""
    module = torch.nn.Linear(2, 2).eval()
    with cuda.hidden_gpus(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (),
            kwargs={"input": torch.zeros(2, 2)},
            dynamo=True,
            verbose=False,
            optimize=False,
            dynamic_shapes={"input": {0: "batch"}},
        )
    if program is not None:
        program.optimize()


def freeze() -> None:
    """Move what is loaded out of the garbage collector's sight, so that a fork does not copy its pages."""
    gc.collect()
    gc.freeze()
