"""Two workers on one study, and what the ledger costs: ``python -m benchmarks.workers``.

The evaluator is a made-up table that takes a simulated second, so that the figures are of the
ledger and the lease, not of training. ``throughput_ratio`` compares evaluations a second, from the
first evaluation's start to the last one's end; ``evaluated_twice`` must be 0.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna

from benchmarks._common import main
from gnomon.predictors import LatencyModel
from gnomon.records import ArchitectureTable, Evaluation
from gnomon.records.table_file import save_table
from gnomon.search import Problem, Proposal
from gnomon.search.ledger import Ledger
from gnomon.search.objectives import ParetoObjective
from gnomon.search_spaces import Genotypes
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201

COST_S = 1.0


def run(quick: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        table = _made_up_table(Path(folder))
        evaluations = 16 if quick else 120
        one = _search(Path(folder), table, workers=1, evaluations=evaluations // 2)
        two = _search(Path(folder), table, workers=2, evaluations=evaluations)
        return {
            "one_worker.evaluations_per_second": one["rate"],
            "two_workers.evaluations_per_second": two["rate"],
            "throughput_ratio": two["rate"] / one["rate"],
            "evaluated_twice": one["twice"] + two["twice"],
            **{
                f"ledger_ms_per_trial.{name}": ms
                for name, ms in _ledger_cost(Path(folder), 20 if quick else 200).items()
            },
        }


def _made_up_table(folder: Path) -> Path:
    space = NASBench201()
    rows = space.enumerate()
    noise = np.random.default_rng(0).random(len(rows))
    latency = 1.0 + space.costs(rows).macs / 1e8
    path = folder / "table.npz"
    columns = {"latency_ms": latency, "accuracy": 1.0 - 1.0 / (1.0 + latency + 0.1 * noise)}
    save_table(ArchitectureTable(space, rows, columns, "made up"), path)
    return path


def _search(folder: Path, table: Path, *, workers: int, evaluations: int) -> dict[str, float]:
    name, load = f"workers{workers}", "gnomon.records.table_file.load_table"
    words = [
        *("experiment=nasbench201_recorded", f"study.dir={folder}", f"study.name={name}", f"study.workers={workers}"),
        *(f"device.table._target_={load}", f"device.table.path={table}", "device.column=latency_ms"),
        *(f"quality.table._target_={load}", f"quality.table.path={table}", f"quality.cost_s={COST_S}"),
        *(f"study.evaluations={evaluations}", "study.batch=8", "finalise.enabled=false"),
    ]
    subprocess.run([sys.executable, "-m", "gnomon.cli", "search", *words], check=True, capture_output=True)
    trials = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/{name}/ledger.sqlite").get_trials()
    own = [t for t in trials if "duplicate_of" not in t.user_attrs]
    starts = [t.datetime_start.timestamp() for t in own if t.datetime_start]
    ends = [t.datetime_complete.timestamp() for t in own if t.datetime_complete]
    keys = {t.user_attrs["architecture"] for t in own}
    return {"rate": len(own) / (max(ends) - min(starts)), "twice": float(len(own) - len(keys))}


class _Free(LatencyModel):
    """Costs nothing to ask, so that what is timed is the ledger."""

    def predict(self, genotypes: Genotypes) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(len(genotypes)), np.ones(len(genotypes))


def _ledger_cost(folder: Path, trials: int) -> dict[str, float]:
    """Milliseconds to propose, claim and complete one trial of 42 decisions, by storage."""
    space = MobileCNN(input_shape=(3, 224, 224), classes=1000, width=1.0, blocks=7)
    problem = Problem(space, ParetoObjective(), _Free())
    result = {}
    for name, storage in (("sqlite", f"sqlite:///{folder}/cost.sqlite"), ("journal", f"{folder}/cost.journal")):
        ledger = Ledger(storage, "cost", space)
        ledger.create(problem.objective, {})
        rows = space.sample(trials, np.random.default_rng(0))
        started = time.perf_counter()
        for start in range(0, trials, 10):
            with ledger.lease().held():
                ledger.commit(Proposal(rows[start : start + 10]), problem, ledger.history())
            while (claim := ledger.claim()) is not None:
                ledger.complete(claim, Evaluation(0.5), problem)
        result[name] = 1e3 * (time.perf_counter() - started) / trials
    return result


if __name__ == "__main__":
    main("workers", run)
