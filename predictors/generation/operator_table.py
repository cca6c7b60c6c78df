"""A look-up table of single operators on one device, whose sum is the latency of a whole model.

As in Nemotron-Flash (2511.18890, section 3.3): an entry for each operator, width, context and phase.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...errors import PredictorError
from ...records.measurement import Fingerprint, Setting
from ...schema import SCHEMA_KEY, Record, read_json, write_json
from ...search_spaces.hybrid_slm.specs import LanguageModelSpec, Operator
from .parts import Part, base_part, neighbours, operator_part, part_macs
from .work import Phase, checked_phase


@dataclass(frozen=True)
class Entry(Record):
    """What one part takes.

    Args:
        part: Which.
        phase: ``prefill`` or ``step``.
        length: Tokens of the prefill, or before the step; meta tokens counted.
        latency_ms: At a batch of the table's.
    """

    SCHEMA: ClassVar[str] = ""

    part: Part
    phase: str
    length: int
    latency_ms: float


@dataclass(frozen=True)
class TableSource(Record):
    """Where a table was measured.

    Args:
        setting: Device, hardware, runtime, threads, precision; its workload is that of one of the measurements.
        fingerprint: State of the machine then.
        timestamp: Of the last measurement.
        statistic: Of each measurement.
        copies: How many copies of an operator one measured model had.
        batch: Sequences at once.
    """

    SCHEMA: ClassVar[str] = ""

    setting: Setting
    fingerprint: Fingerprint
    timestamp: str
    statistic: str
    copies: int
    batch: int = 1


@dataclass(frozen=True)
class OperatorTable(Record):
    """Latencies of parts, and what lies between them.

    Lengths: between two measured ones a step is linear in its length, and a prefill's time a token is (EdgeReasoning's
    ``a N + b``). Beyond them only what does the same work at another length is known, such as a step of a linear
    mixer. Sizes: a part between two measured ones (:func:`~gnomon.predictors.generation.parts.neighbours`) is linear
    in multiply-accumulates. Everything else is refused.

    Args:
        entries: In any order, one for each part, phase and length.
        source: Where they come from; None for a table that was made by hand.
    """

    SCHEMA: ClassVar[str] = "gnomon.operator_table/1"

    entries: tuple[Entry, ...]
    source: TableSource | None = field(default=None)

    def __post_init__(self) -> None:
        seen: set[tuple[Part, str, int]] = set()
        for entry in self.entries:
            checked_phase(entry.phase)
            if not (np.isfinite(entry.latency_ms) and entry.latency_ms >= 0):
                raise PredictorError("not a latency", field="latency_ms", value=entry.latency_ms, allowed=">= 0, in ms")
            key = (entry.part, entry.phase, entry.length)
            if key in seen:
                raise PredictorError("listed twice", field="entries", value=f"{entry.part} at {entry.length}")
            seen.add(key)

    # ---- What it knows -------------------------------------------------------------------------

    def operator_ms(self, operator: Operator, phase: Phase, length: int) -> float:
        """Latency that one more such operator adds; ``length`` with meta tokens.

        Raises:
            PredictorError: If it lies outside of what was measured.
        """
        return self._part_ms(operator_part(operator), phase, length)

    def base_ms(self, spec: LanguageModelSpec, phase: Phase, length: int) -> float:
        """Latency of a model's embedding, last norm, output layer and call; ``length`` with meta tokens.

        Raises:
            PredictorError: If it lies outside of what was measured.
        """
        return self._part_ms(base_part(spec), phase, length)

    def model_ms(self, spec: LanguageModelSpec, phase: Phase, length: int) -> float:
        """Latency of a whole model: the sum of its parts. ``length`` without meta tokens.

        Raises:
            PredictorError: If a part lies outside of what was measured.
        """
        length += spec.meta_tokens
        parts = (self.operator_ms(operator, phase, length) for operator in spec.operators)
        return self.base_ms(spec, phase, length) + sum(parts)

    # ---- Files ---------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Writes the table as JSON.

        Raises:
            StudyError: If it cannot be written.
        """
        write_json(path, self.SCHEMA, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> OperatorTable:
        """Reads what :meth:`save` wrote.

        Raises:
            SchemaError: If it is missing, damaged or of another version.
        """
        return cls.from_dict({**read_json(path, cls.SCHEMA), SCHEMA_KEY: cls.SCHEMA})

    def merged(self, others: Iterable[OperatorTable]) -> OperatorTable:
        """This table with the entries of others that it lacks.

        Raises:
            PredictorError: If another one was measured in another setting, or at another batch.
        """
        known = {(entry.part, entry.phase, entry.length): entry for entry in self.entries}
        for other in others:
            if _conditions(other.source) != _conditions(self.source):
                raise PredictorError(
                    "measured under other conditions",
                    field="table",
                    value=_conditions(other.source),
                    allowed=str(_conditions(self.source)),
                )
            known = {(entry.part, entry.phase, entry.length): entry for entry in other.entries} | known
        return OperatorTable(tuple(known.values()), self.source)

    # ---- Look-up -------------------------------------------------------------------------------

    @cached_property
    def _series(self) -> Mapping[str, Mapping[Part, list[Entry]]]:
        """Entries by phase and part, ascending in length."""
        series: dict[str, dict[Part, list[Entry]]] = {}
        for entry in sorted(self.entries, key=lambda entry: entry.length):
            series.setdefault(entry.phase, {}).setdefault(entry.part, []).append(entry)
        return series

    @cached_property
    def _known(self) -> dict[tuple[Part, Phase, int], float]:
        return {}

    def _part_ms(self, part: Part, phase: Phase, length: int) -> float:
        key = (part, checked_phase(phase), length)
        if key not in self._known:
            self._known[key] = self._looked_up(part, phase, length)
        return self._known[key]

    def _looked_up(self, part: Part, phase: Phase, length: int) -> float:
        known = {
            other: latency
            for other, entries in self._series.get(phase, {}).items()
            if other.kind == part.kind and (latency := _at_length(entries, phase, length)) is not None
        }
        if part in known:
            return known[part]
        around = neighbours(part, list(known))
        if around is None:
            raise PredictorError(
                "not in the look-up table",
                field="part",
                value=f"{phase} of {part} at {length} tokens",
                allowed=self._listed(phase, part.kind),
                hint="Measure it: gnomon measure operators.",
            )
        macs, one, other = (part_macs(each, phase, length) for each in (part, *around))
        return _between(macs, (one, other), (known[around[0]], known[around[1]]))

    def _listed(self, phase: Phase, kind: str) -> str:
        """What there is of a kind, in one line."""
        entries = self._series.get(phase, {})
        own = [f"{part} at {[e.length for e in series]}" for part, series in entries.items() if part.kind == kind]
        return "; ".join(own) or f"kinds {', '.join(sorted({part.kind for part in entries})) or 'none'}"


def _at_length(entries: list[Entry], phase: Phase, length: int) -> float | None:
    """Latency of a measured part at ``length``; None beyond what was measured."""
    lengths = [entry.length for entry in entries]
    latencies = np.array([entry.latency_ms for entry in entries])
    if lengths[0] <= length <= lengths[-1]:
        tokens = np.ones(len(entries)) if phase == "step" else np.array(lengths, dtype=np.float64)
        return float(np.interp(length, lengths, latencies / tokens)) * (1.0 if phase == "step" else length)
    nearest = entries[0] if length < lengths[0] else entries[-1]
    does_the_same = part_macs(nearest.part, phase, length) == part_macs(nearest.part, phase, nearest.length)
    return nearest.latency_ms if does_the_same and phase == "step" else None


def _between(macs: float, ends: tuple[float, float], latencies: tuple[float, float]) -> float:
    """The line through two parts of ``ends`` multiply-accumulates, at ``macs``."""
    if ends[0] == ends[1]:
        return 0.5 * (latencies[0] + latencies[1])
    share = min(max((macs - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)
    return latencies[0] + share * (latencies[1] - latencies[0])


def _conditions(source: TableSource | None) -> dict[str, Any] | None:
    if source is None:
        return None
    setting = source.setting
    return {
        "device": setting.device,
        "hardware": setting.hardware,
        "runtime": setting.runtime,
        "threads": setting.threads,
        "precision": setting.precision,
        "options": dict(setting.options),
        "statistic": source.statistic,
        "batch": source.batch,
    }
