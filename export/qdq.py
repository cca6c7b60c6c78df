"""Rewrites an ONNX graph with QuantizeLinear and DequantizeLinear around what is to run in eight bits.

The format that ONNX Runtime, and other runtimes that read its files, turn into integer kernels: activations are
unsigned with a zero point, one scale a tensor; weights signed and symmetric, one scale an output channel or a
tensor; biases 32 bit (Jacob et al. 1712.05877, Section 2; Krishnamoorthi 1806.08342, Section 3).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .calibration import Range

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Array: TypeAlias = npt.NDArray[Any]
Scale: TypeAlias = tuple[np.float32, int]
"""Scale and zero point of a tensor: real = scale * (integer - zero point)."""

WEIGHTED = ("Conv", "Gemm", "MatMul")
"""Layers: what has weights. The rest follows them."""
FOLLOWING = ("Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat")
"""Runs in eight bits where all that it reads is in eight bits already."""
GATES = ("Sigmoid", "HardSigmoid")
"""Stays in floats; what it multiplies still follows its layer, for its own input and output are small."""
SAME_SCALE = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")
"""The same, and its output has the scale of its input: it only moves integers."""
ON_INTEGERS = ("Pad", "Slice")
"""The same, written on the integers themselves: ONNX Runtime would go through floats."""
FLOAT_OUTPUT = ("Gemm", "MatMul")
"""Has an integer kernel that ends in floats: as a network's last layer it keeps its full resolution."""
LARGE_MAP = 1 << 14
"""Elements an example of a map whose average pooling stays in floats: ONNX Runtime's integer kernel is so slow
that on large maps the way through floats is shorter."""
STEPS = 255
"""Between the smallest and the largest activation."""
SMALLEST = 1e-20
"""Range of a tensor that is constant: the product of two scales must still be a normal number."""


class QdqGraph:
    """One network and what of it can be in eight bits.

    Args:
        model: Constants folded, see :func:`gnomon.export.calibration.prepared`. Not changed.
        per_channel: One scale an output channel of weights, or one a tensor.
        weight_bits: 8, or 7 for processors whose eight-bit products saturate (x86 without VNNI).
    """

    def __init__(self, model: ModelProto, *, per_channel: bool = True, weight_bits: int = 8) -> None:
        self.model = model
        self.per_channel = per_channel
        self.top = 2 ** (weight_bits - 1) - 1
        self.outputs = {value.name for value in model.graph.output}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self.layers = {layer_name(node): node for node in model.graph.node if self._is_layer(node)}
        """Layers that can be in eight bits, by name, in the order of the graph."""

    def tensors(self) -> list[str]:
        """Activations whose range has to be known, whatever layers are chosen."""
        nodes = self.quantised(self.layers)
        return list(dict.fromkeys(name for node in nodes for name in (*self.activations(node), self.end(node))))

    def constant(self, name: str) -> Array:
        """The value of an initializer."""
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self._constants[name]))

    def quantised(self, layers: Collection[str]) -> list[NodeProto]:
        """The nodes that run in eight bits, in order: the layers, and what reads nothing else."""
        ends: set[str] = set()
        nodes = []
        for node in self.model.graph.node:
            inside = layer_name(node) in layers if node.op_type in WEIGHTED else self._follows(node, ends)
            if inside:
                nodes.append(node)
                ends.add(self.end(node))
            elif node.op_type in GATES and node.input[0] in ends:
                ends.add(node.output[0])
        return nodes

    def activations(self, node: NodeProto) -> list[str]:
        """What a node reads that is no constant."""
        return [name for name in dict.fromkeys(node.input) if name and name not in self._constants]

    def end(self, node: NodeProto) -> str:
        """Where a node's integers end: its output, or that of a Relu or Clip that reads nothing else.

        Such an activation costs nothing: integers that start at zero cannot be negative.
        """
        name = str(node.output[0])
        readers = self._readers[name]
        if node.op_type in (*SAME_SCALE, *ON_INTEGERS) or name in self.outputs or len(readers) != 1:
            return name
        return str(readers[0].output[0]) if self._starts_at_zero(readers[0]) else name

    def ends_in_floats(self, node: NodeProto) -> bool:
        """Whether a node's output stays as it is: a last layer that need not round its result."""
        end = self.end(node)
        return node.op_type in FLOAT_OUTPUT and end in self.outputs and not self._readers[end]

    def _is_layer(self, node: NodeProto) -> bool:
        if node.op_type not in WEIGHTED or any(name not in self._constants for name in node.input[1:] if name):
            return False
        sizes = [len(self._constants[name].dims) for name in node.input[1:] if name]
        if any(size != 1 for size in sizes[1:]) or (node.op_type == "MatMul" and sizes[0] != 2):
            return False
        return node.op_type != "Gemm" or _plain_gemm(node)

    def _follows(self, node: NodeProto, ends: Collection[str]) -> bool:
        follows = node.op_type in (*SAME_SCALE, *ON_INTEGERS)
        if node.op_type in FOLLOWING:
            follows = not any(name in self._constants for name in node.input)
        if node.op_type == "AveragePool":
            follows = self._elements(node.output[0]) <= LARGE_MAP
        if node.op_type == "Pad":
            follows = self._pads_with_zero(node)
        return follows and all(name in ends for name in self.activations(node))

    def _elements(self, name: str) -> int:
        """Of a tensor, for one example; free axes count as 1."""
        for value in self.model.graph.value_info:
            if value.name == name:
                return math.prod(max(int(axis.dim_value), 1) for axis in value.type.tensor_type.shape.dim[1:])
        return 0

    def _pads_with_zero(self, node: NodeProto) -> bool:
        modes = [attribute.s for attribute in node.attribute if attribute.name == "mode"]
        values = [name for name in node.input[2:3] if name]
        constant = all(name in self._constants for name in node.input[1:] if name)
        return constant and modes in ([], [b"constant"]) and all(not self.constant(name).any() for name in values)

    def _starts_at_zero(self, node: NodeProto) -> bool:
        if node.op_type == "Relu":
            return True
        bounds = list(node.input[1:])
        if node.op_type != "Clip" or not bounds or bounds[0] not in self._constants:
            return False
        return bool(self.constant(bounds[0]) == 0)


