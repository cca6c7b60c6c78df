"""Costs and features of ``mobile_cnn`` as look-up tables, one per block.

Everything that a block adds depends on its own six genes and on the filters of the block before
it: at most 4·2·2·3·3·3·3 = 1,296 combinations. The tables list them all, so that the costs of a
population are sums (for memory: maxima) of gathered entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from .additive import AdditiveEncoding
from .algebra import Genotypes
from .costs import Costs
from .decision import Decision
from .mobile_cnn_layers import (
    FLOAT_BYTES,
    KERNELS,
    OPS,
    SE_RATIOS,
    SKIPS,
    Size,
    Tally,
    area,
    make_layer,
    reduced,
    tally_layer,
)
from .mobile_cnn_skeleton import Skeleton

GENES = ("op", "kernel", "se", "skip", "filters", "layers")
"""Decisions of a block, in the order of its columns."""

FEATURES = {
    "dense_macs": "multiply-accumulates of k x k convolutions across channels",
    "pointwise_macs": "multiply-accumulates of 1x1 convolutions",
    "depthwise3_macs": "multiply-accumulates of 3x3 depthwise convolutions",
    "depthwise5_macs": "multiply-accumulates of 5x5 depthwise convolutions",
    "dense_cio": "elements that dense convolutions read and write",
    "pointwise_cio": "elements that 1x1 convolutions read and write",
    "depthwise3_cio": "elements that 3x3 depthwise convolutions read and write",
    "depthwise5_cio": "elements that 5x5 depthwise convolutions read and write",
    "parameters": "weights, which are read once per inference",
    "dense_convs": "number of dense convolutions",
    "pointwise_convs": "number of 1x1 convolutions",
    "depthwise3_convs": "number of 3x3 depthwise convolutions",
    "depthwise5_convs": "number of 5x5 depthwise convolutions",
    "squeezes": "number of squeeze-and-excitation modules",
    "squeeze_elements": "elements that squeeze-and-excitation reads and writes",
    "squeeze_macs": "multiply-accumulates of the squeeze-and-excitation convolutions",
    "shortcuts": "number of additions",
    "shortcut_elements": "elements of the additions' results",
    "pools": "number of pooling shortcuts",
    "pool_elements": "elements that pooling shortcuts read and write",
    "layers": "number of layers, the depth",
}
"""Columns of ``encode``, each divided by its mean over the space: 1.0 is an average network."""

_SUMS = tuple(dict.fromkeys((*FEATURES, "parameters", "macs", "cio")))
_COSTS = ("parameters", "macs", "cio")


@dataclass(frozen=True)
class CostTables:
    """What the blocks of a space cost.

    Args:
        encoding: Features as sums of tables.
        costs: Per block ``(3, K)``: parameters, MACs, CIO.
        peaks: Per block ``(K,)``: largest sum of live elements within the block.
        base_costs: Of stem and classifier ``(3,)``.
        base_peak: Of the stem.
    """

    encoding: AdditiveEncoding
    costs: tuple[npt.NDArray[np.float64], ...]
    peaks: tuple[npt.NDArray[np.float64], ...]
    base_costs: npt.NDArray[np.float64]
    base_peak: float

    def look_up(self, genotypes: Genotypes) -> Costs:
        """Costs of canonical rows ``(N, D)``."""
        sums = np.empty((len(_COSTS), len(genotypes)))
        peak = np.empty(len(genotypes))
        for rows, codes in self.encoding.iter_codes(genotypes):
            sums[:, rows] = self.base_costs[:, None]
            peak[rows] = self.base_peak
            for code, costs, peaks in zip(codes, self.costs, self.peaks, strict=True):
                for total, table in zip(sums, costs, strict=True):
                    total[rows] += table[code]
                np.maximum(peak[rows], peaks[code], out=peak[rows])
        peak *= FLOAT_BYTES
        return Costs(*sums, peak)


def make_tables(skeleton: Skeleton, decisions: Sequence[Decision]) -> CostTables:
    """Tables of a space; a fraction of a second for seven blocks."""
    base = Tally()
    base.conv(skeleton.stem, skeleton.size)
    stem_size = reduced(skeleton.size, skeleton.stem.stride)
    base.live(skeleton.stem.in_channels * area(skeleton.size), skeleton.stem.out_channels * area(stem_size))
    groups, radices, tables, peaks = [], [], [], []
    for block in range(len(skeleton.blocks)):
        first = block * len(GENES)
        columns = tuple(range(first, first + len(GENES)))
        if block:
            columns = (first - len(GENES) + GENES.index("filters"), *columns)
        groups.append(columns)
        radices.append(tuple(len(decisions[column].choices) for column in columns))
        sums, peak = _block_table(skeleton, block)
        tables.append(sums)
        peaks.append(peak)
    bias = _row(base)
    encoding = _scaled_encoding(tuple(groups), tuple(radices), tables, bias)
    columns = tuple(_SUMS.index(name) for name in _COSTS)
    return CostTables(
        encoding,
        tuple(np.ascontiguousarray(table[:, columns].T) for table in tables),
        tuple(peaks),
        bias[list(columns)],
        float(base.peak_elements),
    )


def _scaled_encoding(
    groups: tuple[tuple[int, ...], ...],
    radices: tuple[tuple[int, ...], ...],
    tables: Sequence[npt.NDArray[np.float64]],
    bias: npt.NDArray[np.float64],
) -> AdditiveEncoding:
    features = [_SUMS.index(name) for name in FEATURES]
    # Genes are independent and all active, so the mean over the space is the sum of the tables' means.
    mean = bias[features] + sum(table[:, features].mean(axis=0) for table in tables)
    scale = 1.0 / np.where(mean > 0, mean, 1.0)
    return AdditiveEncoding(
        groups,
        radices,
        tuple((table[:, features] * scale).astype(np.float32) for table in tables),
        (bias[features] * scale).astype(np.float32),
    )


def _row(tally: Tally) -> npt.NDArray[np.float64]:
    return np.array([tally.sums.get(name, 0.0) for name in _SUMS])


def _block_table(skeleton: Skeleton, block: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums ``(K, S)`` and peaks ``(K,)`` of every combination, in the order of the codes."""
    plan = skeleton.blocks[block]
    inputs = skeleton.blocks[block - 1].filters if block else (skeleton.stem.out_channels,)
    is_last = block == len(skeleton.blocks) - 1
    sums, peaks = [], []
    for source, op, kernel, se, skip, filters in product(inputs, OPS, KERNELS, SE_RATIOS, SKIPS, plan.filters):
        genes = (op, kernel, se, skip)
        first, size = _layer_row(*genes, source, filters, plan.stride, plan.size, is_first=True)
        rest, _ = _layer_row(*genes, filters, filters, 1, size, is_first=False)
        end = _tail(skeleton, filters, size) if is_last else (np.zeros(len(_SUMS)), 0.0)
        for layers in plan.layers:
            sums.append(first[0] + (layers - 1) * rest[0] + end[0])
            peaks.append(max(first[1], rest[1] if layers > 1 else 0.0, end[1]))
    return np.array(sums), np.array(peaks)


def _layer_row(
    op: str,
    kernel: int,
    se: float,
    skip: str,
    in_channels: int,
    out_channels: int,
    stride: int,
    size: Size,
    *,
    is_first: bool,
) -> tuple[tuple[npt.NDArray[np.float64], float], Size]:
    """Sums and peak of one layer, and the size behind it."""
    tally = Tally()
    layer = make_layer(op, kernel, se, skip, in_channels, out_channels, stride, first=is_first)
    out_size = tally_layer(layer, size, tally)
    return (_row(tally), float(tally.peak_elements)), out_size


def _tail(skeleton: Skeleton, in_channels: int, size: Size) -> tuple[npt.NDArray[np.float64], float]:
    """Sums and peak of head convolution, pooling and classifier behind the last block."""
    tally = Tally()
    head = skeleton.head(in_channels)
    features = in_channels
    if head is not None:
        tally.conv(head, size)
        tally.live(head.in_channels * area(size), head.out_channels * area(size))
        features = head.out_channels
    tally.live(features * area(size), features)
    tally.live(features, skeleton.classes)
    tally.add("parameters", (features + 1) * skeleton.classes)
    tally.add("macs", features * skeleton.classes)
    return _row(tally), float(tally.peak_elements)
