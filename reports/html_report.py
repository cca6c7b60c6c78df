"""One self-contained HTML page: inline style, images as data URIs, no script, no request."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..records import ChoiceCount, Fingerprint, ReferenceRow, SharedTraining, StudySummary, TrialRow
from . import tables
from .agreement_plot import Z90, agreement, reference_pairs
from .captions import caption
from .format import (
    MISSING,
    QualityFormat,
    byte_size,
    count,
    counted,
    duration,
    limit_ms,
    milliseconds,
    percent,
    significant,
    with_std,
    words,
)
from .plots import Plot
from .rows import Link, ModelView, file_links, measured_ms, model_score, model_views, signed_percent
from .verdict import (
    VERDICT_TEXT,
    headline,
    is_published,
    limit_outcome,
    limit_text,
    place,
    statistic_text,
    tone,
)

TEMPLATE = "report.html.j2"
MAX_TRIALS = 500
"""Rows of the table of trials; all of them are in the ledger and in ``study.json``."""


@dataclass(frozen=True)
class Image:
    """A plot on the page; ``uri`` is empty where there was nothing to draw."""

    name: str
    title: str
    uri: str
    href: str
    alt: str
    caption: str
    missing: str


@dataclass(frozen=True)
class Model:
    """A finalised model on the page."""

    view: ModelView
    links: tuple[Link, ...]
    config: tuple[tuple[str, str], ...]
    facts: tuple[str, ...]


def render_html(summary: StudySummary, plots: Sequence[Plot], study_folder: Path) -> str:
    """The page as text.

    Args:
        summary: The study.
        plots: As :func:`gnomon.reports.plots.write_plots` wrote them into ``study_folder``.
        study_folder: Where the page will lie; links are relative to it.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["nb"] = _unbroken
    return environment.get_template(TEMPLATE).render(context(summary, plots, study_folder))


def _unbroken(text: str) -> str:
    """Keeps a number and its unit on one line."""
    for unit in ("%", "ms", "s", "min", "σ"):
        text = re.sub(rf"(?<=\d) (?={unit}(?!\w))", "\u00a0", text)
    return re.sub(r"(\[[^\]]*,) ", "\\1\u00a0", text.replace(" ± ", "\u00a0±\u00a0"))


def context(summary: StudySummary, plots: Sequence[Plot], study_folder: Path) -> dict[str, Any]:
    """Everything that the template shows, as text."""
    models = [
        _model(view, study_folder, summary.metric, is_published(summary.setting)) for view in model_views(summary)
    ]
    return {
        "summary": summary,
        "headline": headline(summary),
        "tone": tone(summary),
        "place": place(summary.setting),
        "published": is_published(summary.setting),
        "task": _task(summary),
        "cards": _cards(summary),
        "columns": tables.columns(summary),
        "cells": {m.view.label: tables.cells(summary, m.view) for m in models},
        "accepted": [m for m in models if m.view.status != "dropped"],
        "dropped": [m for m in models if m.view.status == "dropped"],
        "shared": None if summary.shared_training is None else _shared(summary.shared_training),
        "images": [_image(summary, plot) for plot in plots],
        "limit": limit_text(summary),
        "limit_outcome": limit_outcome(summary),
        "statistic": statistic_text(summary),
        "verdicts": _verdicts_used(summary),
        "verdict_text": VERDICT_TEXT,
        "device": _device(summary),
        "seconds": [(words(k), duration(v)) for k, v in tables.ordered_spend(summary) if k.endswith("_s")],
        "counts": [(words(k), f"{v:,.0f}") for k, v in tables.ordered_spend(summary) if not k.endswith("_s")],
        "references": [_reference(r) for r in summary.references],
        "reference_text": _reference_text(summary),
        "trials": [_trial(summary, t) for t in summary.trials[:MAX_TRIALS]],
        "trials_left": max(0, len(summary.trials) - MAX_TRIALS),
        "failed": [t for t in summary.trials if t.state == "failed"],
        "settings": _settings(summary),
        "runs": study_folder.absolute().parent.name,
        "folder": shlex.quote(f"{study_folder.absolute().parent.name}/{study_folder.absolute().name}"),
    }


def _model(view: ModelView, study_folder: Path, metric: str, published: bool) -> Model:
    links = tuple(file_links(view.model, study_folder))
    config = tuple((name, str(value)) for name, value in view.model.config.items())
    return Model(view, links, config, tuple(_facts(view, metric, "recorded" if published else "measured")))


