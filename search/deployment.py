"""What a study ships where the device changes a model's answers: calibrated, scored and named as it really runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..devices import Device
from ..errors import ConfigError, TaskError
from ..search_spaces import Deployable, SearchSpace
from ..tasks import Task

if TYPE_CHECKING:
    from torch import nn

CALIBRATION_EXAMPLES = 128
"""Training examples that set the ranges of a quantised model."""


def is_rounded(device: Device) -> bool:
    """Whether the device computes in fewer bits than the model was trained in: its answers are its own."""
    return device.precision != "fp32"


def set_calibration(device: Device, space: SearchSpace, task: Task) -> None:
    """Gives a quantising device training examples as batches of the workload's size.

    Raises:
        ConfigError: If the task has none to give: ranges from noise would cost quality without a word.
    """
    if device.precision != "int8" or not hasattr(device, "calibration"):
        return
    batch = space.workload.batch
    examples = task.examples(max(CALIBRATION_EXAMPLES, batch))
    if examples is None or len(examples) < batch:
        raise ConfigError(
            "this task gives no examples to set the ranges of a quantised model from",
            field="device.precision",
            value=device.precision,
            allowed="fp32, or a task whose examples() returns some",
        )
    (spec,) = _main_inputs(space)
    parts = [examples[start : start + batch] for start in range(0, len(examples) - batch + 1, batch)]
    device.calibration = [{spec.name: part.astype(spec.dtype)} for part in parts]


def _main_inputs(space: SearchSpace) -> tuple[Any, ...]:
    import numpy as np

    row = space.sample(1, np.random.default_rng(0))[0]
    inputs = space.deployable(space.config(row)).graphs["main"].inputs
    if len(inputs) != 1:
        raise ConfigError("only models of one input can be quantised by examples of a task", field="space")
    return inputs


@dataclass(frozen=True)
class Deployed:
    """A trained model as the device runs it.

    Args:
        deployable: What is measured.
        file: Its file where that is another than the exported one, else empty.
        model: What a task scores: the file, or the model on the device.
    """

    deployable: Deployable
    file: str
    model: Path | nn.Module

    def scores(self, task: Task, split: str) -> dict[str, float]:
        """The task's metrics on ``split``.

        Raises:
            TaskError: If the metric is no number.
        """
        metrics = task.score(self.model, split)
        if not math.isfinite(metrics[task.metric]):
            raise TaskError("the quantised model has no quality", field=task.metric, value=metrics[task.metric])
        return metrics


def deploy(device: Device, exported: Deployable, folder: Path) -> Deployed:
    """Brings an exported model into the form that ``device`` runs.

    Args:
        device: With its calibration set.
        exported: Its graphs are ONNX files in ``folder``.
        folder: The model's; gets what the device makes of it.

    Raises:
        GnomonError: If the device cannot quantise it.
    """
    before = exported.graphs["main"].onnx_path
    deployable = device.deployed(exported, folder)
    after = deployable.graphs["main"].onnx_path
    if after is not None and after != before:
        return Deployed(deployable, after.name, after)
    from .on_device import OnDevice

    return Deployed(deployable, "", OnDevice(device, deployable))
