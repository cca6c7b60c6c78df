"""Early stopping by predicted learning curves: epochs until the same best, and how often it is wrong.

300 real trainings (``benchmarks/_curves.py``) were run to their end here; their curves are in
``benchmarks/learning_curves.json``. Searches over them are replayed through Optuna in random orders, each contestant
as a pruner: the rule of 1705.10823 with three regressors (``nu_svr``, ``random_forest``, ``least_squares``) and
Delta .99, with Delta .95 (``nu_svr_95``), without what is known of network and recipe (``nu_svr_curve_only``), Optuna's
median pruner and Hyperband on the same curves, and Hyperband with the rule (``hyperband_nu_svr``). Burn-in counts.

``<contestant>.epochs_saved_ratio``: epochs of training all to the end over epochs of the contestant, both summed over
the orders. An order in which the contestant ends with a worse best than the full search has to be searched again in
full: these epochs count as the contestant's, so that the ratio is at the same final best. ``same_best``: share of
orders with the same best. ``until_best_ratio``: the same with epochs until the best was found only.
``best_lost``: points of the metric that the best is worse, mean. ``false_stops``: share of the stopped trainings that
would have beaten the best at that time. ``winners_lost``: share of the trainings that would have been a new best and
were stopped. ``epochs_saved_ratio`` and ``false_stops`` without a contestant are those of ``nu_svr``.

``--train`` does the trainings (half an hour of one core, kept in ``--trainings``) and writes the curves anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner
from optuna.trial import TrialState, create_trial

from benchmarks._common import ROOT, main_with
from benchmarks._curves import (
    CURVES,
    EPOCHS,
    Configuration,
    configurations,
    read_curves,
    trained_curves,
    write_curves,
)
from benchmarks._trainings import TrainingStore, add_arguments
from gnomon.predictors.curves import LeastSquares, RandomForest
from gnomon.tasks.early_stopping import CurvePruner, HyperbandCurvePruner, StoppingRule

FloatArray = npt.NDArray[np.float64]

SEEDS, QUICK_SEEDS = tuple(range(10)), (0,)
QUICK_TRAININGS = 80
BURN_IN = 30
HYPERBAND_RANK = 3
"""Hyperband keeps one of three: a training has to beat the third-best there."""
HEADLINE = "nu_svr"
PICTURE = ROOT / "docs" / "images" / "learning_curves.png"


def rule(**changes: object) -> StoppingRule:
    """The rule as the contestants use it."""
    return StoppingRule(**{"burn_in": BURN_IN, "best_possible": 1.0, **changes})  # type: ignore[arg-type]


CONTESTANTS: Mapping[str, Callable[[], BasePruner]] = {
    "nu_svr": lambda: CurvePruner(EPOCHS, rule()),
    "nu_svr_95": lambda: CurvePruner(EPOCHS, rule(confidence=0.95)),
    "nu_svr_curve_only": lambda: CurvePruner(EPOCHS, rule()),
    "random_forest": lambda: CurvePruner(EPOCHS, rule(regressor=RandomForest())),
    "least_squares": lambda: CurvePruner(EPOCHS, rule(regressor=LeastSquares())),
    "median": lambda: MedianPruner(n_startup_trials=BURN_IN),
    "hyperband": lambda: HyperbandPruner(1, EPOCHS, 3),
    "hyperband_nu_svr": lambda: HyperbandCurvePruner(CurvePruner(EPOCHS, rule(rank=HYPERBAND_RANK))),
}
WITHOUT_PARAMETERS = ("nu_svr_curve_only",)
QUICK = ("nu_svr", "least_squares", "median", "hyperband", "hyperband_nu_svr")


@dataclass(frozen=True)
class Replay:
    """One search over the curves in one order.

    Args:
        epochs: That each training ran ``(N,)``.
        final: What each would have reached ``(N,)``.
        to_beat: The best that had ended when each training began ``(N,)``.
    """

    epochs: npt.NDArray[np.int64]
    final: FloatArray
    to_beat: FloatArray

    @property
    def stopped(self) -> npt.NDArray[np.bool_]:
        """Which trainings did not run to their end ``(N,)``."""
        return np.asarray(self.epochs < EPOCHS)

    @property
    def winners(self) -> npt.NDArray[np.bool_]:
        """Which would have been a new best ``(N,)``."""
        return np.asarray(self.final > self.to_beat)

    @property
    def best(self) -> float:
        """Of those that ran to their end."""
        return float(self.final[~self.stopped].max())

    def epochs_until_best(self) -> tuple[float, float]:
        """Of this search and of the full one, until each has the best of all; a search that never gets it goes through
        all, and then through the full search."""
        position = int(np.argmax(self.final))
        full = float((position + 1) * EPOCHS)
        found = np.flatnonzero(~self.stopped & (self.final == self.final.max()))
        spent = float(self.epochs[: found[0] + 1].sum()) if len(found) else float(self.epochs.sum()) + full
        return spent, full


def replay(
    pruner: BasePruner, curves: FloatArray, parameters: Sequence[Configuration], order: npt.NDArray[np.int64]
) -> Replay:
    """A search through the trainings in ``order``."""
    study = optuna.create_study(direction="maximize", pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))
    epochs, to_beat, best = [], [], -np.inf
    for index in order:
        found = parameters[index]
        study.add_trial(
            create_trial(state=TrialState.WAITING, params=dict(found), distributions=distributions(parameters, found))
        )
        trial = study.ask()
        to_beat.append(best)
        for epoch, value in enumerate(curves[index], start=1):
            trial.report(float(value), epoch)
            if epoch < EPOCHS and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, float(curves[index, -1]))
            best = max(best, float(curves[index, -1]))
        epochs.append(epoch)
    return Replay(np.array(epochs), curves[order, -1], np.array(to_beat))


def distributions(parameters: Sequence[Configuration], one: Configuration) -> dict[str, BaseDistribution]:
    """Of a configuration's parameters: choices as they are, positive numbers that span decades as logarithms."""
    found: dict[str, BaseDistribution] = {}
    for name, value in one.items():
        values = [own[name] for own in parameters]
        if isinstance(value, str):
            found[name] = CategoricalDistribution(sorted({str(v) for v in values}))
        else:
            low, high = min(float(v) for v in values), max(float(v) for v in values)
            found[name] = FloatDistribution(low, high, log=low > 0 and high > 10 * low)
    return found


