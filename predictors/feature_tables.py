"""Predictors on tables that list features in place of architectures (HAT, YOLOBench).

Shapes: N rows, F features, S settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError, SpaceError
from ..search_spaces import Costs, Decision, Genotypes, SearchSpace, Workload
from .base import LatencyPredictor
from .design import optimal_design
from .features import Basis
from .gnomon import GnomonPredictor
from .linear_transfer import LinearTransferPredictor, transfer
from .regression import DESIGN_NOISE, Regression, RegressionPredictor, design_coordinates
from .surrogates import Surrogates, fit_surrogates
from .transfer import LinearTransfer

FloatArray = npt.NDArray[np.float64]
Rows: TypeAlias = npt.NDArray[np.int64]


class FeatureModel(Protocol):
    """Latency from features."""

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation in ms, each ``(N,)``, of features ``(N, F)``."""
        ...


class FeatureLearner(ABC):
    """The two lives of a predictor, with features ``(N, F)`` in place of genotypes.

    Args:
        predictor: Whose arguments to take.
        features: Of every row of the table; their latencies stay unknown.
        names: Of the features.
    """

    minimum: ClassVar[int] = 3
    learns: ClassVar[bool] = False

    def __init__(self, predictor: LatencyPredictor, features: FloatArray, names: Sequence[str]) -> None:
        del predictor, features, names

    def fit(self, features: FloatArray, latencies_ms: FloatArray, settings: Sequence[str], *, seed: int) -> None:
        """The first life, where there is one: latencies ``(N, S)``, NaN where not measured."""
        del features, latencies_ms, settings, seed

    @abstractmethod
    def design(self, features: FloatArray) -> tuple[FloatArray, float | FloatArray]:
        """Prior-scaled features ``(N, R)`` and the noise variance of a measurement, for an optimal design."""

    @abstractmethod
    def adapt(self, features: FloatArray, latencies_ms: FloatArray) -> FeatureModel:
        """The second life: from measurements ``(N, F)``, ``(N,)``."""

    def references(self, features: FloatArray, n: int) -> Rows:
        """Which ``n`` of the rows to measure: A-optimal ones.

        Raises:
            PredictorError: If there are fewer, or n is below what :meth:`adapt` needs.
        """
        if not self.minimum <= n <= len(features):
            raise PredictorError(
                "cannot choose that many rows to measure",
                field="n",
                value=n,
                allowed=f"{self.minimum} to {len(features)}",
            )
        scaled, noise = self.design(features)
        return optimal_design(scaled, n, noise_variance=noise)


