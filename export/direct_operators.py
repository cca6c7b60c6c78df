"""The ATen operators that :mod:`.direct` writes as ONNX nodes, each as torch's exporter writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .direct_graph import GraphBuilder
from .direct_tape import NotDirectError, Recording, Step, Value, readers

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


class Translator:
    """Writes the steps of a recording into a graph.

    Args:
        recording: What the module did.
        inputs: Names of the graph's inputs, in order.
        weights: Names of parameters and buffers, by the tensor's identity.
    """

    def __init__(self, recording: Recording, inputs: Sequence[str], weights: Mapping[int, str]) -> None:
        self.recording, self.graph = recording, GraphBuilder()
        self.names = {index: self.graph.reserve(name) for index, name in enumerate(inputs)}
        self._weights = weights
        self._readers = readers(recording.steps, recording.tapes[0].outputs)
        self._reader = {index: step for step in recording.steps for index in step.reads()}
        self._maker = {index: step for step in recording.steps for index in step.outputs}

    def run(self) -> None:
        """Writes every step.

        Raises:
            NotDirectError: If one is not known, or used in a way that is not.
        """
        for step in self.recording.steps:
            if self.recording.is_constant(step.outputs[0]) or step.outputs[0] in self.names:
                continue  # a constant is written where it is read; a folded norm is part of an earlier node
            write = _OPERATORS.get(step.operator)
            if write is None:
                raise NotDirectError(f"{step.operator} is not known")
            if step.reason:
                raise NotDirectError(f"{step.operator} {step.reason}")
            if any(self.recording.tapes[0].tensors[index].dtype != _float32() for index in step.outputs[:1]):
                raise NotDirectError(f"{step.operator} makes {self.recording.tapes[0].tensors[step.outputs[0]].dtype}")
            self.names[step.outputs[0]] = write(self, step)

    # ---- What the operators need -------------------------------------------------------------

    def name(self, argument: Any) -> str:
        """Name of an argument's value; constants become weights, numbers scalars."""
        if not isinstance(argument, Value):
            return self.graph.weight(np.array(argument, np.float32), "number")
        if self.recording.is_constant(argument.index):
            return self.weight(argument)
        if argument.index not in self.names:
            raise NotDirectError("an operator's second output is used")
        return self.names[argument.index]

    def weight(self, argument: Value, array: Array | None = None) -> str:
        """Adds a constant as a weight, under its name in the module; ``array`` instead of its own values."""
        tensor = self.recording.constant(argument.index)
        values = to_numpy(tensor) if array is None else array
        if values.dtype != np.float32:
            raise NotDirectError(f"a constant is {values.dtype}")
        return self.graph.weight(values, self._weights.get(id(tensor), "constant"))

    def array(self, argument: Value) -> Array:
        """A constant's values.

        Raises:
            NotDirectError: If it is no constant.
        """
        if not self.recording.is_constant(argument.index):
            raise NotDirectError("weights are computed from the input")
        return to_numpy(self.recording.constant(argument.index))

    def rank(self, argument: Any) -> int:
        return len(self.recording.shape(argument.index))

    def maker(self, argument: Value) -> Step | None:
        """The step that makes a value; None for inputs and weights."""
        return self._maker.get(argument.index)

    def folded_norms(self, index: int) -> tuple[Array, Array, tuple[int, ...]]:
        """Scale and shift ``(channels,)`` of the batch norms that alone read a value, one after the other,
        and the indices of what they make: one node writes them all, the last is its output.

        Takes float64 for the square root and the products, so that folding costs no accuracy.
        """
        factor, shift, made = np.ones(1), np.zeros(1), [index]
        while (step := self._only_reader(made[-1])) is not None and _is_norm_of(step, made[-1]):
            scale, offset, mean, variance = _statistics(self, step)
            ratio = scale / np.sqrt(variance + step.arguments["eps"])
            factor, shift = factor * ratio, shift * ratio + offset - mean * ratio
            made.append(step.outputs[0])
        return factor, shift, tuple(made[1:])

    def _only_reader(self, index: int) -> Step | None:
        """The step that reads a value, if there is just one."""
        return self._reader.get(index) if self._readers[index] == 1 else None


def to_numpy(tensor: torch.Tensor) -> Array:
    """A tensor's values, C-contiguous."""
    array: Array = tensor.detach().cpu().contiguous().numpy()
    return array


def _float32() -> torch.dtype:
    import torch

    return torch.float32


Writer = Callable[[Translator, Step], str]

