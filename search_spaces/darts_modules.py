"""Torch modules of DARTS (1806.09055, Section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from .darts_cells import AVG_POOL, CELLS, INPUTS, KERNELS, MAX_POOL, NODES, OPS, SKIP, Plan


@dataclass(frozen=True)
class CellPlace:
    """Where a cell stands: its kind, and what it reads.

    Args:
        kind: ``normal`` or ``reduction``.
        channels: Of each node.
        before_last, last: Channels of its two inputs.
        halve_before_last: Whether input 0 is twice as large as input 1.
    """

    kind: str
    channels: int
    before_last: int
    last: int
    halve_before_last: bool

    @property
    def reduces(self) -> bool:
        return self.kind == CELLS[1]


def cell_places(stem: int, channels: int, cells: int) -> tuple[CellPlace, ...]:
    """All cells of a network: reductions at one and two thirds of the depth double the channels."""
    places = []
    before_last, last, halve = stem, stem, False
    for index in range(cells):
        kind = CELLS[1] if index in reductions(cells) else CELLS[0]
        if kind == CELLS[1]:
            channels *= 2
        places.append(CellPlace(kind, channels, before_last, last, halve))
        before_last, last, halve = last, NODES * channels, kind == CELLS[1]
    return tuple(places)


def reductions(cells: int) -> tuple[int, int]:
    """Positions of the two reduction cells."""
    return cells // 3, 2 * cells // 3


class ReLUConvNorm(nn.Sequential):
    """ReLU, 1x1 convolution, batch norm."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.ReLU(), nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))


class FactorizedReduction(nn.Module):
    """Halves a map without dropping positions: two 1x1 convolutions of stride 2, the second one shifted by one."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels - out_channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(x)
        # Padded, so that maps of odd size are rounded up on both paths.
        shifted = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        result: torch.Tensor = self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))
        return result


def _separable(channels: int, kernel: int, stride: int, dilation: int) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding=padding, dilation=dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]


def make_operation(op: int, channels: int, stride: int) -> nn.Module:
    """The module of an edge that is not ``none``: separable convolutions twice, dilated ones (dilation 2) once."""
    name = OPS[op]
    if op == MAX_POOL:
        return nn.MaxPool2d(3, stride, padding=1)
    if op == AVG_POOL:
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    if op == SKIP:
        return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels)
    kernel = KERNELS[name]
    if name.startswith("dil"):
        return nn.Sequential(*_separable(channels, kernel, stride, 2))
    return nn.Sequential(*_separable(channels, kernel, stride, 1), *_separable(channels, kernel, 1, 1))


def edge_stride(place: CellPlace, source: int) -> int:
    """Edges from a reduction cell's inputs halve the map."""
    return 2 if place.reduces and source < INPUTS else 1


class Preprocess(nn.Module):
    """Both inputs of a cell at its channels and size."""

    def __init__(self, place: CellPlace) -> None:
        super().__init__()
        first = FactorizedReduction if place.halve_before_last else ReLUConvNorm
        self.before_last = first(place.before_last, place.channels)
        self.last = ReLUConvNorm(place.last, place.channels)


class Cell(nn.Module):
    """Nodes as sums of operations on earlier nodes; a node without edges is zeros."""

    def __init__(self, plan: Plan, place: CellPlace) -> None:
        super().__init__()
        self.plan, self.stride = plan, 2 if place.reduces else 1
        self.inputs = Preprocess(place)
        self.operations = nn.ModuleList(
            make_operation(op, place.channels, edge_stride(place, source)) for edges in plan for source, op in edges
        )

    def forward(self, before_last: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        values = [self.inputs.before_last(before_last), self.inputs.last(last)]
        operations = iter(self.operations)
        for edges in self.plan:
            total: torch.Tensor | None = None
            for source, _ in edges:
                term = next(operations)(values[source])
                total = term if total is None else total + term
            values.append(zeros(values[0], self.stride) if total is None else total)
        return torch.cat(values[INPUTS:], dim=1)


def zeros(like: torch.Tensor, stride: int) -> torch.Tensor:
    """A map of zeros of the size that a node has."""
    return torch.zeros_like(like if stride == 1 else like[:, :, ::2, ::2])


class CellNetwork(nn.Module):
    """Stem, cells of which each reads the two before it, global average pool, classifier.

    Takes ``(batch, channels, height, width)`` float32, gives logits ``(batch, classes)``. Neither auxiliary heads nor
    drop-path.

    Args:
        cells: Built already; each takes the outputs of the two before it.
        image_channels: Of the input.
        stem: Channels behind the first convolution.
        features: Channels behind the last cell.
        classes: Outputs.
    """

    def __init__(self, cells: Sequence[nn.Module], image_channels: int, stem: int, features: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(image_channels, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(features, classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before_last = last = self.stem(x)
        for cell in self.cells:
            before_last, last = last, cell(before_last, last)
        logits: torch.Tensor = self.classifier(last.mean((2, 3)))
        return logits
