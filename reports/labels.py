"""Labels of points that do not cover each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT_SIZE = 9.5
POINT = 7.0
"""Half the side of the square that a marker takes, in points."""

_OFFSETS = ((7, 6), (7, -14), (-24, 6), (-24, -14), (-8, 12), (-8, -21), (20, 16), (20, -25), (-37, 16), (-37, -25))
"""Where a label may begin, from its point, in points (1/72 inch): the nearest first."""


@dataclass(frozen=True)
class Label:
    """A text for the point (x, y) in data coordinates."""

    text: str
    x: float
    y: float
    color: str


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: _Box) -> float:
        """Area that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)


def draw_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Puts each label where it covers the least of the points and of the labels before it.

    Call it last: limits and scales of the axes must be final.
    """
    scale = 72.0 / axes.figure.dpi
    places = [axes.transData.transform((label.x, label.y)) * scale for label in labels]
    taken = [_Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in places]
    frame = axes.get_window_extent()
    top, right = frame.y1 * scale, frame.x1 * scale
    for label, (x, y) in zip(labels, places, strict=True):
        boxes = [_text_box(label.text, x + dx, y + dy) for dx, dy in _OFFSETS]
        # What leaves the axes is cut off, so it counts as much as what is covered.
        costs = [
            sum(box.overlap(other) for other in taken) + 20 * (max(0.0, box.top - top) + max(0.0, box.right - right))
            for box in boxes
        ]
        best = min(range(len(boxes)), key=costs.__getitem__)
        taken.append(boxes[best])
        axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=_OFFSETS[best],
            textcoords="offset points",
            fontsize=FONT_SIZE,
            fontweight="bold",
            color=label.color,
            zorder=7,
        )


def _text_box(text: str, left: float, bottom: float) -> _Box:
    return _Box(left, bottom, left + 0.72 * FONT_SIZE * len(text), bottom + FONT_SIZE)
