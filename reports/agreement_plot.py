"""Predicted against measured latency: may the predictor be believed on this device?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..records import ReferenceRow, StudySummary
from . import figure as style
from .labels import Label, draw_labels
from .rows import labelled_models, measured_ms
from .verdict import is_published

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = 0.10
Z90 = 1.645
"""Half-width of a normal's 90 % interval in standard deviations."""


@dataclass(frozen=True)
class Pair:
    """One architecture's predicted and measured latency in ms."""

    label: str
    measured: float
    predicted: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """How well predictions agree with measurements.

    Args:
        mape: Mean absolute deviation relative to the measured value.
        within: Pairs within ±10 %.
        covered: Pairs whose measured value lies in the predicted 90 % interval.
        spearman: Rank correlation; None below three pairs.
    """

    n: int
    mape: float
    within: int
    covered: int
    spearman: float | None


def agreement(pairs: Sequence[Pair]) -> Agreement | None:
    """The figures of some pairs; None if there are none."""
    if not pairs:
        return None
    measured = np.array([p.measured for p in pairs])
    predicted = np.array([p.predicted for p in pairs])
    deviation = np.abs(predicted - measured)
    relative = deviation / measured
    covered = deviation <= Z90 * np.array([p.std for p in pairs])
    return Agreement(
        n=len(pairs),
        mape=float(relative.mean()),
        within=int((relative <= BAND).sum()),
        covered=int(covered.sum()),
        spearman=_spearman(measured, predicted),
    )


def _spearman(measured: np.ndarray[tuple[int], np.dtype[np.float64]], predicted: object) -> float | None:
    from scipy.stats import spearmanr

    if len(measured) < 3:
        return None
    value = float(spearmanr(measured, predicted).statistic)
    return None if np.isnan(value) else value


def reference_pairs(references: Sequence[ReferenceRow]) -> list[Pair]:
    """References: measured, against the prediction without them where the predictor allows."""
    return [
        Pair(r.name, r.measured_ms, r.predicted_ms, r.predicted_std_ms, r.measured_ms, r.measured_ms)
        for r in references
        if r.measured_ms > 0
    ]


def model_pairs(summary: StudySummary, *, accepted: bool) -> list[Pair]:
    """Finalised models with a measured latency."""
    pairs = []
    for label, model in labelled_models(summary):
        latency = measured_ms(model)
        if model.accepted != accepted or latency is None or latency <= 0:
            continue
        interval = model.measurement.interval if model.measurement else None
        low, high = interval or (latency, latency)
        pairs.append(Pair(label, latency, model.predicted_ms, model.predicted_std_ms, low, high))
    return pairs


def draw_agreement(summary: StudySummary, path: Path) -> bool:
    """Writes the plot; False, and nothing written, if nothing was measured."""
    references = reference_pairs(summary.references)
    verified, dropped = model_pairs(summary, accepted=True), model_pairs(summary, accepted=False)
    pairs = [*references, *verified, *dropped]
    if not pairs:
        return False
    kind = "recorded" if is_published(summary.setting) else "measured"
    with style.drawing(7.4, 6.6) as (figure, axes):
        _draw_band(axes, pairs)
        _draw_pairs(axes, references, "reference architectures (leave-one-out)", "o", style.GREY)
        _draw_pairs(axes, verified, "verified models", "o", style.BLUE)
        _draw_pairs(axes, dropped, "dropped models", "X", style.VERMILION)
        axes.set_title(f"Predicted against {kind} latency")
        axes.set_xlabel(f"{kind} latency (ms, {summary.statistic})")
        axes.set_ylabel("predicted latency (ms)")
        _figures(axes, agreement(references), agreement([*verified, *dropped]))
        axes.legend(loc="upper left")
        labels = [Label(p.label, p.measured, p.predicted, style.BLUE) for p in verified]
        draw_labels(axes, [*labels, *(Label(p.label, p.measured, p.predicted, style.RED) for p in dropped)])
        style.save(figure, path)
    return True


def _draw_band(axes: Axes, pairs: Sequence[Pair]) -> None:
    """Identity line and ±10 % band over a square that holds every point and bar."""
    values = [v for p in pairs for v in (p.measured, p.predicted, p.low, p.high) if v > 0]
    values += [v for p in pairs for v in (p.predicted - Z90 * p.std, p.predicted + Z90 * p.std) if v > 0]
    low, high = min(values), max(values)
    points = [v for p in pairs for v in (p.measured, p.predicted)]
    if style.spans_decades(points):
        low = min(points) / 1.5  # a wide bar must not stretch a log axis towards zero
        low, high = low, high * 1.15
        axes.set_xscale("log")
        axes.set_yscale("log")
        style.log_ticks(axes.xaxis)
        style.log_ticks(axes.yaxis)
    else:
        margin = 0.07 * (high - low) or 0.2 * high
        low, high = max(0.0, low - margin), high + margin
    line = np.array([low, high])
    axes.fill_between(
        line, line * (1 - BAND), line * (1 + BAND), color=style.GREEN, alpha=0.12, linewidth=0, label="within ±10 %"
    )
    axes.plot(line, line, color=style.GREEN, linewidth=1.1)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal", adjustable="box")


def _draw_pairs(axes: Axes, pairs: Sequence[Pair], label: str, marker: str, color: str) -> None:
    if not pairs:
        return
    x = np.array([p.measured for p in pairs])
    xerr = np.array([[max(0.0, p.measured - p.low) for p in pairs], [max(0.0, p.high - p.measured) for p in pairs]])
    axes.errorbar(
        x,
        [p.predicted for p in pairs],
        xerr=xerr if xerr.any() else None,
        yerr=[Z90 * p.std for p in pairs],
        fmt=marker,
        markersize=7.5,
        color=color,
        markeredgecolor="white",
        markeredgewidth=0.6,
        elinewidth=1.1,
        capsize=2.5,
        label=label,
        zorder=4,
    )


def _figures(axes: Axes, references: Agreement | None, models: Agreement | None) -> None:
    lines = [f"{name}: {_sentence(found)}" for name, found in (("references", references), ("models", models)) if found]
    axes.text(
        0.0,
        -0.13,
        "\n".join([*lines, "vertical bars: predicted 90 % interval"]),
        transform=axes.transAxes,
        va="top",
        fontsize=9.5,
        linespacing=1.5,
    )


def _sentence(found: Agreement) -> str:
    text = f"mean deviation {100 * found.mape:.1f} %, {found.within} of {found.n} within ±10 %"
    return text if found.spearman is None else f"{text}, Spearman {found.spearman:.2f}"
