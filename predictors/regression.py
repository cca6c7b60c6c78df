"""Regression of a setting's latency on columns, with a deviation from what was left out: the body
of every baseline that learns from the target alone.

Shapes: N architectures, D decisions, F columns.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..search_spaces import Genotypes, SearchSpace
from .analytic import FLOOR_SHARE, MIN_RELATIVE_NOISE
from .base import LatencyPredictor
from .batched_mlp import MLP
from .boosted_trees import BoostedTrees
from .bundle import SavableLatencyModel
from .checks import checked_measurements
from .columns import Columns, columns_of
from .design import reference_rows
from .feature_learner import FeatureLearner, FeatureModel
from .regressors import KernelRidge, Line, Regressor

FloatArray = npt.NDArray[np.float64]
Fit: TypeAlias = Callable[[FloatArray, FloatArray], Regressor]
"""Columns ``(N, F)`` and targets ``(N,)``, of mean 1, to a fitted regressor."""

REGRESSORS: Mapping[str, type[Regressor]] = {r.kind: r for r in (Line, KernelRidge, BoostedTrees, MLP)}
MAX_LEFT_OUT_ONE_BY_ONE = 20
FOLDS = 10
CONFIDENCE = 0.95
DESIGN_NOISE = 0.05


@dataclass(frozen=True)
class Regression:
    """A fitted regressor in milliseconds; works on columns alone, so for feature-only tables too.

    Args:
        regressor: Latency over ``scale_ms`` from columns.
        scale_ms: Mean of the latencies that it was fitted to.
        relative_noise: Deviation as a share of the mean prediction.
        floor_ms: Least mean.
    """

    regressor: Regressor
    scale_ms: float
    relative_noise: float
    floor_ms: float

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation in ms, each ``(N,)``, from columns ``(N, F)``."""
        mean = np.maximum(self.scale_ms * self.regressor.predict(features), self.floor_ms)
        return mean, self.relative_noise * mean


def fit_regression(fit: Fit, features: FloatArray, latencies_ms: FloatArray) -> Regression:
    """Fits to latencies over their mean; the deviation is :func:`relative_deviation` of the errors
    that fits without an architecture make on it.

    Args:
        fit: Of the regressor.
        features: ``(N, F)``.
        latencies_ms: Positive ``(N,)``.
    """
    scale_ms = float(latencies_ms.mean())
    targets = latencies_ms / scale_ms
    floor = FLOOR_SHARE * float(targets.min())
    errors = np.empty(len(targets))
    for fold in folds(features):
        regressor = fit(features[~fold], targets[~fold])
        errors[fold] = np.maximum(regressor.predict(features[fold]), floor) / targets[fold] - 1.0
    return Regression(fit(features, targets), scale_ms, relative_deviation(errors), floor * scale_ms)


def folds(features: FloatArray, n_folds: int | None = None) -> list[npt.NDArray[np.bool_]]:
    """Which rows to leave out together: one architecture at a time if there are few, else a tenth.
    Repeated measurements of one architecture are left out together."""
    _, group = np.unique(features, axis=0, return_inverse=True)
    n_groups = int(group.max()) + 1
    if n_folds is None:
        n_folds = n_groups if n_groups <= MAX_LEFT_OUT_ONE_BY_ONE else FOLDS
    part = group.ravel() % min(n_folds, n_groups)
    return [part == fold for fold in range(min(n_folds, n_groups))]


def relative_deviation(errors: FloatArray) -> float:
    """A deviation from relative errors of left-out measurements ``(N,)``: their root mean square,
    widened by Student's t for their number so that a normal 90 % interval holds."""
    from scipy.special import ndtri, stdtrit

    widening = float(stdtrit(len(errors), CONFIDENCE) / ndtri(CONFIDENCE))
    return max(widening * float(np.sqrt(np.square(errors).mean())), MIN_RELATIVE_NOISE)


