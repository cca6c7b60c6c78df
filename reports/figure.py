"""What all plots share: size, colours, axes, and writing a PNG atomically.

Colours are Okabe and Ito's, which people with colour-blindness tell apart; shapes differ as well.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, cast

from ..schema import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2933"
GREY = "#8795a1"
LIGHT = "#d9e0e6"
BLUE = "#0072b2"
SKY = "#56b4e9"
ORANGE = "#e69f00"
VERMILION = "#d55e00"
RED = "#b34700"
"""Vermilion, darker, for text."""
GREEN = "#009e73"

DPI = 100
SCALE = 2
"""Pixels per CSS pixel, for sharp text on dense screens."""

LEGEND_WIDTH = 116
"""Characters of a legend's columns together under axes of the usual width."""

LOG_RANGE = 12.0
"""An axis whose positive values span more than this factor is logarithmic."""

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelsize": 11,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    # Names of networks are text, never TeX.
    "text.usetex": False,
    "text.parse_math": False,
}


@contextmanager
def drawing(width: float = 9.0, height: float = 5.4) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes in the house's style; sizes in hundreds of CSS pixels.

    No state of pyplot is touched, so plots can be drawn in any thread and leave a user's alone.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(cast(Any, _STYLE)):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        yield figure, figure.add_subplot()


def save(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG, atomically.

    Raises:
        StudyError: If the folder cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    figure.set_dpi(DPI * SCALE)
    # Not savefig, which draws everything twice.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "gnomon"})
    write_bytes(path, buffer.getvalue())


def spans_decades(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis shows these values better."""
    positive = [v for v in values if v > 0 and math.isfinite(v)]
    return len(positive) > 1 and len(positive) == len(values) and max(positive) / min(positive) > LOG_RANGE


def log_ticks(axis: Any) -> None:
    """Plain numbers at 1, 2 and 5 of each decade instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())


def plain(value: float) -> str:
    """A tick label without an exponent, with SI prefixes for large counts."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {prefix}"
    return f"{value:g}"


def legend_below(axes: Axes, columns: int = 3) -> None:
    """The legend under the axes, where it never hides a point; long labels are wrapped, as nothing else keeps them on
    the figure."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        labels = [fill(label, LEGEND_WIDTH // columns) for label in labels]
        axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(-0.02, -0.13), ncols=columns, columnspacing=1.6)


def shortened(text: str, width: int) -> str:
    """``text`` on one line, at most ``width`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 1]}…"
