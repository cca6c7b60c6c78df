"""HELP adapted to one setting, in milliseconds.

Shapes: N architectures, R references, T draws of z.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from ...errors import PredictorError
from ...search_spaces import Genotypes, SearchSpace
from ..bundle import SavableLatencyModel
from .adaptation import Adaptation, Line
from .encoding import architecture_graph, node_columns
from .network import HelpNetwork, as_tensor

FloatArray = npt.NDArray[np.float64]

CHUNK = 128
"""Architectures at a time: their values in all layers stay in the cache."""
_WEIGHT = "weight/"


class HelpLatencyModel(SavableLatencyModel):
    """Latency as the mean over draws of z of what the adapted networks say.

    Args:
        space: Of the architectures.
        network: Shape of the networks.
        adaptation: Their weights, the embedding, the line to ms.
        relative_noise: Deviation as a share of the mean; that between draws is added.
        floor_ms: Least mean.
    """

    def __init__(
        self, space: SearchSpace, network: HelpNetwork, adaptation: Adaptation, relative_noise: float, floor_ms: float
    ) -> None:
        self.space = space
        self.network = network
        self.adaptation = adaptation
        self.relative_noise = relative_noise
        self.floor_ms = floor_ms

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """See :meth:`LatencyModel.predict`."""
        mean, deviation = np.empty(len(genotypes)), np.empty(len(genotypes))
        n_draws = len(next(iter(self.adaptation.weights.values())))
        embeddings = as_tensor(self.adaptation.embedding[None]).expand(n_draws, -1)
        for start in range(0, len(genotypes), CHUNK):
            rows = slice(start, start + CHUNK)
            columns = as_tensor(node_columns(self.space, genotypes[rows]))[None]
            with torch.no_grad():
                scores = self.network.scores(self.adaptation.weights, columns, embeddings)
            latencies = self.adaptation.line.latency_ms(scores.numpy().astype(np.float64))
            mean[rows], deviation[rows] = latencies.mean(axis=0), latencies.std(axis=0)
        np.maximum(mean, self.floor_ms, out=mean)
        return mean, np.hypot(deviation, self.relative_noise * mean)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`SavableLatencyModel.to_arrays`."""
        a = self.adaptation
        return {
            **{_WEIGHT + name: weight.numpy() for name, weight in a.weights.items()},
            "embedding": a.embedding,
            "numbers": np.array([a.line.constant_ms, a.line.slope_ms, self.relative_noise, self.floor_ms]),
        }

    @classmethod
    def from_arrays(cls, space: SearchSpace, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See :meth:`SavableLatencyModel.from_arrays`."""
        try:
            embedding = np.asarray(arrays["embedding"], dtype=np.float64)
            constant_ms, slope_ms, relative_noise, floor_ms = arrays["numbers"].tolist()
            weights = {
                name.removeprefix(_WEIGHT): as_tensor(array)
                for name, array in arrays.items()
                if name.startswith(_WEIGHT)
            }
            network = HelpNetwork(architecture_graph(space), len(embedding), weights["device1.weight"].shape[-1])
            found = {name: tuple(weight.shape[1:]) for name, weight in weights.items()}
            if found != network.shapes():
                raise ValueError("weights of another shape")
        except (KeyError, ValueError) as error:
            raise PredictorError(
                f"wrong arrays for this space: {error}", field="arrays", value=sorted(arrays)[:8]
            ) from error
        return cls(
            space, network, Adaptation(weights, embedding, Line(constant_ms, slope_ms)), relative_noise, floor_ms
        )
