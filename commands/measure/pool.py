"""Measure many networks of a space in many settings: a pool that predictors learn from.

gnomon measure pool space=mobile_cnn n=150 to=pool.npz
gnomon measure pool pool=onnxruntime n=40 only=[onnxruntime,onnxruntime_int8]
gnomon measure pool space=nasbench201 n=80 --plan          settings that can run here, and what they cost

Settings that cannot run here are named and left out. The same command, run again, goes on where it was
stopped. `gnomon predictor train from=pool.npz` learns from the result.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ...cli import Options
    from ...devices import Device, Protocol
    from ...search.pool_collection import PoolSetting
    from ...search_spaces import SearchSpace

CONFIG = "measure_pool"
PLANS = True
KEYS = ("device", "change", "batch", "architectures")


def run(config: DictConfig, options: Options) -> int:
    """Measures what is missing and writes the pool after every round."""
    from ...records.pools import save_pool
    from ...records.store import MeasurementStore
    from ...search.instantiate import instantiate
    from ...search.pool_collection import collect, collected_pool, distinct_architectures
    from ...search.setup import make_space
    from .._values import checked_integer

    n, seed = checked_integer(config.n, "n", 1), checked_integer(config.seed, "seed", 0)
    space = make_space(config.space, None, list(config.plugins))
    protocol: Protocol = instantiate(config.protocol, "protocol", list(config.plugins))
    settings, left_out = _settings(config, options)
    genotypes = distinct_architectures(space, n, seed)
    if options.plan:
        _print_plan(space, settings, left_out, n, protocol, options)
        return 0
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    store, to = MeasurementStore(Path(config.store).absolute()), Path(config.to)
    failed: dict[str, int] = {setting.name: 0 for setting in settings}
    with _bar(settings, n) as advance:
        for step in collect(space, settings, genotypes, protocol, store, seed=seed):
            failed[step.setting] += step.failed
            advance(step)
            save_pool(collected_pool(space, settings, store), to)
    pool = collected_pool(space, settings, store)
    if options.json:
        counts = {name: int((pool.column(name) > 0).sum()) for name in pool.settings}
        print(json.dumps({"pool": str(to), "architectures": len(pool), "settings": counts, "failed": failed}))
    else:
        _print(pool, failed, to)
    return 0


# ---- Settings ---------------------------------------------------------------------------------


def _settings(config: DictConfig, options: Options) -> tuple[list[PoolSetting], dict[str, str]]:
    """Settings that can run here, and why the others cannot.

    Raises:
        ConfigError: For an unknown key, device or setting.
        DeviceError: If none can run here.
    """
    from ...search.pool_collection import PoolSetting

    nodes = {str(name): dict(node) for name, node in config.pool.items()}
    chosen = list(nodes) if config.only is None else [str(name) for name in config.only]
    unknown = sorted(set(chosen) - set(nodes))
    if unknown:
        raise ConfigError("no such setting", field="only", value=unknown, allowed=list(nodes))
    settings, left_out = [], {}
    for name in chosen:
        node = nodes[name]
        odd = sorted(set(node) - set(KEYS))
        if odd or "device" not in node:
            raise ConfigError("not a setting", field=f"pool.{name}", value=node, allowed=f"device and {KEYS[1:]}")
        device = _device(name, node, config, options)
        reason = type(device).unavailable()
        if reason is not None:
            left_out[name] = reason
        else:
            settings.append(PoolSetting(name, device, int(node.get("batch", 1)), node.get("architectures")))
    if not settings:
        raise DeviceError("no setting can run here", field="pool", value=left_out)
    return settings, left_out


def _device(name: str, node: dict[str, Any], config: DictConfig, options: Options) -> Device:
    from omegaconf import OmegaConf

    from ...conf.compose import compose
    from ...search.instantiate import instantiate

    device = compose("measure", [f"device={node['device']}"], options.config_dirs).device
    change = dict(node.get("change") or {})
    odd = sorted(set(change) - set(device))
    if odd:
        raise ConfigError("this device has no such key", field=f"pool.{name}.change", value=odd, allowed=list(device))
    changed = cast("DictConfig", OmegaConf.merge(device, change))
    made: Device = instantiate(changed, f"pool.{name}", list(config.plugins))
    return made


# ---- Printing ---------------------------------------------------------------------------------


def _total(settings: Sequence[PoolSetting], n: int) -> int:
    return sum(min(n, setting.architectures or n) for setting in settings)


def _bar(settings: Sequence[PoolSetting], n: int) -> Any:
    """A bar over all measurements, told :class:`~gnomon.search.pool_collection.Collected` steps."""
    from collections.abc import Callable, Iterator
    from contextlib import contextmanager

    from ...search.pool_collection import Collected
    from ..predictor._progress import counted

    @contextmanager
    def bar() -> Iterator[Callable[[Collected], None]]:
        done: dict[str, int] = {}
        with counted("measurements") as report:

            def advance(step: Collected) -> None:
                done[step.setting] = step.done
                report(sum(done.values()), _total(settings, n))

            yield advance

    return bar()


def _print_plan(
    space: SearchSpace, settings: Sequence[PoolSetting], left_out: dict[str, str], n: int, protocol: Protocol,
    options: Options,
) -> None:  # fmt: skip
    measurements = _total(settings, n)
    hours = measurements * protocol.time_cap_s * protocol.min_processes * 2 / 3600
    if options.json:
        names = [setting.name for setting in settings]
        print(json.dumps({"settings": names, "left_out": left_out, "measurements": measurements, "timing_h": hours}))
        return
    print(f"{space.name}: {measurements} measurements in {len(settings)} settings, at least {hours:.1f} h of timing;")
    print("preparing a model takes from a tenth of a second (ONNX Runtime) to many seconds (LiteRT) besides")
    for setting in settings:
        print(f"  {setting.name}: {min(n, setting.architectures or n)} architectures")
    for name, reason in left_out.items():
        print(f"  left out: {name}: {reason}")


def _print(pool: Any, failed: dict[str, int], to: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("setting", "measured", "good", "failed", "median ms"):
        table.add_column(column, justify="left" if column == "setting" else "right")
    for name in pool.settings:
        values = pool.column(name)[pool.column(name) > 0]
        good = pool.provenance[name]["verdicts"].get("good", 0)
        middle = sorted(values)[len(values) // 2]
        table.add_row(name, str(len(values)), str(good), str(failed.get(name, 0)), f"{middle:.4g}")
    Console().print(table)
    print(f"{len(pool)} architectures, {len(pool.settings)} settings: {to}")
    print(f"learn from it: gnomon predictor train from={to}")