# ---- Layers with weights ----------------------------------------------------------------------


def _convolution(to: Translator, step: Step) -> str:
    a = step.arguments
    if a["transposed"] or any(a["output_padding"]):
        raise NotDirectError("transposed convolution")
    kernel = to.array(a["weight"])
    bias = None if a["bias"] is None else to.array(a["bias"])
    spatial = kernel.ndim - 2
    factor, shift, norms = to.folded_norms(step.outputs[0])
    if norms:
        kernel, bias = _scaled(kernel, bias, factor, shift)
    inputs = [to.name(a["input"]), to.weight(a["weight"], kernel), *_bias(to, a["bias"], bias)]
    padding = _spread(a["padding"], spatial)
    output = to.graph.node(
        "Conv",
        inputs,
        kernel_shape=kernel.shape[2:],
        strides=_spread(a["stride"], spatial),
        pads=padding * 2,
        dilations=_spread(a["dilation"], spatial),
        group=a["groups"],
        auto_pad="NOTSET",
    )
    to.names |= dict.fromkeys(norms, output)
    return output


def _linear(to: Translator, step: Step) -> str:
    """``addmm`` and ``mm`` with a constant second factor, as ``Gemm`` with the weight transposed."""
    a = step.arguments
    bias_argument, read, matrix = (a["self"], a["mat1"], a["mat2"]) if "mat1" in a else (None, a["self"], a["mat2"])
    if a.get("beta", 1) != 1 or a.get("alpha", 1) != 1:
        raise NotDirectError("scaled matrix product")
    maker = to.maker(read)
    if maker is not None and maker.operator in ("aten.view.default", "aten._unsafe_view.default"):
        before = to.recording.shape(maker.arguments["self"].index)
        if len(before) > 2 and before[-1] == to.recording.shape(read.index)[-1]:
            raise NotDirectError("a linear layer on more than two dimensions")
    kernel = to.array(matrix).T
    bias = None if bias_argument is None else to.array(bias_argument)
    if bias is not None and bias.ndim != 1:
        raise NotDirectError("a matrix as bias")
    factor, shift, norms = to.folded_norms(step.outputs[0])
    if norms:
        kernel, bias = _scaled(kernel, bias, factor, shift)
    transposed = to.maker(matrix)  # of the parameter, whose name the weight gets
    if transposed is not None and transposed.operator == "aten.t.default":
        matrix = transposed.arguments["self"]
    inputs = [to.name(read), to.weight(matrix, kernel), *_bias(to, bias_argument, bias)]
    output = to.graph.node("Gemm", inputs, alpha=1.0, beta=1.0, transA=0, transB=1)
    to.names |= dict.fromkeys(norms, output)
    return output


def _scaled(kernel: Array, bias: Array | None, factor: Array, shift: Array) -> tuple[Array, Array]:
    """Kernel and bias with a following ``factor * y + shift`` taken in."""
    wide = kernel * factor.reshape(-1, *(1,) * (kernel.ndim - 1))
    moved = shift if bias is None else bias * factor + shift
    return wide.astype(np.float32), moved.astype(np.float32)


def _bias(to: Translator, argument: Value | None, bias: Array | None) -> list[str]:
    """The bias as an input; none where it is zero, as in fresh networks: the exporter leaves that out, too."""
    if bias is None or not bias.any():
        return []
    return [to.graph.weight(bias, "bias") if argument is None else to.weight(argument, bias)]


_NORMS = ("aten.native_batch_norm.default", "aten._native_batch_norm_legit_no_training.default")


def _is_norm_of(step: Step, index: int) -> bool:
    return step.operator in _NORMS and not step.reason and step.arguments["input"] == Value(index)


def _statistics(to: Translator, step: Step) -> tuple[Array, Array, Array, Array]:
    """Scale, shift, mean and variance of a batch norm, float64."""
    a = step.arguments
    if a.get("training", False) or a["running_mean"] is None:
        raise NotDirectError("batch norm with the batch's own statistics")
    mean, variance = (to.array(a[name]).astype(np.float64) for name in ("running_mean", "running_var"))
    scale = np.ones_like(mean) if a["weight"] is None else to.array(a["weight"]).astype(np.float64)
    shift = np.zeros_like(mean) if a["bias"] is None else to.array(a["bias"]).astype(np.float64)
    return scale, shift, mean, variance


