"""Decision importance: which decisions the quality hangs on."""

from __future__ import annotations

from pathlib import Path

from ..records import StudySummary
from . import figure as style
from .format import words

MAX_BARS = 15
OTHERS = "all others"


def draw_importance(summary: StudySummary, path: Path) -> bool:
    """Writes the plot; False, and nothing written, where importance is not known."""
    bars = importance_bars(summary)
    if not bars:
        return False
    with style.drawing(9.0, 1.3 + 0.3 * len(bars)) as (figure, axes):
        colors = [style.LIGHT if name.startswith(OTHERS) else style.BLUE for name, _ in bars]
        shares = [100 * share for _, share in bars]
        positions = range(len(bars))
        axes.barh(positions, shares, color=colors, height=0.68)
        axes.set_yticks(positions, [style.shortened(name, 40) for name, _ in bars], fontsize=10)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        for position, share in zip(positions, shares, strict=True):
            axes.annotate(
                f"{share:.1f} %", (share, position), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9
            )
        axes.set_xlim(0, max([*shares, 1e-9]) * 1.12)
        axes.set_title(f"Which decisions {words(summary.metric)} hangs on")
        axes.set_xlabel("share of the variance among evaluated architectures (%)")
        style.save(figure, path)
    return True


def importance_bars(summary: StudySummary) -> list[tuple[str, float]]:
    """(decision, share), largest first; what does not fit is added up in a last bar."""
    ranked = sorted(summary.importance.items(), key=lambda item: -item[1])
    if len(ranked) <= MAX_BARS + 1:
        return ranked
    rest = ranked[MAX_BARS:]
    return [*ranked[:MAX_BARS], (f"{OTHERS} ({len(rest)})", sum(share for _, share in rest))]