class GnomonOnFeatures(FeatureLearner):
    """:class:`GnomonPredictor`: hierarchical Bayes, all features being work."""

    learns = True

    def __init__(self, predictor: LatencyPredictor, features: FloatArray, names: Sequence[str]) -> None:
        super().__init__(predictor, features, names)
        self.transfer = LinearTransfer(Basis.of_work(features, names))

    def fit(self, features: FloatArray, latencies_ms: FloatArray, settings: Sequence[str], *, seed: int) -> None:
        """See :meth:`FeatureLearner.fit`."""
        sources = self.transfer.fit(features, latencies_ms, settings)
        self.transfer = LinearTransfer(self.transfer.basis, None, sources)

    def design(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See :meth:`FeatureLearner.design`."""
        return self.transfer.design_features(features), self.transfer.design_noise(features)

    def adapt(self, features: FloatArray, latencies_ms: FloatArray) -> FeatureModel:
        """See :meth:`FeatureLearner.adapt`."""
        return self.transfer.adapt(features, latencies_ms)


class LinearTransferOnFeatures(FeatureLearner):
    """:class:`LinearTransferPredictor`: a line through the outputs of the sources' models."""

    learns = True

    def __init__(self, predictor: LatencyPredictor, features: FloatArray, names: Sequence[str]) -> None:
        super().__init__(predictor, features, names)
        self.ridge: float = getattr(predictor, "ridge")  # noqa: B009 - known to be a LinearTransferPredictor
        self.surrogates: Surrogates | None = None

    def _outputs(self, features: FloatArray) -> FloatArray:
        if self.surrogates is None:
            raise PredictorError("learns from other settings first", field="predictor", value="linear_transfer")
        return self.surrogates.outputs(features)

    def fit(self, features: FloatArray, latencies_ms: FloatArray, settings: Sequence[str], *, seed: int) -> None:
        """See :meth:`FeatureLearner.fit`."""
        self.surrogates = fit_surrogates(features, latencies_ms, seed=seed)

    def design(self, features: FloatArray) -> tuple[FloatArray, float]:
        """See :meth:`FeatureLearner.design`."""
        outputs = self._outputs(features)
        constant = np.ones((len(outputs), 1))
        return np.concatenate([constant, outputs / np.sqrt(outputs.shape[1])], axis=1), DESIGN_NOISE**2

    def adapt(self, features: FloatArray, latencies_ms: FloatArray) -> FeatureModel:
        """See :meth:`FeatureLearner.adapt`."""
        regression = transfer(self._outputs(features), latencies_ms, self.ridge)
        return _Through(self._outputs, regression)


@dataclass(frozen=True)
class _Through:
    columns: Callable[[FloatArray], FloatArray]
    regression: Regression

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        return self.regression.predict(self.columns(features))


class RegressionOnFeatures(FeatureLearner):
    """A :class:`RegressionPredictor` that reads features: the table's in place of the space's."""

    def __init__(self, predictor: LatencyPredictor, features: FloatArray, names: Sequence[str]) -> None:
        super().__init__(predictor, features, names)
        self.predictor = predictor

    def design(self, features: FloatArray) -> tuple[FloatArray, float]:
        """See :meth:`FeatureLearner.design`."""
        return design_coordinates(features), DESIGN_NOISE**2

    def adapt(self, features: FloatArray, latencies_ms: FloatArray) -> FeatureModel:
        """See :meth:`FeatureLearner.adapt`."""
        regress: Callable[[FloatArray, FloatArray], Regression] = getattr(self.predictor, "regress")  # noqa: B009
        return regress(features, latencies_ms)


def feature_learner(
    make: Callable[[SearchSpace], LatencyPredictor], features: FloatArray, names: Sequence[str]
) -> FeatureLearner:
    """What the predictor that ``make`` gives does on a table of features.

    Raises:
        PredictorError: If it needs architectures.
    """
    predictor = make(NoArchitectures())
    if isinstance(predictor, GnomonPredictor):
        return GnomonOnFeatures(predictor, features, names)
    if isinstance(predictor, LinearTransferPredictor):
        return LinearTransferOnFeatures(predictor, features, names)
    if isinstance(predictor, RegressionPredictor) and predictor.kind == "features":
        return RegressionOnFeatures(predictor, features, names)
    raise PredictorError(
        "needs architectures, and these data list features only",
        field="predictor",
        value=type(predictor).__name__,
        allowed="gnomon, linear_transfer, gradient_boosting, hat_mlp",
    )


class NoArchitectures(SearchSpace):
    """Stands in for the space of a table that names no architectures: whoever asks it anything about
    one is told so. Predictors get it, as they cannot be made without a space."""

    name: ClassVar[str] = "features"

    def __init__(self) -> None:
        super().__init__((Decision("row", ("any",)),), Workload((1,)))

    def arguments(self) -> dict[str, Any]:
        """See :meth:`SearchSpace.arguments`."""
        return {}

    def build(self, config: Mapping[str, Any]) -> NoReturn:
        """Raises SpaceError."""
        self._refuse()

    def costs(self, genotypes: Genotypes) -> Costs:
        """Raises SpaceError."""
        self._refuse()

    def encode(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Raises SpaceError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise SpaceError("this table lists features, not architectures", field="space", value=self.name)
