"""Collects the nodes and weights of an ONNX graph; equal nodes and equal small weights are kept once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..search_spaces import TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

Array = npt.NDArray[Any]
IR_VERSION = 10
SMALL = 1024
"""Elements up to which weights are compared, as torch's exporter does."""
Shape = tuple[int | str | None, ...]


class GraphBuilder:
    """A graph in the making. Values are known by name."""

    def __init__(self) -> None:
        self._nodes: list[tuple[str, tuple[str, ...], str, dict[str, Any]]] = []
        self._known: dict[Any, str] = {}
        self._weights: dict[str, Array] = {}
        self._names: set[str] = set()

    def reserve(self, name: str) -> str:
        """Keeps a name for an input or output of the graph."""
        self._names.add(name)
        return name

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node with one output, unless there is an equal one; the name of its output."""
        key = (operator, tuple(inputs), tuple(sorted(attributes.items())))
        if key not in self._known:
            output = self._free(operator.lower())
            self._nodes.append((operator, tuple(inputs), output, attributes))
            self._known[key] = output
        return self._known[key]

    def weight(self, array: Array, name: str = "constant") -> str:
        """Adds a weight (C-contiguous), unless it is small and there is an equal one; its name."""
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= SMALL else object()
        if key not in self._known:
            self._known[key] = self._free(name)
            self._weights[self._known[key]] = array
        return self._known[key]

    def _free(self, name: str) -> str:
        free, number = name, 0
        while free in self._names:
            number += 1
            free = f"{name}_{number}"
        self._names.add(free)
        return free

    def model(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[tuple[str, str, Shape]],
        shapes: dict[str, Shape],
        opset: int,
    ) -> ModelProto:
        """The finished model.

        Args:
            inputs: Of the graph.
            outputs: (Name within the graph, name to give it, shape) each.
            shapes: Of the values between, by name.
            opset: Version of the operator set.
        """
        from onnx import helper, numpy_helper

        renamed, nodes = {}, []
        for name, wanted, _ in outputs:
            if name in renamed or name not in {node[2] for node in self._nodes}:
                nodes.append(helper.make_node("Identity", [name], [wanted], name=f"identity_{wanted}"))
            else:
                renamed[name] = wanted
        made = [
            helper.make_node(
                operator, [renamed.get(i, i) for i in reads], [renamed.get(out, out)], name=f"node_{out}", **attributes
            )
            for operator, reads, out, attributes in self._nodes
        ]
        for node in nodes:
            node.input[0] = renamed.get(node.input[0], node.input[0])
        graph = helper.make_graph(
            made + nodes,
            "main_graph",
            [_typed(spec.name, _symbolic(spec), spec.dtype) for spec in inputs],
            [_typed(name, shape) for _, name, shape in outputs],
            [numpy_helper.from_array(array, name) for name, array in self._weights.items()],
            value_info=[_typed(name, shape) for name, shape in shapes.items() if name not in renamed],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION, producer_name="gnomon"
        )


def _symbolic(spec: TensorSpec) -> Shape:
    return tuple(spec.dynamic_axes.get(axis, length) for axis, length in enumerate(spec.shape))


def _typed(name: str, shape: Shape, dtype: str = "float32") -> ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
