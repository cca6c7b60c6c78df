"""A model on a device as a torch module, so that any task can score the very answers that the device gives."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..devices import Device
from ..search_spaces import Deployable


class OnDevice(nn.Module):
    """Answers come from the device's runtime, in a child process; there are no weights here.

    Args:
        device: A device that can answer (:meth:`gnomon.devices.Device.answers`).
        deployable: With one graph ``main`` of one input.
    """

    def __init__(self, device: Device, deployable: Deployable) -> None:
        super().__init__()
        self._device, self._deployable = device, deployable

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs ``(N, ...)`` of ``inputs`` ``(N, ...)``, whatever the workload's batch is.

        Raises:
            GnomonError: If the model does not run there.
        """
        graph = self._deployable.graphs["main"]
        (spec,) = graph.inputs
        array, batch = inputs.numpy().astype(spec.dtype), self._deployable.workload.batch
        missing = -len(array) % batch
        filled = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        questions = filled.reshape(-1, batch, *array.shape[1:])
        answers = self._device.answers(self._deployable, {spec.name: questions})[graph.outputs[0]]
        return torch.from_numpy(answers.reshape(-1, *answers.shape[2:])[: len(array)].copy())
