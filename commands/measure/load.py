"""Measure a network under levels of generated load, and say what it would take under others.

gnomon measure load from=model.onnx
gnomon measure load architecture=mobilenet_v2 device.statistic=p90 'at={cpu:4,memory:0}'
gnomon measure load from=model.onnx 'levels=[{cpu:1},{cpu:2},{memory:1}]' to=load.json

A search asks for latencies under load with device=loaded device.cpu=2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, DeviceError, MeasurementError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ...cli import Options
    from ...devices import Device, Protocol
    from ...devices.load import Load
    from ...devices.load_model import LoadModel
    from ...records import Measurement
    from ...search_spaces import Deployable

CONFIG = "measure_load"


@dataclass(frozen=True)
class _Level:
    """One measured level, and what the model of the others says of it (None if they are too few)."""

    load: Load
    measurement: Measurement
    predicted: tuple[float, float] | None = None


def run(config: DictConfig, options: Options) -> int:
    """Measures every level, fits the model, prints both."""
    from ...devices.load import Load
    from ...devices.load_model import LoadModel
    from ...search.instantiate import instantiate
    from .._architectures import deployable_of

    loads = [_load(node, f"levels[{index}]") for index, node in enumerate(config.levels)]
    loads = [Load(), *(load for load in dict.fromkeys(loads) if load.kinds)]
    at = None if config.at is None else _load(config.at, "at")
    # Before anything is measured: are these levels enough?
    LoadModel.fit(loads[1:], [1.0] * (len(loads) - 1), config.degree)
    plugins = list(config.plugins)
    device: Device = instantiate(config.device, "device", plugins)
    reason = type(device).unavailable()
    if reason is not None:
        raise DeviceError(f"cannot run here: {reason}", field="device", value=device.name)
    protocol: Protocol = instantiate(config.protocol, "protocol", plugins)
    measured = [_measured(device, load, deployable_of(config), protocol, config.seed) for load in loads]
    unloaded_ms = measured[0].latency_ms
    slowdowns = [m.latency_ms / unloaded_ms for m in measured[1:]]
    model = LoadModel.fit(loads[1:], slowdowns, config.degree)
    levels = [_Level(loads[0], measured[0])]
    for index, load in enumerate(loads[1:]):
        predicted = _without(index, loads[1:], slowdowns, config.degree, unloaded_ms)
        levels.append(_Level(load, measured[index + 1], predicted))
    if config.to is not None:
        from ...schema import write_text

        write_text(Path(config.to), model.to_json() + "\n")
    answer = None if at is None else (at, model.latency_ms(unloaded_ms, at))
    if options.json:
        print(json.dumps(_plain(levels, model, answer)))
    else:
        _print(levels, model, answer, config.to)
    return 0


def _load(node: Any, field: str) -> Load:
    from ...devices.load import Load

    if not isinstance(node, Mapping) or set(node) - {"cpu", "memory"}:
        raise ConfigError("not a level of load", field=field, value=node, allowed="numbers of cpu and memory")
    return Load(**node)


def _measured(device: Any, load: Load, deployable: Deployable, protocol: Protocol, seed: int) -> Measurement:
    """Without load too the model is scheduled as it is under load."""
    from ...devices.loaded import LoadedDevice

    result = next(iter(LoadedDevice(device, load.cpu, load.memory).measure([deployable], protocol, seed=seed)))
    if result.verdict == "failed":
        raise MeasurementError(f"{deployable.name} failed under load ({load}): {result.error}")
    return result


def _without(
    index: int, loads: list[Load], slowdowns: list[float], degree: int, unloaded_ms: float
) -> tuple[float, float] | None:
    """What the other levels say of one: how much the model is to be believed."""
    from ...devices.load_model import LoadModel

    others = [i for i in range(len(loads)) if i != index]
    try:
        model = LoadModel.fit([loads[i] for i in others], [slowdowns[i] for i in others], degree)
    except ConfigError:  # too few without it
        return None
    return model.latency_ms(unloaded_ms, loads[index])


def _plain(
    levels: list[_Level], model: LoadModel, answer: tuple[Load, tuple[float, float]] | None
) -> dict[str, object]:
    rows = [
        {
            "load": level.load.to_dict(),
            "measurement": level.measurement.to_dict(),
            "predicted_ms": None if level.predicted is None else level.predicted[0],
            "predicted_std_ms": None if level.predicted is None else level.predicted[1],
        }
        for level in levels
    ]
    at = None if answer is None else {"load": answer[0].to_dict(), "ms": answer[1][0], "std_ms": answer[1][1]}
    return {"levels": rows, "model": model.to_dict(), "at": at}


def _print(
    levels: list[_Level],
    model: LoadModel,
    answer: tuple[Load, tuple[float, float]] | None,
    to: str | None,
) -> None:
    from rich.console import Console
    from rich.table import Table

    statistic, unloaded_ms = levels[0].measurement.statistic, levels[0].measurement.latency_ms
    table = Table("load", f"{statistic} ms", "times", "verdict", "without a core", "from the other levels")
    for level in levels:
        m = level.measurement
        predicted = "" if level.predicted is None else "{:.4g} ± {:.2g} ms".format(*level.predicted)
        waited = "" if m.contention is None else f"{m.contention:.1%}"
        cells = (str(level.load), f"{m.latency_ms:.4g}", f"{m.latency_ms / unloaded_ms:.3f}", m.verdict, waited)
        table.add_row(*cells, predicted)
    Console().print(table)
    names = ("cpu", "memory", "cpu²", "cpu·memory", "memory²")
    terms = " ".join(f"{value:+.3g} {name}" for value, name in zip(model.coefficients, names, strict=False))
    print(f"latency under load = {unloaded_ms:.4g} ms x (1 {terms}), noise {model.noise:.1%}")
    if answer is not None:
        print(f"under {answer[0]}: {answer[1][0]:.4g} ± {answer[1][1]:.2g} ms")
    if to is not None:
        print(f"model: {to}")
