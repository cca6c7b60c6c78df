"""What can be made smaller in a user's own model, found in its traced graph.

Every value of the graph belongs to a *channel group*: values joined by operations that act on each channel
alone have the same channels. A group that no addition joins, and whose writers and readers are all known, can
be made narrower without anything else noticing: the expanded channels of inverted bottlenecks, the inner ones of
residual blocks. Blocks that add something to their input can be left out, and depthwise kernels cropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from .graph_costs import Shapes, traced

if TYPE_CHECKING:
    from torch import fx, nn

SMALLEST_KERNEL = 3

_CHANNELWISE = {
    "relu", "relu6", "hardtanh", "leaky_relu", "elu", "silu", "gelu", "hardswish", "hardsigmoid", "sigmoid", "tanh",
    "mish", "softplus", "dropout", "dropout2d", "adaptive_avg_pool2d", "avg_pool2d", "max_pool2d",
    "adaptive_max_pool2d", "interpolate", "contiguous", "clamp", "relu_", "sigmoid_",
}  # fmt: skip
"""Functions and tensor methods that act on each channel alone."""
_ADDITIONS, _PRODUCTS = {"add", "iadd", "add_"}, {"mul", "imul", "mul_"}
_RESHAPES = {"flatten", "view", "reshape", "squeeze", "mean"}


@dataclass(frozen=True)
class Width:
    """Channels that can be fewer.

    Args:
        name: Path of the module that writes them first.
        channels: How many there are.
        writers: Paths of the convolutions and linear layers that write them.
        through: Paths of the batch norms and depthwise convolutions that they pass.
        readers: Paths of the convolutions and linear layers that read them.
        values: Nodes of the traced graph whose values have these channels.
    """

    name: str
    channels: int
    writers: tuple[str, ...]
    through: tuple[str, ...]
    readers: tuple[str, ...]
    values: frozenset[str]


@dataclass(frozen=True)
class Parts:
    """What can be made smaller.

    Args:
        runs: Residual blocks that follow one another directly, by path; of each run, the first can stay.
        widths: Channels that can be fewer.
        kernels: Depthwise convolutions whose kernel can be cropped, and that kernel.
        fixed: Modules with weights that stay as they are because of something unsupported, and why.
    """

    runs: tuple[tuple[str, ...], ...]
    widths: tuple[Width, ...]
    kernels: Mapping[str, int]
    fixed: Mapping[str, str]


def find_parts(model: nn.Module, input_shape: Sequence[int]) -> Parts:
    """Traces the model and finds what can be made smaller.

    Args:
        model: Takes one image tensor. Not changed.
        input_shape: ``(channels, height, width)``.

    Raises:
        SpaceError: If the model cannot be traced or does not take this shape.
    """
    graph, modules, shapes = traced(model, input_shape)
    channels = _Channels(modules, shapes, _called_often(graph, modules))
    for node in graph.nodes:
        channels.visit(node)
    blocks = _residual_blocks(graph, shapes, channels)
    kernels: dict[str, int] = {}
    for path in channels.depthwise:
        module: Any = modules[path]
        if path not in channels.fixed and _can_be_cropped(module):
            kernels[path] = int(module.kernel_size[0])
    return Parts(_runs(blocks), tuple(channels.widths()), kernels, dict(channels.fixed))


@dataclass
class _Group:
    """Values with the same channels. A fixed one cannot change; an added one is tied to a shortcut."""

    channels: int = 0
    writers: list[str] = field(default_factory=list)
    through: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    is_fixed: bool = False
    is_added: bool = False
    positions: int = 1
    """Of the largest map."""

    def absorb(self, other: _Group) -> None:
        self.writers += other.writers
        self.through += other.through
        self.readers += other.readers
        self.is_fixed |= other.is_fixed
        self.is_added |= other.is_added
        self.positions = max(self.positions, other.positions)


class _Channels:
    """Walks through a graph in order and puts each value into its channel group."""

    def __init__(self, modules: Mapping[str, nn.Module], shapes: Shapes, repeated: set[str]) -> None:
        self.modules, self.shapes = modules, shapes
        self.group_of: dict[fx.Node, _Group] = {}
        self.depthwise: list[str] = []
        self.fixed: dict[str, str] = dict.fromkeys(sorted(repeated), "is called more than once")

    def widths(self) -> list[Width]:
        """Groups that can be narrower; not those on maps of one position, which cost nothing."""
        groups = {id(group): group for group in self.group_of.values()}.values()
        values = {id(group): frozenset(n.name for n, g in self.group_of.items() if g is group) for group in groups}
        return [
            Width(
                group.writers[0],
                group.channels,
                tuple(group.writers),
                tuple(group.through),
                tuple(group.readers),
                values[id(group)],
            )
            for group in groups
            if group.writers and group.readers and group.positions > 1 and not (group.is_fixed or group.is_added)
        ]

    def visit(self, node: fx.Node) -> None:
        """Puts the node's value into a group."""
        if node not in self.shapes:
            for source in node.all_input_nodes if node.op == "output" else ():
                self._fix(source)
            return
        if node.op == "call_module":
            self._visit_module(node, str(node.target), self.modules[str(node.target)])
        elif node.op in ("call_function", "call_method"):
            self._visit_function(node)
        else:
            self._unknown(node)

    def _visit_module(self, node: fx.Node, path: str, module: nn.Module) -> None:
        from torch import nn

        source = node.all_input_nodes[0]
        if path in self.fixed:
            self._unknown(node)
        elif type(module) is nn.Linear and len(self.shapes[source]) == 2:
            self._written(node, source, path)
        elif isinstance(module, nn.Conv2d):
            self._visit_convolution(node, source, path, module)
        elif type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats:
            self._same(node, [source])
            self.group_of[source].through.append(path)
        elif _acts_on_channels_alone(module) or (isinstance(module, nn.Flatten) and self._keeps_channels(node, source)):
            self._same(node, [source])
        else:
            if next(module.parameters(), None) is not None:
                self.fixed[path] = f"is a {type(module).__name__}, which cannot be made smaller"
            self._unknown(node)

    def _visit_convolution(self, node: fx.Node, source: fx.Node, path: str, module: nn.Conv2d) -> None:
        from torch import nn

        if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or isinstance(module.padding, str):
            self.fixed[path] = f"is a {type(module).__name__} with padding {module.padding!r}, {module.padding_mode}"
        elif module.kernel_size[0] != module.kernel_size[1]:
            self.fixed[path] = f"has a kernel of {module.kernel_size}"
        elif module.groups == 1:
            self._written(node, source, path)
            return
        elif module.groups == module.in_channels == module.out_channels:
            self.depthwise.append(path)
            self._same(node, [source])
            self.group_of[source].through.append(path)
            return
        else:
            self.fixed[path] = f"has {module.groups} groups of several channels"
        self._unknown(node)

    def _visit_function(self, node: fx.Node) -> None:
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        sources = [source for source in node.all_input_nodes if source in self.shapes]
        joined = all(self._channels_of(source) == self._channels_of(node) for source in sources)
        if name in _ADDITIONS | _PRODUCTS and joined:
            self._same(node, sources)
            self.group_of[node].is_added |= name in _ADDITIONS and len(sources) > 1
        elif (name in _CHANNELWISE and len(sources) == 1 and joined) or (
            name in _RESHAPES and len(sources) == 1 and self._keeps_channels(node, sources[0])
        ):
            self._same(node, sources)
        else:
            self._unknown(node)

    def _keeps_channels(self, node: fx.Node, source: fx.Node) -> bool:
        """Whether only positions are averaged or dropped; a reshape must not name the number of channels."""
        before, after = self.shapes[source], self.shapes[node]
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if len(before) < 2 or len(after) < 2 or after[1] != before[1]:
            return False
        if name == "mean":
            return True
        named = [size for size in _integers(node.args[1:]) if size > 1 and name in ("view", "reshape")]
        return prod(before[2:]) == 1 and not named

    def _written(self, node: fx.Node, source: fx.Node, path: str) -> None:
        self.group_of[source].readers.append(path)
        self.group_of[node] = self._new(node)
        self.group_of[node].writers.append(path)

    def _same(self, node: fx.Node, sources: Sequence[fx.Node]) -> None:
        """The node's value and those of its sources have the same channels."""
        group = self.group_of[sources[0]]
        for source in sources[1:]:
            other = self.group_of[source]
            if other is not group:
                group.absorb(other)
                self.group_of.update({member: group for member, g in self.group_of.items() if g is other})
        group.positions = max(group.positions, prod(self.shapes[node][2:]))
        self.group_of[node] = group

    def _unknown(self, node: fx.Node) -> None:
        """What is not understood leaves the channels that it reads and writes as they are."""
        for source in node.all_input_nodes:
            self._fix(source)
        self.group_of[node] = self._new(node)
        self._fix(node)

    def _fix(self, node: fx.Node) -> None:
        if node in self.group_of:
            self.group_of[node].is_fixed = True

    def _new(self, node: fx.Node) -> _Group:
        return _Group(self._channels_of(node), positions=prod(self.shapes[node][2:]))

    def _channels_of(self, node: fx.Node) -> int:
        shape = self.shapes[node]
        return shape[1] if len(shape) > 1 else 0


