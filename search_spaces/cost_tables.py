"""Costs and features of chains of layers as look-up tables, one per group of decisions.

Where what a part of a network costs depends on few decisions, a table lists all combinations, and
the costs of a population are sums (for memory: maxima) of gathered entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .additive import AdditiveEncoding
from .algebra import Genotypes
from .costs import Costs
from .layer_specs import FLOAT_BYTES, Tally

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
"""Candidates for the columns of ``encode``; those that a space never has are left out. Each is divided
by its mean over the space: 1.0 is an average network."""

COSTS = ("parameters", "macs", "cio")
SUMS = tuple(dict.fromkeys((*FEATURES, *COSTS)))
"""What is counted for every entry of a table."""


@dataclass(frozen=True)
class Row:
    """One entry of a table: sums in the order of ``SUMS``, and the peak of live elements."""

    sums: npt.NDArray[np.float64]
    peak: float

    @classmethod
    def of(cls, tally: Tally) -> Row:
        return cls(np.array([tally.sums.get(name, 0.0) for name in SUMS]), float(tally.peak_elements))

    def times(self, count: int) -> Row:
        """The same part ``count`` times in a row."""
        return Row(self.sums * count, self.peak if count else 0.0)

    def __add__(self, other: Row) -> Row:
        """One part after the other."""
        return Row(self.sums + other.sums, max(self.peak, other.peak))


@dataclass(frozen=True)
class Group:
    """Columns of the genotype, their radices, and an entry for each combination of their choices."""

    columns: tuple[int, ...]
    radices: tuple[int, ...]
    rows: Sequence[Row]


@dataclass(frozen=True)
class CostTables:
    """What the parts of a space cost.

    Args:
        encoding: Features as sums of tables.
        feature_names: Names of its columns, keys of ``FEATURES``.
        costs: Per group ``(3, K)``: parameters, MACs, CIO.
        peaks: Per group ``(K,)``: largest sum of live elements within that part.
        base_costs: Of what all architectures share ``(3,)``.
        base_peak: Of what all architectures share.
    """

    encoding: AdditiveEncoding
    feature_names: tuple[str, ...]
    costs: tuple[npt.NDArray[np.float64], ...]
    peaks: tuple[npt.NDArray[np.float64], ...]
    base_costs: npt.NDArray[np.float64]
    base_peak: float

    @classmethod
    def make(cls, base: Row, groups: Iterable[Group]) -> CostTables:
        """Tables of groups whose decisions are independent and always active."""
        groups = tuple(groups)
        sums = [np.array([row.sums for row in group.rows]) for group in groups]
        mean = base.sums + np.sum([table.mean(axis=0) for table in sums], axis=0)
        columns = [SUMS.index(name) for name in FEATURES if mean[SUMS.index(name)] > 0]
        costs = [SUMS.index(name) for name in COSTS]
        encoding = AdditiveEncoding(
            tuple(group.columns for group in groups),
            tuple(group.radices for group in groups),
            tuple((table[:, columns] / mean[columns]).astype(np.float32) for table in sums),
            (base.sums[columns] / mean[columns]).astype(np.float32),
        )
        return cls(
            encoding,
            tuple(SUMS[column] for column in columns),
            tuple(np.ascontiguousarray(table[:, costs].T) for table in sums),
            tuple(np.array([row.peak for row in group.rows]) for group in groups),
            base.sums[costs],
            base.peak,
        )

    def look_up(self, genotypes: Genotypes) -> Costs:
        """Costs of canonical rows ``(N, D)``."""
        sums = np.empty((len(COSTS), len(genotypes)))
        peak = np.empty(len(genotypes))
        for rows, codes in self.encoding.iter_codes(genotypes):
            sums[:, rows] = self.base_costs[:, None]
            peak[rows] = self.base_peak
            for code, costs, peaks in zip(codes, self.costs, self.peaks, strict=True):
                for total, table in zip(sums, costs, strict=True):
                    total[rows] += table[code]
                np.maximum(peak[rows], peaks[code], out=peak[rows])
        peak *= FLOAT_BYTES
        parameters, macs, cio = sums
        return Costs(parameters, macs, cio, peak)
