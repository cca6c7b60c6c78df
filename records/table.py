"""A published table: values of many architectures of one space, as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..search_spaces import Genotypes, SearchSpace

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ArchitectureTable:
    """Recorded values by architecture; recorded devices and evaluators read these.

    Args:
        space: The space whose rows are recorded.
        genotypes: Canonical, distinct rows ``(N, D)``.
        columns: ``(N,)`` values by name; NaN where nothing was recorded.
        source: Where it comes from, for provenance.
        notes: What a reader left out or changed, by column.
        settings: Which columns are latencies in ms, and of which setting: ``{column: setting}``.
    """

    space: SearchSpace
    genotypes: Genotypes
    columns: Mapping[str, FloatArray]
    source: str
    notes: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self.space.keys(self.genotypes))}

    def rows(self, genotypes: Genotypes) -> npt.NDArray[np.int64]:
        """Row numbers ``(n,)`` of canonical genotypes; -1 where one is not in the table."""
        return np.array([self._index.get(key, -1) for key in self.space.keys(genotypes)], dtype=np.int64)

    def lookup(self, genotypes: Genotypes, column: str) -> FloatArray:
        """Recorded values ``(n,)``; NaN where nothing was recorded.

        Raises:
            DataError: If there is no such column.
        """
        if column not in self.columns:
            raise DataError("not recorded in this table", field="column", value=column, allowed=sorted(self.columns))
        rows = self.rows(genotypes)
        return np.where(rows >= 0, self.columns[column][rows], np.nan)
