"""kill -9 at random moments: nothing lost, nothing repeated, the same end as an undisturbed run.

Recorded device and quality, so that nothing depends on timing. ``GNOMON_KILLS`` sets the kills a
strategy (CI: a few; by hand 20).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest

from gnomon.conf.compose import groups
from gnomon.records import ArchitectureTable
from gnomon.records.table_file import save_table
from gnomon.search_spaces.nasbench201 import NASBench201

KILLS = int(os.environ.get("GNOMON_KILLS", "4"))
EVALUATIONS = 40
SCALAR = {"cmaes"}
IN_CI = {"random", "nsga2", "optuna_nsga2"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cells of NAS-Bench-201 with made-up, smooth values: needs no published data."""
    space = NASBench201()
    rows = space.enumerate(20_000)
    rng = np.random.default_rng(0)
    weights = rng.random((rows.shape[1], 5))
    latency = 1.0 + sum(weights[gene][rows[:, gene]] for gene in range(rows.shape[1]))
    quality = 1.0 - 1.0 / (latency + 0.2 * rng.random(len(rows)))
    path = tmp_path_factory.mktemp("table") / "table.npz"
    save_table(ArchitectureTable(space, rows, {"latency_ms": latency, "accuracy": quality}, "made up"), path)
    return path


def command(table: Path, folder: Path, strategy: str) -> list[str]:
    load = "gnomon.records.table_file.load_table"
    words = [
        *("experiment=nasbench201_recorded", f"strategy={strategy}", f"study.dir={folder}", "study.name=killed"),
        *(f"device.table._target_={load}", f"device.table.path={table}", "device.column=latency_ms"),
        *(f"quality.table._target_={load}", f"quality.table.path={table}", "quality.cost_s=0.03"),
        *(f"study.evaluations={EVALUATIONS}", "study.batch=4", "finalise.enabled=false", "objective.latency_ms=5"),
    ]
    if strategy in SCALAR:
        words.append("objective=mnasnet_soft")
    return [sys.executable, "-m", "gnomon.cli", "search", *words]


def evaluated(folder: Path) -> dict[str, tuple[float, ...]]:
    """Completed evaluations in the ledger by architecture, duplicates left out."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/killed/ledger.sqlite")
    trials = optuna.load_study(study_name="killed", storage=storage).get_trials(
        states=(optuna.trial.TrialState.COMPLETE,)
    )
    own = [t for t in trials if "duplicate_of" not in t.user_attrs]
    result = {t.user_attrs["architecture"]: (*t.values, t.datetime_complete.timestamp()) for t in own}
    assert len(result) == len(own), "an architecture was evaluated twice"
    return result


def strategies() -> list[object]:
    return [
        pytest.param(name, marks=() if name in IN_CI else pytest.mark.skipif(KILLS < 10, reason="GNOMON_KILLS < 10"))
        for name in groups()["strategy"]
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("strategy", strategies())
def test_a_killed_search_ends_like_an_undisturbed_one(strategy: str, table: Path, tmp_path: Path) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    started = time.monotonic()
    subprocess.run(command(table, undisturbed, strategy), check=True, capture_output=True)
    usual_s = time.monotonic() - started
    moments = random.Random(0)
    seen: dict[str, tuple[float, ...]] = {}
    for _ in range(KILLS):
        process = subprocess.Popen(
            command(table, disturbed, strategy), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=moments.uniform(0.3, 0.9) * usual_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if (disturbed / "killed" / "ledger.sqlite").exists():
            now = _evaluated_or_none(disturbed)
            assert all(now.get(key) == value for key, value in seen.items()), "an evaluation was lost or repeated"
            seen = now
    last = subprocess.run(command(table, disturbed, strategy), check=True, capture_output=True, text=True)
    final = evaluated(disturbed)
    assert all(final.get(key) == value for key, value in seen.items()), "an evaluation was lost or repeated"
    assert {k: v[:-1] for k, v in final.items()} == {k: v[:-1] for k, v in evaluated(undisturbed).items()}, last.stderr
    assert len(final) == EVALUATIONS


def _evaluated_or_none(folder: Path) -> dict[str, tuple[float, ...]]:
    """Nothing, where the kill came before the study was made."""
    try:
        return evaluated(folder)
    except KeyError:
        return {}


def test_the_same_command_again_repeats_nothing(table: Path, tmp_path: Path) -> None:
    words = command(table, tmp_path, "random")
    subprocess.run(words, check=True, capture_output=True)
    before = evaluated(tmp_path)
    again = subprocess.run([*words, "--json"], check=True, capture_output=True, text=True)
    assert evaluated(tmp_path) == before
    assert json.loads(again.stdout)["spend"]["evaluations"] == EVALUATIONS
