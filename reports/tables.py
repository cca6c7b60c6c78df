"""The front as a table, for terminals and for Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..records import StudySummary
from .format import MISSING, QualityFormat, counted, duration, with_std, words
from .rows import ModelView, model_views
from .verdict import headline, is_published, limit_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


LEFT_OUT = ("deviation", "validation", "parameters")
"""Columns that a terminal of 80 characters has no room for."""

SPEND_ORDER = (
    "wall_s",
    "measuring_s",
    "preparing_s",
    "evaluating_s",
    "training_s",
    "evaluations",
    "failures",
    "duplicates",
    "measurements",
)
"""Names ending in ``_s`` are seconds, all others are counts; unknown ones follow."""


def columns(summary: StudySummary) -> tuple[str, ...]:
    """Titles of the front's columns."""
    measured = "recorded (ms)" if is_published(summary.setting) else "measured (ms)"
    metric = words(summary.metric)
    scores = (f"recorded {metric}",) if summary.recorded else (f"test {metric}", f"validation {metric}")
    if any(model.fp32 for model in summary.models):
        scores = (scores[0], f"{scores[0]} in fp32", *scores[1:])
    return ("", *scores, "predicted (ms)", measured, "deviation", "verdict", "MACs", "parameters")


def cells(summary: StudySummary, view: ModelView) -> tuple[str, ...]:
    """One model's cells under :func:`columns`."""
    scores = (view.validation,) if summary.recorded else (view.test, view.validation)
    if any(model.fp32 for model in summary.models):
        scores = (scores[0], view.fp32, *scores[1:])
    # An interval of no width, as published tables have, says nothing.
    bounds = "" if is_published(summary.setting) or not view.interval else f" {view.interval}"
    return (
        view.label,
        *scores,
        view.predicted,
        view.measured + bounds,
        view.error,
        view.verdict,
        view.macs,
        view.parameters,
    )


def front_table(summary: StudySummary) -> Table:
    """The verified models as a rich table; dropped ones are below it with their reasons."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    titles = [name for name in columns(summary) if not name.startswith(LEFT_OUT)]
    table = Table(title=Text(f"{summary.name}: verified models"), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.title_justify = table.caption_justify = "left"
    for name in titles:
        table.add_column(Text(name), justify="left" if name in ("", "verdict") else "right")
    dropped = []
    for view in model_views(summary):
        if view.status == "dropped":
            dropped.append(f"{view.label} dropped: {view.model.reason or 'no reason given'}")
            continue
        style = None if view.status == "front" else "dim"
        row = dict(zip(columns(summary), cells(summary, view), strict=True))
        table.add_row(*(Text(row[name]) for name in titles), style=style)
    if dropped:
        table.caption = Text("\n".join(dropped))
    return table


def best_table(summary: StudySummary, limit: int = 10) -> Table:
    """The search's own front of a study without finalised models, best quality first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    quality = QualityFormat(summary)
    table = Table(title=Text(f"{summary.name}: best so far, not verified"), box=box.SIMPLE_HEAD, min_width=60)
    table.title_justify = "left"
    for name in ("trial", words(summary.metric), "predicted (ms)"):
        table.add_column(name, justify="right")
    front = sorted((t for t in summary.trials if t.on_front), key=lambda t: -(t.quality or 0.0))
    for trial in front[:limit]:
        latency = MISSING if trial.latency_ms is None else with_std(trial.latency_ms, trial.latency_std_ms or 0.0)
        table.add_row(str(trial.number), quality(trial.quality), latency)
    return table


def print_summary(summary: StudySummary, console: Console | None = None) -> None:
    """Prints the outcome, the front, and what was spent."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    table = front_table(summary) if any(m.accepted for m in summary.models) else None
    if table is None:
        for view in model_views(summary):
            console.print(Text(f"{view.label} dropped: {view.model.reason or 'no reason given'}"))
        table = best_table(summary) if any(t.on_front for t in summary.trials) else None
    if table is not None:
        console.print(table)
    console.print(Text(headline(summary), style="bold"))
    if limit_text(summary):
        console.print(Text(limit_text(summary)))
    console.print(Text("spent: " + ", ".join(spend_words(summary)), style="dim"))


def ordered_spend(summary: StudySummary) -> list[tuple[str, float]]:
    """What was spent, in an order that reads well whatever the order in the file."""
    rank = {name: i for i, name in enumerate(SPEND_ORDER)}
    return sorted(summary.spend.items(), key=lambda item: (not item[0].endswith("_s"), rank.get(item[0], len(rank))))


def spend_words(summary: StudySummary) -> list[str]:
    """What was spent, as phrases: ``wall 4 min 10 s``, ``24 evaluations``."""
    return [
        f"{words(name)} {duration(value)}" if name.endswith("_s") else counted(value, words(name))
        for name, value in ordered_spend(summary)
    ]


def front_markdown(summary: StudySummary) -> str:
    """The verified models as a Markdown table, after the outcome in one sentence."""
    lines = [_escaped(headline(summary)), ""]
    views = [view for view in model_views(summary) if view.status != "dropped"]
    if views:
        titles = columns(summary)
        lines += [_line(titles), _line(["---"] * len(titles)), *(_line(cells(summary, view)) for view in views)]
    if limit_text(summary):
        lines += ["", _escaped(f"Latency {limit_text(summary)}.")]
    return "\n".join(lines) + "\n"


def _line(texts: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(text if text == '---' else _escaped(text) for text in texts)} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    for mark in "|`*_[]":
        text = text.replace(mark, f"\\{mark}")
    return text