def _facts(view: ModelView, metric: str, kind: str) -> list[str]:
    """What else is known of a model, in phrases."""
    facts = [f"test {words(name)} {value:.4g}" for name, value in view.model.test.items() if name != metric]
    if view.status == "dominated":
        facts.append("another verified model is at least as good and as fast")
    if view.error_sigmas:
        facts.append(f"{kind} {view.error_sigmas} from the prediction")
    found = view.model.measurement
    if found is not None and found.n_runs:
        facts.append(f"{counted(found.n_runs, 'timed runs')} in {len(found.process_values)} processes")
    if found is not None and len(found.parts) > 1:
        facts.append(", ".join(f"{name} {milliseconds(value)}" for name, value in found.parts.items()))
    if found is not None and found.peak_memory_bytes is not None:
        facts.append(f"peak memory {byte_size(found.peak_memory_bytes)}")
    if found is not None and found.energy_mj is not None:
        facts.append(f"energy {significant(found.energy_mj)} mJ")
    if view.model.max_abs_error is not None:
        facts.append(f"ONNX within {view.max_abs_error} of torch")
    return facts


def _image(summary: StudySummary, plot: Plot) -> Image:
    text = caption(summary, plot.name)
    if plot.path is None:
        return Image(plot.name, plot.title, "", "", plot.alt, text, plot.missing)
    data = base64.b64encode(plot.path.read_bytes()).decode("ascii")
    href = f"{plot.path.parent.name}/{plot.path.name}"
    return Image(plot.name, plot.title, f"data:image/png;base64,{data}", href, plot.alt, text, "")


@dataclass(frozen=True)
class Shared:
    """The training of shared weights on the page: key figures, a row a decision, and a row a place."""

    text: str
    facts: tuple[tuple[str, str], ...]
    choices: tuple[tuple[str, str, str], ...]
    replacements: tuple[str, ...]
    errors: tuple[tuple[str, ...], ...]


def _shared(training: SharedTraining) -> Shared:
    last = [(f"{name} network", f"{curve[-1]:.4g}") for name, curve in training.curves.items() if curve]
    apart = bool(training.errors)
    facts = [
        ("rule", words(training.rule)),
        ("epochs", f"{training.epochs:,}"),
        ("steps", f"{training.steps:,}"),
        *([] if apart else [("networks trained in them", f"{training.networks:,}")]),
        ("time", duration(training.seconds)),
        *[(f"validation {words(training.metric)}, {name}", value) for name, value in last],
    ]
    text = (
        "Qualities in the search are of networks that were put together from parts, each of which learnt by itself."
        if apart
        else "Qualities in the search are of parts of one network that was trained for the whole space."
    )
    choices = tuple(_choice_row(row) for row in training.choices)
    return Shared(text, tuple(facts), choices, *_error_rows(training))


def _error_rows(training: SharedTraining) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Names of replacements, and for each place its name and their last errors; empty where nothing learnt apart."""
    last = {name: errors[-1] for name, errors in training.errors.items() if errors}
    places = dict.fromkeys(name.partition("/")[0] for name in last)
    names = tuple(dict.fromkeys(name.partition("/")[2] for name in last))
    cells = {name: f"{error:.3g}" for name, error in last.items()}
    return names, tuple((place, *(cells.get(f"{place}/{name}", "") for name in names)) for place in places)


def _choice_row(row: ChoiceCount) -> tuple[str, str, str]:
    """Cells: decision, how often each choice was trained, most over least."""
    trained = ", ".join(f"{choice}: {n:,}" for choice, n in zip(row.choices, row.trained, strict=True))
    return row.decision, trained, "a choice was never trained" if row.imbalance is None else f"{row.imbalance:.2f}"


def _task(summary: StudySummary) -> str:
    """What the study calls its data: a task's identity names at least one of these."""
    known = (summary.task.get(key) for key in ("name", "data", "task"))
    return str(next((value for value in known if value), "a task"))


def _machine(summary: StudySummary) -> Fingerprint:
    """The machine as it was while the models were measured; before that, as the search found it."""
    measured = (m.measurement for m in summary.models if m.measurement is not None)
    return next((m.fingerprint for m in measured if m.verdict != "failed"), summary.fingerprint)


def _cards(summary: StudySummary) -> list[tuple[str, str, str]]:
    """Key figures as (figure, what it is, detail)."""
    accepted = [m for m in summary.models if m.accepted]
    cards = []
    scored = [(s, m) for m in accepted if (s := model_score(summary, m)) is not None]
    quality = QualityFormat(summary)
    if scored:
        score, best = max(scored, key=lambda pair: pair[0])
        kind = "recorded" if summary.recorded else "test"
        cards.append((quality(score), f"best {kind} {words(summary.metric)}", f"at {milliseconds(measured_ms(best))}"))
    timed = [(latency, m) for m in accepted if (latency := measured_ms(m)) is not None]
    if timed:
        latency, fastest = min(timed, key=lambda pair: pair[0])
        detail = f"at {quality(model_score(summary, fastest))} {words(summary.metric)}"
        cards.append(
            (milliseconds(latency), f"fastest verified {'architecture' if summary.recorded else 'model'}", detail)
        )
    if summary.limit_ms is not None:
        cards.append((limit_ms(summary.limit_ms), "latency limit", f"{percent(summary.confidence)} confidence"))
    evaluations = summary.spend.get("evaluations")
    if evaluations is not None:
        failures = summary.spend.get("failures", 0)
        cards.append((f"{evaluations:,.0f}", "architectures evaluated", f"{failures:,.0f} failed"))
    if "wall_s" in summary.spend:
        cards.append((duration(summary.spend["wall_s"]), "from start to end", ""))
    return cards


