"""What measuring one new architecture costs on ONNX Runtime: ``python -m benchmarks.measure_throughput``.

Architectures never seen before, ten together as a search does it, from torch modules to verdicts. Wall-clock
time of the whole call, under the default protocol and under ``protocol=pool``; on a noisy machine the default
goes on for up to eight processes. Further:

- stages of one architecture, medians: ``build_s`` (torch module), ``export_s`` (ONNX file), ``answers_s`` (what
  torch answers, for the check), and in a child process, for each: ``load_s`` (session and check), ``warm_up_s``,
  ``timed_s``; ``processes`` of them (mean); ``child_s`` to start one, shared by ten architectures;
- ``exporter_s``: the same file through torch's exporter, and ``export_speedup``;
- ``first_s``: what the first architecture of a Python process costs beyond the others, for imports;
- ``beside``: latencies while this process prepares other architectures on the other core over latencies while
  it does not, rounds of both in turn: of one process, and of the smallest of all. Preparing waits for measuring.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks._common import ROOT, main
from gnomon.devices import Protocol
from gnomon.devices.isolation import Child
from gnomon.devices.jobs import ModelJob, RoundJob
from gnomon.devices.onnxruntime import OnnxRuntimeDevice, OnnxRuntimeRunner
from gnomon.devices.runner import Session
from gnomon.devices.worker import time_runs, warm_up
from gnomon.export import export_deployable
from gnomon.export.onnx_export import fresh_module
from gnomon.records import Measurement
from gnomon.search_spaces import Deployable, SearchSpace
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201

SEED = 0
TOGETHER = 10
SPACES = {
    "mobile_cnn": lambda: MobileCNN((3, 96, 96), 10, width=0.5, blocks=5),
    "nasbench201": lambda: NASBench201((3, 32, 32), 10),
}


def run(quick: bool) -> dict[str, float]:
    torch.set_num_threads(1)
    batches, samples = (1, 2) if quick else (3, 8)
    device = OnnxRuntimeDevice()
    found: dict[str, float] = {}
    for name, make in SPACES.items():
        fresh = _never_seen(make())
        with tempfile.TemporaryDirectory() as folder:
            found[f"{name}.first_s"] = _timed(lambda: device.prepare(next(fresh), Path(folder)))  # noqa: B023
        stages = _stages(device, [next(fresh) for _ in range(samples)], slow=1 if quick else 2)
        wholes = {protocol: _wholes(device, fresh, _protocol(protocol), batches) for protocol in ("default", "pool")}
        for protocol, metrics in wholes.items():
            prefix = name if protocol == "default" else f"{name}_{protocol}"
            found |= {f"{prefix}.{key}": value for key, value in metrics.items()}
        found |= {f"{name}.{key}": value for key, value in stages.items()}
    found |= {f"beside.{key}": value for key, value in _beside(device, 2 if quick else 8).items()}
    worst = {
        "seconds_per_architecture": max(found[f"{name}.seconds_per_architecture"] for name in SPACES),
        "architectures_per_minute": min(found[f"{name}.architectures_per_minute"] for name in SPACES),
    }
    return worst | found


def _protocol(name: str) -> Protocol:
    text = (ROOT / "conf" / "protocol" / f"{name}.yaml").read_text(encoding="utf-8")
    return Protocol(**{key: value for key, value in yaml.safe_load(text).items() if key != "_target_"})


def _never_seen(space: SearchSpace) -> Iterator[Deployable]:
    rows = np.unique(space.sample(500, np.random.default_rng(SEED)), axis=0)
    for row in np.random.default_rng(SEED).permutation(rows):
        yield space.deployable(space.config(row))


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _wholes(
    device: OnnxRuntimeDevice, fresh: Iterator[Deployable], protocol: Protocol, batches: int
) -> dict[str, float]:
    """Wall-clock seconds from modules to verdicts, an architecture's share of its batch."""
    seconds: list[float] = []
    measured: list[Measurement] = []
    for number in range(batches):
        batch = [next(fresh) for _ in range(TOGETHER)]
        start = time.perf_counter()
        measured += device.measure(batch, protocol, seed=number)
        seconds.append((time.perf_counter() - start) / TOGETHER)
    failed = [m for m in measured if m.verdict == "failed"]
    if failed:
        raise SystemExit(f"a measurement failed: {failed[0].error}")
    return {
        "seconds_per_architecture": float(np.median(seconds)),
        "architectures_per_minute": 60.0 / float(np.mean(seconds)),
        "processes": float(np.mean([len(m.process_values) for m in measured])),
        "good": float(np.mean([m.verdict == "good" for m in measured])),
    }


