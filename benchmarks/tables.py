"""Writes the figures of README and docs from ``benchmarks/results/``: ``python -m benchmarks.tables [--check]``.

Nobody types a measured figure. A table stands between two comments, of which the first says what it shows::

    <!-- table:nasbench201_search metric="hypervolume.{row}.{column}" row="strategy" format=".3f" -->
    <!-- /table -->

``metric`` picks the metrics of ``benchmarks/results/nasbench201_search.json``; ``{row}`` and ``{column}`` each
stand for one part of a dotted name. Optional: ``row`` (head of the first column), ``value`` (head of the only
column if there is no ``{column}``), ``rows`` and ``columns`` (which, in which order: ``"name, name: label"``),
``sort`` (column by which rows descend), ``format`` (a Python format; the default is four significant digits).

A single figure in a sentence: ``<!-- number:workers speedup.two .2f -->1.93<!-- /number -->``.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT, read_results, shown

_TABLE = re.compile(r"(<!-- table:(\w+)((?:(?!-->).)*)-->)(?:(?!<!-- table:).)*?(<!-- /table -->)", re.DOTALL)
_NUMBER = re.compile(r"(<!-- number:(\w+) +(\S+)(?: +(\S+))? *-->)(?:(?!<!--).)*?(<!-- /number -->)", re.DOTALL)
_OPTIONS = ("metric", "row", "value", "rows", "columns", "sort", "format")

Results = Callable[[str], Mapping[str, Any]]
"""The flat results of a benchmark by its name."""


class TableError(ValueError):
    """A marker in a document asks for what the results do not hold."""


def documents() -> list[Path]:
    """The documents that may hold figures."""
    return [path for path in (ROOT / "README.md", ROOT / "ARCHITECTURE.md") if path.is_file()] + sorted(
        (ROOT / "docs").rglob("*.md")
    )


def committed(name: str) -> Mapping[str, Any]:
    """The committed results of a benchmark.

    Raises:
        TableError: If there are none, or if they come from a ``--quick`` run.
    """
    try:
        results = read_results(name)
    except OSError as error:
        raise TableError(f"no results of {name}; run: python -m benchmarks.{name} --json") from error
    if results.get("environment.quick"):
        raise TableError(f"the results of {name} come from a --quick run; run: python -m benchmarks.{name} --json")
    return results


def render(text: str, results: Results = committed) -> str:
    """``text`` with all its tables and figures written anew.

    Raises:
        TableError: If a marker is malformed, or its metrics do not exist.
    """
    for kind, pattern in (("table", _TABLE), ("number", _NUMBER)):
        if text.count(f"<!-- {kind}:") != len(pattern.findall(text)) or text.count(f"<!-- /{kind} -->") != len(
            pattern.findall(text)
        ):
            raise TableError(f"each <!-- {kind}:NAME ... --> needs its own <!-- /{kind} -->")
    text = _TABLE.sub(lambda m: f"{m[1]}\n{table(m[2], _options(m[3]), results)}\n{m[4]}", text)
    return _NUMBER.sub(lambda m: f"{m[1]}{number(m[2], m[3], m[4], results)}{m[5]}", text)


def number(name: str, metric: str, style: str | None, results: Results) -> str:
    """One figure of a benchmark."""
    found = results(name)
    if metric not in found:
        raise TableError(f"{name} has no metric {metric}; it has: {', '.join(_metrics(found))}")
    return _shown(found[metric], style)


def table(name: str, options: Mapping[str, str], results: Results) -> str:
    """A Markdown table with, below it, where its figures come from."""
    found = results(name)
    cells = _cells(options["metric"], found)
    if not cells:
        raise TableError(f"{name} has no metric {options['metric']}; it has: {', '.join(_metrics(found))}")
    columns = _chosen(options.get("columns"), [column for _, column in cells], f"columns of {name}")
    rows = _chosen(options.get("rows"), [row for row, _ in cells], f"rows of {name}")
    order = list(rows)
    if "sort" in options:
        if options["sort"] not in columns:
            raise TableError(f"sort={options['sort']}: no such column in the table of {name}: {', '.join(columns)}")
        order.sort(key=lambda row: -cells.get((row, options["sort"]), float("-inf")))
    heads = [options.get("value", "value")] if list(columns) == [""] else list(columns.values())
    lines = [_line([options.get("row", ""), *heads]), _line(["---", *("---:" for _ in heads)])]
    for row in order:
        values = (cells.get((row, column)) for column in columns)
        lines.append(
            _line([rows[row], *("–" if value is None else _shown(value, options.get("format")) for value in values)])
        )
    return "\n".join(["", *lines, "", _source(name, found), ""])


def _cells(pattern: str, found: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """The metrics that match ``pattern``, by row and column."""
    expression = re.escape(pattern).replace(r"\{row\}", r"(?P<row>[^.]+)").replace(r"\{column\}", r"(?P<column>[^.]+)")
    cells = {}
    for metric in _metrics(found):
        if match := re.fullmatch(expression, metric):
            parts = match.groupdict()
            cells[parts.get("row", metric), parts.get("column", "")] = float(found[metric])
    return cells


def _metrics(found: Mapping[str, Any]) -> list[str]:
    outside = ("schema", "benchmark")
    return [name for name in found if name not in outside and not name.startswith("environment.")]


def _chosen(option: str | None, existing: Sequence[str], what: str) -> dict[str, str]:
    """Names to labels, in the order to show."""
    if option is None:
        return {name: name for name in existing}
    chosen = {}
    for part in option.split(","):
        name, _, label = (word.strip() for word in part.partition(":"))
        if name not in existing:
            raise TableError(f"{what}: {name} is not among {', '.join(dict.fromkeys(existing))}")
        chosen[name] = label or name
    return chosen


def _options(text: str) -> dict[str, str]:
    try:
        options = dict(word.split("=", 1) for word in shlex.split(text))
    except ValueError as error:
        raise TableError(f"cannot read the options {text.strip()!r} of a table: {error}") from error
    if "metric" not in options or not set(options) <= set(_OPTIONS):
        raise TableError(f"a table needs metric=..., and knows {', '.join(_OPTIONS)}; this one says {text.strip()!r}")
    return options


def _source(name: str, found: Mapping[str, Any]) -> str:
    facts = {key: found.get(f"environment.{key}", "unknown") for key in ("cpu", "cores", "commit", "date")}
    return (
        f"<sub>`python -m benchmarks.{name}`, {facts['cpu']}, {facts['cores']} cores, "
        f"commit {facts['commit']}, {str(facts['date'])[:10]}</sub>"
    )


def _shown(value: float, style: str | None) -> str:
    try:
        return format(value, style) if style else shown(value)
    except ValueError as error:
        raise TableError(f"format={style}: {error}") from error


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the documents, or with ``--check`` says which of them do not agree with the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description="Figures of README and docs")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a document would change")
    options = parser.parse_args(arguments)
    stale = []
    for path in documents():
        text = path.read_text(encoding="utf-8")
        try:
            fresh = render(text)
        except TableError as error:
            print(f"{path.relative_to(ROOT)}: {error}", file=sys.stderr)
            return 2
        if fresh != text:
            stale.append(path)
            if not options.check:
                path.write_text(fresh, encoding="utf-8")
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date, run: make tables' if options.check else 'written'}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
