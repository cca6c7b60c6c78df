"""Progress of the hypervolume: would more evaluations have helped?"""

from __future__ import annotations

from pathlib import Path

from ..records import StudySummary
from . import figure as style


def draw_progress(summary: StudySummary, path: Path) -> bool:
    """Writes the plot; False, and nothing written, before the first feasible evaluation."""
    if not summary.hypervolume:
        return False
    from matplotlib.ticker import MaxNLocator

    steps = [n for n, _ in summary.hypervolume]
    values = [v for _, v in summary.hypervolume]
    with style.drawing(9.0, 3.6) as (figure, axes):
        axes.step(steps, values, where="post", color=style.BLUE, linewidth=1.9)
        axes.fill_between(steps, values, step="post", color=style.BLUE, alpha=0.08, linewidth=0)
        axes.plot(steps[-1], values[-1], "o", color=style.BLUE, markersize=6)
        gains = [i for i in range(1, len(values)) if values[i] > values[i - 1]]
        if gains:
            last = gains[-1]
            axes.plot(steps[last], values[last], "o", markersize=8, markerfacecolor="white", color=style.BLUE)
            text = f"last gain at evaluation {steps[last]} of {steps[-1]}"
            axes.text(0.985, 0.05, text, transform=axes.transAxes, ha="right", fontsize=9.5)
        axes.set_title("Hypervolume of the search's front")
        axes.set_xlabel("distinct evaluations")
        axes.set_ylabel("share of the final one")
        axes.set_ylim(0, max(1.05, 1.05 * max(values)))
        axes.set_xlim(min(steps[0], 1) - 0.2, steps[-1] + max(0.5, 0.02 * steps[-1]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        style.save(figure, path)
    return True