def _batch_norm(to: Translator, step: Step) -> str:
    """One that follows no convolution or linear layer of its own."""
    a = step.arguments
    arguments = [a[name] for name in ("weight", "bias", "running_mean", "running_var")]
    values = [part.astype(np.float32) for part in _statistics(to, step)]
    parts = [
        to.graph.weight(value, "norm") if argument is None else to.weight(argument, value)
        for argument, value in zip(arguments, values, strict=True)
    ]
    return to.graph.node("BatchNormalization", [to.name(a["input"]), *parts], epsilon=a["eps"], momentum=0.9)


# ---- Element by element ------------------------------------------------------------------------


def _activation(operator: str, **attributes: Any) -> Writer:
    def write(to: Translator, step: Step) -> str:
        return to.graph.node(operator, [to.name(step.arguments["self"])], **attributes)

    return write


def _clip(to: Translator, step: Step) -> str:
    a = step.arguments
    return to.graph.node("Clip", [to.name(a["self"]), to.name(a["min_val"]), to.name(a["max_val"])])


def _silu(to: Translator, step: Step) -> str:
    read = to.name(step.arguments["self"])
    return to.graph.node("Mul", [read, to.graph.node("Sigmoid", [read])])


def _gelu(to: Translator, step: Step) -> str:
    return to.graph.node("Gelu", [to.name(step.arguments["self"])], approximate=step.arguments["approximate"])


def _leaky_relu(to: Translator, step: Step) -> str:
    return to.graph.node("LeakyRelu", [to.name(step.arguments["self"])], alpha=float(step.arguments["negative_slope"]))


def _binary(operator: str) -> Writer:
    def write(to: Translator, step: Step) -> str:
        a = step.arguments
        if a.get("alpha", 1) != 1:
            raise NotDirectError("scaled sum")
        return to.graph.node(operator, [to.name(a["self"]), to.name(a["other"])])

    return write


# ---- Pooling -----------------------------------------------------------------------------------


def _mean(to: Translator, step: Step) -> str:
    a = step.arguments
    if a["dtype"] is not None or not a["dim"]:
        raise NotDirectError("mean over everything, or of another type")
    axes = np.array([axis % to.rank(a["self"]) for axis in a["dim"]], np.int64)
    inputs = [to.name(a["self"]), to.graph.weight(axes, "axes")]
    return to.graph.node("ReduceMean", inputs, keepdims=int(a["keepdim"]), noop_with_empty_axes=0)


def _average_pool(to: Translator, step: Step) -> str:
    a = step.arguments
    padding = _spread(a["padding"], 2)
    if a["divisor_override"] is not None or (a["ceil_mode"] and a["count_include_pad"] and any(padding)):
        raise NotDirectError("an average pool that ONNX counts otherwise")
    return to.graph.node(
        "AveragePool",
        [to.name(a["self"])],
        kernel_shape=_spread(a["kernel_size"], 2),
        strides=_spread(a["stride"] or a["kernel_size"], 2),
        pads=padding * 2,
        ceil_mode=int(a["ceil_mode"]),
        count_include_pad=int(a["count_include_pad"]),
        auto_pad="NOTSET",
    )


def _max_pool(to: Translator, step: Step) -> str:
    a = step.arguments
    return to.graph.node(
        "MaxPool",
        [to.name(a["self"])],
        kernel_shape=_spread(a["kernel_size"], 2),
        strides=_spread(a["stride"] or a["kernel_size"], 2),
        pads=_spread(a["padding"], 2) * 2,
        dilations=_spread(a["dilation"], 2),
        ceil_mode=int(a["ceil_mode"]),
        storage_order=0,
        auto_pad="NOTSET",
    )


def _spread(lengths: Sequence[int], dimensions: int) -> tuple[int, ...]:
    """torch takes one number for all dimensions, ONNX does not."""
    return tuple(lengths) * dimensions if len(lengths) == 1 else tuple(lengths)


# ---- Shape -------------------------------------------------------------------------------------


def _same(to: Translator, step: Step) -> str:
    """A copy, or another view of all of it."""
    return to.name(step.arguments["self"])


def _reshape(to: Translator, step: Step) -> str:
    """One length may vary; it is left to the runtime."""
    made = to.recording.shape(step.outputs[0])
    if made.count(None) > 1:
        raise NotDirectError("a change of shape with several dynamic lengths")
    if made == to.recording.shape(step.arguments["self"].index):
        return to.name(step.arguments["self"])
    target = np.array([-1 if length is None else length for length in made], np.int64)
    return to.graph.node("Reshape", [to.name(step.arguments["self"]), to.graph.weight(target, "shape")], allowzero=1)


