"""Measure a network on a device: an architecture of a space, or anybody's ONNX file.

gnomon measure from=model.onnx
gnomon measure space=mobile_cnn architecture=mobilenet_v2 device=torch_cpu
gnomon measure architecture=runs/STUDY/models/ID/architecture.json protocol=thorough
gnomon measure from=model.onnx scenario=offline batch=16      images a second instead of a latency
gnomon measure pool space=mobile_cnn to=pool.npz      many networks in many settings (see its --help)
gnomon measure operators space=hybrid_slm      a look-up table of language models' operators (see its --help)
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ...cli import Options
    from ...devices.scenarios import Figure
    from ...records import Measurement

CONFIG = "measure"


def run(config: DictConfig, options: Options) -> int:
    """Measures and prints; exit code 1 if the measurement failed."""
    from ...devices import Device, Protocol
    from ...devices.scenarios import scenario_named
    from ...errors import ConfigError, DeviceError
    from ...records.store import MeasurementStore
    from ...search.instantiate import instantiate
    from ...search.measuring import measure_all
    from .._architectures import deployable_of
    from .._values import checked_flag

    for name, least in (("batch", 1), ("seed", 0)):
        if not isinstance(config[name], int) or config[name] < least:
            raise ConfigError("not a number for this", field=name, value=config[name], allowed=f"{least} or more")
    reuse = checked_flag(config.reuse, "reuse")
    if config["from"] is not None and config.architecture is not None:
        raise ConfigError("give a file or an architecture, not both", field="architecture", value=config.architecture)
    scenario = None if config.scenario is None else scenario_named(str(config.scenario))
    plugins = list(config.plugins)
    device: Device = instantiate(config.device, "device", plugins)
    reason = type(device).unavailable()
    if reason is not None:
        raise DeviceError(f"cannot run here: {reason}", field="device", value=device.name)
    protocol: Protocol = instantiate(config.protocol, "protocol", plugins)
    deployable = deployable_of(config)
    if scenario is not None:
        scenario.check(deployable)
    if reuse:
        store = MeasurementStore(Path(config.store).absolute())
        result = measure_all(device, protocol, store, [deployable], seed=config.seed)[0]
    else:
        result = next(iter(device.measure([deployable], protocol, seed=config.seed)))
    failed = result.verdict == "failed"
    figure = None if scenario is None or failed else scenario.figure(result, deployable)
    if not options.json:
        print(_text(result, figure))
    elif scenario is None:
        print(result.to_json())
    else:
        answer = None if figure is None else asdict(figure)
        print(json.dumps({"scenario": scenario.name, "figure": answer, "measurement": result.to_dict()}))
    return int(failed)


def _text(m: Measurement, figure: Figure | None) -> str:
    if m.verdict == "failed":
        return f"{m.architecture}: failed: {m.error}"
    low, high = m.interval or (m.latency_ms, m.latency_ms)
    s = m.setting
    known = {"p10": m.p10, "median": m.median, "p90": m.p90}  # a phone's benchmark program may give fewer
    quantiles = ", ".join(f"{name} {value:.4g}" for name, value in known.items() if value is not None)
    also = [
        *(() if m.contention is None else (f"without a core for {m.contention:.1%} of the time",)),
        *(() if m.steady in (True, None) else ("still warming up when timing began",)),
        *(() if m.energy_mj is None else (f"{m.energy_mj:.4g} mJ above idle a run",)),
    ]
    threads = f"{s.threads} thread{'s' * (s.threads != 1)}"
    return "\n".join(
        (
            m.architecture,
            *(() if figure is None else (f"  {_shown(figure)}",)),
            f"  {m.statistic} latency {m.latency_ms:.4g} ms, 90 % interval {low:.4g} to {high:.4g} ms, {m.verdict}",
            f"  {quantiles} ms",
            f"  {', '.join((f'{m.n_runs} runs in {len(m.process_values)} processes', *also))}",
            f"  {s.device} ({s.runtime}, {threads}, {s.precision}, batch {s.workload.batch}) on {s.hardware}",
        )
    )


def _shown(figure: Figure) -> str:
    text = f"{figure.what}: {figure.value:.4g} {figure.unit}"
    if figure.interval is None:
        return text
    low, high = figure.interval
    return f"{text}, 90 % interval {low:.4g} to {high:.4g} {figure.unit}"
