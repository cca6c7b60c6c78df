"""Models of source settings, one each: what a linear transfer maps to a new setting.

Shapes: N architectures, F columns, S settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from .boosted_trees import BoostedTrees, fit_boosted_trees
from .regressors import KernelRidge, Line, Regressor, fit_kernel_ridge, fit_ridge

FloatArray = npt.NDArray[np.float64]

MEMBERS: Mapping[str, type[Regressor]] = {kind.kind: kind for kind in (Line, KernelRidge, BoostedTrees)}
LINE_RIDGE = 1.0
KERNEL_RIDGE = 0.01
TREES = 150
DEPTH = 5
LEARNING_RATE = 0.1
MAX_KERNEL_ROWS = 2000
"""Rows that kernel ridge regression sees of a larger pool: its cost grows with their cube."""


@dataclass(frozen=True)
class Surrogates:
    """Latency over its mean, of each source setting: the average of its members, by default a ridge
    regression, a Gaussian kernel ridge regression and boosted trees.

    Args:
        members: Of each setting, its regressors.
        mean: Of the outputs over the pool ``(S,)``.
        deviation: Of the outputs over the pool ``(S,)``.
    """

    members: tuple[tuple[Regressor, ...], ...]
    mean: FloatArray
    deviation: FloatArray

    def __len__(self) -> int:
        return len(self.members)

    def outputs(self, features: FloatArray) -> FloatArray:
        """What each setting's model says ``(N, S)``, of mean 0 and deviation 1 over the pool."""
        values = [np.mean([member.predict(features) for member in members], axis=0) for members in self.members]
        return np.asarray((np.stack(values, axis=1) - self.mean) / self.deviation)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Numeric arrays by name."""
        arrays: dict[str, npt.NDArray[Any]] = {"mean": self.mean, "deviation": self.deviation}
        for setting, members in enumerate(self.members):
            for member in members:
                arrays |= {f"{setting}/{member.kind}/{name}": array for name, array in member.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Surrogates:
        """What :meth:`to_arrays` gave.

        Raises:
            PredictorError: If arrays are missing.
        """
        try:
            mean, deviation = (np.asarray(arrays[name], dtype=np.float64) for name in ("mean", "deviation"))
            members = tuple(
                tuple(
                    kind.from_arrays(part)
                    for name, kind in MEMBERS.items()
                    if (part := _part(arrays, f"{setting}/{name}/"))
                )
                for setting in range(len(mean))
            )
        except (KeyError, ValueError) as error:
            raise PredictorError(f"wrong arrays: {error}", field="arrays", value=sorted(arrays)[:8]) from error
        if not all(members):
            raise PredictorError("wrong arrays: a setting has no model", field="arrays", value=sorted(arrays)[:8])
        return cls(members, mean, deviation)


def fit_surrogates(
    features: FloatArray, latencies_ms: FloatArray, *, seed: int = 0, models: Sequence[str] = tuple(MEMBERS)
) -> Surrogates:
    """Fits every setting on the rows where it was measured.

    Args:
        features: ``(N, F)``.
        latencies_ms: ``(N, S)``, NaN where not measured.
        seed: Of the trees, and of the rows that a kernel keeps.
        models: Which members, of ``MEMBERS``.

    Raises:
        PredictorError: If a setting has fewer than two latencies.
    """
    counts = (~np.isnan(latencies_ms)).sum(axis=0)
    if not len(counts) or counts.min() < 2:
        raise PredictorError("too few latencies of a setting", field="pool", value=counts.tolist(), allowed="2 or more")
    members = tuple(_fit_one(features, column, seed, models) for column in latencies_ms.T)
    raw = Surrogates(members, np.zeros(len(counts)), np.ones(len(counts))).outputs(features)
    deviation = raw.std(axis=0)
    return Surrogates(members, raw.mean(axis=0), np.where(deviation > 1e-9, deviation, 1.0))


def _fit_one(features: FloatArray, latencies_ms: FloatArray, seed: int, models: Sequence[str]) -> tuple[Regressor, ...]:
    rows = np.flatnonzero(~np.isnan(latencies_ms))
    targets = latencies_ms[rows] / latencies_ms[rows].mean()
    few = np.random.default_rng(seed).permutation(len(rows))[:MAX_KERNEL_ROWS]
    fit: Mapping[str, Callable[[], Regressor]] = {
        "line": lambda: fit_ridge(features[rows], targets, LINE_RIDGE, scaled=True),
        "kernel_ridge": lambda: fit_kernel_ridge(features[rows[few]], targets[few], KERNEL_RIDGE),
        "boosted_trees": lambda: fit_boosted_trees(
            features[rows], targets, trees=TREES, depth=DEPTH, learning_rate=LEARNING_RATE, seed=seed
        ),
    }
    return tuple(fit[name]() for name in models)


def checked_models(models: Sequence[str]) -> tuple[str, ...]:
    """``models`` as a tuple.

    Raises:
        PredictorError: If there is none, or one is unknown.
    """
    if not models or not set(models) <= set(MEMBERS):
        raise PredictorError("no such models", field="models", value=list(models), allowed=list(MEMBERS))
    return tuple(models)


def _part(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> dict[str, npt.NDArray[Any]]:
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
