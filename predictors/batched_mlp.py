"""Multilayer perceptrons, several at once: one on all measurements and one for each part left out.

Shapes: N rows, F columns, E networks, H width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from .regressors import Regressor

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

Loss: TypeAlias = "Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]"
"""Outputs ``(E, N)``, targets ``(N,)`` and which of them each network sees ``(E, N)``, to the sum over networks."""

CHUNK = 16384


@dataclass(frozen=True)
class MLP(Regressor):
    """Rectified linear layers and a linear one, on columns over ``scale``.

    Args:
        scale: ``(F,)``.
        weights: Of each layer ``(inputs, outputs)``.
        biases: Of each layer ``(outputs,)``.
    """

    kind: ClassVar[str] = "mlp"
    scale: FloatArray
    weights: tuple[Float32Array, ...]
    biases: tuple[Float32Array, ...]

    def predict(self, features: FloatArray) -> FloatArray:
        """See :meth:`Regressor.predict`."""
        result = np.empty(len(features))
        for start in range(0, len(features), CHUNK):
            values = (features[start : start + CHUNK] / self.scale).astype(np.float32)
            for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
                values = np.maximum(values @ weight + bias, 0.0)
            result[start : start + CHUNK] = (values @ self.weights[-1] + self.biases[-1])[:, 0]
        return result

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`Regressor.to_arrays`."""
        arrays: dict[str, npt.NDArray[Any]] = {"scale": self.scale}
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            arrays[f"weight{layer}"], arrays[f"bias{layer}"] = weight, bias
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See :meth:`Regressor.from_arrays`."""
        layers = range(sum(name.startswith("weight") for name in arrays))
        weights = tuple(np.asarray(arrays[f"weight{layer}"], dtype=np.float32) for layer in layers)
        biases = tuple(np.asarray(arrays[f"bias{layer}"], dtype=np.float32) for layer in layers)
        return cls(np.asarray(arrays["scale"], dtype=np.float64), weights, biases)


def train_mlps(
    features: FloatArray,
    targets: FloatArray,
    kept: npt.NDArray[np.bool_],
    *,
    hidden: Sequence[int],
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    decay: bool = False,
    alike: bool = True,
    loss: Loss | None = None,
) -> list[MLP]:
    """Networks of equal shape, trained together by Adam on the mean squared error.

    Args:
        features: ``(N, F)``; each column is divided by its largest absolute value.
        targets: ``(N,)``.
        kept: Which rows each network sees ``(E, N)``.
        hidden: Widths of the hidden layers.
        steps: Of Adam.
        batch: Rows a step, the same for all networks; all rows if there are no more.
        learning_rate: Of Adam.
        seed: Of initial weights and batches.
        decay: Whether the learning rate falls linearly to 0.
        alike: Whether all networks start with the same weights.
        loss: In place of the mean squared error.
    """
    import torch

    scale = np.abs(features).max(axis=0)
    scale[scale == 0] = 1.0
    inputs = torch.from_numpy((features / scale).astype(np.float32))
    outputs = torch.from_numpy(targets.astype(np.float32))
    mask = torch.from_numpy(kept.astype(np.float32))
    generator = torch.Generator().manual_seed(seed)
    sizes = [features.shape[1], *hidden, 1]
    layers = []
    for n_in, n_out in pairwise(sizes):
        for shape in ((n_in, n_out), (1, n_out)):
            drawn = shape if alike else (len(kept), *shape)
            first = (2 * torch.rand(drawn, generator=generator) - 1) / math.sqrt(n_in)
            layers.append(first.expand(len(kept), *shape).clone().requires_grad_())
    optimizer = torch.optim.Adam(layers, lr=learning_rate, fused=True)
    for step in range(steps):
        if decay:
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        rows = slice(None) if len(inputs) <= batch else torch.randperm(len(inputs), generator=generator)[:batch]
        values = inputs[rows].expand(len(kept), -1, -1)
        for layer in range(0, len(layers), 2):
            values = torch.baddbmm(layers[layer + 1], values, layers[layer])
            values = torch.relu(values) if layer < len(layers) - 2 else values
        seen = mask[:, rows]
        optimizer.zero_grad()
        (loss or _squared_error)(values[..., 0], outputs[rows], seen).backward()
        optimizer.step()
    trained = [layer.detach().numpy() for layer in layers]
    return [
        MLP(scale, tuple(w[network].copy() for w in trained[0::2]), tuple(b[network, 0].copy() for b in trained[1::2]))
        for network in range(len(kept))
    ]


def _squared_error(outputs: torch.Tensor, targets: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """The mean over what each network sees, added up."""
    errors = (outputs - targets).square() * seen
    return (errors.sum(dim=1) / seen.sum(dim=1).clamp(min=1.0)).sum()
