"""Ten measurements and an adapted predictor: from components to a :class:`Problem`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import MeasurementError
from ..predictors import LatencyPredictor
from ..records import Fingerprint, Setting
from ..records.store import MeasurementStore
from ..schema import Record
from ..search_spaces import Genotypes, SearchSpace
from .measuring import measure_all
from .objective import Objective
from .problem import Problem
from .setup import Components


@dataclass(frozen=True)
class Calibration(Record):
    """Reference latencies of one setting. Kept in the ledger, so that every worker and every
    resume adapts the same model.

    Args:
        setting, fingerprint: What was measured on.
        keys, latencies_ms: Of the reference architectures that could be measured.
        reference: Name of the reference network; its latency is ``reference_ms``.
        failed: What could not be measured, and why.
        measured: Measurements this study asked for, failed ones included.
    """

    SCHEMA: ClassVar[str] = "gnomon.calibration/1"

    setting: Setting
    fingerprint: Fingerprint
    keys: tuple[str, ...]
    latencies_ms: tuple[float, ...]
    reference: str = ""
    reference_ms: float | None = None
    failed: tuple[str, ...] = ()
    measured: int = 0
    seconds: float = 0.0

    def foreign(self, here: Setting) -> str:
        """Why ``here`` is not the setting that was calibrated, in one line."""
        return (
            f"this study is for {self.setting.device} on {self.setting.hardware} ({self.setting.runtime}), "
            f"and this is {here.device} on {here.hardware} ({here.runtime})"
        )


def calibrate(components: Components, progress: Callable[[int, int], None] | None = None) -> Calibration:
    """Measures the reference architectures, and the reference network of a relative limit.

    Raises:
        MeasurementError: If the reference network, or too many references, cannot be measured.
    """
    space, study = components.space, components.study
    name = reference_name(components.space, components.objective)
    rows = reference_rows(components)
    keys = space.keys(rows)
    deployables = [space.deployable(space.config(row)) for row in rows]
    store = MeasurementStore(study.store)
    results = measure_all(
        components.device, components.protocol, store, deployables, seed=study.seed, progress=progress
    )
    good = [(key, m) for key, m in zip(keys, results, strict=True) if m.verdict != "failed"]
    failed = tuple(f"{m.architecture}: {m.error}" for m in results if m.verdict == "failed")
    if len(good) < max(components.predictor.minimum + 1, len(results) // 2):
        raise MeasurementError(f"{len(failed)} of {len(results)} reference measurements failed; the first: {failed[0]}")
    by_key = {key: m.latency_ms for key, m in good}
    reference_ms = None
    if name:
        reference_key = space.keys(space.named_genotype(name)[None])[0]
        if reference_key not in by_key:
            raise MeasurementError(f"the reference network {name} could not be measured; {'; '.join(failed)}")
        reference_ms = by_key[reference_key]
    return Calibration(
        setting=results[0].setting,
        fingerprint=results[0].fingerprint,
        keys=tuple(by_key),
        latencies_ms=tuple(by_key.values()),
        reference=name,
        reference_ms=reference_ms,
        failed=failed,
        measured=len(results),
    )


def reference_rows(components: Components) -> Genotypes:
    """What is measured before a search ``(N, D)``: the predictor's references and, for a relative
    limit, the network that it refers to."""
    space, study = components.space, components.study
    rows = components.predictor.references(study.references, seed=study.seed)
    name = reference_name(space, components.objective)
    if name and space.keys(space.named_genotype(name)[None])[0] not in space.keys(rows):
        rows = np.concatenate([rows, space.named_genotype(name)[None]])
    return rows


def reference_name(space: SearchSpace, objective: Objective) -> str:
    """The network a relative limit refers to: as configured, else the space's first named one."""
    if objective.limit.share is None:
        return ""
    return objective.limit.reference or next(iter(space.named), "")


def make_problem(predictor: LatencyPredictor, objective: Objective, calibration: Calibration) -> Problem:
    """Adapts the predictor; deterministic, so that every worker has the same model."""
    space = predictor.space
    rows = np.stack([space.algebra.from_key(key) for key in calibration.keys])
    model = predictor.adapt(rows, np.array(calibration.latencies_ms))
    return Problem(space, objective, model, objective.limit.resolve(calibration.reference_ms))
