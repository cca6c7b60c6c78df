"""What a report says of each model, as text: one source for HTML, terminal and Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

from ..records import ModelRow, StudySummary
from .format import MISSING, QualityFormat, count, interval, percent, significant, with_std

COMPANION_FILES = ("card.md", "weights.safetensors", "config.yaml", "architecture.json", "tokenizers.json")
"""What lies beside a model's ONNX files and is worth a link."""

Split = Literal["test", "validation"]


@dataclass(frozen=True)
class Link:
    """A file of a model; ``href`` is relative to the report, empty where there is nothing to open."""

    text: str
    href: str


@dataclass(frozen=True)
class ModelView:
    """One finalised model as text.

    Args:
        label: ``M1``, ``M2`` …: the same in tables and plots.
        predicted, measured, interval: In ms.
        error: Measured against predicted latency, for example ``+3.1 %``.
        error_sigmas: The same in predictive standard deviations; empty where that is unknown.
        fp32: The metric on :func:`score_split` before the device's runtime quantised the model.
        status: ``front``, ``dominated`` or ``dropped``.
    """

    label: str
    model: ModelRow
    test: str
    validation: str
    predicted: str
    measured: str
    interval: str
    verdict: str
    error: str
    error_sigmas: str
    macs: str
    parameters: str
    max_abs_error: str
    fp32: str
    status: str


def measured_ms(model: ModelRow) -> float | None:
    """The study's statistic of the verified file; None if it was not, or could not be, measured."""
    measurement = model.measurement
    if measurement is None or measurement.verdict == "failed" or getattr(measurement, measurement.statistic) is None:
        return None
    return measurement.latency_ms


def score_split(summary: StudySummary) -> Split:
    """The split that models are compared on: test, unless no model of the study has a test score
    (published tables that hold one accuracy only)."""
    return "test" if any(summary.metric in m.test for m in summary.models) else "validation"


def validation_score(summary: StudySummary, model: ModelRow) -> float | None:
    """The study's metric on validation; the search writes it as ``quality``."""
    return model.validation.get(summary.metric, model.validation.get("quality"))


def model_score(summary: StudySummary, model: ModelRow) -> float | None:
    """The study's metric of ``model`` on :func:`score_split`."""
    if score_split(summary) == "test":
        return model.test.get(summary.metric)
    return validation_score(summary, model)


def labelled_models(summary: StudySummary) -> list[tuple[str, ModelRow]]:
    """All finalised models with their labels: accepted ones first, fastest first."""

    def order(model: ModelRow) -> tuple[bool, float]:
        latency = measured_ms(model)
        return not model.accepted, model.predicted_ms if latency is None else latency

    return [(f"M{i}", model) for i, model in enumerate(sorted(summary.models, key=order), start=1)]


def model_views(summary: StudySummary) -> list[ModelView]:
    """Every finalised model as text, in the order of :func:`labelled_models`."""
    quality = QualityFormat(summary)
    return [_view(summary, quality, label, model) for label, model in labelled_models(summary)]


def _view(summary: StudySummary, quality: QualityFormat, label: str, model: ModelRow) -> ModelView:
    latency = measured_ms(model)
    difference = None if latency is None else latency - model.predicted_ms
    return ModelView(
        label=label,
        model=model,
        test=quality(model.test.get(summary.metric)),
        validation=quality(validation_score(summary, model)),
        predicted=with_std(model.predicted_ms, model.predicted_std_ms),
        measured=significant(latency),
        interval=interval(model.measurement.interval) if model.measurement else "",
        verdict=model.measurement.verdict if model.measurement else "not measured",
        error=MISSING if difference is None else signed_percent(difference / model.predicted_ms),
        error_sigmas=_sigmas(difference, model.predicted_std_ms),
        macs=count(model.costs.get("macs")),
        parameters=count(model.costs.get("parameters")),
        max_abs_error=MISSING if model.max_abs_error is None else f"{model.max_abs_error:.1e}",
        fp32=quality(model.fp32.get(score_split(summary), {}).get(summary.metric)),
        status=("front" if model.on_front else "dominated") if model.accepted else "dropped",
    )


def signed_percent(share: float) -> str:
    """A signed deviation in per cent, with a real minus sign."""
    return f"{'+' if share >= 0 else '−'}{percent(abs(share), 1)}"


def _sigmas(difference: float | None, std: float) -> str:
    if difference is None or not std > 0:
        return ""
    return f"{'+' if difference >= 0 else '−'}{abs(difference) / std:.1f} σ"


def file_links(model: ModelRow, folder: Path) -> list[Link]:
    """Links to what a model's folder holds: its ONNX files, then what goes with them.

    Args:
        model: Its files are named relative to its folder.
        folder: The study's folder, where the report lies. A path that leaves it, or that is not
            there, is shown but not linked.
    """
    beside = [name for name in COMPANION_FILES if model.folder and (folder / model.folder / name).is_file()]
    names = [*model.files, *(name for name in beside if name not in model.files)]
    return [Link(name, _href(PurePosixPath(model.folder) / name, folder)) for name in names]


def _href(path: PurePosixPath, folder: Path) -> str:
    if path.is_absolute() or ".." in path.parts or not (folder / path).is_file():
        return ""
    return quote(str(path))