def _verdicts_used(summary: StudySummary) -> list[str]:
    found = {m.measurement.verdict for m in summary.models if m.measurement is not None}
    return [verdict for verdict in VERDICT_TEXT if verdict in found]


def _device(summary: StudySummary) -> list[tuple[str, str]]:
    """Setting and fingerprint as (name, value); published tables know little more than a name."""
    setting, machine = summary.setting, _machine(summary)
    rows = [
        ("device", setting.device),
        ("hardware", setting.hardware),
        ("runtime", machine.runtime or setting.runtime),
        ("precision", setting.precision),
        ("threads", str(setting.threads)),
        ("batch", str(setting.workload.batch)),
        ("input shape", " × ".join(str(n) for n in setting.workload.input_shape)),
    ]
    work = setting.workload
    lengths = (("tokens read", work.source_length), ("tokens written", work.generated_length))
    if any(length is not None for _, length in lengths):
        rows[-1:] = [*((name, str(n)) for name, n in lengths if n is not None), ("beams", str(work.beam))]
    rows += [(words(name), str(value)) for name, value in setting.options.items()]
    if is_published(setting):
        return rows
    unknown = "not readable here"
    return [
        *rows,
        ("CPU", machine.cpu),
        ("cores", str(machine.cores)),
        ("memory", byte_size(machine.memory_bytes)),
        ("accelerator", machine.accelerator or "none"),
        ("operating system", machine.os),
        ("Python", machine.python),
        ("frequency governor", machine.governor or unknown),
        ("load, 1 min", unknown if machine.load_1min is None else f"{machine.load_1min:.2f}"),
        ("pinned to a core", "yes" if machine.pinned else "no"),
        ("real-time scheduling", "yes" if machine.realtime else "no"),
        ("virtual machine", {None: "unknown", True: "yes", False: "no"}[machine.virtual]),
    ]


def _reference(row: ReferenceRow) -> tuple[str, ...]:
    """Cells: name, measured, predicted, deviation, in the 90 % interval."""
    deviation = row.measured_ms - row.predicted_ms
    relative = signed_percent(deviation / row.predicted_ms) if row.predicted_ms > 0 else MISSING
    covered = "yes" if abs(deviation) <= Z90 * row.predicted_std_ms else "no"
    predicted = with_std(row.predicted_ms, row.predicted_std_ms)
    return (row.name or row.key, significant(row.measured_ms), predicted, relative, covered)


def _reference_text(summary: StudySummary) -> str:
    found = agreement(reference_pairs(summary.references))
    if found is None:
        return ""
    text = (
        f"Mean deviation {percent(found.mape, 1)}; {found.within} of {found.n} within ±10 %; "
        f"{found.covered} of {found.n} inside the predicted 90 % interval"
    )
    return f"{text}." if found.spearman is None else f"{text}; rank correlation (Spearman) {found.spearman:.2f}."


def _trial(summary: StudySummary, trial: TrialRow) -> tuple[str, ...]:
    """Cells: number, state, quality, predicted latency, remark, seconds, architecture."""
    remarks = []
    if trial.on_front:
        remarks.append("front")
    if trial.state == "complete" and not trial.feasible:
        remarks.append("beyond the limit")
    if trial.duplicate_of is not None:
        remarks.append(f"same as {trial.duplicate_of}")
    if trial.error:
        remarks.append(trial.error)
    latency = MISSING if trial.latency_ms is None else with_std(trial.latency_ms, trial.latency_std_ms or 0.0)
    cost = duration(trial.cost_s) if trial.cost_s else MISSING
    return (
        str(trial.number),
        trial.state,
        QualityFormat(summary)(trial.quality),
        latency,
        ", ".join(remarks),
        cost,
        trial.key,
    )


def _settings(summary: StudySummary) -> list[tuple[str, str]]:
    objective = ", ".join(f"{words(name)} ({d})" for name, d in zip(summary.values, summary.directions, strict=False))
    rows = [
        ("space", summary.space),
        ("task", _task(summary)),
        ("strategy", summary.strategy),
        ("latency predictor", f"{summary.predictor}, {len(summary.references)} reference measurements"),
        ("objective", objective),
        ("latency limit", limit_text(summary).removeprefix("limit ") or "none"),
        ("seed", str(summary.seed)),
        ("gnomon", summary.version),
        ("summary written", summary.created),
    ]
    return rows + [(f"task: {words(k)}", _plain(v)) for k, v in summary.task.items() if k != "name"]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{words(str(k))} {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(v) for v in value)
    return count(value) if isinstance(value, float) else str(value)