def rewrite(graph: QdqGraph, ranges: Mapping[str, Range], layers: Collection[str]) -> ModelProto:
    """The network with ``layers``, and what follows them, in eight bits; the rest as it is.

    Args:
        graph: The network.
        ranges: Smallest and largest value of :meth:`QdqGraph.tensors`.
        layers: Names out of :attr:`QdqGraph.layers`.
    """
    nodes = graph.quantised(layers)
    return _Rewriting(graph, nodes, activation_scales(graph, nodes, ranges)).run()


def activation_scales(graph: QdqGraph, nodes: Iterable[NodeProto], ranges: Mapping[str, Range]) -> dict[str, Scale]:
    """Scale and zero point of every activation that ``nodes`` read or write."""
    scales: dict[str, Scale] = {}
    for node in nodes:
        for name in graph.activations(node):
            scales.setdefault(name, asymmetric_scale(*ranges[name]))
        if graph.ends_in_floats(node):
            continue
        end = graph.end(node)
        kept = node.op_type in (*SAME_SCALE, *ON_INTEGERS)
        scales[end] = scales[graph.activations(node)[0]] if kept else asymmetric_scale(*ranges[end])
    return scales


def asymmetric_scale(low: float, high: float) -> Scale:
    """Scale and zero point of values between ``low`` and ``high``; zero is among the values exactly
    (1712.05877, Section 2.1)."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max(high - low, SMALLEST) / STEPS)
    if low == 0.0 and np.float32(scale * STEPS) > high > 0.0:  # beyond a Clip's bound it would not be absorbed
        scale = np.nextafter(scale, np.float32(0))
    return scale, round(-low / float(scale))


def symmetric_scales(weight: Array, axis: int | None, top: int) -> Array:
    """Scales ``(channels,)`` of weights, or ``()`` for one of the whole tensor (``axis`` None)."""
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others)
    return np.asarray(np.maximum(largest, 1e-12) / top, dtype=np.float32)


def layer_name(node: NodeProto) -> str:
    """A node's name, or that of its output."""
    return node.name or str(node.output[0])


