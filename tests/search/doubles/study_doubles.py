"""Small stand-ins for a space, a task, a device and an evaluator; importable by child processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.devices import Device, Protocol
from gnomon.records import ArchitectureTable, Evaluation, Fingerprint, Measurement, Setting
from gnomon.records.table_file import save_table
from gnomon.search_spaces import Costs, Decision, Deployable, Genotypes, SearchSpace, Workload
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.tasks.datasets import Digits
from gnomon.tasks.image_classification import ImageClassification
from gnomon.tasks.recorded import RecordedEvaluator

PATIENCE_S = 90.0


class TrainableSpace(SearchSpace):
    """One convolution of 8x8 digits: 8 architectures, trained in a tenth of a second."""

    name = "trainable"

    def __init__(self) -> None:
        decisions = (Decision("width", (2, 4, 6, 8), ordered=True), Decision("kernel", (1, 3), ordered=True))
        super().__init__(decisions, Workload((1, 8, 8)))

    def arguments(self) -> dict[str, Any]:
        return {}

    def build(self, config: Mapping[str, Any]) -> Any:
        from torch import nn

        width, kernel = int(config["width"]), int(config["kernel"])
        return nn.Sequential(
            nn.Conv2d(1, width, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * width, 10),
        )

    def costs(self, genotypes: Genotypes) -> Costs:
        total = 1.0 + genotypes.sum(axis=1)
        return Costs(total, total, total, total)


class DeadlySpace(TrainableSpace):
    """Building any of its models kills the process, as running out of memory does."""

    name = "deadly"

    def build(self, config: Mapping[str, Any]) -> Any:
        if multiprocessing.parent_process() is None:
            raise RuntimeError("only children build these")
        os.kill(os.getpid(), signal.SIGKILL)


class CountingTask(ImageClassification):
    """Digits; remembers what it trained, and ``before`` lets a test misbehave."""

    def __init__(self) -> None:
        super().__init__(Digits(), {"batch_size": 64, "lr": 0.02})
        self.trained = 0
        self.before: Callable[[int], None] = lambda number: None

    def train(self, model: Any, budget: float, **more: Any) -> Evaluation:
        self.trained += 1
        self.before(self.trained)
        return super().train(model, budget, **more)


class FakeDevice(Device):
    """1 ms plus the sum of the genes; remembers what it measured, fails where it is told to."""

    name = "fake"
    accepts = "onnx"

    def __init__(self) -> None:
        self.statistic = "median"
        self.measured: list[Deployable] = []
        self.failing: set[str] = set()
        self.latency: Callable[[str], float] = lambda key: 1.0 + sum(int(gene) for gene in key.split("."))

    @classmethod
    def unavailable(cls) -> str | None:
        return None

    def setting(self, workload: Workload) -> Setting:
        return Setting("fake", "made up", "fake 1", workload)

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("made up", 1, 1, "none", "none", "fake 1", 1, "fp32")

    def measure(self, deployables: Sequence[Deployable], protocol: Protocol, *, seed: int = 0) -> Iterator[Measurement]:
        self.measured += deployables
        return iter([self._measurement(deployable, protocol) for deployable in deployables])

    def _measurement(self, deployable: Deployable, protocol: Protocol) -> Measurement:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        setting, machine = self.setting(deployable.workload), self.fingerprint()
        failed = Measurement(
            deployable.name, setting, protocol.id, self.statistic, "failed", machine, now, error="told to fail"
        )
        if deployable.name in self.failing:
            return failed
        value = self.latency(deployable.name)
        return replace(failed, verdict="good", median=value, minimum=value, interval=(value, value), error=None)


class PatientEvaluator(RecordedEvaluator):
    """The first evaluation in a child process calls ``at_work``; all others wait for that."""

    def __init__(self, marker: str, **more: Any) -> None:
        super().__init__(**more)
        self.marker = Path(marker)

    def evaluate(self, architecture: Any, **more: Any) -> Evaluation:
        if multiprocessing.parent_process() is not None and not self.marker.exists():
            self.marker.write_text(architecture.key)
            self.at_work()
        deadline = time.monotonic() + PATIENCE_S
        while not self.marker.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return super().evaluate(architecture, **more)

    def at_work(self) -> None: ...


class DeadlyEvaluator(PatientEvaluator):
    """The child is killed in the middle of its first evaluation."""

    def at_work(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class InterruptedEvaluator(PatientEvaluator):
    """Ctrl-C in the parent while a child is in the middle of a long evaluation."""

    def evaluate(self, architecture: Any, **more: Any) -> Evaluation:
        evaluation = super().evaluate(architecture, **more)
        if multiprocessing.parent_process() is None:
            raise KeyboardInterrupt
        return evaluation

    def at_work(self) -> None:
        time.sleep(600)


class Silence:
    """A display that only remembers the phases."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def references(self, done: int, total: int) -> None: ...

    def preparation(self, spent: float, metric: float) -> None: ...

    def on_event(self, event: Any) -> None: ...

    def on_model(self, text: str, done: int, total: int) -> None: ...


def write_table(path: Path) -> Path:
    """All cells of NAS-Bench-201 with made-up latencies and accuracies."""
    space = NASBench201()
    rows = space.enumerate(20_000)
    latency = 1.0 + space.costs(rows).macs / 1e8
    quality = 1.0 - 1.0 / (1.0 + latency + 0.1 * np.random.default_rng(0).random(len(rows)))
    columns = {"latency_ms": latency, "other_ms": 2.0 * latency, "accuracy": quality}
    save_table(ArchitectureTable(space, rows, columns, "made up"), path)
    return path


def recorded_overrides(table: Path, folder: Path) -> list[str]:
    """Of a search over that table, 7 random evaluations, in ``folder/here``: as fast as can be."""
    load = "gnomon.records.table_file.load_table"
    return [
        *("experiment=nasbench201_recorded", f"study.dir={folder}", "study.name=here", "study.evaluations=7"),
        *(f"device.table._target_={load}", f"device.table.path={table}", "device.column=latency_ms"),
        *(f"quality.table._target_={load}", f"quality.table.path={table}", "study.batch=3", "strategy=random"),
        *("predictor=analytic", "finalise.top_k=2", "finalise.max_models=4"),
    ]