def _stages(device: OnnxRuntimeDevice, deployables: Sequence[Deployable], slow: int) -> dict[str, float]:
    """Median seconds of each stage; ``slow`` architectures go through torch's exporter as well."""
    rows = []
    protocol, runner = _protocol("default"), OnnxRuntimeRunner(1)
    with tempfile.TemporaryDirectory() as folder:
        for number, deployable in enumerate(deployables):
            row, job = _prepared(device, deployable, Path(folder) / str(number), through_torch=number < slow)
            rows.append(row | _in_a_process(runner, job, protocol))
        job = RoundJob(device.runner, 1, device.options(), (), protocol, device.reference(Path(folder)))
        child = [_timed(lambda: _empty_round(job)) for _ in range(5)]
    found = {key: float(np.median([row[key] for row in rows if key in row])) for key in rows[0]}
    return found | {
        "child_s": float(np.median(child)),
        "export_speedup": found["exporter_s"] / found["export_s"],
    }


def _prepared(
    device: OnnxRuntimeDevice, deployable: Deployable, folder: Path, *, through_torch: bool
) -> tuple[dict[str, float], ModelJob]:
    graph = deployable.graphs["main"]
    row = {"build_s": _timed(lambda: fresh_module(graph))}
    modules = {"main": fresh_module(graph)}
    for key, direct in [("export_s", True), ("exporter_s", False)][: 1 + through_torch]:
        target = folder / key
        target.mkdir(parents=True)
        row[key] = _timed(
            lambda: export_deployable(deployable, target, modules=modules, direct=direct)  # noqa: B023
        )
    start = time.perf_counter()
    job = device.prepare(deployable, folder)
    row["answers_s"] = max(time.perf_counter() - start - row["build_s"] - row["export_s"], 0.0)
    return row, job


def _in_a_process(runner: OnnxRuntimeRunner, job: ModelJob, protocol: Protocol) -> dict[str, float]:
    """As the child does it, in this process."""
    session: Session | None = None

    def load() -> None:
        nonlocal session
        session = Session(runner, job)
        session.check()

    row = {"load_s": _timed(load)}
    assert session is not None
    ready: Session = session
    row["warm_up_s"] = _timed(lambda: warm_up(ready, protocol))
    row["timed_s"] = _timed(lambda: time_runs(ready, protocol, protocol.time_cap_s, protocol.target_error))
    return row


def _empty_round(job: RoundJob) -> None:
    """A child that starts, times the reference once and ends."""
    with Child(job) as child:
        while child.event(time.monotonic() + 60.0) is not None:
            pass


# ---- Preparing while another is measured -------------------------------------------------------


def _beside(device: OnnxRuntimeDevice, rounds: int) -> dict[str, float]:
    """Latency with preparation on the other core over latency without it, median over architectures."""
    fresh = _never_seen(SPACES["mobile_cnn"]())
    measured = [next(fresh) for _ in range(TOGETHER)]
    once = Protocol(processes=1, min_processes=1)
    values: dict[bool, list[list[float]]] = {False: [], True: []}
    for number in range(2 * rounds):
        busy = bool(number % 2)
        with _preparing(device, busy):
            values[busy].append([m.median or np.nan for m in device.measure(measured, once, seed=number)])
    quiet, beside = np.array(values[False]), np.array(values[True])
    return {
        "one_process_ratio": float(np.median(np.median(beside, axis=0) / np.median(quiet, axis=0))),
        "smallest_process_ratio": float(np.median(beside.min(axis=0) / quiet.min(axis=0))),
    }


@contextmanager
def _preparing(device: OnnxRuntimeDevice, busy: bool) -> Iterator[None]:
    """A thread that prepares architectures until the end; nothing if not ``busy``."""
    stop = threading.Event()

    def work() -> None:
        fresh = _never_seen(SPACES["mobile_cnn"]())
        while not stop.is_set():
            with tempfile.TemporaryDirectory() as folder:
                device.prepare(next(fresh), Path(folder))

    thread = threading.Thread(target=work, daemon=True)
    if busy:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if busy:
            thread.join()


if __name__ == "__main__":
    main("measure_throughput", run, seeds=(SEED,))
