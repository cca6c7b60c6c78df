"""Latencies of many architectures in many settings: what a latency predictor learns from.

Shapes: N architectures, D decisions, F features, S settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..search_spaces import Genotypes, SearchSpace
from .table import ArchitectureTable

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DevicePool:
    """Measured latencies, one row an architecture, one column a setting; NaN where not measured.

    Ragged tables are columns with NaN. A pool whose source lists features in place of
    architectures (averages over layers, say) is *feature-only*: it has ``features`` and no
    ``space``; predictors that work on features learn from it all the same.

    Args:
        settings: Names of the columns, distinct ``(S,)``.
        latencies_ms: ``(N, S)``, positive or NaN.
        source: Where they come from, for provenance.
        space: Of the architectures; None if the pool is feature-only.
        genotypes: Canonical, distinct rows ``(N, D)``; None if the pool is feature-only.
        features: ``(N, F)``; None unless the pool is feature-only.
        feature_names: ``(F,)``.
        notes: What a reader left out or changed, by setting.
        provenance: What is known of how a setting was measured, as JSON, by setting.

    Raises:
        DataError: If shapes disagree, settings repeat, or a latency is neither positive nor NaN.
    """

    settings: tuple[str, ...]
    latencies_ms: FloatArray
    source: str
    space: SearchSpace | None = None
    genotypes: Genotypes | None = None
    features: FloatArray | None = None
    feature_names: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = self.genotypes if self.features is None else self.features
        if rows is None or (self.genotypes is None) != (self.space is None):
            raise DataError("a pool has a space with genotypes, or features", field="genotypes", value=None)
        if self.latencies_ms.shape != (len(rows), len(self.settings)) or len(set(self.settings)) != len(self.settings):
            raise DataError(
                "latencies do not fit rows and settings",
                field="latencies_ms",
                value=self.latencies_ms.shape,
                allowed=f"({len(rows)}, {len(self.settings)}), settings distinct",
            )
        if not (np.isnan(self.latencies_ms) | (self.latencies_ms > 0) & np.isfinite(self.latencies_ms)).all():
            raise DataError("a latency is not positive", field="latencies_ms", value="0 or less", allowed="> 0 or NaN")
        if self.features is not None and self.features.shape[1:] != (len(self.feature_names),):
            raise DataError(
                "features do not fit their names",
                field="features",
                value=self.features.shape,
                allowed=f"(N, {len(self.feature_names)})",
            )

    @classmethod
    def from_table(cls, table: ArchitectureTable, settings: Sequence[str] | None = None) -> DevicePool:
        """Columns of a published table as settings.

        Args:
            table: With latencies in ms among its columns.
            settings: Columns to take; by default those that the table says are latencies
                (``table.settings``), under the names of their settings.

        Raises:
            DataError: If a column is not in the table, or the table holds no latencies.
        """
        names = dict(table.settings) if settings is None else {name: name for name in settings}
        missing = sorted(set(names) - set(table.columns))
        if missing:
            raise DataError("not in this table", field="settings", value=missing, allowed=sorted(table.columns))
        if not names:
            raise DataError(
                "this table holds no latencies, so it is not a pool", field="columns", value=sorted(table.columns)
            )
        latencies = np.stack([table.columns[name] for name in names], axis=1)
        notes = {setting: table.notes[name] for name, setting in names.items() if name in table.notes}
        return cls(tuple(names.values()), latencies, table.source, table.space, table.genotypes, notes=notes)

    def to_table(self) -> ArchitectureTable:
        """The pool as a table with one column a setting, as recorded devices read it.

        Raises:
            DataError: If the pool is feature-only.
        """
        if self.space is None or self.genotypes is None:
            raise DataError("a feature-only pool names no architectures", field="source", value=self.source)
        columns = {name: self.column(name) for name in self.settings}
        settings = {name: name for name in self.settings}
        return ArchitectureTable(self.space, self.genotypes, columns, self.source, self.notes, settings)

    def __len__(self) -> int:
        return len(self.latencies_ms)

    def column(self, setting: str) -> FloatArray:
        """Latencies ``(N,)`` of one setting, NaN where not measured."""
        return self.latencies_ms[:, self._index(setting)]

    def select(self, settings: Sequence[str]) -> DevicePool:
        """The same rows in these settings only, in this order."""
        columns = [self._index(name) for name in settings]
        notes = {name: self.notes[name] for name in settings if name in self.notes}
        provenance = {name: self.provenance[name] for name in settings if name in self.provenance}
        return replace(
            self,
            settings=tuple(settings),
            latencies_ms=self.latencies_ms[:, columns],
            notes=notes,
            provenance=provenance,
        )

    def rows(self, index: npt.NDArray[np.int64]) -> DevicePool:
        """Some rows, in this order."""
        return replace(
            self,
            latencies_ms=self.latencies_ms[index],
            genotypes=None if self.genotypes is None else self.genotypes[index],
            features=None if self.features is None else self.features[index],
        )

    def measured(self) -> DevicePool:
        """The rows that were measured in at least one setting."""
        return self.rows(np.flatnonzero(~np.isnan(self.latencies_ms).all(axis=1)))

    def _index(self, setting: str) -> int:
        if setting not in self.settings:
            raise DataError("not in this pool", field="setting", value=setting, allowed=sorted(self.settings))
        return self.settings.index(setting)
