"""Latency of transformers that write sequences, through ONNX Runtime: ``python -m benchmarks.hat_latency``.

How well the default predictor knows random networks of the space ``hat`` after few measurements, the whole and
reading and steps apart; how latency depends on lengths and beams; and why caches grow.

Metrics: ``predictor.<predictor>_<measurements>.<whole, encoder or step>.<figure>``, on networks that were not
measured for it; ``plain.<network>.<workload>.<encoder_ms or ms_per_token>``; ``caches.<kind>.<steps>_steps_ms``,
for four layers of self-attention alone, the least of many runs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gnomon.devices import Protocol
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.export.onnx_export import to_onnx
from gnomon.predictors.evaluate import score
from gnomon.predictors.gnomon import GnomonPredictor
from gnomon.predictors.one_cost import OneCostPredictor
from gnomon.search_spaces import Deployable, Genotypes, TensorSpec, Workload
from gnomon.search_spaces.hat import HATSpace

from ._common import main

SEED = 0
TEST_NETWORKS = 40
MEASUREMENTS = (10, 30)
PARTS = ("whole", "encoder", "step")
PROTOCOL = Protocol(processes=6, min_processes=3, time_cap_s=0.1, target_interval=0.05)
LENGTHS = {
    "source_20": {},
    "source_10": {"source_length": 10},
    "source_40": {"source_length": 40},
    "steps_10": {"generated_length": 10},
    "steps_40": {"generated_length": 40},
    "beam_4": {"beam": 4},
}
NETWORKS = ("plain_3x1", "plain_3x3", "plain_3x6")


def run(quick: bool) -> dict[str, float]:
    """Latency of HAT's transformers: prediction from few measurements, lengths and beams, kinds of caches."""
    torch.set_num_threads(1)
    return {**_caches(quick), **_lengths(quick), **_predictions(quick)}


def space() -> HATSpace:
    """The space that is measured: sizes for one core, 1,000 tokens, 20 in and 20 out, greedy."""
    return HATSpace(decoder_layers=(1, 2, 3, 4, 5, 6))


# ---- Prediction ---------------------------------------------------------------------------------


def _predictions(quick: bool) -> dict[str, float]:
    hat, counts = space(), MEASUREMENTS[:1] if quick else MEASUREMENTS
    predictor = GnomonPredictor(hat)
    references = {n: predictor.references(n, seed=SEED) for n in counts}
    test = hat.sample(8 if quick else TEST_NETWORKS, np.random.default_rng(SEED))
    everything = np.unique(np.concatenate([*references.values(), test]), axis=0)
    latencies = _measured(hat, everything)
    results: dict[str, float] = {}
    for n, chosen in references.items():
        keys = set(hat.keys(chosen))
        others = np.array([row for row in test if hat.keys(row[None])[0] not in keys])
        for name, model in (("gnomon", predictor), ("macs", OneCostPredictor(hat, cost="macs"))):
            for part in PARTS:
                adapted = model.adapt(chosen, _of(hat, chosen, latencies, part))
                mean, std = adapted.predict(others)
                scores = score(mean, std, _of(hat, others, latencies, part), n)
                key = f"predictor.{name}_{n}.{part}"
                results |= {
                    f"{key}.spearman": scores.spearman,
                    f"{key}.mape": scores.mape,
                    f"{key}.within_10": scores.within_10_percent,
                    f"{key}.coverage_90": scores.coverage_90,
                }
    whole = _of(hat, test, latencies, "whole")
    share = _of(hat, test, latencies, "encoder") / whole
    return results | {"encoder_share": float(share.mean()), "slowest_to_fastest": float(whole.max() / whole.min())}


Latencies = Mapping[str, Mapping[str, float]]
"""Milliseconds by key of the network and part."""


def _measured(hat: HATSpace, rows: Genotypes) -> Latencies:
    deployables = [hat.deployable(hat.config(row)) for row in rows]
    return dict(zip(hat.keys(rows), _measure(deployables), strict=True))


def _measure(deployables: Sequence[Deployable]) -> list[dict[str, float]]:
    device = OnnxRuntimeDevice(statistic="minimum")
    found = []
    for measurement in device.measure(deployables, PROTOCOL, seed=SEED):
        if measurement.minimum is None:
            raise SystemExit(f"{measurement.architecture}: {measurement.error}")
        found.append({"whole": measurement.minimum, **measurement.parts})
    return found


