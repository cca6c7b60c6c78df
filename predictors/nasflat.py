"""A small predictor with learned device embeddings, after NASFLAT (Akhauri and Abdelfattah 2024, 2403.02446).

Shapes: N architectures, F columns, S source settings, E networks, H width, K size of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..records.pool import DevicePool
from ..search_spaces import Genotypes, SearchSpace
from .analytic import FLOOR_SHARE
from .base import LatencyPredictor
from .batched_mlp import MLP
from .checks import checked_measurements, pool_genotypes
from .columns import Columns, columns_of
from .design import reference_rows
from .predictor_bundle import load_state
from .regression import (
    DESIGN_NOISE,
    Regression,
    RegressionLatencyModel,
    checked_count,
    checked_strength,
    design_coordinates,
    folds,
    relative_deviation,
)
from .regressors import fit_positive_line

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = npt.NDArray[np.float64]

COLUMNS = "features"
EMBEDDING = 16
WIDTH = 128
LAYERS = 3
MARGIN = 0.1
WEIGHT_DECAY = 1e-5
BATCH = 64


class NASFLATPredictor(LatencyPredictor):
    """One network for all settings, which it tells apart by an embedding that it learns.

    A new setting starts from the embedding of the source setting whose predicted latencies
    correlate best with what was measured; then network and embedding are fine-tuned on the
    measurements. NASFLAT's loss ranks pairs with a margin; here the squared error of standardised
    latency is added, so that milliseconds come out. Its graph network, its embedding of each
    operation and its ensemble are left out: the features say what a graph does, as they do for
    every other predictor. The deviation comes from fine-tuning without each measurement.

    Args:
        space: Gives the features.
        epochs: Passes over the pool.
        learning_rate: Of Adam, on the pool.
        adapt_steps: Of Adam, on the measurements.
        adapt_learning_rate: The same.
        bundle: Folder with what was learnt; None to call :meth:`fit`.
    """

    minimum = 3
    learns = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        epochs: int = 150,
        learning_rate: float = 1e-3,
        adapt_steps: int = 30,
        adapt_learning_rate: float = 1e-3,
        bundle: str | Path | None = None,
    ) -> None:
        super().__init__(space)
        self.epochs = checked_count(epochs, "epochs")
        self.learning_rate = checked_strength(learning_rate, "learning_rate")
        self.adapt_steps = checked_count(adapt_steps, "adapt_steps", 0)
        self.adapt_learning_rate = checked_strength(adapt_learning_rate, "adapt_learning_rate")
        self._state: dict[str, npt.NDArray[np.float32]] = {}
        if bundle is not None:
            self.restore(load_state(Path(bundle), self))

    @cached_property
    def columns(self) -> Columns:
        """Features of the space."""
        return columns_of(self.space, COLUMNS)

    def fit(self, pool: DevicePool, *, seed: int = 0) -> None:
        """See :meth:`LatencyPredictor.fit`."""
        features = self.columns(pool_genotypes(self.space, pool))
        latencies = pool.latencies_ms
        if np.isnan(latencies).all(axis=0).any():
            raise PredictorError("a setting has no latency", field="pool", value=list(pool.settings))
        deviation = features.std(axis=0)
        offset, scale = features.mean(axis=0), np.where(deviation > 1e-9, deviation, 1.0)
        spread = np.nanstd(latencies, axis=0)
        targets = (latencies - np.nanmean(latencies, axis=0)) / np.where(spread > 0, spread, 1.0)
        self._state = {"offset": offset.astype(np.float32), "scale": scale.astype(np.float32)}
        self._state |= _train_sources(
            ((features - offset) / scale).astype(np.float32), targets.astype(np.float32), self.epochs,
            self.learning_rate, seed,
        )  # fmt: skip

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`LatencyPredictor.state`."""
        return dict(self._state)

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """See :meth:`LatencyPredictor.restore`."""
        if not arrays:
            self._state = {}
            return
        names = {"offset", "scale", "embeddings", *_shapes(1)}
        n_features = self.columns(self.space.sample(1, np.random.default_rng(0))).shape[1]
        if set(arrays) != names or any(
            tuple(arrays[name].shape) != shape for name, shape in _shapes(n_features + EMBEDDING).items()
        ):
            raise PredictorError("wrong arrays", field="arrays", value=sorted(arrays), allowed=sorted(names))
        self._state = {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}

    def references(self, n: int, *, seed: int = 0, among: Genotypes | None = None) -> Genotypes:
        """See :meth:`LatencyPredictor.references`: A-optimal for a linear model of the features."""
        return reference_rows(
            self.space, lambda rows: design_coordinates(self.columns(rows)), n,
            seed=seed, among=among, minimum=self.minimum, noise_variance=DESIGN_NOISE**2,
        )  # fmt: skip

    def adapt(self, genotypes: Genotypes, latencies_ms: FloatArray) -> RegressionLatencyModel:
        """See :meth:`LatencyPredictor.adapt`."""
        genotypes, latencies = checked_measurements(self.space, genotypes, latencies_ms, self.minimum)
        regression = self.regress(self.columns(genotypes), latencies)
        return RegressionLatencyModel(self.space, COLUMNS, regression, self.columns)

    def regress(self, features: FloatArray, latencies_ms: FloatArray) -> Regression:
        """The fine-tuned network in ms from columns ``(N, F)``.

        Raises:
            PredictorError: If nothing was learnt yet.
        """
        if not self._state:
            raise PredictorError(
                "learns from a pool of other settings first", field="predictor", value=type(self).__name__,
                hint="`gnomon predictor train` writes a bundle for predictor.bundle=FOLDER; in Python, fit(pool).",
            )  # fmt: skip
        scale_ms = float(latencies_ms.mean())
        targets = latencies_ms / scale_ms
        floor = FLOOR_SHARE * float(targets.min())
        parts = folds(features)
        kept = ~np.stack([np.zeros(len(targets), dtype=bool), *parts])
        network, *others = self._tuned(features, targets, kept)
        errors = np.empty(len(targets))
        for part, other in zip(parts, others, strict=True):
            errors[part] = np.maximum(other.predict(features[part]), floor) / targets[part] - 1.0
        return Regression(network, scale_ms, relative_deviation(errors), floor * scale_ms)

    def _tuned(self, features: FloatArray, targets: FloatArray, kept: npt.NDArray[np.bool_]) -> list[MLP]:
        """A network for each row of ``kept`` ``(E, N)``, as perceptrons of the columns alone: the
        embedding is a constant of one setting, so it goes into the first bias."""
        import torch

        state = {name: torch.from_numpy(array) for name, array in self._state.items()}
        inputs = torch.from_numpy(((features - self._state["offset"]) / self._state["scale"]).astype(np.float32))
        mask = torch.from_numpy(kept.astype(np.float32))
        standard, nearest = _start(state, inputs, targets, kept)
        names = list(_shapes(1))
        weights = [state[name].expand(len(kept), *state[name].shape).clone().requires_grad_() for name in names]
        embeddings = state["embeddings"][nearest].clone().requires_grad_()
        optimizer = torch.optim.Adam([*weights, embeddings], lr=self.adapt_learning_rate, weight_decay=WEIGHT_DECAY)
        for _ in range(self.adapt_steps):
            scores = _scores(dict(zip(names, weights, strict=True)), inputs, embeddings)
            loss = _loss(scores, standard, mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            tuned = dict(zip(names, weights, strict=True))
            fitted = _scores(tuned, inputs, embeddings).numpy().astype(np.float64)
        numbers = {name: weight.detach().numpy() for name, weight in tuned.items()}
        return [
            self._folded({name: array[e] for name, array in numbers.items()}, embeddings[e].detach().numpy(),
                         fitted[e, rows], targets[rows])
            for e, rows in enumerate(kept)
        ]  # fmt: skip

    def _folded(
        self,
        weights: Mapping[str, npt.NDArray[np.float32]],
        embedding: npt.NDArray[np.float32],
        scores: FloatArray,
        targets: FloatArray,
    ) -> MLP:
        """Embedding, offset of the columns and the line from scores to targets, put into the weights."""
        n_features = len(self._state["scale"])
        matrices = [weights[f"weight{layer}"].astype(np.float64) for layer in range(LAYERS + 1)]
        biases = [weights[f"bias{layer}"].astype(np.float64) for layer in range(LAYERS + 1)]
        scale = self._state["scale"].astype(np.float64)
        biases[0] = biases[0] + embedding @ matrices[0][n_features:]
        matrices[0] = matrices[0][:n_features]
        biases[0] = biases[0] - (self._state["offset"] / scale) @ matrices[0]
        lowest = float(scores.min())
        line = fit_positive_line(scores[:, None] - lowest, targets)
        slope, constant = float(line.weights[0]), line.bias - float(line.weights[0]) * lowest
        matrices[-1], biases[-1] = slope * matrices[-1], slope * biases[-1] + constant
        return MLP(scale, tuple(m.astype(np.float32) for m in matrices), tuple(b.astype(np.float32) for b in biases))


def _shapes(n_inputs: int) -> dict[str, tuple[int, ...]]:
    sizes = [n_inputs] + [WIDTH] * LAYERS + [1]
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(LAYERS + 1):
        shapes[f"weight{layer}"] = (sizes[layer], sizes[layer + 1])
        shapes[f"bias{layer}"] = (sizes[layer + 1],)
    return shapes


def _scores(weights: Mapping[str, Tensor], inputs: Tensor, embeddings: Tensor) -> Tensor:
    """Scores ``(E, N)`` of inputs ``(N, F)`` with embeddings ``(E, K)``; weights shared or ``(E, ...)``."""
    import torch

    n_features = inputs.shape[1]
    first = weights["weight0"]
    device = embeddings[:, None] @ first[..., n_features:, :]
    values = torch.relu(inputs @ first[..., :n_features, :] + device + weights["bias0"].unsqueeze(-2))
    for layer in range(1, LAYERS + 1):
        values = values @ weights[f"weight{layer}"] + weights[f"bias{layer}"].unsqueeze(-2)
        values = torch.relu(values) if layer < LAYERS else values
    return values[..., 0]


def _loss(scores: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Squared error and pairwise hinge, each a mean over what is known, summed over networks.

    Args:
        scores: ``(E, N)``.
        targets: ``(E, N)``.
        known: 1 and 0 ``(E, N)``.
    """
    squared = ((scores - targets).square() * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)
    greater = (targets[:, :, None] > targets[:, None]) * known[:, :, None] * known[:, None]
    hinge = (MARGIN - (scores[:, :, None] - scores[:, None])).clamp(min=0) * greater
    total = squared + hinge.sum(dim=(1, 2)) / greater.sum(dim=(1, 2)).clamp(min=1)
    return total.sum()


def _train_sources(
    inputs: npt.NDArray[np.float32], targets: npt.NDArray[np.float32], epochs: int, learning_rate: float, seed: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Weights and embeddings ``(S, K)`` from all settings at once: inputs ``(N, F)``, targets ``(N, S)``."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in _shapes(inputs.shape[1] + EMBEDDING).items():
        n_inputs = _shapes(inputs.shape[1] + EMBEDDING)[name.replace("bias", "weight")][0]
        weights[name] = ((2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(n_inputs)).requires_grad_()
    embeddings = torch.randn((targets.shape[1], EMBEDDING), generator=generator).requires_grad_()
    x, y = torch.from_numpy(inputs), torch.from_numpy(targets.T.copy())
    known = torch.isfinite(y)
    y, known = torch.nan_to_num(y), known.float()
    optimizer = torch.optim.Adam([*weights.values(), embeddings], lr=learning_rate, weight_decay=WEIGHT_DECAY)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = _loss(_scores(weights, x[rows], embeddings), y[:, rows], known[:, rows]) / len(y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: t.detach().numpy() for name, t in {**weights, "embeddings": embeddings}.items()}


def _start(
    state: Mapping[str, Tensor], inputs: Tensor, targets: FloatArray, kept: npt.NDArray[np.bool_]
) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Standardised targets ``(E, N)``, and the source setting nearest to what each network sees ``(E,)``."""
    import torch

    with torch.no_grad():
        said = _scores(state, inputs, state["embeddings"]).numpy().astype(np.float64)
    standard, nearest = np.empty((len(kept), len(targets)), dtype=np.float32), np.empty(len(kept), dtype=np.int64)
    for e, rows in enumerate(kept):
        mean, spread = targets[rows].mean(), max(float(targets[rows].std()), 1e-9)
        standard[e] = (targets - mean) / spread
        centred = said[:, rows] - said[:, rows].mean(axis=1, keepdims=True)
        norms = np.maximum(np.linalg.norm(centred, axis=1), 1e-9)
        nearest[e] = int(np.argmax(centred @ (targets[rows] - mean) / norms))
    return torch.from_numpy(standard), nearest
