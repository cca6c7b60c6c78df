"""Tables for terminals and Markdown."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from gnomon.records import StudySummary
from gnomon.reports.tables import front_markdown, front_table, ordered_spend, print_summary


def shown(summary: StudySummary, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_summary(summary, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_front_fits_in_80_characters(rich: StudySummary) -> None:
    lines = shown(rich).splitlines()
    row = next(line for line in lines if line.startswith(" M3"))
    assert "98.32 %" in row
    assert "0.2150 ± 0.0090" in row
    assert "0.224 [0.2234, 0.2262]" in row
    assert any(line.startswith("M6 dropped: measured 0.4212 ms") for line in lines)


def test_fastest_first_and_dropped_last(rich: StudySummary) -> None:
    assert front_table(rich).row_count == 4
    text = shown(rich)
    assert text.index("M1") < text.index("M2") < text.index("M4") < text.index("M5 dropped")


def test_unfinished_study_shows_its_best_trials(rich: StudySummary) -> None:
    text = shown(replace(rich, models=(), finished=False))
    best = max((t for t in rich.trials if t.on_front), key=lambda t: t.quality or 0.0)
    assert "best so far, not verified" in text
    assert f"{100 * best.quality:.2f} %" in text  # type: ignore[operator]


def test_empty_study_prints_the_headline(empty: StudySummary) -> None:
    assert "Not finished: 0 architectures evaluated so far" in shown(empty)


def test_markup_in_names_is_text(rich: StudySummary) -> None:
    assert "[red]x[/red]" in shown(replace(rich, name="[red]x[/red]", models=rich.models[:1]))


def test_markdown_table(rich: StudySummary) -> None:
    lines = front_markdown(rich).splitlines()
    rows = [line for line in lines if line.startswith("| M")]
    assert len(rows) == 4
    assert {line.count("|") for line in lines if line.startswith("|")} == {10}


def test_markdown_is_escaped(rich: StudySummary) -> None:
    text = front_markdown(replace(rich, metric="a|b<c>_d_\n# e"))
    assert "a\\|b&lt;c> d # e" in text
    assert "\n# e" not in text


def test_spend_is_in_order_whatever_the_file_says(rich: StudySummary) -> None:
    spend = dict(sorted({**rich.spend, "zeal_s": 1.0, "apples": 2.0}.items()))
    names = [name for name, _ in ordered_spend(replace(rich, spend=spend))]
    assert names[0] == "wall_s"
    assert names.index("zeal_s") < names.index("evaluations") < names.index("apples")
