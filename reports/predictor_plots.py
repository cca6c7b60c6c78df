"""How good latency predictors are: predicted against measured, and accuracy against measurements.

Shapes: Q architectures, K numbers of measurements, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from . import figure as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]

Z_90 = 1.6448536269514722
BAND = 0.10
SHOWN = 120
"""Architectures drawn in a panel: more error bars would hide each other."""

COLUMNS = 3
PANEL = 4.2
"""Edge of a panel in hundreds of CSS pixels."""

COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.SKY, "#cc79a7")
MARKERS = "osD^vPX<>*"
DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Scatter:
    """Predictions on one device.

    Args:
        name: Of the device.
        measured_ms, mean_ms, std_ms: ``(Q,)`` each.
        note: A line below the name, for example its rank correlation.
    """

    name: str
    measured_ms: FloatArray
    mean_ms: FloatArray
    std_ms: FloatArray
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """One figure of merit on one device against the number of measurements.

    Args:
        name: Of the device.
        samples: ``(K,)``.
        values: ``(K, S)``.
    """

    name: str
    samples: tuple[int, ...]
    values: FloatArray


def draw_scatters(scatters: Sequence[Scatter], path: Path, *, title: str) -> None:
    """Writes one panel a device: predicted latency with its 90 % interval against the measured one.

    A random part of the architectures is drawn. Axes are as wide as the bulk of the latencies: the
    slowest and fastest hundredth may lie outside.

    Raises:
        StudyError: If the file cannot be written.
    """
    columns = min(COLUMNS, len(scatters))
    rows = math.ceil(len(scatters) / columns)
    with _panels(rows, columns, PANEL, PANEL + 0.5) as (figure, panels):
        for axes, scatter in zip(panels, scatters, strict=False):
            _draw_scatter(axes, scatter)
        for axes in panels[len(scatters) :]:
            axes.set_axis_off()
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=13)
        figure.supxlabel("measured latency (ms)", fontsize=11)
        figure.supylabel("predicted latency (ms), bars: 90 % interval", fontsize=11)
        style.save(figure, path)


def draw_curves(panels: Mapping[str, Sequence[Curve]], path: Path, *, title: str) -> None:
    """Writes one panel a figure of merit: a line a device, and their mean in black.

    Args:
        panels: Curves by the name of the figure of merit.
        path: PNG.
        title: Of the whole plot.

    Raises:
        StudyError: If the file cannot be written.
    """
    with _panels(1, len(panels), 5.6, 5.0) as (figure, all_axes):
        for axes, (name, curves) in zip(all_axes, panels.items(), strict=True):
            _draw_curves(axes, name, curves)
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=4)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=13)
        style.save(figure, path)


@contextmanager
def _panels(rows: int, columns: int, width: float, height: float) -> Iterator[tuple[Figure, list[Axes]]]:
    """A grid of axes in the house's style, row by row."""
    with style.drawing(columns * width, rows * height + 0.6) as (figure, first):
        first.remove()
        grid = cast(Any, figure.subplots(rows, columns, squeeze=False))
        yield figure, list(grid.ravel())


def _draw_scatter(axes: Axes, scatter: Scatter) -> None:
    shown = _shown(len(scatter.measured_ms))
    x, y = scatter.measured_ms[shown], scatter.mean_ms[shown]
    low, high = _limits(axes, np.concatenate([scatter.measured_ms, scatter.mean_ms]))
    line = np.geomspace(low, high, 50)
    axes.fill_between(line, line * (1 - BAND), line * (1 + BAND), color=style.GREEN, alpha=0.12, linewidth=0)
    axes.plot(line, line, color=style.GREEN, linewidth=1.1)
    axes.errorbar(
        x,
        y,
        yerr=Z_90 * scatter.std_ms[shown],
        fmt="o",
        markersize=3.6,
        color=style.BLUE,
        ecolor=style.SKY,
        elinewidth=0.8,
        markeredgecolor="white",
        markeredgewidth=0.3,
        zorder=3,
    )
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal", adjustable="box")
    axes.set_title(style.shortened(scatter.name, 34), fontsize=11.5, pad=20 if scatter.note else 8)
    note = axes.text(0.0, 1.02, scatter.note, transform=axes.transAxes, va="bottom", fontsize=9.5)
    note.set_in_layout(False)  # else a long one shrinks its panel


def _shown(n: int) -> npt.NDArray[np.int64]:
    """The same random rows every time."""
    return np.sort(np.random.default_rng(0).permutation(n)[:SHOWN])


def _limits(axes: Axes, latencies: FloatArray) -> tuple[float, float]:
    """Around the bulk of the latencies; logarithmic where that spans decades."""
    low, high = (float(value) for value in np.quantile(latencies, [0.01, 0.99]))
    if style.spans_decades([low, high]):
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            style.log_ticks(axis)
        return low / 1.3, high * 1.3
    margin = 0.12 * (high - low) or 0.2 * high
    return max(low - margin, 0.01 * low), high + margin


def _draw_curves(axes: Axes, name: str, curves: Sequence[Curve]) -> None:
    for index, curve in enumerate(curves):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        mean = curve.values.mean(axis=1)
        if curve.values.shape[1] > 1 and len(curves) <= len(COLOURS):
            axes.fill_between(
                curve.samples, curve.values.min(axis=1), curve.values.max(axis=1), color=colour, alpha=0.1, linewidth=0
            )
        dashes = DASHES[index // len(COLOURS) % len(DASHES)]
        axes.plot(curve.samples, mean, dashes, marker=marker, markersize=5, color=colour, lw=1.2, label=curve.name)
    if len(curves) > 1:
        overall = np.mean([curve.values.mean(axis=1) for curve in curves], axis=0)
        axes.plot(curves[0].samples, overall, color=style.INK, linewidth=2.6, label="mean", zorder=5)
    axes.set_title(name)
    axes.set_xlabel("measurements on the device")
    axes.set_xticks(list(curves[0].samples))
