"""HELP's latency-constrained search on NAS-Bench-201, repeated: its devices, limits and candidates.

Sources are HELP's nine training devices; ten architectures are measured on the target, as ``help_nasbench201``
says. Of HELP's own 500 candidates (from MetaD2A) the most accurate is chosen that holds the limit with a
probability of 90 %: ``predicted``. Then up to five candidates are measured one after the other, each teaching the
predictor, the most promising first, and the most accurate one that holds is returned: ``verified``. HELP's own
choices, published with their cells, stand beside it. Accuracies are CIFAR-100's, latencies the tables' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from gnomon.predictors import GnomonPredictor
from gnomon.predictors.protocol import bootstrapped, candidate_half
from gnomon.records.data_root import data_path
from gnomon.records.nasbench201_tables import cells
from gnomon.records.pool import DevicePool
from gnomon.records.splits import DeviceSplit
from gnomon.search_spaces import Genotypes
from gnomon.search_spaces.nasbench201 import NASBench201

from ._common import main
from .latency_few_shot import named_split

SEEDS = tuple(range(10))
SAMPLES, VERIFICATIONS, CONFIDENCE = 10, 5, 0.9
LIMITS_MS = {
    "titan_rtx_256": (18.0, 21.0, 25.0),
    "gold_6226": (8.0, 11.0, 14.0),
    "pixel2": (14.0, 18.0, 22.0),
    "eyeriss": (5.0, 7.0, 9.0),
    "fpga": (4.0, 5.0, 6.0),
}
"""HELP's constraints (2106.08630, its table of constrained search on NAS-Bench-201)."""

FOLDERS = {"eyeriss": "asic-eyeriss"}

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """What may be chosen, with accuracy in per cent; latencies are looked up in the pool."""

    genotypes: Genotypes
    accuracy: FloatArray
    latencies_ms: Mapping[str, FloatArray]


@dataclass(frozen=True)
class Choice:
    """A candidate's true latency and accuracy."""

    latency_ms: float
    accuracy: float


def run(quick: bool) -> dict[str, float]:
    """Limits held and accuracy lost on HELP's constrained search, by prediction alone and with five verifications."""
    split = named_split("help_nasbench201")
    pool = split.pool()
    candidates = read_candidates(pool)
    results: dict[str, float] = {}
    rows: dict[str, list[tuple[Choice, Choice, float, float]]] = {}
    for device, limits in LIMITS_MS.items():
        for limit_ms, published in zip(limits, help_choices(device, pool, candidates), strict=True):
            oracle = best(candidates, candidates.latencies_ms[device] <= limit_ms, device)
            key = f"{device}.{limit_ms:g}"
            results[f"{key}.oracle.accuracy"] = oracle.accuracy
            results[f"{key}.help.latency_ms"] = published.latency_ms
            results[f"{key}.help.accuracy"] = published.accuracy
            for seed in SEEDS[:1] if quick else SEEDS:
                predictor = learnt(split, pool, seed)
                model = start(predictor, split, pool, device, seed)
                first = predicted_choice(predictor, *model, candidates, device, limit_ms)
                last = verified_choice(predictor, *model, candidates, device, limit_ms)
                rows.setdefault(key, []).append((first, last, limit_ms, oracle.accuracy))
            results |= figures(key, rows[key], published)
    return results | totals(rows, results)


def figures(key: str, rows: Sequence[tuple[Choice, Choice, float, float]], published: Choice) -> dict[str, float]:
    """Of one device and limit, over seeds."""
    result = {}
    for column, name in enumerate(("predicted", "verified")):
        chosen = [row[column] for row in rows]
        limit_ms = rows[0][2]
        result |= {
            f"{key}.{name}.latency_ms": float(np.mean([c.latency_ms for c in chosen])),
            f"{key}.{name}.accuracy": float(np.mean([c.accuracy for c in chosen])),
            f"{key}.{name}.held": float(np.mean([c.latency_ms <= limit_ms for c in chosen])),
        }
    result[f"{key}.help.held"] = float(published.latency_ms <= rows[0][2])
    return result


def totals(
    rows: Mapping[str, Sequence[tuple[Choice, Choice, float, float]]], results: Mapping[str, float]
) -> dict[str, float]:
    """Over all devices and limits."""
    every = [row for found in rows.values() for row in found]
    total: dict[str, float] = {}
    for column, name in enumerate(("predicted", "verified")):
        total[f"all.{name}.held"] = float(np.mean([row[column].latency_ms <= row[2] for row in every]))
        total[f"all.{name}.accuracy_loss"] = float(np.mean([row[3] - row[column].accuracy for row in every]))
    total["all.help.held"] = float(np.mean([results[f"{key}.help.held"] for key in rows]))
    held = [key for key in rows if results[f"{key}.help.held"]]
    behind = [results[f"{key}.help.accuracy"] - results[f"{key}.verified.accuracy"] for key in held]
    total["all.verified.most_behind_help"] = max(behind)
    return total


# ---- Choosing ----------------------------------------------------------------------------------


@cache
def _learnt(seed: int) -> dict[str, GnomonPredictor]:
    return {}


def learnt(split: DeviceSplit, pool: DevicePool, seed: int) -> GnomonPredictor:
    """The predictor after its first life on resampled sources."""
    known = _learnt(seed)
    if "predictor" not in known:
        predictor = GnomonPredictor(NASBench201())
        predictor.fit(bootstrapped(split.source_pool(pool, split.rounds[0]), seed))
        known["predictor"] = predictor
    return known["predictor"]


