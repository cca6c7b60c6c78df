"""Does measuring again give the same order? ``python -m benchmarks.measuring [--quick] [--json FILE]``

Spearman of the statistic between independent passes (calls of the device with another seed), for each device:

- ``found``: 30 random architectures, the machine as it is found (its load is ``found.load_1min``);
- ``loaded``: the same beside one generated busy process;
- ``found_iso``, ``loaded_iso``: 30 architectures whose MACs are within 10 % of each other;
- ``naive_loaded_iso``: the mean of 100 runs in this process, after one run, pass by pass in turn with ours under
  the same load, and nobody else measuring meanwhile. ``spearman`` is the mean over all pairs of 5 passes, also
  for ``loaded_iso``; ``gain`` is ours less naive, with a 90 % interval (bootstrap over architectures).

``reference_cv`` is the coefficient of variation over a device's passes, found and loaded, of the reference
model, measured as one of the models; the root mean square over devices. ``protocol=pool`` throughout.

Space ``mobile_cnn``, 3x96x96, 10 classes, width 0.5, 5 blocks. Converted models are kept in the folder
``GNOMON_CONVERTED``, if that is set. Devices that cannot run here are left out and named.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import yaml
from scipy.stats import spearmanr

from benchmarks._common import ROOT, main
from gnomon.devices import Protocol
from gnomon.devices.isolation import machine_to_oneself
from gnomon.devices.jobs import ModelJob
from gnomon.devices.litert import LiteRTDevice
from gnomon.devices.load import Load, generated
from gnomon.devices.local import LocalDevice
from gnomon.devices.ncnn import NcnnDevice
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.devices.reference import REFERENCE_NAME, reference_deployable
from gnomon.devices.runner import Session, import_class
from gnomon.search.pool_collection import distinct_architectures
from gnomon.search_spaces import Deployable
from gnomon.search_spaces.mobile_cnn import MobileCNN

SEED = 0
PASSES = 5
"""Of ``loaded_iso``, ours and naive in turn; the others have two."""
ARCHITECTURES = 30
ISO_RANGE = 1.10
"""Largest over smallest MACs of the iso set."""
NAIVE_RUNS = 100
BUSY = Load(cpu=1)
DEVICES: Mapping[str, Callable[[], LocalDevice]] = {
    "onnxruntime": OnnxRuntimeDevice,
    "onnxruntime_int8": partial(OnnxRuntimeDevice, precision="int8"),
    "ncnn": NcnnDevice,
    "litert": LiteRTDevice,
}

Latencies = npt.NDArray[np.float64]
"""``(passes, architectures)`` in ms."""


@dataclass
class Series:
    """What the passes of one device gave."""

    found: list[dict[str, float]] = field(default_factory=list)
    loaded: list[dict[str, float]] = field(default_factory=list)
    naive: list[dict[str, float]] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def run(quick: bool) -> dict[str, float]:
    """Passes over random and iso-MACs architectures, quiet and loaded, ours and naive."""
    torch.set_num_threads(1)
    n, passes = (6, 2) if quick else (ARCHITECTURES, PASSES)
    random, iso = _architectures(n)
    metrics: dict[str, float] = {}
    every: dict[str, Series] = {}
    for name, make in DEVICES.items():
        reason = make().unavailable()
        if reason is not None:
            print(f"left out: {name}: {reason}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(os.environ.get("GNOMON_CONVERTED", folder)) / name
            jobs = _converted(make(), [*random, *iso], kept)
            every[name] = _passes(make(), jobs, random, iso, passes)
        metrics |= _figures(name, every[name], random, iso)
    references = [metrics[f"{name}.reference_cv"] for name in every]
    summary = {
        "reference_cv": float(np.sqrt(np.mean(np.square(references)))),
        "found.load_1min": float(np.mean([load for series in every.values() for load in series.loads])),
    }
    return summary | metrics


# ---- What is measured --------------------------------------------------------------------------


def _architectures(n: int) -> tuple[list[Deployable], list[Deployable]]:
    """``n`` random architectures and ``n`` others of nearly equal MACs, all different in what runs."""
    space = MobileCNN((3, 96, 96), 10, width=0.5, blocks=5)
    rows = distinct_architectures(space, 4000, SEED)[len(space.named) :]
    random, others = rows[:n], rows[n:]
    macs = space.costs(others).macs
    near = np.flatnonzero(np.abs(macs / np.median(macs) - 1.0) <= (ISO_RANGE - 1.0) / (ISO_RANGE + 1.0))[:n]
    if len(near) < n:
        raise SystemExit(f"only {len(near)} architectures of nearly equal MACs")
    make = [[space.deployable(space.config(row)) for row in part] for part in (random, others[near])]
    return make[0], make[1]


def _converted(device: LocalDevice, deployables: Sequence[Deployable], folder: Path) -> dict[str, ModelJob]:
    """Jobs by name, the reference's too; converted once, whatever the number of passes."""
    jobs: dict[str, ModelJob] = {}
    folder.mkdir(parents=True, exist_ok=True)
    reference = reference_deployable(folder / "reference.onnx")
    for deployable in [*deployables, reference]:
        part = folder / deployable.name
        known = part / "job.json"
        if not known.exists():
            part.mkdir(exist_ok=True)
            known.write_text(device.prepare(deployable, part).to_json(), encoding="utf-8")
        jobs[deployable.name] = ModelJob.from_json(known.read_text(encoding="utf-8"))
    return jobs


