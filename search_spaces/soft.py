"""Relaxed encodings: what a space's features are on average where each decision is drawn at random.

The average over independent draws is linear in each decision's probabilities, is the discrete encoding at the corners,
and is exact wherever features are sums of tables. Inside, a value that is linear in the features is therefore the
expected value of the networks drawn, not of a network that does not exist.

Shapes: D decisions, K_d choices of decision d, G groups, K_g combinations of choices in group g, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from ..errors import SpaceError
from .algebra import GENE_DTYPE

if TYPE_CHECKING:
    from .base import SearchSpace

MOST_ROWS = 20_000
"""Genotypes (inactive ones included) up to which a space is one table."""

Probabilities = Sequence[torch.Tensor]
"""Of the choices of each decision ``(K_d,)``."""


class SoftTables:
    """``values(X) == bias + sum_g tables[g][codes(X)[:, g]]``, on average over independent draws.

    Args:
        space: Of the genotypes.
        groups: Columns that each table reads.
        tables: ``(K_g, F)`` each, in the order of mixed-radix codes of canonical rows.
        bias: ``(F,)``.
    """

    def __init__(
        self,
        space: SearchSpace,
        groups: Sequence[Sequence[int]],
        tables: Sequence[npt.NDArray[np.floating]],
        bias: npt.NDArray[np.floating],
    ) -> None:
        self.space = space
        self.groups = tuple(tuple(group) for group in groups)
        self._tables = []
        for group, table in zip(self.groups, tables, strict=True):
            radices = [int(space.algebra.cardinalities[column]) for column in group]
            # A draw counts as the canonical row that it stands for.
            canonical = np.asarray(table, dtype=np.float32)[_canonical_codes(space, group)]
            self._tables.append(torch.from_numpy(canonical.reshape(*radices, -1)))
        self._bias = torch.from_numpy(np.asarray(bias, dtype=np.float32))

    def expected(self, probabilities: Probabilities) -> torch.Tensor:
        """The average ``(F,)``, with gradients to the probabilities."""
        chosen = active_probabilities(self.space, probabilities)
        total = self._bias
        for group, table in zip(self.groups, self._tables, strict=True):
            own = set(group)
            for column in group:
                # Conditions within the group are in its table.
                table = torch.tensordot(_outside(self.space, column, own, probabilities, chosen), table, dims=1)
            total = total + table
        return total


def check_probabilities(space: SearchSpace, probabilities: Probabilities) -> None:
    """Raises SpaceError unless there is one vector a decision, of its number of choices."""
    shapes = [tuple(p.shape) for p in probabilities]
    expected = [(int(k),) for k in space.algebra.cardinalities]
    if shapes != expected:
        raise SpaceError("one vector a decision", field="probabilities", value=shapes, allowed=str(expected))


def active_probabilities(space: SearchSpace, probabilities: Probabilities) -> list[torch.Tensor]:
    """Of each decision's choices in the canonical row of a draw ``(K_d,)``: where it is inactive, it is 0."""
    activity = activities(space, probabilities)
    return [_with_inactive(p, a) for p, a in zip(probabilities, activity, strict=True)]


def activities(space: SearchSpace, probabilities: Probabilities) -> list[torch.Tensor]:
    """The probability that each decision is active (scalars)."""
    index = {decision.name: column for column, decision in enumerate(space.decisions)}
    known: dict[int, torch.Tensor] = {}

    def of(column: int) -> torch.Tensor:
        if column not in known:
            result = probabilities[column].new_ones(())
            for name, allowed in space.decisions[column].active_when.items():
                parent = index[name]
                mask = [choice in allowed for choice in space.decisions[parent].choices]
                result = result * of(parent) * probabilities[parent][torch.tensor(mask)].sum()
            known[column] = result
        return known[column]

    return [of(column) for column in range(len(space.decisions))]


def expected_features(space: SearchSpace, probabilities: Probabilities) -> torch.Tensor:
    """See :meth:`SearchSpace.encode_soft`."""
    check_probabilities(space, probabilities)
    additive = space.additive_encoding()
    if additive is None and _has_one_hot_features(space):
        activity = activities(space, probabilities)
        return torch.cat([p * a for p, a in zip(probabilities, activity, strict=True)])
    if space not in _FEATURES:
        if additive is not None:
            _FEATURES[space] = SoftTables(space, additive.groups, additive.tables, additive.bias)
        else:
            table = space.encode(whole_space(space))
            everything = range(len(space.decisions))
            _FEATURES[space] = SoftTables(space, [everything], [table], np.zeros(table.shape[1]))
    return _FEATURES[space].expected(probabilities)


_FEATURES: WeakKeyDictionary[SearchSpace, SoftTables] = WeakKeyDictionary()


def is_small(space: SearchSpace) -> bool:
    """Whether the space is small enough to be one table."""
    return float(np.prod(space.algebra.cardinalities, dtype=np.float64)) <= MOST_ROWS


def whole_space(space: SearchSpace) -> npt.NDArray[np.int8]:
    """The canonical row of every combination of choices ``(prod K_d, D)``, in mixed-radix order.

    Raises:
        SpaceError: If there are more than ``MOST_ROWS``.
    """
    if not is_small(space):
        raise SpaceError(
            "has no relaxed encoding: its features are no sums of tables, and it is too large for one table",
            field="space",
            value=space.name,
            allowed=f"up to {MOST_ROWS} combinations, or additive_encoding()",
        )
    radices = [int(k) for k in space.algebra.cardinalities]
    rows = np.indices(radices).reshape(len(radices), -1).T.astype(GENE_DTYPE)
    return space.canonical(rows)


def _has_one_hot_features(space: SearchSpace) -> bool:
    from .base import SearchSpace

    return type(space).encode is SearchSpace.encode


def _with_inactive(p: torch.Tensor, activity: torch.Tensor) -> torch.Tensor:
    first = torch.zeros_like(p)
    first[0] = 1.0
    return activity * p + (1.0 - activity) * first


def _outside(
    space: SearchSpace, column: int, group: set[int], raw: Probabilities, chosen: Sequence[torch.Tensor]
) -> torch.Tensor:
    """A decision's probabilities as a table reads them that knows the conditions within its group."""
    names = space.decisions[column].active_when
    parents = {index for index, decision in enumerate(space.decisions) if decision.name in names}
    return raw[column] if parents <= group else chosen[column]


def _canonical_codes(space: SearchSpace, group: Sequence[int]) -> npt.NDArray[np.int64]:
    """For each code of a group, that of the same choices with inactive ones at 0 ``(K_g,)``."""
    radices = [int(space.algebra.cardinalities[column]) for column in group]
    digits = np.indices(radices).reshape(len(radices), -1)
    position = {column: i for i, column in enumerate(group)}
    index = {decision.name: column for column, decision in enumerate(space.decisions)}
    genes = digits.copy()
    active = np.ones_like(digits, dtype=bool)
    for column in sorted(group):
        for name, allowed in space.decisions[column].active_when.items():
            parent = index[name]
            if parent in position:
                mask = np.array([choice in allowed for choice in space.decisions[parent].choices])
                active[position[column]] &= active[position[parent]] & mask[digits[position[parent]]]
    genes[~active] = 0
    return np.asarray(np.ravel_multi_index(tuple(genes), radices), dtype=np.int64)