class _Rewriting:
    """One rewritten copy of a graph."""

    def __init__(self, graph: QdqGraph, nodes: list[NodeProto], scales: Mapping[str, Scale]) -> None:
        import onnx

        self._graph, self._nodes, self._scales = graph, nodes, scales
        self._own = {graph.end(node) for node in nodes if not graph.ends_in_floats(node)}
        self._chosen = {layer_name(node) for node in nodes}
        self._model = onnx.ModelProto()
        self._model.CopyFrom(graph.model)
        del self._model.graph.node[:]
        self._unpacked: dict[str, dict[int, str]] = {}
        """By layer: which input is read from which dequantised weight or bias."""

    def run(self) -> ModelProto:
        target = self._model.graph
        for node in self._nodes:
            if node.op_type in WEIGHTED:
                self._weights(node)
        for value in target.input:
            self._activation(value.name)
        for node in self._graph.model.graph.node:
            on_integers = node.op_type in ON_INTEGERS and layer_name(node) in self._chosen
            copy = target.node.add()
            copy.CopyFrom(node)
            if on_integers:
                self._move_to_integers(copy)
            else:
                self._redirect(copy)
            for name in node.output:
                self._activation(name, has_integers=on_integers)
        self._drop_unused()
        return self._model

    def _redirect(self, node: NodeProto) -> None:
        """Reads what is quantised through its integers, where it is in eight bits or the tensor's maker is."""
        inside = layer_name(node) in self._chosen
        for index, name in enumerate(node.input):
            if name in self._scales and (inside or name in self._own):
                node.input[index] = self._restored(name)
        for index, name in self._unpacked.get(layer_name(node), {}).items():
            node.input[index] = name
        for index, name in enumerate(node.output):
            if name in self._own and name in self._graph.outputs:
                node.output[index] = f"{name}_unrounded"

    def _move_to_integers(self, node: NodeProto) -> None:
        """Reads and writes integers; zero is the zero point."""
        source = node.input[0]
        node.input[0], node.output[0] = f"{source}_integers", f"{node.output[0]}_integers"
        if node.op_type == "Pad":
            while len(node.input) < 3:
                node.input.append("")
            node.input[2] = f"{source}_zero"

    def _restored(self, name: str) -> str:
        """The tensor after its integers; a network's output keeps its name."""
        return name if name in self._own and name in self._graph.outputs else f"{name}_restored"

    def _activation(self, name: str, *, has_integers: bool = False) -> None:
        if name not in self._scales:
            return
        scale, zero = self._scales[name]
        constants = [
            self._constant(f"{name}_scale", scale),
            self._constant(f"{name}_zero", np.uint8(zero)),
        ]
        if not has_integers:
            source = f"{name}_unrounded" if self._restored(name) == name else name
            self._node("QuantizeLinear", [source, *constants], f"{name}_integers")
        self._node("DequantizeLinear", [f"{name}_integers", *constants], self._restored(name))

    def _weights(self, node: NodeProto) -> None:
        graph, name = self._graph, layer_name(node)
        weight = graph.constant(node.input[1]).astype(np.float32)
        axis = _output_axis(node)
        scales = symmetric_scales(weight, axis if graph.per_channel else None, graph.top)
        bias = graph.constant(node.input[2]).astype(np.float64) if len(node.input) > 2 and node.input[2] else None
        input_scale = self._scales[graph.activations(node)[0]][0]
        if bias is not None:  # a channel with tiny weights and a large bias would overflow 32 bits
            needed = np.abs(bias) / (float(input_scale) * 2.0**30)
            scales = np.maximum(scales, needed if scales.ndim else needed.max()).astype(np.float32)
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        spread = scales.reshape(shape) if scales.ndim else scales
        integers = np.clip(np.rint(weight / spread), -graph.top, graph.top).astype(np.int8)
        unpacked = {1: self._dequantised(f"{name}_weight", integers, scales, axis)}
        if bias is not None:
            steps = np.asarray(scales * input_scale, dtype=np.float32)
            rounded = np.rint(bias / steps.astype(np.float64)).astype(np.int32)
            unpacked[2] = self._dequantised(f"{name}_bias", rounded, steps, 0)
        self._unpacked[name] = unpacked

    def _dequantised(self, name: str, integers: Array, scales: Array, axis: int) -> str:
        zeros = np.zeros(scales.shape, integers.dtype)
        inputs = [
            self._constant(f"{name}_integers", integers),
            self._constant(f"{name}_scale", scales),
            self._constant(f"{name}_zero", zeros),
        ]
        self._node("DequantizeLinear", inputs, f"{name}_restored", axis if scales.ndim else None)
        return f"{name}_restored"

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self._model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, axis: int | None = None) -> None:
        from onnx import helper

        node = helper.make_node(kind, inputs, [output], name=f"{output}/{kind}")
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self._model.graph.node.append(node)

    def _drop_unused(self) -> None:
        """Weights in floats that nothing reads any more."""
        graph = self._model.graph
        used = {name for node in graph.node for name in node.input} | self._graph.outputs
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:], graph.value_info[:]
        graph.initializer.extend(kept)


def _plain_gemm(node: NodeProto) -> bool:
    values = {attribute.name: attribute.f if attribute.type == 1 else attribute.i for attribute in node.attribute}
    return not values.get("transA", 0) and values.get("alpha", 1.0) == values.get("beta", 1.0) == 1.0


def _output_axis(node: NodeProto) -> int:
    """The axis of a layer's weights that counts output channels."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1
