"""All networks of ``darts`` as one mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from .darts_cells import CELLS, EDGES, INPUTS, NODES, NONE, OPS, cell_plan, pairs
from .darts_modules import Cell, CellNetwork, CellPlace, Preprocess, edge_stride, make_operation, zeros
from .relaxed import RelaxedModel
from .relaxed_cells import MixedOperation, added

if TYPE_CHECKING:
    from .darts import Darts

Gates = Mapping[str, torch.Tensor]
"""By the name of the decision."""


class RelaxedCell(nn.Module):
    """A cell of 14 mixed edges; each is weighted by the probability that its node keeps it."""

    def __init__(self, place: CellPlace) -> None:
        super().__init__()
        self.kind, self.stride = place.kind, 2 if place.reduces else 1
        self.inputs = Preprocess(place)
        self.edges = nn.ModuleDict(
            {
                f"{source}_{node}": MixedOperation(
                    [
                        None if op == NONE else make_operation(op, place.channels, edge_stride(place, source))
                        for op in range(len(OPS))
                    ]
                )
                for source, node in EDGES
            }
        )

    def forward(self, before_last: torch.Tensor, last: torch.Tensor, gates: Gates) -> torch.Tensor:
        values = [self.inputs.before_last(before_last), self.inputs.last(last)]
        for node in range(INPUTS, INPUTS + NODES):
            total: torch.Tensor | None = None
            for source in range(node):
                own = gates[f"{self.kind}.op{source}_{node}"] * self._kept(source, node, gates)
                total = added(total, self.edges[f"{source}_{node}"](values[source], own))
            values.append(zeros(values[0], self.stride) if total is None else total)
        return torch.cat(values[INPUTS:], dim=1)

    def _kept(self, source: int, node: int, gates: Gates) -> torch.Tensor | float:
        """The sum of the gates of the pairs that keep an edge."""
        name = f"{self.kind}.inputs{node}"
        if name not in gates:
            return 1.0
        return gates[name][[i for i, pair in enumerate(pairs(node)) if source in pair]].sum()


class RelaxedDarts(RelaxedModel):
    """The stacked cells with mixed edges; all cells of a kind share their gates, each has weights of its own."""

    space: Darts

    def __init__(self, space: Darts) -> None:
        super().__init__(space, [[column] for column in range(len(space.decisions))])
        features = NODES * space.places[-1].channels
        cells = [RelaxedCell(place) for place in space.places]
        self.network = CellNetwork(cells, space.workload.input_shape[0], space.stem, features, space.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates = {decision.name: gate for decision, gate in zip(self.space.decisions, self.gates, strict=True)}
        before_last = last = self.network.stem(x)
        for cell in self.network.cells:
            before_last, last = last, cell(before_last, last, gates)
        logits: torch.Tensor = self.network.classifier(last.mean((2, 3)))
        return logits

    def extract(self, config: Mapping[str, Any]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            plain = cast(CellNetwork, self.space.build(config))
        plain.stem.load_state_dict(self.network.stem.state_dict())
        plain.classifier.load_state_dict(self.network.classifier.state_dict())
        full = self.space.config(self.space.genotype(config))
        plans = {cell: cell_plan(full, cell) for cell in CELLS}
        for own, cell in zip(self.network.cells, plain.cells, strict=True):
            _copy(cast(RelaxedCell, own), cast(Cell, cell), plans[cast(RelaxedCell, own).kind])
        return plain.train(self.training)


def _copy(own: RelaxedCell, cell: Cell, plan: Sequence[Sequence[tuple[int, int]]]) -> None:
    cell.inputs.load_state_dict(own.inputs.state_dict())
    chosen = [(source, node, op) for node, edges in enumerate(plan, start=INPUTS) for source, op in edges]
    for (source, node, op), operation in zip(chosen, cell.operations, strict=True):
        mixed = cast(MixedOperation, own.edges[f"{source}_{node}"])
        operation.load_state_dict(mixed.operation(op).state_dict())
