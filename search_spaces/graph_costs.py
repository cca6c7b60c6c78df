"""Costs of any torch module, counted from its traced graph.

Independent of the analytic costs of the spaces, which it checks in tests; also what a space
without analytic costs of its own can use. Shapes come from running the graph on meta tensors, so
nothing is computed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from ..errors import SpaceError

if TYPE_CHECKING:
    from torch import fx, nn

FLOAT_BYTES = 4


def module_costs(module: nn.Module, input_shape: Sequence[int]) -> dict[str, float]:
    """Costs by the names of :data:`~gnomon.search_spaces.costs.COST_NAMES`, at batch 1.

    Args:
        module: Takes one tensor. Not changed.
        input_shape: Of one example, without the batch dimension.

    Raises:
        SpaceError: If the module cannot be traced or does not take this shape.
    """
    graph, modules, shapes = traced(module, input_shape)
    macs = cio = 0.0
    for node in graph.nodes:
        if node.op == "call_module":
            node_macs, node_cio = layer_costs(modules[node.target], shapes[node.args[0]], shapes[node])
            macs += node_macs
            cio += node_cio
    return {
        "parameters": float(sum(p.numel() for p in module.parameters() if p.requires_grad)),
        "macs": macs,
        "cio": cio,
        "peak_activation_bytes": float(FLOAT_BYTES * _peak_elements(graph, modules, shapes)),
    }


Shapes = dict[Any, tuple[int, ...]]
"""Output shape of each node that gives a tensor."""


def traced(module: nn.Module, input_shape: Sequence[int]) -> tuple[fx.Graph, dict[str, nn.Module], Shapes]:
    """The graph of a module at batch 1, its modules by name, and the shape of every value.

    Raises:
        SpaceError: If the module cannot be traced or does not take this shape.
    """
    import torch
    from torch import fx

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, torch.Tensor):
                shapes[n] = tuple(result.shape)
            return result

    shapes: Shapes = {}
    try:
        traced = fx.symbolic_trace(copy.deepcopy(module).eval().to("meta"))
        Recorder(traced).run(torch.empty(1, *input_shape, device="meta"))
    except Exception as error:  # Tracing runs the user's own code, which may raise anything.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SpaceError(
            f"cannot trace this module: {reason}", field="input_shape", value=tuple(input_shape)
        ) from error
    return traced.graph, dict(traced.named_modules()), shapes


def layer_costs(layer: nn.Module, read: tuple[int, ...], written: tuple[int, ...]) -> tuple[float, float]:
    """MACs and CIO of a convolution or linear layer, zeros for anything else."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    if isinstance(layer, _ConvNd):
        taps = (layer.in_channels // layer.groups) * prod(layer.kernel_size)
        if layer.transposed:
            return float(prod(read) // layer.in_channels * layer.out_channels * taps), float(prod(read) + prod(written))
        return float(prod(written) * taps), float(prod(read) + prod(written))
    if isinstance(layer, nn.Linear):
        return float(prod(written) * layer.in_features), 0.0
    return 0.0, 0.0


def _peak_elements(graph: fx.Graph, modules: Mapping[str, nn.Module], shapes: Shapes) -> int:
    """Largest sum of live elements while the nodes run in order."""
    return max(
        (sum(prod(shapes[node]) for node in buffers) for buffers in live_buffers(graph, modules, shapes)), default=0
    )


def live_buffers(graph: fx.Graph, modules: Mapping[str, nn.Module], shapes: Shapes) -> Iterator[set[Any]]:
    """While each node runs, the buffers that are needed, by the nodes that wrote them first.

    Each node writes a new buffer, except that a view shares its input's, and an element-wise
    operation reuses that of an operand of the same size which nobody reads afterwards.
    """
    nodes = [node for node in graph.nodes if node in shapes]
    buffers = _buffers(nodes, modules, shapes)
    last_use: dict[Any, int] = {}
    position = {node: index for index, node in enumerate(nodes)}
    for node in nodes:
        uses = [position[user] if user in position else len(nodes) for user in node.users]
        owner = buffers[node]
        last_use[owner] = max(last_use.get(owner, 0), position[node], *uses)
    live: set[Any] = set()
    for index, node in enumerate(nodes):
        live.add(buffers[node])
        yield live
        live = {buffer for buffer in live if last_use[buffer] > index}


def _buffers(nodes: Sequence[fx.Node], modules: Mapping[str, nn.Module], shapes: Shapes) -> dict[fx.Node, fx.Node]:
    """The node whose buffer each node's value lies in."""
    position = {node: index for index, node in enumerate(nodes)}
    buffers: dict[fx.Node, fx.Node] = {}
    last_read: dict[fx.Node, int] = {}  # Of what lies in a buffer so far; what the graph returns is read at the end.
    for index, node in enumerate(nodes):
        operands = [operand for operand in node.all_input_nodes if operand in shapes]
        owner = node
        if _is_view(node, modules):
            owner = buffers[operands[0]]
        elif _is_elementwise(node, modules):
            for operand in operands:
                if shapes[operand] == shapes[node] and last_read[buffers[operand]] <= index:
                    owner = buffers[operand]
                    break
        buffers[node] = owner
        reads = (position.get(user, len(nodes)) for user in node.users)
        last_read[owner] = max(last_read.get(owner, -1), *reads, -1)
    return buffers


def _is_view(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    from torch import nn

    if node.op == "call_module":
        return isinstance(modules[str(node.target)], (nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout2d))
    if node.op == "call_method":
        return node.target in {"flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous"}
    return node.op == "call_function" and getattr(node.target, "__name__", "") in {"flatten", "reshape", "dropout"}


def _is_elementwise(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    from torch import nn

    if node.op == "call_module":
        return isinstance(
            modules[str(node.target)],
            (
                nn.ReLU,
                nn.ReLU6,
                nn.Hardswish,
                nn.Hardsigmoid,
                nn.Sigmoid,
                nn.SiLU,
                nn.GELU,
                nn.BatchNorm1d,
                nn.BatchNorm2d,
            ),
        )
    if node.op in ("call_function", "call_method"):
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        return name in {"add", "iadd", "add_", "mul", "imul", "mul_", "sub", "relu", "relu_", "sigmoid", "hardtanh"}
    return False
