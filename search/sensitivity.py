"""How much each layer's eight bits cost, alone and together with every other layer's.

After "Augmenting Hessians with Inter-Layer Dependencies for Mixed-Precision Post-Training Quantization" (Schaefer
et al., 2023): what a set of quantised layers costs is a quadratic form of their perturbations, whose off-diagonal
blocks, usually dropped, say that errors of layers add up or cancel.

Where this departs from it: the Hessian is taken in Gauss-Newton form, ``J' G J`` with G the Hessian of the loss in
the network's outputs, and ``J d_i``, what the quantisation of layer i does to the outputs to first order, is not
approximated by traces but observed: the outputs with layer i quantised minus those without. So n layers and all
their pairs cost n + 1 passes over the examples, without gradients or labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import ExportError
from ..export import Quantiser

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[np.float64]
Inputs = Sequence[Mapping[str, npt.NDArray[np.float32]]]
OnLayer = Callable[[int, int], None]
"""Called with (layers done, layers)."""


@dataclass(frozen=True)
class Sensitivity:
    """The predicted loss of quantising any set of layers.

    Args:
        layers: Names, n of them.
        losses: Symmetric ``(n, n)``: the diagonal is the loss by each layer alone, in nats for classifiers;
            twice an entry beside it is what two layers lose (or save) together.
    """

    layers: tuple[str, ...]
    losses: Array

    def loss(self, quantised: npt.NDArray[np.bool_]) -> float:
        """Of the layers marked in ``quantised`` ``(n,)``."""
        chosen = quantised.astype(np.float64)
        return float(chosen @ self.losses @ chosen)

    def savings(self, quantised: npt.NDArray[np.bool_]) -> Array:
        """By how much the loss falls if one of the quantised layers is lifted to floats ``(n,)``; 0 for others."""
        chosen = quantised.astype(np.float64)
        return np.asarray(chosen * (2.0 * self.losses @ chosen - np.diag(self.losses)))


def layer_sensitivity(
    quantiser: Quantiser, inputs: Inputs, *, classes: int = 0, on_layer: OnLayer | None = None
) -> Sensitivity:
    """Quantises one layer at a time and looks at what becomes of the outputs.

    Args:
        quantiser: The calibrated network.
        inputs: Examples by input name; need no labels.
        classes: Where there are as many outputs they are logits, and the loss is the divergence (nats) of the
            classes' probabilities from those of the network in floats. Otherwise it is half of the squared
            difference of the outputs.

    Raises:
        ExportError: If a network does not run on the inputs.
    """
    exact = _outputs(quantiser.model([]), inputs)
    errors = []
    for number, layer in enumerate(quantiser.layers, start=1):
        errors.append(_outputs(quantiser.model([layer]), inputs) - exact)
        if on_layer is not None:
            on_layer(number, len(quantiser.layers))
    logits = exact if exact.shape[1] == classes else None
    return Sensitivity(quantiser.layers, gauss_newton(np.stack(errors), logits))


def gauss_newton(errors: Array, logits: Array | None = None) -> Array:
    """Half of the mean over examples of ``e_i' G e_j`` for output errors ``(n, examples, outputs)``.

    With logits ``(examples, outputs)`` G is the Hessian of the cross-entropy, diag(p) - pp': a covariance under the
    predicted probabilities. Without, the identity.
    """
    n, examples, _ = errors.shape
    if logits is not None:
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability = shifted / shifted.sum(axis=1, keepdims=True)
        mean = (errors * probability).sum(axis=2, keepdims=True)
        errors = (errors - mean) * np.sqrt(probability)
    flat = errors.reshape(n, -1)
    return np.asarray(0.5 * flat @ flat.T / examples)


def _outputs(model: ModelProto, inputs: Inputs) -> Array:
    """First outputs of a network as ``(examples, outputs)``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        parts = [session.run(None, dict(feeds))[0] for feeds in inputs]
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"the network does not run on the examples: {reason}") from error
    return np.concatenate([part.reshape(len(part), -1) for part in parts]).astype(np.float64)
