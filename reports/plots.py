"""All plots of a study as PNG files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..records import StudySummary
from .agreement_plot import draw_agreement
from .figure import shortened
from .format import METRIC_TEXT, words
from .front_plot import cost_metrics, draw_front
from .importance_plot import draw_importance
from .progress_plot import draw_progress
from .shared_plot import draw_shared_training
from .verdict import headline

FOLDER = "plots"


@dataclass(frozen=True)
class Plot:
    """One plot of a report.

    Args:
        path: The PNG file, or None where there was nothing to draw.
        alt: What it shows, for who cannot see it.
        missing: Why there is nothing to draw.
    """

    name: str
    title: str
    path: Path | None
    alt: str
    missing: str


def write_plots(summary: StudySummary, folder: Path) -> list[Plot]:
    """Writes the plots of ``summary`` to ``folder``; files of plots that no longer exist go.

    Raises:
        StudyError: If the folder cannot be written.
    """
    plots = [_front(summary, metric, folder) for metric in cost_metrics(summary)]
    plots.append(
        _plot(
            summary,
            folder / "predicted_measured.png",
            "Predicted against measured latency",
            draw_agreement,
            "nothing was measured yet",
        )
    )
    plots.append(
        _plot(
            summary,
            folder / "hypervolume.png",
            "Hypervolume of the search's front",
            draw_progress,
            "no evaluated architecture meets the limit yet",
        )
    )
    plots.append(
        _plot(
            summary,
            folder / "importance.png",
            "Decision importance",
            draw_importance,
            "too few evaluations, or all of equal quality",
        )
    )
    if summary.shared_training is not None:
        plots.append(
            _plot(
                summary,
                folder / "shared_training.png",
                "Training of the shared weights",
                draw_shared_training,
                "nothing was trained",
            )
        )
    return plots


def _front(summary: StudySummary, metric: str, folder: Path) -> Plot:
    name = "front.png" if metric == cost_metrics(summary)[0] else f"front_{re.sub('[^A-Za-z0-9_-]', '_', metric)}.png"
    title = f"Quality against {METRIC_TEXT.get(metric, words(metric))}"
    return _plot(
        summary,
        folder / name,
        title,
        lambda summary, path: draw_front(summary, metric, path),
        "no evaluation succeeded yet",
    )


def _plot(
    summary: StudySummary, path: Path, title: str, draw: Callable[[StudySummary, Path], bool], missing: str
) -> Plot:
    drawn = draw(summary, path)
    if not drawn:
        path.unlink(missing_ok=True)
    alt = f"{title}. {shortened(headline(summary), 200)}"
    return Plot(path.stem, title, path if drawn else None, alt, missing)
