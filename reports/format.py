"""How numbers look in tables, plots and the page: units named, digits that mean something."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..records import StudySummary

MISSING = "–"
SHARE_METRICS = ("accuracy", "top1", "top5", "balanced_accuracy", "f1", "precision", "recall")
"""Metrics that are shares of 1 and are shown as percentages where their values are in [0, 1]."""

METRIC_TEXT = {
    "quality": "quality",
    "latency_ms": "latency (ms)",
    "parameters": "parameters",
    "macs": "MACs",
    "cio": "CIO (elements)",
    "peak_activation_bytes": "peak activations (bytes)",
    "reward": "reward",
}


def significant(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits, without an exponent between 1e-4 and 1e6."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -5 < exponent < 6:
        return f"{value:.{max(0, digits - 1 - exponent)}f}"
    return f"{value:.{digits - 1}e}"


def milliseconds(value: float | None) -> str:
    """A latency in ms with three significant digits, unit included."""
    text = significant(value)
    return text if text == MISSING else f"{text} ms"


def with_std(value: float, std: float) -> str:
    """``value ± std``, both rounded where the deviation has two significant digits."""
    if not (std > 0 and math.isfinite(std) and math.isfinite(value)):
        return significant(value)
    decimals = min(6, max(0, 1 - math.floor(math.log10(std))))
    return f"{value:.{decimals}f} ± {std:.{decimals}f}"


def counted(n: float, noun: str) -> str:
    """``1 failure``, ``3 failures``, from either form of the noun."""
    singular = noun.removesuffix("s")
    return f"{n:,.0f} {singular if n == 1 else singular + 's'}"


def limit_ms(value: float) -> str:
    """A limit as somebody wrote it: no zeros are added."""
    return f"{value:.4g} ms"


def interval(bounds: tuple[float, float] | None) -> str:
    """``[low, high]`` with a digit more than the value itself, as intervals are narrow."""
    return "" if bounds is None else f"[{significant(bounds[0], 4)}, {significant(bounds[1], 4)}]"


def count(value: float | None) -> str:
    """A large count with its SI prefix, for example ``1.24 M``."""
    if value is None or not math.isfinite(value):
        return MISSING
    for size, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{significant(value / size)}{prefix}"
    return f"{value:.0f}" if float(value).is_integer() else significant(value)


def byte_size(value: float | None) -> str:
    """Bytes with a binary prefix, for example ``7.8 GiB``."""
    if value is None or not math.isfinite(value):
        return MISSING
    for size, prefix in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= size:
            return f"{significant(value / size)} {prefix}"
    return f"{value:.0f} B"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: ``0.42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 60:
        return f"{significant(seconds, 2 if seconds < 10 else 3)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def percent(share: float | None, digits: int = 0) -> str:
    """A share of 1 as a percentage."""
    return MISSING if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f} %"


def words(name: str) -> str:
    """A name from code as words: ``finalise_s`` is a phase's seconds, its unit is shown apart."""
    return name.removesuffix("_s").replace("_", " ")


class QualityFormat:
    """Shows a study's quality: percentages for shares of 1, plain numbers for everything else."""

    def __init__(self, summary: StudySummary) -> None:
        self.metric = summary.metric
        values = list(_qualities(summary))
        self.is_share = summary.metric in SHARE_METRICS and all(0.0 <= v <= 1.0 for v in values)

    def __call__(self, value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return MISSING
        return percent(value, 2) if self.is_share else significant(value, 4)

    @property
    def axis(self) -> str:
        """Name for an axis or a column, with the unit."""
        name = words(self.metric)
        return f"{name} (%)" if self.is_share else name


def _qualities(summary: StudySummary) -> Iterable[float]:
    for trial in summary.trials:
        if trial.quality is not None and math.isfinite(trial.quality):
            yield trial.quality
    for model in summary.models:
        for value in (model.test.get(summary.metric), model.validation.get("quality")):
            if value is not None and math.isfinite(value):
                yield value
