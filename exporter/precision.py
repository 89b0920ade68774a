"""Another number format for the graph: half precision and 8-bit integers, by ONNX Runtime's own converters.

The model's inputs and outputs keep the dtypes that the spec gives them. Not for judging what a format costs: parity
compares the converted file with the float32 module, and `precision.max_rel_l2` is its gate.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import TopologicalSortPass
from torch import nn
from torch.utils import _pytree as pytree

from exporter.errors import FailureKind, StepError
from exporter.passes import count_ops, record_change
from exporter.result import PassRecord
from exporter.save import separate_outputs
from exporter.spec import PrecisionName

__all__ = ["QUANTIZED", "convert", "prepare_module"]

# The precisions that replace operators with constant weights.
QUANTIZED = (PrecisionName.int8_dynamic, PrecisionName.int8_weights)

# ONNX Runtime 1.32 has no half-precision form of these on the CPU, and crashes, not every time, when it loads a graph
# with a cast before one: in FuseFp16InitializerToFp32NodeTransformer. A crash would take a notebook with it.
_RECURRENT = ("GRU", "LSTM", "RNN")
# Each block of so many weights has a scale and a zero point of its own.
_BLOCK_SIZE = 32
# Tells ONNX Runtime's quantizer that shapes are known and the graph is optimized; it would log a warning otherwise.
_PREPROCESSED = {"onnx.quant.pre_process": "onnxruntime.quant"}


def prepare_module(module: nn.Module, precision: PrecisionName) -> nn.Module:
    """The module to capture: itself, or for bf16 a copy that computes in bfloat16.

    The copy takes and returns float32 where the original does. There is no converter to bfloat16 for a finished graph.
    """
    if precision is not PrecisionName.bf16:
        return module
    narrow = copy.deepcopy(module).to(torch.bfloat16)
    narrow.register_forward_pre_hook(_narrow_arguments, with_kwargs=True)
    narrow.register_forward_hook(lambda _module, _args, returned: _cast(returned, torch.bfloat16, torch.float32))
    return narrow


def convert(program: torch.onnx.ONNXProgram, precision: PrecisionName, scratch: Path) -> Iterator[PassRecord]:
    """Convert the program, in place, and tell what changed; fp32 and bf16 need nothing here.

    Works through files: in memory, protobuf and with it the converters end at 2 GiB of weights.

    Args:
        program: In float32.
        precision: The number format.
        scratch: An empty directory for those files.

    Raises:
        StepError: The graph has nothing that the format applies to.
    """
    if precision not in _CONVERTERS:
        return
    before = program.model
    _require_supported(before, precision)
    separate_outputs(before.graph)
    before.metadata_props.update(_PREPROCESSED)
    path = scratch / "model.onnx"
    ir.save(before, path, external_data="model.onnx.data")
    after = ir.from_proto(_CONVERTERS[precision](path))
    # The converters append casts at the end, wherever they belong.
    TopologicalSortPass()(after)
    record = record_change(f"precision_{precision.value}", before, after)
    if not record.op_changes:
        raise StepError(
            FailureKind.precision_error,
            f"{precision.value}: the graph has {_APPLIES_TO[precision]}, so nothing was converted",
        )
    program.model = after
    yield record


def _require_supported(model: ir.Model, precision: PrecisionName) -> None:
    found = [op for op in _RECURRENT if op in count_ops(model)]
    if precision is PrecisionName.fp16 and found:
        raise StepError(
            FailureKind.precision_error,
            f"fp16: the graph has {found[0]}, and ONNX Runtime crashes on half precision beside it",
            "choose precision=fp32, int8_dynamic or int8_weights",
        )


def _to_float16(path: Path) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    inferred = path.with_name("inferred.onnx")
    onnx.shape_inference.infer_shapes_path(str(path), str(inferred))
    model = onnx.load(inferred)
    # The converter changes the declared type of an initializer also where it leaves the initializer itself alone.
    names = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.value_info if value.name not in names]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)
    return converted


def _quantize_dynamic(path: Path) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantized = path.with_name("quantized.onnx")
    # Unsigned: ONNX Runtime has no ConvInteger for signed weights, and with them its MatMulInteger saturates on
    # processors without VNNI, so that results would depend on the machine.
    quantize_dynamic(path, quantized, weight_type=QuantType.QUInt8, use_external_data_format=True)
    return onnx.load(quantized)


def _quantize_weights(path: Path) -> onnx.ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.onnx_model import ONNXModel

    model = ONNXModel(onnx.load(path))
    # What torch makes of a linear layer on a matrix; the quantizer knows MatMul alone.
    model.replace_gemm_with_matmul()
    quantizer = MatMulNBitsQuantizer(model.model, bits=8, block_size=_BLOCK_SIZE)
    quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _narrow_arguments(_module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    narrowed: tuple[Any, Any] = _cast((args, kwargs), torch.float32, torch.bfloat16)
    return narrowed


def _cast(tree: Any, old: torch.dtype, new: torch.dtype) -> Any:
    return pytree.tree_map(
        lambda leaf: leaf.to(new) if isinstance(leaf, torch.Tensor) and leaf.dtype is old else leaf, tree
    )


_CONVERTERS: Mapping[PrecisionName, Callable[[Path], onnx.ModelProto]] = {
    PrecisionName.fp16: _to_float16,
    PrecisionName.int8_dynamic: _quantize_dynamic,
    PrecisionName.int8_weights: _quantize_weights,
}
_APPLIES_TO = {
    PrecisionName.fp16: "no float32",
    PrecisionName.int8_dynamic: "no MatMul, Gemm, Conv or LSTM with constant weights",
    PrecisionName.int8_weights: "no MatMul or Gemm with constant weights",
}
