"""What every benchmark shares: the command line, the table, the flat JSON file."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gnomon.errors import DependencyError
from gnomon.schema import write_json

SCHEMA = "gnomon.benchmark/1"
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

_PACKAGES = ("gnomon-nas", "numpy", "scipy", "scikit-learn", "torch", "onnx", "onnxruntime", "optuna")

Metrics = Mapping[str, float]
Run = Callable[[bool], Metrics]
"""A benchmark: called with ``quick``, returns dotted metric names and numbers."""


def data_folder() -> Path:
    """The folder of published tables: ``GNOMON_DATA``, by default ``../shared/data`` beside the project."""
    folder = Path(os.environ.get("GNOMON_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        raise SystemExit(f"GNOMON_DATA={folder}: no such folder; set it to where the published tables are")
    return folder


def environment(seeds: Sequence[int] = ()) -> dict[str, Any]:
    """Where and when a figure was measured, as flat ``environment.*`` keys."""
    facts: dict[str, Any] = {
        "machine": platform.machine(),
        "os": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seeds": list(seeds),
    }
    for package in _PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {f"environment.{key}": value for key, value in facts.items()}


def main(name: str, run: Run, *, seeds: Sequence[int] = (), arguments: Sequence[str] | None = None) -> None:
    """Runs a benchmark from the command line: a table on screen, one flat JSON object if asked for.

    Args:
        name: Of the benchmark; its committed results are ``benchmarks/results/NAME.json``.
        run: The benchmark.
        seeds: The seeds that it uses, kept with the results.
        arguments: In place of ``sys.argv``.
    """
    parser = argparse.ArgumentParser(description=run.__doc__)
    main_with(name, lambda options: run(options.quick), parser, seeds=seeds, arguments=arguments)


def main_with(
    name: str,
    run: Callable[[argparse.Namespace], Metrics],
    parser: argparse.ArgumentParser,
    *,
    seeds: Sequence[int] = (),
    arguments: Sequence[str] | None = None,
) -> None:
    """:func:`main` for a benchmark with options of its own, which ``parser`` knows; ``run`` gets all options."""
    parser.prog = f"python -m benchmarks.{name}"
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: for a smoke run, not for quoting")
    parser.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        type=Path,
        const=RESULTS / f"{name}.json",
        help="write one flat JSON object (without FILE: benchmarks/results/NAME.json)",
    )
    options = parser.parse_args(arguments)
    try:
        metrics = dict(run(options))
    except DependencyError as error:
        raise SystemExit(f"benchmark {name}: {error}") from error
    wrong = [key for key, value in metrics.items() if not (isinstance(value, (int, float)) and math.isfinite(value))]
    if wrong:
        raise SystemExit(f"benchmark {name} gave no finite number for: {', '.join(wrong)}")
    show(name, metrics)
    if options.json is not None:
        facts = {**environment(seeds), "environment.quick": options.quick}
        write_json(options.json, SCHEMA, {"benchmark": name, **facts, **metrics})
        print(f"wrote {options.json}", file=sys.stderr)


def show(title: str, metrics: Metrics) -> None:
    """Prints metrics as a table; names that share all but their last part share a row."""
    rows: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        group, _, last = key.rpartition(".")
        rows.setdefault(group, {})[last] = value
    columns = list(dict.fromkeys(last for row in rows.values() for last in row))
    console = Console()
    is_grid = len(rows) > 1 and len(columns) <= 8 and len(metrics) >= 0.7 * len(rows) * len(columns)
    if not is_grid:
        table = Table("metric", "value", title=title)
        for key, value in metrics.items():
            table.add_row(key, shown(value))
    else:
        table = Table("", *columns, title=title)
        for group, row in rows.items():
            table.add_row(group, *(shown(row[c]) if c in row else "" for c in columns))
    console.print(table)


def shown(value: float) -> str:
    """Four significant digits, thousands separated."""
    if float(value).is_integer() or abs(value) >= 1e4:
        return f"{value:,.0f}"
    return f"{value:,.4g}"


def read_results(name: str) -> dict[str, Any]:
    """The committed results of a benchmark."""
    results: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return results


def kept_figures(name: str, groups: Iterable[str]) -> dict[str, float]:
    """Committed figures whose first part is one of ``groups``: of what a run does not make anew."""
    chosen = set(groups)
    if not chosen or not (RESULTS / f"{name}.json").is_file():
        return {}
    return {key: value for key, value in read_results(name).items() if key.partition(".")[0] in chosen}


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit, with ``+`` if the working tree differs from it."""
    try:
        git = ["git", "-C", str(ROOT)]
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
