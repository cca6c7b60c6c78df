"""All networks of ``nasbench201`` as one mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from .nasbench201_cells import EDGES, NODES, NONE, OPS, cell_plan
from .nasbench201_modules import Cell, CellNetwork, Reduction, make_operation
from .relaxed import RelaxedModel
from .relaxed_cells import MixedOperation, added

if TYPE_CHECKING:
    from .nasbench201 import NASBench201

EMPTY: tuple[tuple[tuple[int, int], ...], ...] = ((), (), ())


class RelaxedCell(nn.Module):
    """A cell whose six edges are mixed operations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(
            MixedOperation([None if op == NONE else make_operation(op, channels) for op in range(len(OPS))])
            for _ in EDGES
        )

    def forward(self, x: torch.Tensor, gates: Sequence[torch.Tensor]) -> torch.Tensor:
        values = [x]
        for node in range(1, NODES):
            total: torch.Tensor | None = None
            for edge, gate, (source, target) in zip(self.edges, gates, EDGES, strict=True):
                if target == node:
                    total = added(total, edge(values[source], gate))
            values.append(torch.zeros_like(x) if total is None else total)
        return values[-1]


class RelaxedNASBench201(RelaxedModel):
    """The benchmark's network with mixed edges; all cells share their gates, each has weights of its own."""

    space: NASBench201

    def __init__(self, space: NASBench201) -> None:
        super().__init__(space, [[column] for column in range(len(EDGES))])
        shape = space.shape
        self.network = CellNetwork(
            EMPTY, space.workload.input_shape, shape.channels, shape.cells, shape.stages, shape.classes
        )
        channels = shape.channels
        for index, module in enumerate(self.network.cells):
            if isinstance(module, Reduction):
                channels *= 2
            else:
                self.network.cells[index] = RelaxedCell(channels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        network = self.network
        x = network.stem(x)
        for module in network.cells:
            x = module(x, self.gates) if isinstance(module, RelaxedCell) else module(x)
        logits: torch.Tensor = network.classifier(network.last(x).mean((2, 3)))
        return logits

    def extract(self, config: Mapping[str, Any]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            plain = cast(CellNetwork, self.space.build(config))
        for name in ("stem", "last", "classifier"):
            getattr(plain, name).load_state_dict(getattr(self.network, name).state_dict())
        genes = self.space.genotype(config).tolist()
        plan = cell_plan(genes, simplify=bool(self.space.arguments()["simplify"]))
        chosen = [EDGES.index((source, node)) for node, edges in enumerate(plan, start=1) for source, _ in edges]
        for own, module in zip(self.network.cells, plain.cells, strict=True):
            if not isinstance(own, RelaxedCell):
                module.load_state_dict(own.state_dict())
                continue
            for edge, operation in zip(chosen, cast(Cell, module).operations, strict=True):
                mixed = cast(MixedOperation, own.edges[edge])
                operation.load_state_dict(mixed.operation(genes[edge]).state_dict())
        return plain.train(self.training)
