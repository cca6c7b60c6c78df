"""Converts one ONNX file with MNN: a process of its own, started by the MNN device.

``python -m gnomon.devices.mnn_convert MODEL TARGET NAME=1,3,32,32 ...``

It calls the converter in MNN's extension module. MNN's own command ``mnnconvert`` (any import of
``MNN.tools``, in fact) is avoided: it runs ``pip install`` for a logging package that it misses, in
whatever environment ``pip`` happens to be, and reports conversions to a server.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def main() -> int:
    """Converts; a failure ends in an exception, whose last line is the reason."""
    import onnx

    converter = importlib.import_module("_tools")  # MNN's extension module, beside its package
    source, target, *shapes = sys.argv[1:]
    sizes = {
        name: tuple(int(n) for n in shape.split(",") if n) for name, _, shape in (s.partition("=") for s in shapes)
    }
    plain = Path(target).with_suffix(".onnx")
    onnx.save(without_channel_pads(onnx.load(source), sizes), plain)
    converter.mnnconvert(
        ["mnnconvert", "-f", "ONNX", "--modelFile", str(plain), "--MNNModel", target, "--bizCode", "g"]
    )
    return 0


def without_channel_pads(model: Any, sizes: Mapping[str, tuple[int, ...]]) -> Any:
    """``model`` with zero padding along the channels written as a concatenation with zeros.

    MNN 3.6 keeps channels in packs of 16 on CPUs with AVX-512 and, padding 12 to 32 of them, may leave
    what was in memory before in the rest of the first pack: wrong answers in some graphs. Its
    concatenation is right, and costs the same.

    Args:
        model: An ONNX model; it is changed.
        sizes: Shapes of its inputs, which may have free axes.
    """
    if not any(node.op_type == "Pad" for node in model.graph.node):
        return model
    shapes = _shapes(model, sizes)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for index, node in enumerate(model.graph.node):
        shape, pads = shapes.get(node.input[0]), _channel_pads(node, constants)
        if pads is None or shape is None or not all(shape):
            continue
        zeros = [
            _zeros(shape, n, f"{node.output[0]}_{side}") for n, side in zip(pads, ("before", "after"), strict=True)
        ]
        model.graph.initializer.extend(zero for zero in zeros if zero is not None)
        parts = [zeros[0], node.input[0], zeros[1]]
        model.graph.node[index].CopyFrom(_concat([getattr(p, "name", p) for p in parts if p is not None], node))
    return model


def _shapes(model: Any, sizes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of the intermediate results at the given input shapes; 0 for an axis that is not known."""
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        for dimension, length in zip(value.type.tensor_type.shape.dim, sizes.get(value.name, ()), strict=False):
            dimension.dim_value = length
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed).graph
    return {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input)
    }


def _channel_pads(node: Any, constants: Mapping[str, Any]) -> tuple[int, int] | None:
    """Zeros before and after the channels, where ``node`` pads an image-like float tensor so and not otherwise."""
    from onnx import helper, numpy_helper

    if node.op_type != "Pad" or len(node.input) < 2 or node.input[1] not in constants or any(node.input[3:]):
        return None
    mode = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "mode"), b"constant")
    value = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    named = len(node.input) > 2 and bool(node.input[2])
    if mode != b"constant" or (named and (value is None or np.any(numpy_helper.to_array(value)))):
        return None
    pads = numpy_helper.to_array(constants[node.input[1]]).tolist()
    if len(pads) != 8 or min(pads) < 0 or any(n for i, n in enumerate(pads) if i not in (1, 5)):
        return None
    return pads[1], pads[5]


def _zeros(shape: tuple[int, ...], channels: int, name: str) -> Any:
    from onnx import numpy_helper

    if channels == 0:
        return None
    return numpy_helper.from_array(np.zeros((shape[0], channels, *shape[2:]), np.float32), name)


def _concat(inputs: list[str], node: Any) -> Any:
    from onnx import helper

    return helper.make_node("Concat", inputs, list(node.output), name=node.name, axis=1)


if __name__ == "__main__":
    sys.exit(main())
