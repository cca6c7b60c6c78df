"""Costs and features of chains of layers as look-up tables, one per group of decisions.

Where what a part of a network costs depends on few decisions, a table lists all combinations, and
the costs of a population are sums (for memory: maxima) of gathered entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError
from .additive import AdditiveEncoding
from .algebra import Genotypes
from .costs import Costs
from .decision import Decision
from .layer_specs import BLOCKS, FLOAT_BYTES, Tally

FEATURES = {
    "dense_macs": "multiply-accumulates of k x k convolutions across channels",
    "pointwise_macs": "multiply-accumulates of 1x1 convolutions",
    "depthwise3_macs": "multiply-accumulates of 3x3 depthwise convolutions",
    "depthwise5_macs": "multiply-accumulates of 5x5 depthwise convolutions",
    "depthwise7_macs": "multiply-accumulates of 7x7 depthwise convolutions",
    "grouped_macs": "multiply-accumulates of grouped 1x1 convolutions",
    **{
        f"{kind}_macs{block}": f"the same of {text} with channels rounded up to multiples of {block}"
        for kind, text in (
            ("dense", "k x k convolutions across channels"),
            ("pointwise", "1x1 convolutions"),
            ("depthwise3", "3x3 depthwise convolutions"),
            ("depthwise5", "5x5 depthwise convolutions"),
            ("depthwise7", "7x7 depthwise convolutions"),
        )
        for block in BLOCKS
    },
    "dense_cio": "elements that dense convolutions read and write",
    "pointwise_cio": "elements that 1x1 convolutions read and write",
    "depthwise3_cio": "elements that 3x3 depthwise convolutions read and write",
    "depthwise5_cio": "elements that 5x5 depthwise convolutions read and write",
    "depthwise7_cio": "elements that 7x7 depthwise convolutions read and write",
    "grouped_cio": "elements that grouped 1x1 convolutions read and write",
    "parameters": "weights, which are read once per inference",
    "dense_convs": "number of dense convolutions",
    "pointwise_convs": "number of 1x1 convolutions",
    "depthwise3_convs": "number of 3x3 depthwise convolutions",
    "depthwise5_convs": "number of 5x5 depthwise convolutions",
    "depthwise7_convs": "number of 7x7 depthwise convolutions",
    "grouped_convs": "number of grouped 1x1 convolutions",
    "squeezes": "number of squeeze-and-excitation modules",
    "squeeze_elements": "elements that squeeze-and-excitation reads and writes",
    "squeeze_macs": "multiply-accumulates of the squeeze-and-excitation convolutions",
    "shortcuts": "number of additions",
    "shortcut_elements": "elements of the additions' results",
    "pools": "number of pooling shortcuts",
    "pool_elements": "elements that pooling shortcuts read and write",
    "shuffles": "number of channel shuffles",
    "shuffle_elements": "elements that channel shuffles read and write",
    "hardswish_elements": "elements that go through a hard swish",
    "layers": "number of layers, the depth",
}
"""Candidates for the columns of ``encode``; those that a space never has are left out. Each is divided
by its mean over the space: 1.0 is an average network."""

BLOCKED = tuple(f"_macs{block}" for block in BLOCKS)
"""Ends of names that spaces with a column for every choice do without: channels follow from those."""

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
        feature_names: Names of its columns: keys of ``FEATURES``, then ``decision=choice``.
        units: What 1 stands for in each column ``(F,)``: the mean over the space, 1 for choices.
        costs: Per group ``(3, K)``: parameters, MACs, CIO.
        peaks: Per group ``(K,)``: largest sum of live elements within that part.
        base_costs: Of what all architectures share ``(3,)``.
        base_peak: Of what all architectures share.
    """

    encoding: AdditiveEncoding
    feature_names: tuple[str, ...]
    units: npt.NDArray[np.float64]
    costs: tuple[npt.NDArray[np.float64], ...]
    peaks: tuple[npt.NDArray[np.float64], ...]
    base_costs: npt.NDArray[np.float64]
    base_peak: float

    @classmethod
    def make(cls, base: Row, groups: Iterable[Group], choices: Sequence[Decision] = ()) -> CostTables:
        """Tables of groups whose decisions are independent, up to conditions within a group.

        Args:
            base: What every architecture has.
            groups: An entry for each combination of their decisions, inactive ones at 0.
            choices: The space's decisions, to append a feature ``decision=choice`` for each choice
                of an active decision; by default there are none. Each decision needs a group that
                reads it and all decisions that it depends on.
        """
        groups = tuple(groups)
        sums = [np.array([row.sums for row in group.rows]) for group in groups]
        mean = base.sums + np.sum([table.mean(axis=0) for table in sums], axis=0)
        names = [name for name in FEATURES if not (choices and name.endswith(BLOCKED))]
        columns = [SUMS.index(name) for name in names if mean[SUMS.index(name)] > 0]
        costs = [SUMS.index(name) for name in COSTS]
        one_hot, choice_names = choice_tables(groups, choices)
        encoding = AdditiveEncoding(
            tuple(group.columns for group in groups),
            tuple(group.radices for group in groups),
            tuple(
                np.concatenate([table[:, columns] / mean[columns], chosen], axis=1).astype(np.float32)
                for table, chosen in zip(sums, one_hot, strict=True)
            ),
            np.concatenate([base.sums[columns] / mean[columns], np.zeros(len(choice_names))]).astype(np.float32),
        )
        return cls(
            encoding,
            (*(SUMS[column] for column in columns), *choice_names),
            np.concatenate([mean[columns], np.ones(len(choice_names))]),
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


def choice_tables(
    groups: Sequence[Group], decisions: Sequence[Decision]
) -> tuple[list[npt.NDArray[np.float64]], tuple[str, ...]]:
    """Which choice each active decision takes, as tables ``(K_g, C)`` of the groups, and C names.

    Raises:
        SpaceError: If no group reads a decision together with those that it depends on.
    """
    names = tuple(f"{decision.name}={choice}" for decision in decisions for choice in decision.choices)
    tables = [np.zeros((len(group.rows), len(names))) for group in groups]
    index = {decision.name: column for column, decision in enumerate(decisions)}
    first = 0
    for column, decision in enumerate(decisions):
        needed = {column, *(index[parent] for parent in decision.active_when)}
        host = next((g for g, group in enumerate(groups) if needed <= set(group.columns)), None)
        if host is None:
            raise SpaceError("no group reads this decision and its conditions", field="choices", value=decision.name)
        group = groups[host]
        digits = np.unravel_index(np.arange(len(group.rows)), group.radices)
        genes = dict(zip(group.columns, digits, strict=True))
        active = np.ones(len(group.rows), dtype=bool)
        for parent, allowed in decision.active_when.items():
            choices = decisions[index[parent]].choices
            active &= np.array([choice in allowed for choice in choices])[genes[index[parent]]]
        for choice in range(len(decision.choices)):
            tables[host][:, first + choice] = active & (genes[column] == choice)
        first += len(decision.choices)
    return tables, names
