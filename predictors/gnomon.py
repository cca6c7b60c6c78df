"""Gnomon's own predictor: what other settings taught, adapted by a few measurements in closed form.

Shapes: N architectures, D decisions, F features, S settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..records.pool import DevicePool
from ..records.shipped import shipped_pools
from ..search_spaces import Genotypes, SearchSpace
from .base import LatencyPredictor
from .checks import checked_measurements, pool_genotypes
from .design import reference_rows
from .feature_learner import FeatureLearner, FeatureModel
from .features import Basis, FeatureBasis
from .linear_model import LinearLatencyModel
from .predictor_bundle import load_state
from .transfer import LinearTransfer, Sources, carried_over, joined

FloatArray = npt.NDArray[np.float64]

ROWS_PER_FEATURE = 3
"""A shipped pool with fewer architectures than this for each of its space's features is no prior: its settings'
weights are noise for the most part, and left-out runtimes are predicted no better with it (``pool_transfer``)."""


class GnomonLatencyModel(LinearLatencyModel):
    """Linear in the space's features and in what runs under each of its executions."""

    EXECUTIONS: ClassVar[bool] = True


class GnomonPredictor(LatencyPredictor):
    """Hierarchical Bayesian linear regression on the graph as runtimes execute it.

    The first life fits a linear model to every setting of a pool; the second one takes their mean
    and spread as the prior of a new setting and lets a few measurements decide the rest: how far
    it lies in which direction in which sources differ, which execution of a network it shows
    (everything as built, dead operations removed, constants folded), how far it departs from all
    sources, its noise and the step of its timer. Which of these priors holds is not chosen but
    averaged by marginal likelihood. Without a pool the prior is the space's own structure alone,
    as in :class:`~gnomon.predictors.bayesian_linear.BayesianLinearPredictor`.

    See :mod:`gnomon.predictors.transfer` for the model. It began as the closed form that did better
    than HELP (Lee et al., 2106.08630) with half of the measurements.

    Args:
        space: Gives features and executions.
        bundle: Folder of what :meth:`fit` learnt before (``gnomon predictor train``), or None.
        shipped: Without a bundle, start from the pools that ship for this space (see
            :mod:`gnomon.records.shipped`), at whatever size they were measured; where none ships, or
            none that is large enough (``ROWS_PER_FEATURE``), from the space's structure alone.

    Raises:
        PredictorError: If the bundle is of another predictor or space.
    """

    minimum = 3
    learns = True

    def __init__(self, space: SearchSpace, *, bundle: str | Path | None = None, shipped: bool = False) -> None:
        super().__init__(space)
        self._sources: Sources | None = None
        if bundle is not None:
            self.restore(load_state(Path(bundle), self))
        elif shipped:
            enough = ROWS_PER_FEATURE * len(self.basis.mean)
            learnt = [self._sources_of(pool) for pool in shipped_pools(space) if len(pool) >= enough]
            self._learn(joined(learnt) if learnt else None)

    @property
    def learnt_from(self) -> tuple[str, ...]:
        """Names of the settings that the prior was learnt from; empty for the space's structure alone."""
        return () if self._sources is None else self._sources.names

    @cached_property
    def basis(self) -> FeatureBasis:
        """Features of the space."""
        return FeatureBasis(self.space, executions=True)

    @cached_property
    def transfer(self) -> LinearTransfer:
        """The model, with what was learnt so far."""
        columns = {
            execution: [self.basis.names.index(f"{execution}/{kind}") for kind in kinds]
            for execution, kinds in self.space.executions.items()
        }
        return LinearTransfer(self.basis, columns, self._sources)

    def fit(self, pool: DevicePool, *, seed: int = 0) -> None:
        """See :meth:`LatencyPredictor.fit`: one linear model a setting; there is nothing random. A pool of
        this space at another size is carried over (:func:`~gnomon.predictors.transfer.carried_over`)."""
        self._learn(self._sources_of(pool))

    def _sources_of(self, pool: DevicePool) -> Sources:
        other = pool.space
        if other is None or type(other) is not type(self.space) or other.spec() == self.space.spec():
            genotypes = pool_genotypes(self.space, pool)
            return LinearTransfer(self.basis).fit(self.basis.features(genotypes), pool.latencies_ms, pool.settings)
        basis = FeatureBasis(other, executions=True)
        features = basis.features(pool_genotypes(other, pool))
        sources = LinearTransfer(basis).fit(features, pool.latencies_ms, pool.settings)
        return carried_over(sources, basis, self.basis)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`LatencyPredictor.state`."""
        if self._sources is None:
            return {}
        s = self._sources
        return {"weights": s.weights, "noise": s.noise, "names": np.array(s.names)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """See :meth:`LatencyPredictor.restore`."""
        if not arrays:
            self._learn(None)
            return
        expected = {"weights", "noise", "names"}
        if set(arrays) != expected:
            raise PredictorError("wrong arrays", field="arrays", value=sorted(arrays), allowed=sorted(expected))
        weights, noise = (np.asarray(arrays[name], dtype=np.float64) for name in ("weights", "noise"))
        names = tuple(str(name) for name in arrays["names"])
        if weights.shape != (len(names), len(self.basis.mean) + 1) or noise.shape != (len(names),):
            raise PredictorError(
                "learnt on other features than this space has",
                field="weights",
                value=weights.shape,
                allowed=f"({len(names)}, {len(self.basis.mean) + 1})",
            )
        self._learn(Sources(weights, noise, names))

    def _learn(self, sources: Sources | None) -> None:
        self._sources = sources
        self.__dict__.pop("transfer", None)

    def references(self, n: int, *, seed: int = 0, among: Genotypes | None = None) -> Genotypes:
        """See :meth:`LatencyPredictor.references`: A-optimal under the prior."""
        transfer = self.transfer
        return reference_rows(
            self.space,
            lambda rows: transfer.design_features(self.basis.features(rows)),
            n,
            seed=seed,
            among=among,
            minimum=self.minimum,
            noise_variance=lambda rows: transfer.design_noise(self.basis.features(rows)),
        )

    def adapt(self, genotypes: Genotypes, latencies_ms: FloatArray) -> GnomonLatencyModel:
        """See :meth:`LatencyPredictor.adapt`."""
        genotypes, latencies = checked_measurements(self.space, genotypes, latencies_ms, self.minimum)
        return GnomonLatencyModel(self.basis, self.transfer.adapt(self.basis.features(genotypes), latencies))

    def on_features(self, features: FloatArray, names: Sequence[str]) -> FeatureLearner:
        """See :meth:`LatencyPredictor.on_features`."""
        return GnomonOnFeatures(features, names)


class GnomonOnFeatures(FeatureLearner):
    """:class:`GnomonPredictor`: hierarchical Bayes, all features being work."""

    learns = True

    def __init__(self, features: FloatArray, names: Sequence[str]) -> None:
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
