"""The front: quality against latency, or against another cost that the objective names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..records import ModelRow, StudySummary, TrialRow
from . import figure as style
from .format import METRIC_TEXT, QualityFormat, counted, words
from .labels import Label, draw_labels
from .pareto import staircase
from .quality_axis import outlier_floor, set_quality_axis
from .rows import labelled_models, measured_ms, model_score, score_split
from .verdict import is_published, limit_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_COSTS = ("quality", "reward")


@dataclass(frozen=True)
class Point:
    """One dot: cost, quality and the cost's interval."""

    label: str
    cost: float
    quality: float
    low: float
    high: float


def cost_metrics(summary: StudySummary) -> tuple[str, ...]:
    """What the x axes are, one plot each: latency, and every other cost that the objective names."""
    others = tuple(name for name in summary.values if name not in (*NOT_COSTS, "latency_ms"))
    if others and "latency_ms" not in summary.values and summary.limit_ms is None:
        return others
    return ("latency_ms", *others)


def draw_front(summary: StudySummary, metric: str, path: Path) -> bool:
    """Writes the plot; False, and nothing written, if there is no point to show."""
    trials = [t for t in summary.trials if _finite(t.quality) and _finite(_trial_cost(summary, t, metric))]
    models = _model_points(summary, metric)
    if not trials and not any(models.values()):
        return False
    with style.drawing() as (figure, axes):
        qualities = [t.quality for t in trials if t.quality is not None]
        qualities += [p.quality for points in models.values() for p in points]
        quality = QualityFormat(summary)
        axes.margins(y=0.09)
        by_error = set_quality_axis(axes, qualities, is_share=quality.is_share)
        floor = None if by_error else outlier_floor(qualities)
        lowest_model = min((p.quality for points in models.values() for p in points), default=math.inf)
        _draw_trials(axes, summary, trials, metric)
        _draw_models(axes, summary, models, metric)
        _scale_cost(axes, summary, metric, trials, models)
        limited = metric == "latency_ms" and summary.limit_ms is not None
        axes.set_title(f"Quality against {METRIC_TEXT.get(metric, words(metric))}", pad=28 if limited else None)
        axes.set_xlabel(_cost_label(summary, metric))
        axes.set_ylabel(quality.axis + (", log scale of the error" if by_error else ""))
        if floor is not None and floor <= lowest_model:
            _draw_outliers(axes, summary, trials, metric, floor, max(qualities))
        draw_labels(axes, _labels(models))
        style.legend_below(axes, columns=2)
        style.save(figure, path)
    return True


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _trial_cost(summary: StudySummary, trial: TrialRow, metric: str) -> float | None:
    if metric == "latency_ms":
        return trial.latency_ms
    index = summary.values.index(metric)
    return trial.values[index] if index < len(trial.values) else None


def _model_points(summary: StudySummary, metric: str) -> dict[str, list[Point]]:
    """Points of the finalised models by kind: ``front``, ``dominated``, ``dropped``."""
    points: dict[str, list[Point]] = {"front": [], "dominated": [], "dropped": []}
    for label, model in labelled_models(summary):
        score = model_score(summary, model)
        cost = measured_ms(model) if metric == "latency_ms" else model.costs.get(metric)
        if score is None or cost is None or not (_finite(score) and _finite(cost)):
            continue
        kind = ("front" if model.on_front else "dominated") if model.accepted else "dropped"
        low, high = _interval(model, metric, cost)
        points[kind].append(Point(label, cost, score, low, high))
    return points


def _interval(model: ModelRow, metric: str, cost: float) -> tuple[float, float]:
    if metric != "latency_ms" or model.measurement is None or model.measurement.interval is None:
        return cost, cost
    return model.measurement.interval


def _labels(models: dict[str, list[Point]]) -> list[Label]:
    return [
        Label(p.label, p.cost, p.quality, style.RED if kind == "dropped" else style.BLUE)
        for kind, points in models.items()
        for p in points
    ]


def _draw_outliers(
    axes: Axes, summary: StudySummary, trials: list[TrialRow], metric: str, floor: float, highest: float
) -> None:
    """Ends the axis at ``floor`` and marks what lies below it at the edge, so that a few failures
    to learn do not press everything else together."""
    below = [t for t in trials if t.quality is not None and t.quality < floor]
    margin = 0.08 * (highest - floor)
    bottom = floor - margin
    axes.set_ylim(bottom, highest + margin)
    x = np.array([_trial_cost(summary, t, metric) for t in below], dtype=np.float64)
    worst = QualityFormat(summary)(min(t.quality for t in below if t.quality is not None))
    axes.scatter(
        x,
        np.full(len(below), bottom),
        marker="v",
        s=34,
        color=style.GREY,
        linewidths=0,
        clip_on=False,
        zorder=6,
        label=f"{counted(len(below), 'candidates')} below the axis (down to {worst})",
    )


