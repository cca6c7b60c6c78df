"""An ONNX file as a torch module, for converters that start from torch.

Knows the float operators of image networks and what surrounds them, each by its ONNX definition
(opsets 13 to 22). An operator or form that it does not know is an error, never a guess, and a
device compares what it converted with the file's own answers besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import MeasurementError

if TYPE_CHECKING:
    from onnx import NodeProto

Attributes: TypeAlias = Mapping[str, Any]
Values: TypeAlias = Sequence[Any]
"""A node's inputs: tensors, numpy arrays for integer constants, None for an input left out."""
Operator: TypeAlias = Callable[[Values, Attributes], Tensor | npt.NDArray[Any] | Sequence[Tensor]]
"""Gives tensors, or a numpy array where the result depends on shapes only, which are fixed."""


class OnnxModule(nn.Module):
    """Runs the nodes of an ONNX graph, one after the other; inputs and outputs in the graph's order.

    Args:
        path: The ONNX file.
        operators: By ONNX name; what a runtime wants spelt otherwise replaces an entry of :data:`OPERATORS`.

    Raises:
        MeasurementError: If it is not an ONNX file, or an operator is not known.
    """

    def __init__(self, path: Path, operators: Mapping[str, Operator] | None = None) -> None:
        super().__init__()
        self._operators = OPERATORS if operators is None else operators
        import onnx

        try:
            graph = onnx.load(path).graph
        except Exception as error:  # protobuf's error types differ between its implementations
            reason = " ".join(str(error).split())[:200]
            raise MeasurementError(f"cannot be read as an ONNX file: {reason}", field="onnx_path") from error
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self._tensors: dict[str, str] = {}
        for weight in graph.initializer:
            self._keep(weight.name, onnx.numpy_helper.to_array(weight))
        self._steps = [step for node in graph.node if (step := self._step(node)) is not None]
        self._inputs = [value.name for value in graph.input if value.name not in self._tensors]
        self._outputs = [value.name for value in graph.output]

    def _keep(self, name: str, array: npt.NDArray[Any]) -> None:
        if array.dtype.kind != "f":
            self._constants[name] = array
            return
        self._tensors[name] = f"weight{len(self._tensors)}"
        self.register_buffer(self._tensors[name], torch.from_numpy(array.copy()))

    def _step(self, node: NodeProto) -> tuple[Operator, list[str], list[str], Attributes] | None:
        from onnx import helper, numpy_helper

        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            self._keep(node.output[0], numpy_helper.to_array(attributes["value"]))
            return None
        operator = self._operators.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if operator is None:
            raise MeasurementError(
                "this runtime's converter starts from torch, and an operator of the ONNX file is not known there",
                field="operator",
                value=node.op_type,
                allowed=sorted(self._operators),
            )
        return operator, list(node.input), list(node.output), attributes

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        values: dict[str, Any] = {"": None, **self._constants}
        values.update((name, getattr(self, buffer)) for name, buffer in self._tensors.items())
        values.update(zip(self._inputs, inputs, strict=True))
        for operator, sources, targets, attributes in self._steps:
            result = operator([values[name] for name in sources], attributes)
            results = [result] if isinstance(result, (Tensor, np.ndarray)) else result
            values.update(zip(targets, results, strict=False))
        outputs = tuple(values[name] for name in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs


# ---- Operators -----------------------------------------------------------------------------


def _argument(values: Values, index: int, default: Any = None) -> Any:
    return values[index] if index < len(values) and values[index] is not None else default


def _integers(value: Any, what: str) -> list[int]:
    """An operand that only a constant can be."""
    if not isinstance(value, np.ndarray):
        raise MeasurementError(f"{what} is computed by the ONNX graph itself, and only a constant is known")
    return [int(each) for each in value.ravel()]


def _number(value: Any) -> float:
    return float(value.item())


def _padding(attributes: Attributes, rank: int) -> tuple[list[int], list[int]]:
    """Paddings before and after each spatial axis."""
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise MeasurementError("padding must be explicit", field="auto_pad", value=attributes["auto_pad"].decode())
    pads = list(attributes.get("pads", [0] * (2 * rank)))
    return pads[:rank], pads[rank:]


def _symmetric(x: Tensor, attributes: Attributes, fill: float) -> tuple[Tensor, list[int]]:
    """``x`` and the padding that is left to the operator: what is not symmetric is padded here."""
    before, after = _padding(attributes, x.ndim - 2)
    if before == after:
        return x, before
    flat = [pad for pair in zip(reversed(before), reversed(after), strict=True) for pad in pair]
    return functional.pad(x, flat, value=fill), [0] * len(before)


def _conv(values: Values, attributes: Attributes) -> Tensor:
    x, padding = _symmetric(values[0], attributes, 0.0)
    rank = x.ndim - 2
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    ones = [1] * rank
    strides, dilations = list(attributes.get("strides", ones)), list(attributes.get("dilations", ones))
    return convolve(x, values[1], _argument(values, 2), strides, padding, dilations, attributes.get("group", 1))


def _max_pool(values: Values, attributes: Attributes) -> Tensor:
    x, padding = _symmetric(values[0], attributes, float("-inf"))
    _images(x, "MaxPool")
    kernel = list(attributes["kernel_shape"])
    return functional.max_pool2d(
        x,
        kernel,
        list(attributes.get("strides", [1, 1])),
        padding,
        list(attributes.get("dilations", [1, 1])),
        bool(attributes.get("ceil_mode", 0)),
    )


def _average_pool(values: Values, attributes: Attributes) -> Tensor:
    x = values[0]
    _images(x, "AveragePool")
    before, after = _padding(attributes, 2)
    include = bool(attributes.get("count_include_pad", 0))
    if before != after or any(each != 1 for each in attributes.get("dilations", [])):
        raise MeasurementError("AveragePool is known with symmetric padding and without dilation only")
    kernel, strides = list(attributes["kernel_shape"]), list(attributes.get("strides", [1, 1]))
    return functional.avg_pool2d(x, kernel, strides, before, bool(attributes.get("ceil_mode", 0)), include)


def average_pool_without_padding(values: Values, attributes: Attributes) -> Tensor:
    """AveragePool for runtimes that pad as TensorFlow does (``SAME``) or not at all.

    A padding that is not counted and is not ``SAME``'s becomes zeros around the input, a pool without
    padding, and a product with the inverse share of each window that lies within the input.
    """
    x = values[0]
    _images(x, "AveragePool")
    kernel, strides = attributes["kernel_shape"], attributes.get("strides", [1, 1])
    before, after = _padding(attributes, 2)
    lengths = zip(x.shape[2:], kernel, strides, before, after, strict=True)
    special = attributes.get("ceil_mode", 0) or any(each != 1 for each in attributes.get("dilations", []))
    if special or attributes.get("count_include_pad", 0) or all(_is_same(*each) for each in lengths):
        return _average_pool(values, attributes)
    inside = np.ones(tuple(x.shape[2:]), np.float32)
    padded = np.pad(inside, list(zip(before, after, strict=True)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(kernel))[:: strides[0], :: strides[1]]
    share = windows.mean(axis=(2, 3))
    pooled = functional.avg_pool2d(
        functional.pad(x, [before[1], after[1], before[0], after[0]]), list(kernel), list(strides)
    )
    return pooled * torch.from_numpy((1.0 / share).astype(np.float32))


def _is_same(length: int, kernel: int, stride: int, before: int, after: int) -> bool:
    """Whether a padding is TensorFlow's ``SAME``, or none."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return (before, after) in ((total // 2, total - total // 2), (0, 0))


def _images(x: Tensor, what: str) -> None:
    if x.ndim != 4:
        raise MeasurementError(f"{what} is known for four-dimensional inputs only", value=tuple(x.shape))


def _gemm(values: Values, attributes: Attributes) -> Tensor:
    a = values[0].T if attributes.get("transA", 0) else values[0]
    weight = values[1] if attributes.get("transB", 0) else values[1].T
    bias, alpha, beta = _argument(values, 2), attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    if alpha == 1.0 and beta == 1.0 and (bias is None or bias.ndim == 1):
        return functional.linear(a, weight, bias)
    product = alpha * functional.linear(a, weight)
    result: Tensor = product if bias is None else product + beta * bias
    return result


def _clip(values: Values, attributes: Attributes) -> Tensor:
    low, high = _argument(values, 1), _argument(values, 2)
    bounds = (None if low is None else _number(low), None if high is None else _number(high))
    if bounds == (0.0, 6.0):
        return functional.relu6(values[0])  # converters know it by that name
    return torch.clamp(values[0], *bounds)


def _hard_sigmoid(values: Values, attributes: Attributes) -> Tensor:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return functional.hardsigmoid(values[0])
    return torch.clamp(values[0] * alpha + beta, 0.0, 1.0)


def _batch_norm(values: Values, attributes: Attributes) -> Tensor:
    x, scale, bias, mean, variance = values[:5]
    return functional.batch_norm(x, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _layer_norm(values: Values, attributes: Attributes) -> Tensor:
    x, axis = values[0], attributes.get("axis", -1)
    shape = list(x.shape[axis:])
    return functional.layer_norm(x, shape, values[1], _argument(values, 2), attributes.get("epsilon", 1e-5))


def _axes(values: Values, attributes: Attributes, what: str) -> list[int] | None:
    """``axes``: an attribute in old opsets, an input in new ones."""
    if "axes" in attributes:
        return list(attributes["axes"])
    value = _argument(values, 1)
    return None if value is None else _integers(value, f"axes of {what}")


def _reduce_mean(values: Values, attributes: Attributes) -> Tensor:
    axes = _axes(values, attributes, "ReduceMean")
    axes = list(range(values[0].ndim)) if axes is None else axes
    return torch.mean(values[0], axes, keepdim=bool(attributes.get("keepdims", 1)))


def _global_average_pool(values: Values, attributes: Attributes) -> Tensor:
    return torch.mean(values[0], list(range(2, values[0].ndim)), keepdim=True)


def _flatten(values: Values, attributes: Attributes) -> Tensor:
    x, axis = values[0], attributes.get("axis", 1)
    result: Tensor = x.reshape(int(np.prod(x.shape[:axis])), -1)
    return result


def _reshape(values: Values, attributes: Attributes) -> Tensor:
    shape = _integers(values[1], "the shape of Reshape")
    if attributes.get("allowzero", 0) and 0 in shape:
        raise MeasurementError("Reshape to an axis of length 0 is not known")
    result: Tensor = values[0].reshape(
        [values[0].shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    )
    return result


def _squeeze(values: Values, attributes: Attributes) -> Tensor:
    axes = _axes(values, attributes, "Squeeze")
    return torch.squeeze(values[0]) if axes is None else torch.squeeze(values[0], tuple(axes))


def _unsqueeze(values: Values, attributes: Attributes) -> Tensor:
    axes = _axes(values, attributes, "Unsqueeze") or []
    rank = values[0].ndim + len(axes)
    x = values[0]
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    result: Tensor = x
    return result


def _transpose(values: Values, attributes: Attributes) -> Tensor:
    result: Tensor = values[0].permute(list(attributes.get("perm", range(values[0].ndim)[::-1])))
    return result


def _slice(values: Values, attributes: Attributes) -> Tensor:
    x, starts, ends = values[0], _integers(values[1], "Slice's start"), _integers(values[2], "Slice's end")
    axes = _integers(_argument(values, 3, np.arange(len(starts))), "Slice's axes")
    steps = _integers(_argument(values, 4, np.ones(len(starts), np.int64)), "Slice's steps")
    if any(step < 1 for step in steps):
        raise MeasurementError("Slice is known with positive steps only", value=steps)
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, end, step)
    result: Tensor = x[tuple(index)]
    return result


def _pad(values: Values, attributes: Attributes) -> Tensor:
    if attributes.get("mode", b"constant") != b"constant" or _argument(values, 3) is not None:
        raise MeasurementError("Pad is known with a constant and for all axes only")
    pads, rank = _integers(values[1], "Pad's sizes"), values[0].ndim
    fill = _argument(values, 2)
    flat = [pad for axis in reversed(range(rank)) for pad in (pads[axis], pads[axis + rank])]
    return functional.pad(values[0], flat, value=0.0 if fill is None else _number(fill))


def _sum(values: Values, attributes: Attributes) -> Tensor:
    total: Tensor = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _shape(values: Values, attributes: Attributes) -> npt.NDArray[Any]:
    sizes = list(values[0].shape)
    return np.array(sizes[attributes.get("start", 0) : attributes.get("end", len(sizes))], np.int64)


def _constant_of_shape(values: Values, attributes: Attributes) -> Tensor:
    from onnx import numpy_helper

    shape = _integers(values[0], "the shape of ConstantOfShape")
    array = numpy_helper.to_array(attributes["value"]) if "value" in attributes else np.zeros(1, np.float32)
    return torch.full(shape, array.item(), dtype=torch.from_numpy(array.copy()).dtype)


def _expand(values: Values, attributes: Attributes) -> Tensor:
    shape = _integers(values[1], "the shape of Expand")
    result: Tensor = values[0].expand(torch.broadcast_shapes(tuple(values[0].shape), tuple(shape)))
    return result


def _concat(values: Values, attributes: Attributes) -> Tensor | npt.NDArray[Any]:
    if all(isinstance(value, np.ndarray) for value in values):
        return np.concatenate(list(values), attributes["axis"])
    return torch.cat(list(values), attributes["axis"])


def _gelu(values: Values, attributes: Attributes) -> Tensor:
    return functional.gelu(values[0], approximate=attributes.get("approximate", b"none").decode())


OPERATORS: dict[str, Operator] = {
    "Add": lambda v, a: v[0] + v[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "Div": lambda v, a: v[0] / v[1],
    "Dropout": lambda v, a: v[0],
    "Expand": _expand,
    "Flatten": _flatten,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda v, a: functional.hardswish(v[0]),
    "Identity": lambda v, a: v[0],
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda v, a: functional.leaky_relu(v[0], a.get("alpha", 0.01)),
    "MatMul": lambda v, a: torch.matmul(v[0], v[1]),
    "MaxPool": _max_pool,
    "Mul": lambda v, a: v[0] * v[1],
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": lambda v, a: functional.relu(v[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda v, a: torch.sigmoid(v[0]),
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": lambda v, a: torch.softmax(v[0], a.get("axis", -1)),
    "Squeeze": _squeeze,
    "Sub": lambda v, a: v[0] - v[1],
    "Sum": _sum,
    "Tanh": lambda v, a: torch.tanh(v[0]),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""By ONNX name: takes a node's inputs and attributes, gives its output or outputs."""
