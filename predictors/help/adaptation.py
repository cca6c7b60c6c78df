"""From a few measurements to adapted weights and milliseconds: HELP's protocol and its switches.

Shapes: T tasks (draws of z, or parts left out), K measured architectures, R references.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import PredictorError
from .meta_learning import MetaLearner, MetaWeights
from .network import Weights, as_tensor
from .tasks import embedding, scaled

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Scaling: TypeAlias = Literal["predicted", "measured", "pool"]
Denormalisation: TypeAlias = Literal["least_squares", "two_point"]
SCALINGS: tuple[Scaling, ...] = ("predicted", "measured", "pool")
DENORMALISATIONS: tuple[Denormalisation, ...] = ("least_squares", "two_point")


@dataclass(frozen=True)
class Line:
    """``constant_ms + slope_ms * score``, the slope not negative."""

    constant_ms: float
    slope_ms: float

    def latency_ms(self, scores: FloatArray) -> FloatArray:
        """Scores as ms."""
        return np.asarray(self.constant_ms + self.slope_ms * scores)


@dataclass(frozen=True)
class Measured:
    """What adapting sees of one setting.

    Args:
        columns: Of the measured architectures ``(V, K, C)``.
        latencies_ms: ``(K,)``.
        support: Which of them the inner loop fits ``(K,)``.
        references_ms: Latencies of the references, measured or estimated ``(R,)``.
    """

    columns: Tensor
    latencies_ms: FloatArray
    support: BoolArray
    references_ms: FloatArray


@dataclass(frozen=True)
class Adaptation:
    """Weights of T tasks, the embedding they were adapted with ``(R,)``, and the line to ms."""

    weights: Weights
    embedding: FloatArray
    line: Line


@dataclass(frozen=True)
class Adapter:
    """Adapts meta-learnt weights to a setting.

    Args:
        learner: The inner loop.
        weights: Meta-learnt.
        scaling: Where the scale of the inner loop's targets comes from.
        denormalisation: How scores become ms.
    """

    learner: MetaLearner
    weights: MetaWeights
    scaling: Scaling
    denormalisation: Denormalisation

    def adapt(
        self, measured: Measured, *, draws: int, seed: int, bounds_ms: tuple[float, float] | None = None
    ) -> Adaptation:
        """Weights for ``draws`` draws of z; for the mean of z if that is 0."""
        noise = None
        if draws:
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn((draws, self.learner.modulator.size), generator=generator)
        found = embedding(measured.references_ms)
        embeddings = as_tensor(found[None]).expand(max(draws, 1), -1)
        with torch.no_grad():
            start, _ = self.learner.task_weights(self.weights, embeddings, noise)
            before = self._scores(start, measured, embeddings)
        targets = self._targets(before, measured, bounds_ms)
        adapted = self.learner.inner_loop(
            start,
            self.weights.step_sizes,
            measured.columns[None, :, torch.from_numpy(np.flatnonzero(measured.support))],
            embeddings,
            as_tensor(targets[measured.support][None]).expand(len(embeddings), -1),
        )
        scores = self._scores(adapted, measured, embeddings)[measured.support]
        line = self._line(scores, measured.latencies_ms[measured.support])
        return Adaptation(adapted, found, line)

    def predict(self, adaptation: Adaptation, columns: Tensor) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation over the draws in ms, each ``(N,)``, of columns ``(V, N, C)``."""
        with torch.no_grad():
            n_tasks = len(next(iter(adaptation.weights.values())))
            embeddings = as_tensor(adaptation.embedding[None]).expand(n_tasks, -1)
            scores = self.learner.scores(adaptation.weights, columns[None], embeddings).numpy().astype(np.float64)
        latencies = adaptation.line.latency_ms(scores)
        return latencies.mean(axis=0), latencies.std(axis=0)

    def _scores(self, weights: Weights, measured: Measured, embeddings: Tensor) -> FloatArray:
        """Mean over tasks of the scores of what was measured ``(K,)``."""
        with torch.no_grad():
            scores = self.learner.scores(weights, measured.columns[None], embeddings).mean(dim=0)
        return scores.numpy().astype(np.float64)

    def _targets(self, before: FloatArray, measured: Measured, bounds_ms: tuple[float, float] | None) -> FloatArray:
        """Scaled latencies ``(K,)``.

        The scale of training is that of a setting's whole pool, which a few measurements do not
        show. ``predicted`` takes the line through what the networks, before any step, say of the
        measured architectures; ``measured`` takes their least and greatest latency; ``pool`` is
        told those of the pool, as HELP's evaluation is.
        """
        latencies = measured.latencies_ms
        if self.scaling == "pool":
            if bounds_ms is None or not 0 < bounds_ms[0] < bounds_ms[1]:
                raise PredictorError(
                    "scaling=pool needs the least and greatest latency of the target's pool",
                    field="bounds_ms",
                    value=bounds_ms,
                    allowed="0 < least < greatest",
                )
            return scaled(latencies, *bounds_ms)
        line = least_squares(before, latencies) if self.scaling == "predicted" else None
        if line is None or line.slope_ms <= 0:
            known = latencies[measured.support]
            return scaled(latencies, float(known.min()), float(known.max()))
        return np.asarray((latencies - line.constant_ms) / line.slope_ms)

    def _line(self, scores: FloatArray, latencies_ms: FloatArray) -> Line:
        if self.denormalisation == "least_squares":
            return least_squares(scores, latencies_ms, relative=True)
        slope = float(np.ptp(latencies_ms)) / max(float(np.ptp(scores)), 1e-9)
        return Line(float(latencies_ms.min()) - slope * float(scores.min()), slope)


def least_squares(scores: FloatArray, latencies_ms: FloatArray, *, relative: bool = False) -> Line:
    """The line of least squared (relative) error; a constant if it would fall."""
    weights = 1.0 / np.square(latencies_ms) if relative else np.ones(len(scores))
    share = weights / weights.sum()
    score, latency = float(share @ scores), float(share @ latencies_ms)
    variance = float(share @ np.square(scores - score))
    covariance = float(share @ ((scores - score) * (latencies_ms - latency)))
    slope = covariance / variance if variance > 1e-12 and covariance > 0 else 0.0
    return Line(latency - slope * score, slope)
