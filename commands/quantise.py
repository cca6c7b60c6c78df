"""Choose fp32 or int8 for each layer of a trained model, under a quality budget.

gnomon quantise from=runs/STUDY/models/ID task=animals keep=0.995
gnomon quantise from=model.onnx task=animals per_channel=false to=quantised
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.table import Table

    from ..cli import Options
    from ..search.mixed_precision import MixedResult
    from ..tasks import Task

CONFIG = "quantise"
CHOSEN = "model.mixed.onnx"
RESULT = "mixed_precision.json"


def run(config: DictConfig, options: Options) -> int:
    """Chooses, writes ``model.mixed.onnx`` and ``mixed_precision.json``, and prints the front."""
    from rich.console import Console

    from ..devices import Device, Protocol
    from ..errors import DeviceError
    from ..export import Quantisation
    from ..schema import write_json
    from ..search.instantiate import instantiate
    from ..search.mixed_precision import MixedResult, mixed_precision

    plugins = list(config.plugins)
    device: Device = instantiate(config.device, "device", plugins)
    reason = type(device).unavailable()
    if reason is not None:
        raise DeviceError(f"cannot run here: {reason}", field="device", value=device.name)
    protocol: Protocol = instantiate(config.protocol, "protocol", plugins)
    task: Task = instantiate(config.task, "task", plugins)
    folder = Path(config.to)
    result = mixed_precision(
        _source(config, task),
        task,
        device,
        protocol,
        folder,
        keep=config.keep,
        how=Quantisation(config.per_channel, config.weight_bits),
        between=config.between,
        batch=config.batch,
        seed=config.seed,
        on_step=None if options.json else lambda text: print(text, file=sys.stderr),
    )
    shutil.copyfile(folder / result.points[result.chosen].file, folder / CHOSEN)
    write_json(folder / RESULT, MixedResult.SCHEMA, result.to_dict())
    if options.json:
        print(result.to_json())
    else:
        Console().print(_table(result))
        print(f"{folder / CHOSEN}: the chosen one; all are in {folder}, with {RESULT}")
    return 0


def _source(config: DictConfig, task: Task) -> Path:
    """The ONNX file in floats. A finished model's card has to be of the same task."""
    from ..errors import ConfigError
    from ..export import read_card

    if config["from"] is None:
        raise ConfigError("which model?", field="from", value=None, allowed="a model's folder, or an ONNX file")
    path = Path(config["from"])
    if not path.is_dir():
        return path
    card = read_card(path)
    if card.metadata.task and card.metadata.task.get("data_hash") != task.identity().get("data_hash"):
        raise ConfigError(
            "this model was trained on other data",
            field="task",
            value=task.name,
            allowed=str(card.metadata.task.get("data", "the task of its study")),
        )
    return path / (card.fp32_file or card.files[0])


def _table(result: MixedResult) -> Table:
    from rich import box
    from rich.table import Table

    title = f"{result.metric} and latency by the number of layers in fp32"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("", "fp32 layers", "latency (ms)", "of int8", f"validation {result.metric}", f"test {result.metric}"):
        table.add_column(name, justify="right")
    for index, point in enumerate(result.points):
        table.add_row(
            "chosen" if index == result.chosen else "",
            f"{len(point.floats)} of {len(result.layers)}",
            f"{point.latency_ms:.4g}",
            f"{point.latency_ms / result.int8.latency_ms:.2f}",
            f"{point.validation[result.metric]:.4f}",
            f"{point.test[result.metric]:.4f}",
            style=None if point.on_front or index == result.chosen else "dim",
        )
    return table
