"""The text of repro.py, with gaps; `exporter.repro` fills them. Written to be read by someone who has only torch."""

__all__ = ["CHECK_OUTPUTS", "CHECK_RANGES", "CHECK_REPEAT", "SCRIPT"]

SCRIPT = """\
# Reproduces a failed ONNX export with torch and ONNX Runtime alone; modelpress, which wrote it, is not needed.
#
$story
#
# Run it in the folder that the export was run in, where the model's code and weights are found. While the failure is
# there it ends with an exception or with exit status 1, once it is gone with 0.

import os
import random
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch.export._patches import register_gru_while_loop_decomposition, register_lstm_while_loop_decomposition

sys.path.insert(0, os.getcwd())

OPSET = $opset
RTOL, ATOL = $rtol, $atol
# Sizes of the named dims, and the seed of the inputs: those that the model is captured at, and those that fail.
EXAMPLE = $example
CASE = $case
# Axes that stay symbolic.
DYNAMIC_SHAPES = $dynamic_shapes


def build():
$build


def make_inputs(sizes, seed):
$inputs


def generator(seed, name):
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))


def export(module):
    # GRU and LSTM layers as loops: otherwise their time is fixed at the example's.
    with torch.no_grad(), register_gru_while_loop_decomposition(), register_lstm_while_loop_decomposition():
        program = torch.onnx.export(
            module,
            (),
            kwargs=make_inputs(*EXAMPLE),
            dynamo=True,
            verbose=False,
            optimize=False,
            opset_version=OPSET,
            dynamic_shapes=DYNAMIC_SHAPES,
        )
$optimize
    return program


$check


def main():
    module = build().eval()
    program = export(module)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        program.save(path, external_data=True)
        opset = program.model.opset_imports[""]
        if opset != OPSET:
            sys.exit(f"the graph has opset {opset}, not {OPSET}")
        onnx.checker.check_model(path, full_check=True)
        if not check(module, program, path):
            sys.exit("the failure is reproduced")
    print("the failure is not reproduced")


if __name__ == "__main__":
    main()
"""

_RUNS = """\
def run_torch(module):
    inputs = make_inputs(*CASE)
    with torch.inference_mode():
        leaves = torch.utils._pytree.tree_leaves(module(**inputs))
    return [leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def run_onnx(path):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    leaves = torch.utils._pytree.tree_leaves(make_inputs(*CASE))
    arrays = [leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return session.run(None, dict(zip([item.name for item in session.get_inputs()], arrays, strict=True)))
"""

CHECK_OUTPUTS = f'''{_RUNS}

def check(module, program, path):
    """Whether ONNX Runtime gives what torch gives."""
    expected, actual = run_torch(module), run_onnx(path)
    if len(expected) != len(actual):
        print(f"forward returns {{len(expected)}} tensors, the graph {{len(actual)}}")
        return False
    passed = True
    for index, (one, two) in enumerate(zip(expected, actual, strict=True)):
        if one.shape != two.shape or one.dtype != two.dtype:
            forms = [f"{{array.dtype}}{{list(array.shape)}}" for array in (one, two)]
            print(f"output {{index}}: torch {{forms[0]}}, ONNX Runtime {{forms[1]}}")
            passed = False
            continue
        wide, other = one.astype(np.float64), two.astype(np.float64)
        difference = np.abs(wide - other)
        # NaN is not less than anything, so it counts as missed.
        missed = int((~(difference <= ATOL + RTOL * np.abs(wide))).sum())
        largest = float(difference.max(initial=0.0))
        print(f"output {{index}}: max_abs_diff {{largest:.3g}}, {{missed}} of {{one.size}} elements out of tolerance")
        passed = passed and missed == 0
    return passed
'''

CHECK_REPEAT = f'''{_RUNS}

def check(module, program, path):
    """Whether torch, and ONNX Runtime, each give the same twice."""
    passed = True
    for name, run in (("torch", lambda: run_torch(module)), ("ONNX Runtime", lambda: run_onnx(path))):
        same = all(np.array_equal(one, two, equal_nan=True) for one, two in zip(run(), run(), strict=True))
        print(f"{{name}} run twice: {{'the same' if same else 'different'}}")
        passed = passed and same
    return passed
'''

CHECK_RANGES = '''\
# The sizes that each dim is declared for.
DECLARED = $declared


def check(module, program, path):
    """Whether each axis is symbolic, and the captured program holds for all of its sizes."""
    exported = program.exported_program
    names = exported.graph_signature.user_inputs
    shapes = {node.name: node.meta["val"].shape for node in exported.graph.nodes if node.name in names}
    passed = True
    for name, axes in DYNAMIC_SHAPES.items():
        for axis, dim in axes.items():
            size = shapes[name][axis]
            found = size if isinstance(size, int) else exported.range_constraints.get(size.node.expr)
            low, high = DECLARED[dim]
            holds = not isinstance(size, int) and (found is None or (found.lower <= low and found.upper >= high))
            print(f"{name}, axis {axis}: declared {dim} from {low} to {high}, captured {found}")
            passed = passed and bool(holds)
    return passed
'''
