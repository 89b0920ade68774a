"""A model with weights in all the places that a model may have them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["make_model"]


def make_model(num_nodes: int = 2, producer: str = "pytorch") -> onnx.ModelProto:
    large = numpy_helper.from_array(np.ones((64, 64), "float32"), "large")
    small = numpy_helper.from_array(np.array([3], "int64"), "small")
    outside = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="model.onnx.data")
    held = numpy_helper.from_array(np.ones((8, 8), "float32"))
    nodes = [helper.make_node("Constant", [], ["held"], value=held)]
    nodes += [helper.make_node("Relu", [f"x{index}"], [f"x{index + 1}"]) for index in range(num_nodes - 1)]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x0", nodes[-1].output[0])
    ]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializer=[large, small, outside])
    branch = helper.make_graph(nodes[:1], "branch", [], [], initializer=[large])
    made.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branch))
    return helper.make_model(made, producer_name=producer, ir_version=10)