class RegressionLatencyModel(SavableLatencyModel):
    """A :class:`Regression` on columns of a space."""

    def __init__(self, space: SearchSpace, kind: str, regression: Regression, columns: Columns | None = None) -> None:
        self.space = space
        self.kind = kind
        self.regression = regression
        self._columns = columns_of(space, kind) if columns is None else columns

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """See :meth:`LatencyModel.predict`."""
        return self.regression.predict(self._columns(genotypes))

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`SavableLatencyModel.to_arrays`; names are kept as bytes."""
        r = self.regression
        numbers = np.array([r.scale_ms, r.relative_noise, r.floor_ms])
        names = {"columns": _bytes(self.kind), "regressor": _bytes(r.regressor.kind)}
        return {**names, "numbers": numbers, **{f"r.{k}": v for k, v in r.regressor.to_arrays().items()}}

    @classmethod
    def from_arrays(cls, space: SearchSpace, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See :meth:`SavableLatencyModel.from_arrays`."""
        try:
            kind, regressor = _text(arrays["columns"]), REGRESSORS[_text(arrays["regressor"])]
            own = {key.removeprefix("r."): value for key, value in arrays.items() if key.startswith("r.")}
            scale_ms, relative_noise, floor_ms = arrays["numbers"].tolist()
            regression = Regression(regressor.from_arrays(own), scale_ms, relative_noise, floor_ms)
            model = cls(space, kind, regression)
            model.predict(space.sample(1, np.random.default_rng(0)))
        except (KeyError, ValueError, IndexError) as error:
            raise PredictorError(
                f"wrong arrays for this space: {error}", field="arrays", value=sorted(arrays)
            ) from error
        return model


class RegressionPredictor(LatencyPredictor):
    """Regresses latency on columns of the space, from the target's measurements alone.

    The deviation is a share of the mean: what fits without an architecture err on it. References
    are A-optimal for a linear model of the columns.
    """

    columns_kind: ClassVar[str] = "features"

    @cached_property
    def columns(self) -> Columns:
        """What the regression sees."""
        return columns_of(self.space, self.kind)

    @property
    def kind(self) -> str:
        """Key of :data:`gnomon.predictors.columns.KINDS`."""
        return self.columns_kind

    @abstractmethod
    def fit_columns(self, features: FloatArray, targets: FloatArray) -> Regressor:
        """The regressor of targets ``(N,)``, of mean 1, on columns ``(N, F)``."""

    def regress(self, features: FloatArray, latencies_ms: FloatArray) -> Regression:
        """The regression in ms from columns ``(N, F)``, for feature-only tables too."""
        return fit_regression(self.fit_columns, features, latencies_ms)

    def references(self, n: int, *, seed: int = 0, among: Genotypes | None = None) -> Genotypes:
        """See :meth:`LatencyPredictor.references`."""
        return reference_rows(
            self.space,
            lambda rows: design_coordinates(self.columns(rows)),
            n,
            seed=seed,
            among=among,
            minimum=self.minimum,
            noise_variance=DESIGN_NOISE**2,
        )

    def adapt(self, genotypes: Genotypes, latencies_ms: FloatArray) -> RegressionLatencyModel:
        """See :meth:`LatencyPredictor.adapt`."""
        genotypes, latencies = checked_measurements(self.space, genotypes, latencies_ms, self.minimum)
        regression = self.regress(self.columns(genotypes), latencies)
        return RegressionLatencyModel(self.space, self.kind, regression, self.columns)

    def on_features(self, features: FloatArray, names: Sequence[str]) -> FeatureLearner:
        """See :meth:`LatencyPredictor.on_features`."""
        return RegressionOnFeatures(self) if self.kind == "features" else super().on_features(features, names)


class RegressionOnFeatures(FeatureLearner):
    """A :class:`RegressionPredictor` that reads features: the table's in place of the space's."""

    def __init__(self, predictor: RegressionPredictor) -> None:
        self.predictor = predictor

    def design(self, features: FloatArray) -> tuple[FloatArray, float]:
        """See :meth:`FeatureLearner.design`."""
        return design_coordinates(features), DESIGN_NOISE**2

    def adapt(self, features: FloatArray, latencies_ms: FloatArray) -> FeatureModel:
        """See :meth:`FeatureLearner.adapt`."""
        return self.predictor.regress(features, latencies_ms)


def design_coordinates(features: FloatArray) -> FloatArray:
    """A constant and centred columns of unit deviation, of total variance 1 ``(N, 1 + F)``."""
    centred = features - features.mean(axis=0)
    deviation = centred.std(axis=0)
    varies = deviation > 1e-9
    scaled = centred[:, varies] / deviation[varies] / np.sqrt(max(int(varies.sum()), 1))
    return np.concatenate([np.ones((len(features), 1)), scaled], axis=1)


def checked_strength(value: Any, field: str) -> float:
    """A positive finite number.

    Raises:
        PredictorError: If it is not one.
    """
    if isinstance(value, bool) or not (isinstance(value, (int, float)) and 0 < value < np.inf):
        raise PredictorError("out of range", field=field, value=value, allowed="> 0")
    return float(value)


def checked_count(value: Any, field: str, least: int = 1) -> int:
    """An integer of at least ``least``.

    Raises:
        PredictorError: If it is not one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PredictorError("out of range", field=field, value=value, allowed=f"an integer of {least} or more")
    return value


def _bytes(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8).copy()


def _text(array: npt.NDArray[Any]) -> str:
    return bytes(array.astype(np.uint8)).decode()
