"""The traced graph of a user's model with fewer blocks, without tracing it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .graph_costs import Shapes, traced
from .operations import ABSORBED, OperationGraph, executed, live
from .operations_torch import module_operations
from .own_model_parts import Parts

if TYPE_CHECKING:
    from torch import fx, nn

RUNS, FUSED = "runs", "fused"
"""What becomes of an operation that a runtime executes: by itself, or within the one before it."""
Depths = Mapping[int, int]
"""How many blocks of some runs are kept; of the others all."""


@dataclass(frozen=True)
class BlockEnds:
    """One block: its run, its position there, and the names of the values that it reads and gives."""

    run: int
    position: int
    source: str
    result: str

    def is_kept(self, depths: Depths) -> bool:
        """Whether the block is there."""
        return self.run not in depths or self.position < depths[self.run]


class GivenGraph:
    """A user's model, traced once. Values go by the names of the graph's nodes.

    Args:
        model: Takes one image tensor. Not changed.
        input_shape: ``(channels, height, width)``.
        parts: What can be made smaller.
    """

    def __init__(self, model: nn.Module, input_shape: tuple[int, ...], parts: Parts) -> None:
        self.graph, self.modules, self.shapes = traced(model, input_shape)
        self.operations = module_operations(model, input_shape)
        self.blocks: dict[str, BlockEnds] = {}
        self._block_of: dict[str, BlockEnds] = {}
        for run, paths in enumerate(parts.runs):
            for position, path in enumerate(paths):
                self._add_block(run, position, path)
        self._live = {operation.name for operation in live(self.operations).operations}

    def block_of(self, name: str) -> BlockEnds | None:
        """The block in which a value is computed."""
        return self._block_of.get(name)

    def block_around(self, path: str) -> BlockEnds | None:
        """The block that holds a module."""
        return next((b for own, b in self.blocks.items() if path == own or path.startswith(f"{own}.")), None)

    def states(self, depths: Depths) -> dict[str, str]:
        """By operation, ``RUNS`` or ``FUSED``; those that no runtime executes are not among them."""
        graph = self._operations_at(depths)
        running = {operation.name for operation in executed(graph).operations}
        return {op.name: RUNS if op.name in running else FUSED for op in live(graph).operations}

    def deciding_runs(self) -> dict[str, frozenset[int]]:
        """By operation, the runs whose depths decide what becomes of it.

        Whether it is there is up to its own block. Whether it is fused depends beside that on what it reads, and
        who else reads that, which blocks in between change.
        """
        operations = {operation.name: operation for operation in self.operations.operations}
        reach = self._reach()
        spans = [(block.run, reach[block.source] | {block.result}) for block in self.blocks.values()]
        result: dict[str, frozenset[int]] = {}
        for name, operation in operations.items():
            own = self.block_of(name)
            deciding = set() if own is None else {own.run}
            if operation.kind in ABSORBED:
                hosts = frozenset[str]().union(*(reach[read] for read in operation.reads))
                deciding.update(run for run, values in spans if values & hosts)
                for host in hosts & result.keys():
                    deciding |= result[host] if operations[host].kind in ABSORBED else set()
            result[name] = frozenset(deciding)
        return result

    def contracted(self, depths: Depths) -> tuple[fx.Graph, Shapes, dict[Any, str]]:
        """A copy of the graph without blocks that are left out, its shapes, and its nodes' names in this one."""
        from torch import fx

        copied, twins = fx.Graph(), dict[Any, Any]()
        copied.output(copied.graph_copy(self.graph, twins))
        by_name = {node.name: twin for node, twin in twins.items()}
        names = {twin: node.name for node, twin in twins.items()}
        for block in reversed(self.blocks.values()):  # The last first: it may read the result of one left out.
            if not block.is_kept(depths):
                for user in list(by_name[block.result].users):
                    if self.block_of(names.get(user, "")) is not block:
                        user.replace_input_with(by_name[block.result], by_name[block.source])
        for name, twin in reversed(by_name.items()):
            if not self._is_present(name, depths):
                copied.erase_node(twin)
                del names[twin]
        shapes = {twin: self.shapes[node] for node, twin in twins.items() if node in self.shapes and twin in names}
        return copied, shapes, names

    def _add_block(self, run: int, position: int, path: str) -> None:
        inside = {n for n in self.graph.nodes if n in self.shapes and path in n.meta.get("nn_module_stack", {})}
        source = next(read for node in inside for read in node.all_input_nodes if read not in inside)
        result = next(node for node in inside if any(user not in inside for user in node.users))
        self.blocks[path] = BlockEnds(run, position, source.name, result.name)
        self._block_of.update((node.name, self.blocks[path]) for node in inside)

    def _is_present(self, name: str, depths: Depths) -> bool:
        block = self.block_of(name)
        return block is None or block.is_kept(depths)

    def _operations_at(self, depths: Depths) -> OperationGraph:
        moved = {block.result: block.source for block in self.blocks.values() if not block.is_kept(depths)}
        kept = [
            replace(operation, reads=tuple(_followed(moved, name) for name in operation.reads))
            for operation in self.operations.operations
            if self._is_present(operation.name, depths)
        ]
        return OperationGraph(tuple(kept), tuple(_followed(moved, name) for name in self.operations.outputs))

    def _reach(self) -> dict[str, frozenset[str]]:
        """By value, those that may take its place where blocks are left out and views are looked through."""
        reads = {operation.name: operation.reads for operation in self.operations.operations}
        sources = {block.result: block.source for block in self.blocks.values()}
        reach: dict[str, frozenset[str]] = {}
        for node in self.graph.nodes:
            name = node.name
            passed = [sources[name]] if name in sources else []
            if name in reads and name not in self._live:
                passed += reads[name]
            reach[name] = frozenset((name,)).union(*(reach[source] for source in passed))
        return reach


def _followed(moved: Mapping[str, str], name: str) -> str:
    while name in moved:
        name = moved[name]
    return name