def _draw_trials(axes: Axes, summary: StudySummary, trials: list[TrialRow], metric: str) -> None:
    """Candidates as the search saw them: predicted cost, quality at the search's budget."""
    whole = [t for t in trials if t.stopped_at is None or t.on_front]
    groups = {
        "stopped": [t for t in trials if t.stopped_at is not None and not t.on_front],
        "within": [t for t in whole if t.feasible and not t.on_front],
        "beyond": [t for t in whole if not t.feasible and not t.on_front],
        "front": [t for t in trials if t.on_front],
    }
    looks: dict[str, tuple[str, dict[str, Any]]] = {
        "stopped": (
            "training stopped early, quality predicted",
            {"marker": "1", "s": 30, "color": "#a9b8c6", "linewidths": 1.0},
        ),
        "within": ("evaluated, dominated", {"marker": "o", "s": 22, "color": "#a9b8c6", "linewidths": 0}),
        "beyond": (
            "evaluated, predicted beyond the limit",
            {"marker": "x", "s": 26, "color": "#c99a78", "linewidths": 1.2},
        ),
        "front": (
            "evaluated, front of the search" + ("" if summary.recorded else " (validation)"),
            {"marker": "o", "s": 34, "facecolors": "white", "edgecolors": style.SKY, "linewidths": 1.5},
        ),
    }
    for kind, members in groups.items():
        if not members:
            continue
        x = np.array([_trial_cost(summary, t, metric) for t in members], dtype=np.float64)
        y = np.array([t.quality for t in members], dtype=np.float64)
        label, look = looks[kind]
        if kind == "front" and len(members) > 1:
            axes.step(*staircase(x, y), where="post", color=style.SKY, linewidth=1.1, linestyle=(0, (4, 2)), zorder=2)
        axes.scatter(x, y, label=label, zorder=3, **look)


def _draw_models(axes: Axes, summary: StudySummary, models: dict[str, list[Point]], metric: str) -> None:
    split = "recorded" if summary.recorded else score_split(summary)
    how = {True: "recorded latency", False: "measured latency"}[is_published(summary.setting)]
    how = f"{how if metric == 'latency_ms' else words(metric)}, {split} {words(summary.metric)}"
    chosen = " by validation" if split == "test" else ""
    looks = {
        "front": (f"on the verified front{chosen} ({how})", "o", style.BLUE, style.BLUE),
        "dominated": ("verified, dominated by another model", "o", "white", style.BLUE),
        "dropped": ("dropped after verification", "X", style.VERMILION, style.VERMILION),
    }
    front = models["front"]
    if len(front) > 1:
        line = staircase(np.array([p.cost for p in front]), np.array([p.quality for p in front]))
        axes.step(*line, where="post", color=style.BLUE, linewidth=1.8, zorder=4)
    for kind, points in models.items():
        if not points:
            continue
        label, marker, face, edge = looks[kind]
        x = np.array([p.cost for p in points])
        bars = np.array([[max(0.0, p.cost - p.low) for p in points], [max(0.0, p.high - p.cost) for p in points]])
        axes.errorbar(
            x,
            [p.quality for p in points],
            xerr=bars if bars.any() else None,
            fmt=marker,
            markersize=8.5,
            markerfacecolor=face,
            markeredgecolor=edge,
            markeredgewidth=1.6 if face == "white" else 0.6,
            ecolor=edge,
            elinewidth=1.4,
            capsize=3.5,
            label=label,
            zorder=5,
        )


def _scale_cost(
    axes: Axes, summary: StudySummary, metric: str, trials: list[TrialRow], models: dict[str, list[Point]]
) -> None:
    costs = [c for t in trials if (c := _trial_cost(summary, t, metric)) is not None]
    costs += [p.cost for points in models.values() for p in points]
    limit = summary.limit_ms if metric == "latency_ms" else None
    if style.spans_decades([*costs, limit] if limit else costs):
        axes.set_xscale("log")
        style.log_ticks(axes.xaxis)
    else:
        from matplotlib.ticker import FuncFormatter

        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.plain(value)))
    if limit is not None:
        _draw_limit(axes, limit, limit_text(summary))


def _draw_limit(axes: Axes, limit: float, text: str) -> None:
    axes.axvline(limit, color=style.VERMILION, linewidth=1.3, linestyle=(0, (5, 3)), zorder=1)
    left, right = axes.get_xlim()
    axes.axvspan(limit, max(right, limit * 1.02), color=style.VERMILION, alpha=0.05, linewidth=0, zorder=0)
    axes.set_xlim(left, max(right, limit * 1.02))
    # Under the title, which is moved up for it.
    axes.text(
        0.0, 1.015, style.shortened(text, 110), transform=axes.transAxes, va="bottom", fontsize=9.5, color=style.RED
    )


def _cost_label(summary: StudySummary, metric: str) -> str:
    if metric != "latency_ms":
        return METRIC_TEXT.get(metric, words(metric))
    where = summary.setting.hardware if is_published(summary.setting) else summary.setting.device
    return f"latency (ms, {summary.statistic}) on {style.shortened(where, 60)}"
