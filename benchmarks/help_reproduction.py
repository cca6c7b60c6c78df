"""HELP on its own NAS-Bench-201 latencies: meta-trained here, under its own protocol and under honest ones.

Sources are its nine training devices, on architectures 0-899 and its references; its four
validation devices choose the weights with them; its six test devices are never seen. ``all`` are
architectures 900-15624; ``trim`` is HELP's test set, 900-1899 without the fastest and slowest tenth
of the target device.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gnomon.predictors import LatencyModel
from gnomon.predictors.evaluate import score
from gnomon.predictors.help import HelpPredictor, progress_bar
from gnomon.records.data_root import data_path
from gnomon.records.pool import DevicePool
from gnomon.records.table import ArchitectureTable
from gnomon.records.tables import help_nasbench201
from gnomon.records.torch_files import load_plain

from ._common import main

TRAIN = (
    "1080ti_1", "1080ti_32", "1080ti_256", "silver_4114", "silver_4210r", "samsung_a50", "pixel3", "essential_ph_1",
    "samsung_s7",
)  # fmt: skip
VALIDATION = ("titanx_1", "titanx_32", "titanx_256", "gold_6240")
TEST = ("titan_rtx_256", "gold_6226", "fpga", "pixel2", "raspi4", "eyeriss")

TRAIN_ROWS = 900
TRIM_ROWS = 1900
META_SEEDS = (0, 1, 2)
SUPPORT_SEEDS = (1, 2, 3, 4, 5)
TRIM = 0.1


@dataclass(frozen=True)
class Data:
    """The table, HELP's references and what is asked about."""

    table: ArchitectureTable
    references: np.ndarray

    def latencies(self, device: str) -> np.ndarray:
        return self.table.columns[device]

    def pool_of(self, device: str) -> np.ndarray:
        """The target's own pool in HELP's evaluation: 720 of 900 rows."""
        return trimmed(np.arange(TRAIN_ROWS), self.latencies(device))

    def queries(self, device: str) -> dict[str, np.ndarray]:
        every = np.arange(TRAIN_ROWS, len(self.table.genotypes))
        return {"all": every, "trim": trimmed(np.arange(TRAIN_ROWS, TRIM_ROWS), self.latencies(device))}


def trimmed(rows: np.ndarray, latencies: np.ndarray) -> np.ndarray:
    low, high = np.quantile(latencies[rows], [TRIM, 1 - TRIM])
    return rows[(latencies[rows] >= low) & (latencies[rows] <= high)]


def run(quick: bool) -> dict[str, float]:
    """Rank correlation and errors on HELP's six unseen devices, mean over meta-training seeds and, where
    support is drawn, over its seeds."""
    table = help_nasbench201(devices=[*TRAIN, *VALIDATION, *TEST])
    references = np.array(load_plain(data_path("help/nasbench201/hardware_embedding_index.pt")))
    data = Data(table, references)
    episodes, meta_seeds = (200, META_SEEDS[:1]) if quick else (2000, META_SEEDS)
    found: dict[str, list[float]] = {}
    for seed in meta_seeds:
        start = time.perf_counter()
        whole = meta_trained(data, episodes, seed)
        keep(found, "meta_training.seconds", time.perf_counter() - start)
        protocols = {
            "own_20": {"support": "others", "scaling": "pool", "denormalisation": "two_point"},
            "honest_10": {},
            "honest_10_measured_scale": {"scaling": "measured"},
            "no_steps_10": {"steps": 0},
        }
        for protocol, switches in protocols.items():
            judge(found, protocol, data, with_switches(whole, switches), quick, seed)
        if seed == meta_seeds[0]:
            for name, switch in (("no_z_10", "modulate"), ("no_embedding_10", "embed")):
                judge(found, name, data, meta_trained(data, episodes, seed, **{switch: False}), quick, seed)
    metrics = {name: float(np.mean(values)) for name, values in found.items()}
    per_seed = np.array(found["own_20.by_support_seed"]).reshape(len(meta_seeds), -1).mean(axis=0)
    del metrics["own_20.by_support_seed"]
    metrics |= {
        "own_20.lowest_support_seed": float(per_seed.min()),
        "own_20.highest_support_seed": float(per_seed.max()),
    }
    return metrics


def meta_trained(data: Data, episodes: int, seed: int, **switches: bool) -> HelpPredictor:
    rows = np.union1d(np.arange(TRAIN_ROWS), data.references)
    pool = DevicePool.from_table(data.table, [*TRAIN, *VALIDATION]).rows(rows)
    references = data.table.genotypes[data.references]
    predictor = HelpPredictor(
        data.table.space, references=references, validation=VALIDATION, episodes=episodes, **switches
    )
    with progress_bar() as progress:
        predictor.fit(pool, seed=seed, progress=progress)
    return predictor


def with_switches(predictor: HelpPredictor, switches: dict[str, object]) -> HelpPredictor:
    """The same weights under another protocol."""
    other = HelpPredictor(predictor.space, **switches)  # type: ignore[arg-type]
    other.restore(predictor.state())
    return other


def judge(
    found: dict[str, list[float]], protocol: str, data: Data, predictor: HelpPredictor, quick: bool, seed: int
) -> None:
    """Adds the scores of one predictor on every test device."""
    print(f"{protocol}, seed {seed}", file=sys.stderr)
    by_support_seed: dict[int, list[float]] = {}
    for device in TEST:
        latencies = data.latencies(device)
        for support_seed, model, n in adapted(data, device, predictor, quick):
            kinds = data.queries(device)
            if protocol == "own_20":
                del kinds["all"]
            for kind, rows in kinds.items():
                scores = score(*model.predict(data.table.genotypes[rows]), latencies[rows], n)
                values = {f"spearman_{kind}": scores.spearman}
                if kind == "all":
                    values |= {
                        "within_10": scores.within_10_percent,
                        "coverage_90": scores.coverage_90,
                        "interval_score": scores.interval_score,
                    }
                for name, value in values.items():
                    keep(found, f"{protocol}.{name}.{device}", value)
                    keep(found, f"{protocol}.{name}.mean", value)
            by_support_seed.setdefault(support_seed, []).append(scores.spearman)
    if protocol == "own_20":
        found.setdefault("own_20.by_support_seed", []).extend(
            float(np.mean(values)) for values in by_support_seed.values()
        )


def adapted(data: Data, device: str, predictor: HelpPredictor, quick: bool) -> Iterator[tuple[int, LatencyModel, int]]:
    """Seed of the support, model, and measurements on the target."""
    latencies, genotypes = data.latencies(device), data.table.genotypes
    if predictor.support == "all":
        rows = data.references
        yield 0, predictor.adapt(genotypes[rows], latencies[rows]), len(rows)
        return
    own = data.pool_of(device)
    bounds = (float(latencies[own].min()), float(latencies[own].max()))
    candidates = np.setdiff1d(own, data.references)
    for seed in SUPPORT_SEEDS[:1] if quick else SUPPORT_SEEDS:
        drawn = np.random.default_rng(seed).permutation(candidates)[: len(data.references)]
        rows = np.concatenate([data.references, drawn])
        yield seed, predictor.adapt(genotypes[rows], latencies[rows], bounds_ms=bounds), len(rows)


def keep(found: dict[str, list[float]], name: str, value: float) -> None:
    found.setdefault(name, []).append(float(value))


if __name__ == "__main__":
    main("help_reproduction", run, seeds=[*META_SEEDS, *SUPPORT_SEEDS])
