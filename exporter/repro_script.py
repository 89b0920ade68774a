"""The frame of repro.py: what stands around the parts. Written to be read by someone who has only torch."""

import re
from collections.abc import Iterable

from exporter.repro_code import fill_in

__all__ = ["assemble"]

_FRAME = """\
# Reproduces a failed ONNX export with torch and ONNX Runtime alone; modelpress, which wrote it, is not needed.
#
$story
#
# Run it in the folder that the export was run in, where the model's code and weights are found. While the failure is
# there it ends with an exception or with exit status 1, once it is gone with 0.
$left_out

$imports

sys.path.insert(0, os.getcwd())

OPSET = $opset
RTOL, ATOL = $rtol, $atol
# Sizes of the named dims, and the seed of the inputs: those that the model is captured at, and those that fail.
EXAMPLE = $example
CASE = $case
# Axes that stay symbolic.
DYNAMIC = torch.export.Dim.DYNAMIC
DYNAMIC_SHAPES = $dynamic_shapes


$body


def main():
    module = build().eval()
    $hook
    program = export(module)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        program.save(path, external_data=True)
        opset = program.model.opset_imports[""]
        if opset != OPSET:
            sys.exit(f"the graph has opset {opset}, not {OPSET}")
        onnx.checker.check_model(path, full_check=True)
        if not check(module, program, path):
            sys.exit($verdict)
    $ending


if __name__ == "__main__":
    main()
"""

_HOOK = "module.register_forward_hook(lambda module, given, returned: unpack(returned))"
_GONE = 'print("the failure is not reproduced")'
_REPRODUCED = '"the failure is reproduced"'
_ANOTHER = '"what failed goes through here, and then the outputs are wrong"'
_UNKNOWN = """\
# See "left out" above: all is well here, and the failure may be there all the same.
sys.exit("the failure does not show, but not all of the export is in this script")
"""

# By what of them the body uses.
_STANDARD = ("copy", "dataclasses", "hashlib", "inspect", "json", "os", "random", "sys", "tempfile", "zlib")
_OTHER = {
    r"np\.": "import numpy as np",
    r"onnx\.": "import onnx",
    r"onnx_ir\.": "import onnx_ir",
    r"ort\.": "import onnxruntime as ort",
    r"sympy\.": "import sympy",
    r"torch\.": "import torch",
    r"load_file\(": "from safetensors.torch import load_file",
    r"register_gru": "from torch.export._patches import register_gru_while_loop_decomposition, "
    "register_lstm_while_loop_decomposition",
    r"pytree\.": "from torch.utils import _pytree as pytree",
    r"TorchDispatchMode\)": "from torch.utils._python_dispatch import TorchDispatchMode",
    r"from_dlpack\(": "from torch.utils.dlpack import from_dlpack",
}


def assemble(blocks: Iterable[str], *, left_out: str, unpacks: bool, checks_failure: bool, **parts: str) -> str:
    """The whole script.

    Args:
        blocks: Functions and constants, in order.
        left_out: Comment lines on what is not in the script and may be needed for the failure; empty if nothing is.
        unpacks: What `forward` returns goes through `unpack`.
        checks_failure: What `check` looks at is the failure, which has not ended the script before then.
        **parts: For the frame's gaps.
    """
    body = "\n\n\n".join(block.rstrip() for block in blocks)
    text = fill_in(
        _FRAME,
        body=body,
        imports="$imports",
        left_out=left_out,
        hook=_HOOK if unpacks else "",
        verdict=_REPRODUCED if checks_failure else _ANOTHER,
        ending=_UNKNOWN if left_out else _GONE,
        **parts,
    )
    return text.replace("$imports", "\n".join(_imports(text)), 1)


def _imports(text: str) -> Iterable[str]:
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("#", "from ", "import ")))

    def uses(pattern: str) -> bool:
        return re.search(rf"(?<![\w.]){pattern}", code) is not None

    yield from (f"import {name}" for name in _STANDARD if uses(rf"{name}\."))
    yield "from pathlib import Path"
    yield ""
    yield from (line for pattern, line in _OTHER.items() if uses(pattern))