@dataclass(frozen=True)
class _Block:
    path: str
    source: Any
    result: Any
    nodes: int


def _residual_blocks(graph: fx.Graph, shapes: Shapes, channels: _Channels) -> list[_Block]:
    """Submodules that add something to their only input, in order; of nested ones the innermost."""
    members: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        for path in node.meta.get("nn_module_stack", {}):
            if path and node in shapes:
                members.setdefault(path, []).append(node)
    found: list[_Block] = []
    for path, nodes in members.items():
        inside = set(nodes)
        sources = {source for node in nodes for source in node.all_input_nodes if source not in inside}
        results = [node for node in nodes if any(user not in inside for user in node.users)]
        repeated = any(node.op == "call_module" and node.target in channels.fixed for node in nodes)
        if len(sources) != 1 or len(results) != 1 or len(nodes) < 2 or repeated:
            continue
        (source,), (result,) = sources, results
        if shapes.get(source) == shapes[result] and _adds(result, source, inside, channels.modules):
            found.append(_Block(path, source, result, len(nodes)))
    innermost: dict[Any, _Block] = {}
    for block in found:
        other = innermost.get(block.result)
        if other is None or (block.nodes, -len(block.path)) <= (other.nodes, -len(other.path)):
            innermost[block.result] = block
    blocks = [block for block in innermost.values() if not any(_holds(block, other) for other in innermost.values())]
    order = {node: index for index, node in enumerate(graph.nodes)}
    return sorted(blocks, key=lambda block: order[block.result])