def _of(hat: HATSpace, rows: Genotypes, latencies: Latencies, part: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([latencies[key][part] for key in hat.keys(rows)])


# ---- Lengths and beams --------------------------------------------------------------------------


def _lengths(quick: bool) -> dict[str, float]:
    hat = space()
    cases = [(network, name) for network in NETWORKS[: 1 if quick else None] for name in LENGTHS]
    deployables = []
    for network, name in cases:
        workload = replace(hat.workload, **LENGTHS[name])
        workload = replace(workload, input_shape=(workload.source_length,))
        deployables.append(replace(hat.deployable(hat.named[network], workload), name=f"{network} {name}"))
    results = {}
    for (network, name), deployable, found in zip(cases, deployables, _measure(deployables), strict=True):
        steps = _steps(deployable.workload)
        results[f"plain.{network}.{name}.encoder_ms"] = found["encoder"]
        results[f"plain.{network}.{name}.ms_per_token"] = found["step"] / steps
    return results


def _steps(workload: Workload) -> int:
    assert workload.generated_length is not None
    return workload.generated_length


# ---- Caches -------------------------------------------------------------------------------------

LAYERS, WIDTH, HEADS, FEATURES = 4, 64, 4, 16


class Growing(nn.Module):
    """Self-attention of one token whose keys and values are appended to a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(LAYERS))

    def forward(self, x: torch.Tensor, position: torch.Tensor, *caches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        kept: list[torch.Tensor] = []
        for index, layer in enumerate(self.layers):
            q, k, v = layer(x).reshape(1, 3 * HEADS, 1, FEATURES).chunk(3, dim=1)
            keys = self.written(caches[2 * index], k, position)
            values = self.written(caches[2 * index + 1], v, position)
            scores = torch.matmul(q, keys.transpose(-1, -2)) * FEATURES**-0.5 + self.hidden(keys, position)
            x = x + torch.matmul(torch.softmax(scores, dim=-1), values).reshape(-1, WIDTH)
            kept += [keys, values]
        return (x, position + 1, *kept)

    def written(self, cache: torch.Tensor, new: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        return torch.cat([cache, new], dim=2)

    def hidden(self, keys: torch.Tensor, position: torch.Tensor) -> torch.Tensor | float:
        return 0.0


class Fixed(Growing):
    """The same, written into a cache of the final length by a mask; later places are hidden."""

    def written(self, cache: torch.Tensor, new: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        places = torch.arange(cache.shape[2])[:, None]
        return torch.where(places == position, new, cache)

    def hidden(self, keys: torch.Tensor, position: torch.Tensor) -> torch.Tensor | float:
        return (torch.arange(keys.shape[2]) > position).to(torch.float32) * -1e4


class Scattered(Fixed):
    """The same, written by index."""

    def written(self, cache: torch.Tensor, new: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        return cache.index_copy(2, position, new)


def _caches(quick: bool) -> dict[str, float]:
    results = {}
    for steps in (20,) if quick else (20, 30):
        sessions = {kind.__name__.lower(): _session(kind(), steps) for kind in (Growing, Fixed, Scattered)}
        least = dict.fromkeys(sessions, float("inf"))
        for _ in range(20 if quick else 200):
            for name, session in sessions.items():
                least[name] = min(least[name], _timed(session, 0 if name == "growing" else steps, steps))
        results |= {f"caches.{name}.{steps}_steps_ms": ms for name, ms in least.items()}
    return results


def _session(module: nn.Module, steps: int) -> Any:
    import onnxruntime

    grows = type(module) is Growing
    caches = [
        TensorSpec(f"past{i}", (1, HEADS, 0 if grows else steps, FEATURES), dynamic_axes={2: "past"} if grows else {})
        for i in range(2 * LAYERS)
    ]
    inputs = (TensorSpec("x", (1, WIDTH)), TensorSpec("position", (1,), "int64"), *caches)
    outputs = ("y", "next_position", *(f"next{i}" for i in range(2 * LAYERS)))
    proto = to_onnx(module, inputs, outputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _timed(session: Any, length: int, steps: int) -> float:
    """Milliseconds of all steps."""
    cache = np.zeros((1, HEADS, length, FEATURES), np.float32)
    fed = {"x": np.ones((1, WIDTH), np.float32), "position": np.zeros(1, np.int64)}
    fed |= {f"past{i}": cache for i in range(2 * LAYERS)}
    fed = {value.name: fed[value.name] for value in session.get_inputs()}
    start = time.perf_counter()
    for _ in range(steps):
        _, position, *caches = session.run(None, fed)
        fed = dict(zip(fed, (fed["x"], position, *caches), strict=True))
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    main("hat_latency", run, seeds=(SEED,))
