"""Which settings teach a latency predictor and which ones test it, on which architectures.

A split says which settings are sources, which serve to choose between variants (validation) and
which are targets, and which rows of the pool each part of an evaluation may use. Leaving settings
out in turn gives several rounds.

Two settings of one card (the same GPU with another batch size) know nearly everything of each
other, so no round may have settings of one family on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError
from .join_pools import join_pools
from .pool import DevicePool

Rows = npt.NDArray[np.int64]
LeaveOut = Literal["none", "each", "family"]
LEAVE_OUT: tuple[LeaveOut, ...] = ("none", "each", "family")


@dataclass(frozen=True)
class Round:
    """One choice of sources and targets.

    Args:
        name: What is left out, or the split's name.
        sources: Settings that a predictor learns from.
        validation: Settings to choose between variants on, with these sources.
        targets: Settings that figures are reported for.
    """

    name: str
    sources: tuple[str, ...]
    validation: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class RowRange:
    """Rows ``start`` to ``stop - 1``, of these the middle part by the target's latency.

    Args:
        start, stop: Row numbers; see ``DeviceSplit.count`` for what is numbered.
        middle: Fraction that is kept, by rank of the target's own latency: 0.8 leaves out the
            fastest and the slowest tenth (HELP's ``trim``).
    """

    start: int
    stop: int
    middle: float = 1.0


class DeviceSplit:
    """A named protocol for evaluating latency predictors; options of the config group ``split``.

    Args:
        name: For messages and metrics.
        data: Readers of pools (callables without arguments), joined by architecture.
        sources: Settings to learn from. With ``leave_out`` other than ``none`` these are the
            candidates, by default all targets and members of families; those of the families of
            a round's targets are left out of it.
        targets: Settings to report; with ``leave_out: family`` those of each family in turn.
        validation: Settings to choose variants on; never reported, never sources.
        source_rows: ``[start, stop]`` of the rows whose latencies on the sources are known.
        reference_rows: ``[start, stop]`` of the candidates for measurements on a target.
        queries: Row ranges to score on by name: ``{all: {rows: [900, 15625]}, trim: {rows: [900,
            1900], middle: 0.8}}``. The references that were measured never count.
        families: ``{family: settings}``; a setting that is in none is a family of its own.
        leave_out: ``none``: one round. ``each``: a round for each target. ``family``: a round for
            each family.
        count: What row numbers count: ``pool`` rows, or the rows ``measured`` on the setting in
            question (for tables that share no architectures).
        hint: What to do where the data lack a setting.

    Raises:
        ConfigError: If something is out of range, unknown or on both sides.
    """

    def __init__(
        self,
        name: str,
        data: Sequence[Callable[[], DevicePool]],
        sources: Sequence[str] = (),
        targets: Sequence[str] = (),
        validation: Sequence[str] = (),
        *,
        source_rows: Sequence[int],
        reference_rows: Sequence[int],
        queries: Mapping[str, Mapping[str, Any]],
        families: Mapping[str, Sequence[str]] | None = None,
        leave_out: LeaveOut = "none",
        count: Literal["pool", "measured"] = "pool",
        hint: str | None = None,
    ) -> None:
        self.name = name
        self.families = {family: tuple(members) for family, members in (families or {}).items()}
        self._data, self._hint = tuple(data), hint
        self._validation, self._targets = tuple(validation), tuple(targets)
        everything = (*self._targets, *(name for members in self.families.values() for name in members))
        in_turn = tuple(dict.fromkeys(everything)) if leave_out != "none" else ()
        self._sources = tuple(sources) or in_turn
        self._leave_out, self._count = leave_out, count
        if leave_out not in LEAVE_OUT:
            raise ConfigError("not a way to leave out", field="split.leave_out", value=leave_out, allowed=LEAVE_OUT)
        if count not in ("pool", "measured"):
            raise ConfigError("nothing to count", field="split.count", value=count, allowed=("pool", "measured"))
        self._source_rows = _range("source_rows", {"rows": source_rows})
        self._reference_rows = _range("reference_rows", {"rows": reference_rows})
        self.queries = {query: _range(f"queries.{query}", spec) for query, spec in queries.items()}
        if not self.queries:
            raise ConfigError("nothing to score on", field="split.queries", value=dict(queries))
        self.rounds: tuple[Round, ...] = tuple(self._rounds())
        for chosen in self.rounds:
            self._check(chosen)

    def family(self, setting: str) -> str:
        """The family of a setting: its own name where none lists it."""
        return next((family for family, members in self.families.items() if setting in members), setting)

    # ---- Data ------------------------------------------------------------------------------

    def pool(self) -> DevicePool:
        """The data, joined, with all settings of the split.

        Raises:
            DataError: If data are missing, or lack a setting or rows of this split.
        """
        pool = join_pools([read() for read in self._data])
        needed = {name for r in self.rounds for name in (*r.sources, *r.validation, *r.targets)}
        missing = sorted(needed - set(pool.settings))
        if missing:
            raise DataError(
                f"the data of split {self.name} lack settings",
                field="settings",
                value=missing,
                allowed=sorted(pool.settings),
                hint=self._hint,
            )
        for setting in sorted(needed):
            rows = len(pool) if self._count == "pool" else int(np.isfinite(pool.column(setting)).sum())
            last = max(r.stop for r in (self._source_rows, self._reference_rows, *self.queries.values()))
            if rows < last:
                raise DataError(f"split {self.name} needs more rows", field=setting, value=rows, allowed=f"{last} rows")
        return pool

    def source_pool(self, pool: DevicePool, chosen: Round) -> DevicePool:
        """What a predictor may learn from: source rows on the round's sources, where measured."""
        taken = pool.select(chosen.sources)
        known = np.zeros(taken.latencies_ms.shape, dtype=bool)
        for column, setting in enumerate(chosen.sources):
            known[self._rows(pool, setting, self._source_rows), column] = True
        rows = np.flatnonzero(known.any(axis=1))
        latencies = np.where(known, taken.latencies_ms, np.nan)
        return DevicePool(
            taken.settings,
            latencies[rows],
            taken.source,
            taken.space,
            None if taken.genotypes is None else taken.genotypes[rows],
            None if taken.features is None else taken.features[rows],
            taken.feature_names,
            taken.notes,
        )

    def reference_rows(self, pool: DevicePool, target: str) -> Rows:
        """Row numbers of the pool, ascending, that may be measured on a target."""
        return self._rows(pool, target, self._reference_rows)

    def query_rows(self, pool: DevicePool, target: str, query: str = "all") -> Rows:
        """Row numbers of the pool, ascending, to score a target on. Leave out what was measured.

        Raises:
            ConfigError: If there is no such query.
        """
        if query not in self.queries:
            raise ConfigError("no such query", field="query", value=query, allowed=sorted(self.queries))
        return self._rows(pool, target, self.queries[query])

    def _rows(self, pool: DevicePool, setting: str, part: RowRange) -> Rows:
        """Measured rows of the range, of these the middle part by latency."""
        latencies = pool.column(setting)
        measured = np.flatnonzero(np.isfinite(latencies))
        if self._count == "measured":
            rows = measured[part.start : part.stop]
        else:
            rows = measured[(measured >= part.start) & (measured < part.stop)]
        cut = round(len(rows) * (1.0 - part.middle) / 2.0)
        order = np.argsort(latencies[rows], kind="stable")
        kept: Rows = np.sort(rows[order[cut : len(rows) - cut]])
        return kept

    # ---- Rounds ----------------------------------------------------------------------------

    def _rounds(self) -> list[Round]:
        if self._leave_out == "none":
            return [Round(self.name, self._sources, self._validation, self._targets)]
        left_out = dict(self.families)
        if self._leave_out == "each":
            left_out = {target: (target,) for target in self._targets}
        return [Round(name, self._without(targets), self._validation, targets) for name, targets in left_out.items()]

    def _without(self, targets: Sequence[str]) -> tuple[str, ...]:
        families = {self.family(target) for target in targets}
        return tuple(source for source in self._sources if self.family(source) not in families)

    def _check(self, chosen: Round) -> None:
        if not chosen.sources or not chosen.targets:
            raise ConfigError(
                f"round {chosen.name} has no {'targets' if chosen.sources else 'sources'}",
                field=f"split {self.name}",
                value=chosen.targets or chosen.sources,
            )
        sides = {"targets": chosen.targets, "validation": chosen.validation}
        for side, settings in sides.items():
            shared = {self.family(name) for name in settings} & {self.family(name) for name in chosen.sources}
            if shared:
                raise ConfigError(
                    f"round {chosen.name}: a family is among sources and {side}",
                    field=f"split {self.name}",
                    value=sorted(shared),
                    allowed="each family on one side",
                )


def _range(name: str, spec: Mapping[str, Any]) -> RowRange:
    unknown = sorted(set(spec) - {"rows", "middle"})
    rows, middle = list(spec.get("rows", ())), spec.get("middle", 1.0)
    is_range = len(rows) == 2 and all(isinstance(row, int) for row in rows) and 0 <= rows[0] < rows[1]
    if unknown or not is_range or not isinstance(middle, (int, float)) or not 0.0 < middle <= 1.0:
        raise ConfigError(
            "not a range of rows",
            field=f"split.{name}",
            value=dict(spec),
            allowed="rows: [start, stop] with stop above start, and maybe middle: above 0, to 1",
        )
    return RowRange(rows[0], rows[1], float(middle))
