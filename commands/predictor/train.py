"""Learn from the latencies of many devices; write a bundle that later commands start from.

gnomon predictor train split=help_nasbench201                        the split's source devices
gnomon predictor train from=pools/help_fbnet.npz predictor=help      an imported pool; minutes, resumes
gnomon predictor train data=help_ofa settings=[v100_1,v100_32]       upstream data, some settings
gnomon predictor train store=runs/measurements.sqlite space=mobile_cnn       what you measured yourself

A search takes the bundle with predictor.bundle=FOLDER.
"""

from __future__ import annotations

import inspect
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ...cli import Options
    from ...predictors import LatencyPredictor, Learnt
    from ...records import DevicePool

CONFIG = "predictor_train"
PLANS = True
CHECKPOINT = "meta_training.safetensors"


def run(config: DictConfig, options: Options) -> int:
    """Trains, writes the bundle and prints what was learnt."""
    from ...errors import DataError, PredictorError
    from ...predictors import save_predictor
    from ...search.instantiate import instantiate
    from .._values import checked_integer
    from ._making import option_name, plain
    from ._pools import read_pool

    seed = checked_integer(config.seed, "seed", 0)
    pool = read_pool(config)
    if pool.space is None:
        raise DataError(
            "these data name no architectures, so nothing can be adapted from them later",
            field="pool",
            value=pool.source,
            hint="`gnomon predictor evaluate split=NAME` scores predictors on such data.",
        )
    node, option = plain(config.predictor), option_name(config, options)
    if node.get("bundle") is not None:
        raise PredictorError("training starts anew", field="predictor.bundle", value=node["bundle"], allowed="null")
    to = Path(config.to or f"bundles/{option}-{pool.space.name}")
    checkpoint = to / CHECKPOINT if "checkpoint" in node and node["checkpoint"] is None else None
    made_of = {**node, "checkpoint": str(checkpoint)} if checkpoint is not None else node
    predictor: LatencyPredictor = instantiate(made_of, "predictor", list(config.plugins), space=pool.space)
    if not predictor.learns:
        raise PredictorError(
            "learns from the target's measurements only, so there is nothing to train",
            field="predictor",
            value=option,
            hint="`gnomon predictor adapt` takes it as it is.",
        )
    if options.plan:
        _print_plan(to, option, pool, options)
        return 0
    if checkpoint is not None:
        to.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    _fit(predictor, pool, seed)
    learnt = _learnt(predictor, pool, seed, time.perf_counter() - start, {"option": option, "config": node})
    save_predictor(to, predictor, learnt)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    _print(to, option, predictor, pool, learnt, options)
    return 0


def _fit(predictor: LatencyPredictor, pool: DevicePool, seed: int) -> None:
    """Fits, with a bar where the predictor reports its progress."""
    if "progress" in inspect.signature(predictor.fit).parameters:
        from ...predictors.help import progress_bar

        with progress_bar() as progress:
            fit: Any = predictor.fit  # only some take a callback
            fit(pool, seed=seed, progress=progress)
        return
    from rich.console import Console

    with Console(stderr=True).status(f"learning from {len(pool.settings)} settings"):
        predictor.fit(pool, seed=seed)


def _learnt(
    predictor: LatencyPredictor, pool: DevicePool, seed: int, seconds: float, details: dict[str, Any]
) -> Learnt:
    from ...predictors import Learnt
    from ...predictors.predictor_bundle import class_path
    from ._making import stamp

    return Learnt(
        class_path(predictor),
        predictor.space.spec(),
        pool.source,
        pool.settings,
        len(pool),
        seed,
        seconds,
        {**details, **stamp(), "recorded": _recorded(pool), "notes": dict(pool.notes)},
    )


def _recorded(pool: DevicePool) -> dict[str, int]:
    return {name: int(np.isfinite(pool.column(name)).sum()) for name in pool.settings}


def _print_plan(to: Path, option: str, pool: DevicePool, options: Options) -> None:
    if options.json:
        plan = {"folder": str(to), "predictor": option, "source": pool.source, "recorded": _recorded(pool)}
        print(json.dumps(plan))
        return
    print(f"{option} would learn from {_size(pool)} ({pool.source}) and be written to {to}")
    for name, count in _recorded(pool).items():
        print(f"  {name}: {count} latencies")


def _print(
    to: Path, option: str, predictor: LatencyPredictor, pool: DevicePool, learnt: Learnt, options: Options
) -> None:
    if options.json:
        print(json.dumps({"folder": str(to), **learnt.to_dict()}))
        return
    from rich.console import Console
    from rich.table import Table

    state = predictor.state()
    noise = dict(zip(state["names"].tolist(), state["noise"].tolist(), strict=True)) if "noise" in state else {}
    print(f"{option}: learnt from {_size(pool)} in {learnt.seconds:.1f} s; latencies in ms")
    table = Table()
    table.add_column("setting", overflow="fold")
    for column in ("latencies", "least", "median", "greatest", *(["unexplained"] if noise else [])):
        table.add_column(column, justify="right")
    for name in pool.settings:
        known = pool.column(name)[np.isfinite(pool.column(name))]
        figures = [f"{value:.4g}" for value in (known.min(), np.median(known), known.max())]
        table.add_row(name, str(len(known)), *figures, *([f"{100 * noise[name]:.1f} %"] if name in noise else []))
    console = Console()
    console.print(table)
    if noise:
        print("unexplained: typical deviation of a latency from what the predictor can say of this setting at best")
    print(f"bundle: {to} (gnomon predictor adapt bundle={to}; gnomon search predictor={option} predictor.bundle={to})")


def _size(pool: DevicePool) -> str:
    space = "" if pool.space is None else f" of {pool.space.name}"
    return f"{len(pool.settings)} setting{'s' * (len(pool.settings) != 1)}, {len(pool)} architectures{space}"
