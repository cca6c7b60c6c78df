"""The operations of a torch module, from its traced graph; nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from .graph_costs import Shapes, traced
from .operations import Operation, OperationGraph

if TYPE_CHECKING:
    from torch import fx, nn

_FUNCTIONS = {
    "add": "add", "iadd": "add", "add_": "add", "sum": "other",
    "mul": "multiply", "imul": "multiply", "mul_": "multiply",
    "mean": "mean", "adaptive_avg_pool2d": "mean",
    "avg_pool2d": "pool", "max_pool2d": "pool",
    "relu": "activation", "relu_": "activation", "hardtanh": "activation", "sigmoid": "activation",
    "silu": "activation", "gelu": "activation", "hardswish": "activation", "hardsigmoid": "activation",
    "flatten": "view", "unflatten": "view", "view": "view", "reshape": "view", "squeeze": "view",
    "unsqueeze": "view", "contiguous": "view", "dropout": "view",
    "transpose": "transpose", "permute": "transpose",
    "cat": "concat", "pad": "pad", "getitem": "slice", "chunk": "slice", "split": "slice",
    "zeros_like": "constant", "new_zeros": "constant", "zeros": "constant",
}  # fmt: skip
"""Kinds of functions and tensor methods by name; any other is ``other``."""


def module_operations(module: nn.Module, input_shape: Sequence[int]) -> OperationGraph:
    """The operations of a module that takes one tensor, as it was built, at batch 1.

    Args:
        module: Not changed.
        input_shape: Of one example, without the batch dimension.

    Raises:
        SpaceError: If the module cannot be traced or does not take this shape.
    """
    graph, modules, shapes = traced(module, input_shape)
    operations = []
    outputs: tuple[str, ...] = ()
    for node in graph.nodes:
        if node.op == "output":
            outputs = tuple(source.name for source in node.all_input_nodes)
        elif node.op in ("call_module", "call_function", "call_method") and node in shapes:
            operations.append(node_operation(node, modules, shapes))
    return OperationGraph(tuple(operations), outputs)


def node_operation(node: fx.Node, modules: Mapping[str, nn.Module], shapes: Shapes) -> Operation:
    """The operation of a node that calls something; ``modules`` has the module if it calls one."""
    reads = tuple(source for source in node.all_input_nodes if source in shapes)
    details: dict[str, Any] = {"kind": "other"}
    if node.op == "call_module":
        details = _layer(modules[str(node.target)], shapes[reads[0]], shapes[node])
    else:
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        details = {"kind": _FUNCTIONS.get(name, "other"), "label": name.rstrip("_")}
    return Operation(
        name=node.name,
        reads=tuple(source.name for source in reads),
        shape=shapes[node],
        read_elements=sum(prod(shapes[source]) for source in reads),
        **details,
    )


def _layer(layer: nn.Module, read: tuple[int, ...], written: tuple[int, ...]) -> dict[str, Any]:
    from torch import nn
    from torch.nn.modules import activation, batchnorm, dropout, pooling
    from torch.nn.modules.conv import _ConvNd

    parameters = sum(p.numel() for p in layer.parameters() if p.requires_grad)
    if isinstance(layer, _ConvNd):
        inner = layer.in_channels // layer.groups
        taps = inner * prod(layer.kernel_size)
        positions = prod(read[2:]) * layer.out_channels if layer.transposed else prod(written[1:])
        kernel = max(layer.kernel_size)
        kind = conv_kind(layer.in_channels, layer.groups, kernel, prod(read[2:]))
        return {"kind": kind, "macs": positions * taps, "parameters": parameters, "kernel": kernel, "inner": inner}
    if isinstance(layer, nn.Linear):
        return {"kind": "linear", "macs": prod(written) * layer.in_features, "parameters": parameters}
    if isinstance(layer, (pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd)):
        return {"kind": "mean"}
    if isinstance(layer, (pooling._AvgPoolNd, pooling._MaxPoolNd)):
        return {"kind": "pool"}
    if isinstance(layer, (batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)):
        return {"kind": "norm", "parameters": parameters}
    if isinstance(layer, (nn.Identity, nn.Flatten, dropout._DropoutNd)):
        return {"kind": "view"}
    if type(layer).__module__ == activation.__name__:
        return {"kind": "activation", "label": type(layer).__name__.lower(), "parameters": parameters}
    return {"kind": "other", "parameters": parameters}


def conv_kind(channels: int, groups: int, kernel: int, positions: int) -> str:
    """The kind of a convolution; see :data:`~.operations.CONVOLUTIONS`."""
    if positions == 1:
        return "squeeze"
    if groups > 1:
        return "depthwise" if groups == channels else "grouped"
    return "pointwise" if kernel == 1 else "dense"
