"""The training of the shared weights: how good the largest and the smallest network became."""

from __future__ import annotations

from pathlib import Path

from ..records import StudySummary
from . import figure as style
from .format import words

COLORS = {"largest": style.BLUE, "smallest": style.VERMILION}
DASHES = {"largest": "-", "smallest": "--"}
OTHERS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.SKY, style.RED)


def draw_shared_training(summary: StudySummary, path: Path) -> bool:
    """Writes the plot; False, and nothing written, where no weights were trained for all."""
    shared = summary.shared_training
    if shared is None or not any(shared.curves.values()):
        return False
    from matplotlib.ticker import MaxNLocator

    with style.drawing(9.0, 3.6) as (figure, axes):
        for index, (name, curve) in enumerate(shared.curves.items()):
            epochs = range(1, len(curve) + 1)
            color, dash = COLORS.get(name, OTHERS[index % len(OTHERS)]), DASHES.get(name, "-")
            axes.plot(epochs, curve, dash, color=color, linewidth=1.9, label=f"{name} network")
            axes.plot(len(curve), curve[-1], "o", color=color, markersize=6)
        axes.set_title("Training of the shared weights")
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"validation {words(shared.metric)}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower right")
        style.save(figure, path)
    return True
