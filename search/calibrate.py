"""Ten measurements and an adapted predictor: from components to a :class:`Problem`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..errors import MeasurementError
from ..predictors import LatencyPredictor
from ..records import Fingerprint, Measurement, Setting
from ..records.store import MeasurementStore
from ..schema import Record
from ..search_spaces import Genotypes, SearchSpace
from .feasibility import fastest
from .measuring import measure_all
from .objective import Objective
from .problem import Problem
from .setup import Components

REFINED_AT_ONCE = 3
REFINEMENT_POOL = 20_000


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

    def extended(self, latencies_ms: Mapping[str, float]) -> Calibration:
        """With further measurements by key; the newer one counts."""
        known = dict(zip(self.keys, self.latencies_ms, strict=True)) | dict(latencies_ms)
        return replace(self, keys=tuple(known), latencies_ms=tuple(known.values()))

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
    name = reference_name(space, components.objective)
    rows = reference_rows(components)
    total = len(rows) + study.refinements
    results = _measured(components, rows, progress, 0, total)
    good = [m for m in results if m.verdict != "failed"]
    if len(good) < max(components.predictor.minimum + 1, len(results) // 2):
        failed = [m for m in results if m.verdict == "failed"]
        raise MeasurementError(
            f"{len(failed)} of {len(results)} reference measurements failed; "
            f"the first: {failed[0].architecture}: {failed[0].error}"
        )
    result = _calibration(results, name, _latency_of(space, name, results))
    for first in range(0, study.refinements, REFINED_AT_ONCE):
        problem = make_problem(components.predictor, components.objective, result)
        more = refinement_rows(
            problem, result.keys, min(REFINED_AT_ONCE, study.refinements - first), study.seed + first
        )
        results += _measured(components, more, progress, len(results), total)
        result = _calibration(results, name, result.reference_ms)
    return result


def refinement_rows(problem: Problem, known: Sequence[str], n: int, seed: int) -> Genotypes:
    """Up to ``n`` architectures where the search is going to look ``(n, D)``.

    A search exploits whatever the predictor underrates, so its errors are largest just there: the
    references must not only span the space, some must lie among what the predictor promises. The
    most promising one comes first, then unseen feasible ones spread over predicted latency, at each
    level the one of which the predictor is least sure.
    """
    space = problem.space
    rows = np.unique(space.sample(REFINEMENT_POOL, np.random.default_rng([seed, 0x4EF])), axis=0)
    violation = problem.violation(rows)
    promising = rows[violation <= 0] if (violation <= 0).sum() >= n else rows[np.argsort(violation, kind="stable")[:n]]
    mean_ms, std_ms = problem.latency.predict(promising)
    levels = np.array_split(np.argsort(mean_ms, kind="stable"), min(len(promising), 4 * n))
    spread = promising[[level[np.argmax((std_ms / mean_ms)[level])] for level in levels]]
    best = [fastest(problem, seed)[0]] if problem.limit_ms is not None else []
    order = np.concatenate([np.arange(0, len(spread), 4), np.arange(2, len(spread), 4), np.arange(1, len(spread), 2)])
    chosen: dict[str, Genotypes] = {}
    for row in (*best, *spread[order]):
        chosen.setdefault(space.keys(row[None])[0], row)
    fresh = [row for key, row in chosen.items() if key not in set(known)][:n]
    return np.stack(fresh) if fresh else rows[:0]


def _measured(
    components: Components,
    rows: Genotypes,
    progress: Callable[[int, int], None] | None,
    before: int,
    total: int,
) -> list[Measurement]:
    space, study = components.space, components.study
    deployables = [space.deployable(space.config(row)) for row in rows]

    def report(done: int, _: int) -> None:
        if progress is not None:
            progress(before + done, total)

    store = MeasurementStore(study.store)
    return measure_all(components.device, components.protocol, store, deployables, seed=study.seed, progress=report)


def _calibration(results: Sequence[Measurement], name: str, reference_ms: float | None) -> Calibration:
    good = {m.architecture: m.latency_ms for m in results if m.verdict != "failed"}
    return Calibration(
        setting=results[0].setting,
        fingerprint=results[0].fingerprint,
        keys=tuple(good),
        latencies_ms=tuple(good.values()),
        reference=name,
        reference_ms=reference_ms,
        failed=tuple(f"{m.architecture}: {m.error}" for m in results if m.verdict == "failed"),
        measured=len(results),
    )


def _latency_of(space: SearchSpace, name: str, results: Sequence[Measurement]) -> float | None:
    """The reference network's latency; None where no limit refers to one.

    Raises:
        MeasurementError: If it could not be measured.
    """
    if not name:
        return None
    key = space.keys(space.named_genotype(name)[None])[0]
    measurement = next(m for m in results if m.architecture == key)
    if measurement.verdict == "failed":
        raise MeasurementError(f"the reference network {name} could not be measured: {measurement.error}")
    return measurement.latency_ms


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
