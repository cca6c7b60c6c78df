"""Torch modules of NAS-Bench-201 (2001.00326, Section 2 and Figure 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .nasbench201_cells import CONV1, CONV3, POOL, CellPlan


class ReLUConvNorm(nn.Sequential):
    """ReLU, convolution with "same" padding, batch norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(out_channels),
        )


def make_operation(op: int, channels: int) -> nn.Module:
    """The module of an edge that is not ``none``."""
    if op in (CONV1, CONV3):
        return ReLUConvNorm(channels, channels, 1 if op == CONV1 else 3)
    if op == POOL:
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Identity()


class Cell(nn.Module):
    """Nodes as sums of operations on earlier nodes; a node without edges is zeros."""

    def __init__(self, plan: CellPlan, channels: int) -> None:
        super().__init__()
        self.plan = plan
        self.operations = nn.ModuleList(make_operation(op, channels) for edges in plan for _, op in edges)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values, operations = [x], iter(self.operations)
        for edges in self.plan:
            total: torch.Tensor | None = None
            for source, _ in edges:
                term = next(operations)(values[source])
                total = term if total is None else total + term
            values.append(torch.zeros_like(x) if total is None else total)
        return values[-1]


class Reduction(nn.Module):
    """A residual block that halves the resolution and doubles the channels.

    Its shortcut is an average pool and a 1x1 convolution, without batch norm. Maps of odd size are
    rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, *, round_up: bool) -> None:
        super().__init__()
        self.conv_a = ReLUConvNorm(in_channels, out_channels, 3, stride=2)
        self.conv_b = ReLUConvNorm(out_channels, out_channels, 3)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, stride=2, ceil_mode=round_up, count_include_pad=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv_b(self.conv_a(x))
        result: torch.Tensor = self.shortcut(x) + y
        return result


class CellNetwork(nn.Module):
    """Stem, three stages of equal cells with reductions between them, batch norm, classifier.

    Takes ``(batch, channels, height, width)`` float32, gives logits ``(batch, classes)``.
    """

    def __init__(
        self, plan: CellPlan, input_shape: Sequence[int], channels: int, cells: int, stages: int, classes: int
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        modules: list[nn.Module] = []
        height, width = input_shape[1:]
        for stage in range(stages):
            if stage:
                modules.append(Reduction(channels, 2 * channels, round_up=bool(height % 2 or width % 2)))
                channels, height, width = 2 * channels, -(-height // 2), -(-width // 2)
            modules += [Cell(plan, channels) for _ in range(cells)]
        self.cells = nn.Sequential(*modules)
        self.last = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(channels, classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.last(self.cells(self.stem(x)))
        logits: torch.Tensor = self.classifier(x.mean((2, 3)))
        return logits