def _transpose(to: Translator, step: Step) -> str:
    a, rank = step.arguments, to.rank(step.arguments["self"])
    order = list(range(rank))
    if "dims" in a:
        order = [axis % rank for axis in a["dims"]]
    else:
        first, second = a["dim0"] % rank, a["dim1"] % rank
        order[first], order[second] = second, first
    return to.graph.node("Transpose", [to.name(a["self"])], perm=tuple(order))


def _concat(to: Translator, step: Step) -> str:
    a = step.arguments
    axis = a["dim"] % len(to.recording.shape(step.outputs[0]))
    return to.graph.node("Concat", [to.name(tensor) for tensor in a["tensors"]], axis=axis)


def _pad(to: Translator, step: Step) -> str:
    """torch counts from the last dimension, (before, after) each; ONNX from the first, all before, all after."""
    a, rank = step.arguments, to.rank(step.arguments["self"])
    if a["value"] != 0:
        raise NotDirectError("padding with something other than zeros")
    before, after = [0] * rank, [0] * rank
    for position, (low, high) in enumerate(zip(a["pad"][::2], a["pad"][1::2], strict=True)):
        before[rank - 1 - position], after[rank - 1 - position] = low, high
    pads = to.graph.weight(np.array(before + after, np.int64), "pads")
    return to.graph.node("Pad", [to.name(a["self"]), pads], mode="constant")


def _zeros_like(to: Translator, step: Step) -> str:
    zero = to.graph.weight(np.zeros(1, np.float32), "zero")
    return to.graph.node("Expand", [zero, to.graph.node("Shape", [to.name(step.arguments["self"])], start=0)])


def _slice(to: Translator, step: Step) -> str:
    a = step.arguments
    axis = a["dim"] % to.rank(a["self"])
    length = to.recording.shape(a["self"].index)[axis]
    if to.recording.shape(step.outputs[0]) == to.recording.shape(a["self"].index) and length is not None:
        return to.name(a["self"])
    if length is None:
        raise NotDirectError("a part of a dynamic length")
    start = a["start"] or 0
    numbers = (start, length if a["end"] is None else min(a["end"], length), axis, a["step"])
    parts = [to.graph.weight(np.array([number], np.int64), "slice") for number in numbers]
    return to.graph.node("Slice", [to.name(a["self"]), *parts])


_OPERATORS: Mapping[str, Writer] = {
    "aten.convolution.default": _convolution,
    "aten.addmm.default": _linear,
    "aten.mm.default": _linear,
    **dict.fromkeys(_NORMS, _batch_norm),
    "aten.relu.default": _activation("Relu"),
    "aten.relu_.default": _activation("Relu"),
    "aten.hardswish.default": _activation("HardSwish"),
    "aten.hardswish_.default": _activation("HardSwish"),
    "aten.hardsigmoid.default": _activation("HardSigmoid", alpha=1 / 6, beta=0.5),
    "aten.hardsigmoid_.default": _activation("HardSigmoid", alpha=1 / 6, beta=0.5),
    "aten.sigmoid.default": _activation("Sigmoid"),
    "aten.sigmoid_.default": _activation("Sigmoid"),
    "aten.tanh.default": _activation("Tanh"),
    "aten.hardtanh.default": _clip,
    "aten.hardtanh_.default": _clip,
    "aten.silu.default": _silu,
    "aten.silu_.default": _silu,
    "aten.gelu.default": _gelu,
    "aten.leaky_relu.default": _leaky_relu,
    "aten.leaky_relu_.default": _leaky_relu,
    "aten.add.Tensor": _binary("Add"),
    "aten.add_.Tensor": _binary("Add"),
    "aten.sub.Tensor": _binary("Sub"),
    "aten.mul.Tensor": _binary("Mul"),
    "aten.mul_.Tensor": _binary("Mul"),
    "aten.div.Tensor": _binary("Div"),
    "aten.mean.dim": _mean,
    "aten.avg_pool2d.default": _average_pool,
    "aten.max_pool2d_with_indices.default": _max_pool,
    "aten.clone.default": _same,
    "aten.detach.default": _same,
    "aten.alias.default": _same,
    "aten.view.default": _reshape,
    "aten._unsafe_view.default": _reshape,
    "aten.transpose.int": _transpose,
    "aten.permute.default": _transpose,
    "aten.cat.default": _concat,
    "aten.constant_pad_nd.default": _pad,
    "aten.slice.Tensor": _slice,
    "aten.zeros_like.default": _zeros_like,
}
