"""Analytic costs of an architecture, as columns over a population."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

COST_NAMES = ("parameters", "macs", "cio", "peak_activation_bytes")


@dataclass(frozen=True)
class Costs:
    """Costs of n architectures at batch 1, each an ``(n,)`` float64 array.

    Args:
        parameters: Trainable parameters.
        macs: Multiply-accumulates of convolutions and linear layers (half of torch's FLOP count).
        cio: Convolutional input/output (HarDNet, 1909.00948): elements that convolutions read and
            write, without weights.
        peak_activation_bytes: Largest sum of live float32 activations while the graph runs in
            order as a runtime executes it: batch-norm and activations fused, element-wise
            operations in place.
    """

    parameters: npt.NDArray[np.float64]
    macs: npt.NDArray[np.float64]
    cio: npt.NDArray[np.float64]
    peak_activation_bytes: npt.NDArray[np.float64]

    def columns(self) -> dict[str, npt.NDArray[np.float64]]:
        return {f.name: getattr(self, f.name) for f in fields(self)}