def start(
    predictor: GnomonPredictor, split: DeviceSplit, pool: DevicePool, device: str, seed: int
) -> tuple[Genotypes, FloatArray]:
    """The ten measured architectures and their latencies."""
    if pool.genotypes is None:
        raise ValueError("NAS-Bench-201's pool has architectures")
    half = candidate_half(split, pool, device, seed)
    measured = predictor.references(SAMPLES, seed=seed, among=pool.genotypes[half])
    row_of = {key: row for row, key in zip(half, predictor.space.keys(pool.genotypes[half]), strict=True)}
    rows = [row_of[key] for key in predictor.space.keys(measured)]
    return measured, pool.column(device)[rows]


def chances(
    predictor: GnomonPredictor, measured: Genotypes, latencies_ms: FloatArray, candidates: Candidates, limit_ms: float
) -> FloatArray:
    """Probability of each candidate to hold the limit."""
    mean, std = predictor.adapt(measured, latencies_ms).predict(candidates.genotypes)
    return np.asarray(norm.cdf((limit_ms - mean) / std))


def predicted_choice(
    predictor: GnomonPredictor,
    measured: Genotypes,
    latencies_ms: FloatArray,
    candidates: Candidates,
    device: str,
    limit_ms: float,
) -> Choice:
    """The most accurate candidate that holds with ``CONFIDENCE``; if none does, the likeliest."""
    chance = chances(predictor, measured, latencies_ms, candidates, limit_ms)
    sure = chance >= CONFIDENCE
    return best(candidates, sure if sure.any() else chance == chance.max(), device)


def verified_choice(
    predictor: GnomonPredictor,
    measured: Genotypes,
    latencies_ms: FloatArray,
    candidates: Candidates,
    device: str,
    limit_ms: float,
) -> Choice:
    """The best of up to five measured candidates; each time the one whose expected gain over what is
    known to hold is largest, the likeliest to hold if it is the last chance."""
    true_ms, known = candidates.latencies_ms[device], np.zeros(len(candidates.accuracy), dtype=bool)
    for left in range(VERIFICATIONS, 0, -1):
        chance = np.where(known, 0.0, chances(predictor, measured, latencies_ms, candidates, limit_ms))
        holding = known & (true_ms <= limit_ms)
        floor = candidates.accuracy[holding].max() if holding.any() else candidates.accuracy.min()
        gain = chance * np.maximum(candidates.accuracy - floor, 0.0)
        if not gain.any():
            break
        chosen = int(np.argmax(chance if left == 1 and not holding.any() else gain))
        known[chosen] = True
        measured = np.concatenate([measured, candidates.genotypes[chosen][None]])
        latencies_ms = np.append(latencies_ms, true_ms[chosen])
    holding = known & (true_ms <= limit_ms)
    return best(candidates, holding if holding.any() else known, device)


def best(candidates: Candidates, allowed: npt.NDArray[np.bool_], device: str) -> Choice:
    """The most accurate of the allowed."""
    row = int(np.argmax(np.where(allowed, candidates.accuracy, -np.inf)))
    return Choice(float(candidates.latencies_ms[device][row]), float(candidates.accuracy[row]))


# ---- HELP's files ------------------------------------------------------------------------------


def read_candidates(pool: DevicePool) -> Candidates:
    """HELP's candidate list: ``cell, accuracy, ...`` a line, under a line with the time it took."""
    lines = _folder().joinpath("arch_generated_by_metad2a.txt").read_text().splitlines()
    parts = [line.split(",") for line in lines if "|" in line]
    genotypes = cells([cell.strip() for cell, *_ in parts], NASBench201())
    accuracy = np.array([float(value) for _, value, *_ in parts])
    rows = _rows(pool, genotypes)
    return Candidates(genotypes, accuracy, {device: pool.column(device)[rows] for device in LIMITS_MS})


def help_choices(device: str, pool: DevicePool, candidates: Candidates) -> list[Choice]:
    """What HELP found under each limit of a device, ascending."""
    folder = _folder() / "architecture_config" / FOLDERS.get(device, device)
    texts = [path.read_text().strip() for path in folder.glob("*.txt")]
    genotypes = cells(sorted(set(texts)), NASBench201())
    keys = NASBench201().keys(candidates.genotypes)
    accuracy = dict(zip(keys, candidates.accuracy.tolist(), strict=True))
    latencies = pool.column(device)[_rows(pool, genotypes)]
    found = [Choice(float(ms), accuracy[key]) for ms, key in zip(latencies, NASBench201().keys(genotypes), strict=True)]
    return sorted(found, key=lambda choice: choice.latency_ms)


def _folder() -> Path:
    return data_path("help/nasbench201")


def _rows(pool: DevicePool, genotypes: Genotypes) -> npt.NDArray[np.int64]:
    if pool.genotypes is None:
        raise ValueError("NAS-Bench-201's pool has architectures")
    space = NASBench201()
    row_of = {key: row for row, key in enumerate(space.keys(pool.genotypes))}
    return np.array([row_of[key] for key in space.keys(genotypes)], dtype=np.int64)


if __name__ == "__main__":
    main("constrained_search", run, seeds=SEEDS)