def _holds(block: _Block, other: _Block) -> bool:
    return other.path.startswith(f"{block.path}.")


def _adds(result: fx.Node, source: fx.Node, inside: set[fx.Node], modules: Mapping[str, nn.Module]) -> bool:
    """Whether ``result`` is ``source`` plus something, or an activation of that."""
    name = result.target if isinstance(result.target, str) else getattr(result.target, "__name__", "")
    inputs = result.all_input_nodes
    if result.op in ("call_function", "call_method") and name in _ADDITIONS:
        return len(inputs) == 2 and source in (_unchanged(node, modules) for node in inputs)
    if result.op == "call_module":
        is_activation = _acts_on_channels_alone(modules[str(result.target)])
    else:
        is_activation = name in _CHANNELWISE
    return is_activation and len(inputs) == 1 and inputs[0] in inside and _adds(inputs[0], source, inside, modules)


def _unchanged(node: fx.Node, modules: Mapping[str, nn.Module]) -> fx.Node:
    """The value that modules which do nothing passed on."""
    from torch import nn

    while node.op == "call_module" and isinstance(modules[str(node.target)], nn.Identity):
        node = node.all_input_nodes[0]
    return node


def _runs(blocks: Sequence[_Block]) -> tuple[tuple[str, ...], ...]:
    """Blocks of which each reads the result of the one before it."""
    runs: list[list[_Block]] = []
    for block in blocks:
        if runs and runs[-1][-1].result is block.source:
            runs[-1].append(block)
        else:
            runs.append([block])
    return tuple(tuple(block.path for block in run) for run in runs)


def _called_often(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> set[str]:
    """Paths of modules with parameters that the graph calls more than once."""
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    return {path for path in calls if calls.count(path) > 1 and next(modules[path].parameters(), None) is not None}


def _can_be_cropped(module: Any) -> bool:
    kernel = module.kernel_size[0]
    cut = (kernel - SMALLEST_KERNEL) // 2
    fits = all(int(pad) >= cut * dilation for pad, dilation in zip(module.padding, module.dilation, strict=True))
    return kernel > SMALLEST_KERNEL and kernel % 2 == 1 and fits


def _acts_on_channels_alone(module: nn.Module) -> bool:
    from torch import nn
    from torch.nn.modules import activation, dropout, pooling

    others = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.GLU, nn.MultiheadAttention)
    if type(module).__module__ == activation.__name__ and not isinstance(module, others):
        return all(parameter.numel() == 1 for parameter in module.parameters())  # PReLU may have one a channel
    kinds = (nn.Identity, nn.Upsample, dropout._DropoutNd, pooling._AvgPoolNd, pooling._MaxPoolNd)
    return isinstance(module, (*kinds, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd))


def _integers(args: Any) -> list[int]:
    if isinstance(args, (tuple, list)):
        return [value for arg in args for value in _integers(arg)]
    return [args] if isinstance(args, int) and not isinstance(args, bool) else []