def summary(replays: Sequence[Replay]) -> dict[str, float]:
    """The figures of a contestant, over its orders."""
    full = sum(len(r.epochs) * EPOCHS for r in replays)
    missed = [r for r in replays if r.best < r.final.max()]
    spent = sum(int(r.epochs.sum()) for r in replays) + sum(len(r.epochs) * EPOCHS for r in missed)
    until = np.array([r.epochs_until_best() for r in replays]).sum(axis=0)
    stopped, winners = (np.concatenate([getattr(r, name) for r in replays]) for name in ("stopped", "winners"))
    return {
        "epochs_saved_ratio": full / spent,
        "until_best_ratio": float(until[1] / until[0]),
        "same_best": 1 - len(missed) / len(replays),
        "best_lost": float(np.mean([100 * (r.final.max() - r.best) for r in replays])),
        "false_stops": float((stopped & winners).sum() / max(1, stopped.sum())),
        "winners_lost": float((stopped & winners).sum() / max(1, winners.sum())),
        "epochs_per_training": float(np.mean([r.epochs.mean() for r in replays])),
    }


def run(options: argparse.Namespace) -> dict[str, float]:
    """Early stopping by predicted learning curves, against training to the end, the median pruner and Hyperband."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if options.train:
        write_curves(trained_curves(TrainingStore(options.trainings), options.processes))
    curves = read_curves()[: QUICK_TRAININGS if options.quick else None]
    parameters = configurations(len(curves))
    metrics: dict[str, float] = {"trainings": len(curves), "epochs": EPOCHS, "burn_in": BURN_IN}
    replays: dict[str, list[Replay]] = {}
    for name in QUICK if options.quick else CONTESTANTS:
        known = [{} for _ in parameters] if name in WITHOUT_PARAMETERS else parameters
        orders = [
            np.random.default_rng(seed).permutation(len(curves)) for seed in (QUICK_SEEDS if options.quick else SEEDS)
        ]
        replays[name] = [replay(CONTESTANTS[name](), curves, known, order) for order in orders]
        found = summary(replays[name])
        print(name, {key: round(value, 3) for key, value in found.items()}, flush=True)
        metrics |= {f"{name}.{key}": value for key, value in found.items()}
    for key in ("epochs_saved_ratio", "false_stops"):
        metrics[key] = metrics[f"{HEADLINE}.{key}"]
    if not options.quick:
        draw(curves, replays)
    return metrics


def draw(curves: FloatArray, replays: Mapping[str, Sequence[Replay]], path: Path = PICTURE) -> None:
    """The best so far against epochs (mean over orders), and the curves of one search with where they were stopped."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    grid = np.arange(EPOCHS, len(curves) * EPOCHS + 1, EPOCHS, dtype=np.float64)
    shown = {"all to the end": [_to_the_end(r) for r in replays[HEADLINE]], "predicted (nu-SVR)": replays[HEADLINE]}
    shown |= {"median pruner": replays["median"], "Hyperband": replays["hyperband"]}
    shown |= {"Hyperband, predicted": replays["hyperband_nu_svr"]}
    for label, own in shown.items():
        line = np.mean([_best_so_far(r, grid) for r in own], axis=0)
        left.plot(grid, 100 * (1 - line), label=label)
        spent = np.mean([r.epochs.sum() for r in own])
        left.plot([spent], [100 * (1 - np.mean([r.best for r in own]))], "o", color=left.lines[-1].get_color())
    left.set(xlabel="epochs trained, burn-in included", ylabel="validation error of the best so far, %", yscale="log")
    left.legend(frameon=False, fontsize=8)
    one, order = replays[HEADLINE][0], np.random.default_rng(SEEDS[0]).permutation(len(curves))
    for position in range(BURN_IN, len(order)):
        t, curve = int(one.epochs[position]), 100 * curves[order[position]]
        right.plot(range(1, t + 1), curve[:t], color="tab:red" if t < EPOCHS else "tab:blue", alpha=0.35, lw=0.8)
        if t < EPOCHS:
            right.plot([t], [curve[t - 1]], ".", color="tab:red", ms=4)
    right.set(xlabel="epoch", ylabel="validation accuracy, %", title="one search: stopped (red), whole (blue)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _to_the_end(one: Replay) -> Replay:
    return Replay(np.full_like(one.epochs, EPOCHS), one.final, one.to_beat)


def _best_so_far(one: Replay, grid: FloatArray) -> FloatArray:
    """Of the trainings that had ended by then ``(len(grid),)``; of the first one before."""
    spent = np.cumsum(one.epochs)
    best = np.maximum.accumulate(np.where(one.stopped, 0.0, one.final))
    return np.asarray(best[np.clip(np.searchsorted(spent, grid, side="right") - 1, 0, None)])


if __name__ == "__main__":
    parser = add_arguments(argparse.ArgumentParser(description=run.__doc__))
    parser.add_argument("--train", action="store_true", help=f"do the trainings and write {CURVES.name} anew")
    main_with("learning_curves", run, parser, seeds=SEEDS)