def _protocol(name: str) -> Protocol:
    text = (ROOT / "conf" / "protocol" / f"{name}.yaml").read_text(encoding="utf-8")
    return Protocol(**{key: value for key, value in yaml.safe_load(text).items() if key != "_target_"})


# ---- Passes ------------------------------------------------------------------------------------


def _passes(
    device: LocalDevice,
    jobs: Mapping[str, ModelJob],
    random: Sequence[Deployable],
    iso: Sequence[Deployable],
    passes: int,
) -> Series:
    series = Series()
    with tempfile.TemporaryDirectory() as folder:
        reference = reference_deployable(Path(folder) / "reference.onnx")
        measure = partial(_measured, device, jobs)
        for number in range(2):
            series.loads.append(os.getloadavg()[0])
            start = time.monotonic()
            series.found.append(measure([*random, *iso, reference], number))
            series.seconds.append(time.monotonic() - start)
        for number in range(passes):
            models = [*random, *iso, reference] if number < 2 else [*iso, reference]
            with generated(BUSY):
                series.loaded.append(measure(models, 100 + number))
                series.naive.append(_naive(device, jobs, iso, number))
    return series


def _measured(
    device: LocalDevice, jobs: Mapping[str, ModelJob], deployables: Sequence[Deployable], seed: int
) -> dict[str, float]:
    """Latencies in ms by name, of one pass of ours."""
    device.prepare = lambda deployable, folder: jobs[deployable.name]  # type: ignore[method-assign]
    results = list(device.measure(deployables, _protocol("pool"), seed=seed))
    failed = [m for m in results if m.verdict == "failed"]
    if failed:
        raise SystemExit(f"{device.name}: a measurement failed: {failed[0].error}")
    good = float(np.mean([m.verdict == "good" for m in results]))
    contention = np.mean([m.contention or 0.0 for m in results])
    print(
        f"{device.name} {device.precision} seed {seed}: {good:.0%} good, contention {contention:.1%}", file=sys.stderr
    )
    return {m.architecture: m.latency_ms for m in results}


def _naive(
    device: LocalDevice, jobs: Mapping[str, ModelJob], deployables: Sequence[Deployable], seed: int
) -> dict[str, float]:
    """Means of 100 runs in ms by name, in this process, in an order of its own."""
    runner = import_class(device.runner)(device.threads, **device.options())
    latencies = {}
    with machine_to_oneself():
        for index in np.random.default_rng(seed).permutation(len(deployables)):
            session = Session(runner, jobs[deployables[index].name])
            session.run()
            latencies[deployables[index].name] = float(np.mean([session.run()[0] for _ in range(NAIVE_RUNS)]))
    return latencies


# ---- Figures -----------------------------------------------------------------------------------


def _figures(name: str, series: Series, random: Sequence[Deployable], iso: Sequence[Deployable]) -> dict[str, float]:
    ours, naive = _table(series.loaded, iso), _table(series.naive, iso)
    low, high = _interval(ours, naive)
    references = np.array([each[REFERENCE_NAME] for each in (*series.found, *series.loaded)])
    return {
        f"found.{name}.spearman": _agreement(_table(series.found, random)),
        f"loaded.{name}.spearman": _agreement(_table(series.loaded[:2], random)),
        f"found_iso.{name}.spearman": _agreement(_table(series.found, iso)),
        f"loaded_iso.{name}.spearman": _agreement(ours),
        f"naive_loaded_iso.{name}.spearman": _agreement(naive),
        f"naive_loaded_iso.{name}.gain": _agreement(ours) - _agreement(naive),
        f"naive_loaded_iso.{name}.gain_low": low,
        f"naive_loaded_iso.{name}.gain_high": high,
        f"{name}.reference_cv": float(references.std(ddof=1) / references.mean()),
        f"{name}.seconds_per_architecture": float(np.mean(series.seconds)) / (len(random) + len(iso) + 1),
        f"{name}.iso_latency_spread": float(np.ptp(ours.min(axis=0)) / ours.min()),
    }


def _table(passes: Sequence[Mapping[str, float]], models: Sequence[Deployable]) -> Latencies:
    return np.array([[each[model.name] for model in models] for each in passes])


def _agreement(latencies: Latencies) -> float:
    """Mean Spearman over all pairs of passes."""
    return float(np.mean([spearmanr(a, b).statistic for a, b in combinations(latencies, 2)]))


def _interval(ours: Latencies, naive: Latencies, resamples: int = 1000) -> tuple[float, float]:
    """90 % interval of the difference of agreements, architectures drawn with replacement."""
    rng, n = np.random.default_rng(SEED), ours.shape[1]
    gains = []
    for _ in range(resamples):
        drawn = rng.integers(0, n, n)
        if len(set(drawn)) > 2:
            gains.append(_agreement(ours[:, drawn]) - _agreement(naive[:, drawn]))
    low, high = np.quantile(gains, (0.05, 0.95))
    return float(low), float(high)


if __name__ == "__main__":
    main("measuring", run, seeds=[SEED])
