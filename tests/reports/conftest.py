"""Synthetic studies: a realistic one, and variations of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnomon.records import (
    Fingerprint,
    Measurement,
    ModelRow,
    ReferenceRow,
    Setting,
    StudySummary,
    TrialRow,
    Workload,
)
from gnomon.schema import write_json

SETTING = Setting("onnxruntime", "Intel(R) Xeon(R) Processor @ 2.60GHz", "onnxruntime 1.31.1", Workload((1, 28, 28)))
MACHINE = Fingerprint(
    cpu="Intel(R) Xeon(R) Processor @ 2.60GHz",
    cores=2,
    memory_bytes=8 * 2**30,
    os="Linux 6.8",
    python="3.11.9",
    runtime="onnxruntime 1.31.1",
    threads=1,
    precision="fp32",
    load_1min=1.42,
    pinned=True,
    virtual=True,
)
LIMIT_MS = 0.4
CONFIG = "space:\n  _target_: gnomon.search_spaces.MobileCNN\n  input_shape: [1, 28, 28]\nstudy:\n  seed: 0\n"


def measurement(latency_ms: float, verdict: str = "good", **changes: Any) -> Measurement:
    spread = 0.01 if verdict == "good" else 0.08
    values: dict[str, Any] = {
        "minimum": latency_ms,
        "p10": latency_ms * 1.02,
        "median": latency_ms * 1.05,
        "p90": latency_ms * 1.2,
        "interval": (latency_ms * (1 - spread / 4), latency_ms * (1 + spread)),
        "process_values": (latency_ms, latency_ms * 1.004, latency_ms * 1.01),
        "n_runs": 900,
        "n_warmup": 30,
        "drift": 0.02,
    }
    if verdict == "failed":
        values = {"error": "timed out after 60 s"}
    return Measurement("m", SETTING, "p0", "minimum", verdict, MACHINE, "2026-01-01T00:00:00+00:00", **values | changes)


def model(i: int, latency_ms: float, accuracy: float, *, accepted: bool = True, **changes: Any) -> ModelRow:
    values: dict[str, Any] = {
        "key": f"{i}.0.1.2.3.0.1.2.4.1.0.2.3.1.0.2.1.4.0.1",
        "config": {f"block{b}.{d}": (b + i) % 4 for b in range(4) for d in ("op", "kernel", "layers", "filters", "se")},
        "validation": {"quality": min(accuracy + 0.002, 1.0), "loss": 0.11},
        "test": {"accuracy": accuracy, "loss": 0.12},
        "predicted_ms": latency_ms * (1.03 if i % 2 else 0.96),
        "predicted_std_ms": latency_ms * 0.04,
        "costs": {"macs": 2.1e6 * (i + 1), "parameters": 31_000.0 * (i + 1), "cio": 1e5, "peak_activation_bytes": 4e5},
        "accepted": accepted,
        "folder": f"models/{i:08x}",
        "files": ("model.onnx",),
        "measurement": measurement(latency_ms),
        "max_abs_error": 3.1e-6,
        "on_front": accepted,
    }
    return ModelRow(**values | changes)


def _trials(n: int, rng: np.random.Generator) -> tuple[TrialRow, ...]:
    rows = []
    for i in range(n):
        latency = float(np.exp(rng.uniform(np.log(0.1), np.log(0.62))))
        quality = float(1 - 0.012 / latency**0.6 * np.exp(rng.normal(0.4, 0.5)) - 0.015)
        std, feasible = 0.035 * latency, latency * 1.045 <= LIMIT_MS
        row = TrialRow(
            i, f"{i}.1.2.0.3", "complete", quality, latency, std, (quality, latency), feasible, cost_s=5.0 + i % 4
        )
        rows.append(row)
    rows[7] = TrialRow(7, "7.1.2", "failed", latency_ms=0.3, error="RuntimeError: loss is not finite")
    rows[11] = replace(rows[3], number=11, duplicate_of=3, cost_s=0.0)
    feasible = [r for r in rows if r.state == "complete" and r.feasible and r.duplicate_of is None]
    front = {
        r.number for r in feasible if not any(o.latency_ms < r.latency_ms and o.quality > r.quality for o in feasible)
    }
    return tuple(replace(r, on_front=r.number in front) for r in rows)


def _references(n: int, rng: np.random.Generator) -> tuple[ReferenceRow, ...]:
    measured = np.exp(rng.uniform(np.log(0.12), np.log(0.75), n))
    predicted = measured * rng.normal(1.0, 0.05, n)
    names = ("mobilenet_v2", "mnasnet_a1")
    return tuple(
        ReferenceRow(f"{i}.3.2.1.0.4.4.2", float(m), float(p), float(0.05 * p), names[i] if i < len(names) else "")
        for i, (m, p) in enumerate(zip(measured, predicted, strict=True))
    )


def rich_summary(**changes: Any) -> StudySummary:
    """24 trials (1 failed, 1 duplicate), 10 references, 4 verified models and 2 dropped ones."""
    rng = np.random.default_rng(5)
    models = (
        model(0, 0.118, 0.958),
        model(1, 0.171, 0.975),
        model(2, 0.224, 0.9832),
        model(3, 0.362, 0.9861, measurement=measurement(0.362, "noisy")),
        model(4, 0.4212, 0.9872, accepted=False, reason="measured 0.4212 ms, over the limit of 0.4 ms"),
        model(
            5, 0.3, 0.97, accepted=False, reason="measurement failed: timed out", measurement=measurement(1, "failed")
        ),
    )
    progress = 1 - np.exp(-np.arange(1, 23) / 5)
    importance = {
        f"block{b}.{d}": 0.2 / (1 + b + 3 * i)
        for b in range(5)
        for i, d in enumerate(("op", "kernel", "se", "filters"))
    }
    values: dict[str, Any] = {
        "name": "mobile_cnn-mnist",
        "version": "0.1.0",
        "created": "2026-01-01T00:05:00+00:00",
        "space": "mobile_cnn",
        "task": {"name": "mnist_subset", "train": 3000, "validation": 998, "test": 998, "split_seed": 0},
        "metric": "accuracy",
        "setting": SETTING,
        "fingerprint": MACHINE,
        "statistic": "minimum",
        "strategy": "nsga2",
        "predictor": "BayesianLinear",
        "seed": 0,
        "values": ("quality", "latency_ms"),
        "directions": ("maximize", "minimize"),
        "confidence": 0.9,
        "limit_ms": LIMIT_MS,
        "limit_text": "60% of mobilenet_v2 (0.667 ms measured here)",
        "trials": _trials(24, rng),
        "references": _references(10, rng),
        "models": models,
        "hypervolume": tuple((i + 1, float(np.floor(v * 6) / 6 if i < 21 else 1.0)) for i, v in enumerate(progress)),
        "importance": importance,
        "spend": {
            "wall_s": 291.0,
            "measuring_s": 21.4,
            "evaluating_s": 152.0,
            "training_s": 96.0,
            "evaluations": 22,
            "duplicates": 1,
            "failures": 1,
            "measurements": 16,
        },
        "notes": ("Measurement of M4 is noisy: its interval is wide.",),
        "config": CONFIG,
        "finished": True,
    }
    return StudySummary(**values | changes)


def empty_summary(**changes: Any) -> StudySummary:
    """A study in which nothing happened yet."""
    nothing: dict[str, Any] = {
        "trials": (),
        "references": (),
        "models": (),
        "hypervolume": (),
        "importance": {},
        "spend": {},
        "notes": (),
        "limit_ms": None,
        "limit_text": "no latency limit",
        "finished": False,
    }
    return rich_summary(**nothing | changes)


def recorded_summary(**changes: Any) -> StudySummary:
    """NAS-Bench-201 on a published table: no weights, latencies are the table's."""
    setting = Setting("recorded_raspi4", "raspi4", "recorded", Workload((3, 32, 32)), options={"source": "HELP"})
    rng = np.random.default_rng(3)
    models = []
    for i, latency in enumerate((4.0, 9.0, 21.0)):
        found = replace(measurement(latency), setting=setting, statistic="median", median=latency)
        found = replace(found, interval=(latency, latency), process_values=(latency,), n_runs=0, n_warmup=0)
        quality = {"quality": 0.55 + 0.06 * i}
        models.append(model(i, latency, 0.0, test={}, validation=quality, measurement=found, files=(), folder=""))
    trials = tuple(
        TrialRow(i, f"{i}", "complete", float(q), float(ms), float(0.1 * ms), (float(q), float(ms)))
        for i, (q, ms) in enumerate(zip(rng.uniform(0.1, 0.73, 300), rng.uniform(1.5, 60, 300), strict=True))
    )
    values: dict[str, Any] = {
        "name": "nasbench201-raspi4",
        "space": "nasbench201",
        "task": {"name": "nasbench201_cifar100"},
        "setting": setting,
        "statistic": "median",
        "limit_ms": None,
        "limit_text": "no latency limit",
        "models": tuple(replace(m, max_abs_error=None, trained=False) for m in models),
        "trials": trials,
        "notes": (),
        "recorded": True,
    }
    return rich_summary(**values | changes)


def write_study(folder: Path, summary: StudySummary) -> Path:
    """A study's folder with its summary and the files of its models."""
    write_json(folder / "study.json", StudySummary.SCHEMA, summary.to_dict())
    for row in summary.models:
        for name in (*row.files, "card.md") if row.files else ():
            path = folder / row.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"content")
    return folder


@pytest.fixture
def rich() -> StudySummary:
    return rich_summary()


@pytest.fixture
def empty() -> StudySummary:
    return empty_summary()


@pytest.fixture
def recorded() -> StudySummary:
    return recorded_summary()


@pytest.fixture
def make_model() -> Callable[..., ModelRow]:
    return model


@pytest.fixture
def make_measurement() -> Callable[..., Measurement]:
    return measurement


@pytest.fixture
def write() -> Callable[[Path, StudySummary], Path]:
    return write_study
