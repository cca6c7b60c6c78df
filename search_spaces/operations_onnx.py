"""The operations of an ONNX file, anybody's: shapes are inferred, nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SpaceError
from .operations import Operation, OperationGraph
from .operations_torch import conv_kind

if TYPE_CHECKING:
    import onnx

_KINDS = {
    "Add": "add", "Sum": "add", "Mul": "multiply",
    "AveragePool": "pool", "MaxPool": "pool",
    "GlobalAveragePool": "mean", "ReduceMean": "mean",
    "BatchNormalization": "norm", "LayerNormalization": "norm", "InstanceNormalization": "norm",
    "Relu": "activation", "Clip": "activation", "Sigmoid": "activation", "HardSigmoid": "activation",
    "HardSwish": "activation", "Gelu": "activation", "LeakyRelu": "activation", "PRelu": "activation",
    "Identity": "view", "Flatten": "view", "Reshape": "view", "Squeeze": "view", "Unsqueeze": "view",
    "Dropout": "view",
    "Transpose": "transpose", "Concat": "concat", "Pad": "pad", "Slice": "slice", "Split": "slice",
    "Constant": "constant", "ConstantOfShape": "constant", "Shape": "constant",
}  # fmt: skip


def onnx_operations(path: str | Path) -> OperationGraph:
    """The operations of the file's main graph at batch 1, as they are written there.

    Dimensions without a number count as 1.

    Raises:
        SpaceError: If the file cannot be read as ONNX or its shapes cannot be inferred.
    """
    import onnx

    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=True)
    except Exception as error:  # onnx, protobuf and the file system raise their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SpaceError(f"cannot read this as an ONNX graph: {reason}", field="path", value=str(path)) from error
    graph = model.graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes = {
        value.name: tuple(d.dim_value or 1 for d in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    operations = tuple(_operation(node, weights, shapes) for node in graph.node)
    return OperationGraph(operations, tuple(output.name for output in graph.output))


def _operation(
    node: onnx.NodeProto, weights: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]
) -> Operation:
    reads = tuple(name for name in node.input if name and name not in weights)
    owned = [weights[name] for name in node.input if name in weights]
    shape = shapes.get(node.output[0], (1,))
    read = [shapes.get(name, (1,)) for name in reads]
    return Operation(
        name=node.output[0],
        reads=reads,
        shape=shape,
        read_elements=sum(prod(s) for s in read),
        **_details(node, owned, read, shape),
    )


def _details(
    node: onnx.NodeProto, owned: list[tuple[int, ...]], read: list[tuple[int, ...]], shape: tuple[int, ...]
) -> dict[str, Any]:
    import onnx

    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    parameters = sum(prod(dims) for dims in owned)
    if node.op_type == "Conv" and owned and read:
        kernel = owned[0]
        kind = conv_kind(read[0][1], int(attributes.get("group", 1)), max(kernel[2:]), prod(read[0][2:]))
        macs = prod(shape[1:]) * prod(kernel[1:])
        return {
            "kind": kind,
            "macs": macs,
            "parameters": parameters,
            "kernel": max(kernel[2:]),
            "inner": kernel[1],
        }
    if node.op_type in ("Gemm", "MatMul") and owned:
        inner = owned[0][1] if attributes.get("transB") else owned[0][0]
        return {"kind": "linear", "macs": prod(shape) * inner, "parameters": parameters}
    kind = _KINDS.get(node.op_type, "other")
    if kind in ("add", "multiply") and len(read) < 2:  # with a constant: scales or shifts what is there
        return {"kind": "activation", "label": node.op_type.lower(), "parameters": parameters}
    counted = sum(prod(dims) for dims in owned[:2]) if kind == "norm" else 0
    return {"kind": kind, "label": node.op_type.lower(), "parameters": counted}
