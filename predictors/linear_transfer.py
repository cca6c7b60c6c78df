"""Linear transfer: a ridge regression from a few latencies onto what models of other settings say.

Shapes: N architectures, F columns, S source settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..records.pool import DevicePool
from ..search_spaces import Genotypes, SearchSpace
from .base import LatencyPredictor
from .bundle import SavableLatencyModel
from .checks import checked_measurements, pool_genotypes
from .columns import Columns, columns_of
from .design import reference_rows
from .feature_learner import FeatureLearner, FeatureModel
from .predictor_bundle import load_state
from .regression import DESIGN_NOISE, Regression, checked_strength, fit_regression
from .regressors import Line, fit_ridge
from .surrogates import MEMBERS, Surrogates, checked_models, fit_surrogates

FloatArray = npt.NDArray[np.float64]

COLUMNS = "features"


class LinearTransferPredictor(LatencyPredictor):
    """Latency is linear in the outputs of the source settings' models.

    A closed form with the same ten measurements does on FBNet what HELP does, so it stands in every
    comparison. The deviation is a share of the mean, from left-out measurements; references are
    A-optimal for the outputs.

    Args:
        space: Gives the features.
        ridge: Penalty on the squared weights of the outputs, which have deviation 1.
        models: Whose average stands for a source setting: ``line``, ``kernel_ridge``, ``boosted_trees``.
            Trees take most of the time; where latency is a sum over choices, the line alone is as good.
        bundle: Folder with what was learnt; None to call :meth:`fit`.
    """

    minimum = 3
    learns = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        ridge: float = 1.0,
        models: Sequence[str] = tuple(MEMBERS),
        bundle: str | Path | None = None,
    ) -> None:
        super().__init__(space)
        self.ridge = checked_strength(ridge, "ridge")
        self.models = checked_models(models)
        self._surrogates: Surrogates | None = None
        if bundle is not None:
            self.restore(load_state(Path(bundle), self))

    @cached_property
    def columns(self) -> Columns:
        """Features of the space."""
        return columns_of(self.space, COLUMNS)

    @property
    def surrogates(self) -> Surrogates:
        """The source settings' models.

        Raises:
            PredictorError: If nothing was learnt yet.
        """
        if self._surrogates is None:
            raise PredictorError(
                "learns from a pool of other settings first", field="predictor", value=type(self).__name__,
                hint="`gnomon predictor train` writes a bundle for predictor.bundle=FOLDER; in Python, fit(pool).",
            )  # fmt: skip
        return self._surrogates

    def fit(self, pool: DevicePool, *, seed: int = 0) -> None:
        """See :meth:`LatencyPredictor.fit`: one model a setting."""
        genotypes = pool_genotypes(self.space, pool)
        self._surrogates = fit_surrogates(self.columns(genotypes), pool.latencies_ms, seed=seed, models=self.models)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`LatencyPredictor.state`."""
        return {} if self._surrogates is None else self._surrogates.to_arrays()

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """See :meth:`LatencyPredictor.restore`."""
        self._surrogates = Surrogates.from_arrays(arrays) if arrays else None

    def references(self, n: int, *, seed: int = 0, among: Genotypes | None = None) -> Genotypes:
        """See :meth:`LatencyPredictor.references`."""
        surrogates = self.surrogates

        def scaled(genotypes: Genotypes) -> FloatArray:
            outputs = surrogates.outputs(self.columns(genotypes)) / np.sqrt(len(surrogates))
            return np.concatenate([np.ones((len(outputs), 1)), outputs], axis=1)

        return reference_rows(
            self.space, scaled, n, seed=seed, among=among, minimum=self.minimum, noise_variance=DESIGN_NOISE**2
        )

    def adapt(self, genotypes: Genotypes, latencies_ms: FloatArray) -> LinearTransferModel:
        """See :meth:`LatencyPredictor.adapt`."""
        genotypes, latencies = checked_measurements(self.space, genotypes, latencies_ms, self.minimum)
        outputs = self.surrogates.outputs(self.columns(genotypes))
        return LinearTransferModel(self.space, self.surrogates, transfer(outputs, latencies, self.ridge), self.columns)

    def on_features(self, features: FloatArray, names: Sequence[str]) -> FeatureLearner:
        """See :meth:`LatencyPredictor.on_features`."""
        return LinearTransferOnFeatures(self.ridge, self.models)


def transfer(outputs: FloatArray, latencies_ms: FloatArray, ridge: float) -> Regression:
    """The regression of latencies ``(N,)`` on outputs ``(N, S)`` of :class:`Surrogates`; with
    :func:`~gnomon.predictors.surrogates.fit_surrogates` it serves feature-only pools too."""
    return fit_regression(partial(fit_ridge, strength=ridge), outputs, latencies_ms)


class LinearTransferModel(SavableLatencyModel):
    """A line through the outputs of the source settings' models."""

    def __init__(
        self, space: SearchSpace, surrogates: Surrogates, regression: Regression, columns: Columns | None = None
    ) -> None:
        self.space = space
        self.surrogates = surrogates
        self.regression = regression
        self._columns = columns_of(space, COLUMNS) if columns is None else columns

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """See :meth:`LatencyModel.predict`."""
        return self.regression.predict(self.surrogates.outputs(self._columns(genotypes)))

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`SavableLatencyModel.to_arrays`."""
        r = self.regression
        return {
            **{f"source/{name}": array for name, array in self.surrogates.to_arrays().items()},
            **{f"line/{name}": array for name, array in r.regressor.to_arrays().items()},
            "numbers": np.array([r.scale_ms, r.relative_noise, r.floor_ms]),
        }

    @classmethod
    def from_arrays(cls, space: SearchSpace, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See :meth:`SavableLatencyModel.from_arrays`."""

        def part(prefix: str) -> dict[str, npt.NDArray[Any]]:
            return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

        try:
            scale_ms, relative_noise, floor_ms = arrays["numbers"].tolist()
            regression = Regression(Line.from_arrays(part("line/")), scale_ms, relative_noise, floor_ms)
            model = cls(space, Surrogates.from_arrays(part("source/")), regression)
            model.predict(space.sample(1, np.random.default_rng(0)))
        except (KeyError, ValueError, IndexError) as error:
            raise PredictorError(
                f"wrong arrays for this space: {error}", field="arrays", value=sorted(arrays)[:8]
            ) from error
        return model


class LinearTransferOnFeatures(FeatureLearner):
    """:class:`LinearTransferPredictor`: a line through the outputs of the sources' models."""

    learns = True

    def __init__(self, ridge: float, models: Sequence[str]) -> None:
        self.ridge = ridge
        self.models = models
        self.surrogates: Surrogates | None = None

    def _outputs(self, features: FloatArray) -> FloatArray:
        if self.surrogates is None:
            raise PredictorError("learns from other settings first", field="predictor", value="linear_transfer")
        return self.surrogates.outputs(features)

    def fit(self, features: FloatArray, latencies_ms: FloatArray, settings: Sequence[str], *, seed: int) -> None:
        """See :meth:`FeatureLearner.fit`."""
        self.surrogates = fit_surrogates(features, latencies_ms, seed=seed, models=self.models)

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
