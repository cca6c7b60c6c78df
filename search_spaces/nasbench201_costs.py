"""Analytic costs of all 15,625 networks of NAS-Bench-201."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .costs import Costs
from .layer_specs import FLOAT_BYTES, ConvSpec, Size, area, reduced
from .nasbench201_cells import CONV1, CONV3, NONE, all_cells, cell_plan, live_edges, peak_maps


@dataclass(frozen=True)
class NetworkShape:
    """Everything about a network but its cell."""

    image_channels: int
    size: Size
    classes: int
    channels: int
    cells: int
    stages: int = 3

    def stage_shapes(self) -> Iterator[tuple[int, Size]]:
        """Channels and size of each stage."""
        channels, size = self.channels, self.size
        for _ in range(self.stages):
            yield channels, size
            channels, size = 2 * channels, reduced(size, 2)

    def fixed_convs(self) -> Iterator[tuple[ConvSpec, Size]]:
        """The stem's and the reductions' convolutions, with the size of their input."""
        yield ConvSpec(self.image_channels, self.channels, 3, relu=False), self.size
        for channels, size in list(self.stage_shapes())[:-1]:
            yield ConvSpec(channels, 2 * channels, 3, stride=2), size
            yield ConvSpec(2 * channels, 2 * channels, 3), reduced(size, 2)
            yield ConvSpec(channels, 2 * channels, 1, norm=False), reduced(size, 2)


def cost_table(shape: NetworkShape, *, simplify: bool) -> Costs:
    """Costs of every cell, in the order of :func:`~.nasbench201_cells.all_cells`."""
    cells = all_cells()
    kept = live_edges(cells) if simplify else cells != NONE
    parameters = np.zeros(len(cells))
    macs, cio = parameters.copy(), parameters.copy()
    for op, kernel in ((CONV1, 1), (CONV3, 3)):
        count = shape.cells * ((cells == op) & kept).sum(axis=1)
        for channels, size in shape.stage_shapes():
            conv = ConvSpec(channels, channels, kernel)
            parameters += count * conv.parameters
            macs += count * conv.macs(size)
            cio += count * conv.cio(size)
    for conv, size in shape.fixed_convs():
        # The shortcut's convolution has neither batch norm nor bias.
        parameters += conv.parameters - (0 if conv.norm else conv.out_channels)
        macs += conv.macs(size)
        cio += conv.cio(size)
    features = list(shape.stage_shapes())[-1][0]
    parameters += 2 * features + (features + 1) * shape.classes
    macs += features * shape.classes
    maps = np.array([peak_maps(cell_plan(cell, simplify=simplify)) for cell in cells.tolist()])
    largest_map = max(channels * area(size) for channels, size in shape.stage_shapes())
    peak = np.maximum(maps * largest_map, _fixed_peak(shape))
    return Costs(parameters, macs, cio, (FLOAT_BYTES * peak).astype(np.float64))


def _fixed_peak(shape: NetworkShape) -> int:
    """Most elements alive in stem, reductions, pooling and classifier."""
    maps = [channels * area(size) for channels, size in shape.stage_shapes()]
    features = list(shape.stage_shapes())[-1][0]
    peaks = [shape.image_channels * area(shape.size) + maps[0], maps[-1] + features, features + shape.classes]
    for before, after in itertools.pairwise(maps):
        # The input waits for the shortcut while its ReLU and the first convolution's output are held.
        peaks.append(2 * before + after)
        peaks.append(before + 2 * after)
    return max(peaks)
