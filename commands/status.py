"""Show how far a study is: progress, spend, best so far and time left.

gnomon status from=runs/my-study
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..cli import Options

CONFIG = "status"


def run(config: DictConfig, options: Options) -> int:
    """Reads the ledger only; safe while workers write to it."""
    from rich.console import Console
    from rich.table import Table

    from ..search.status import study_status
    from ._studies import study_folder

    status = study_status(study_folder(config))
    if options.json:
        print(json.dumps(status.to_dict()))
        return 0
    table = Table(title=f"study {status.name}", title_justify="left", show_header=False)
    for name, value in _rows(status):
        table.add_row(name, value)
    Console().print(table)
    print(status.folder)
    return 0


def _rows(status: Any) -> list[tuple[str, str]]:
    counts = status.counts
    left = "unknown yet" if status.left_s is None else f"{status.left_s / 60:.1f} min of evaluations"
    best = (
        "none yet"
        if status.best_quality is None
        else (f"{status.metric} {status.best_quality:.4f} at {status.best_latency_ms:.4g} ms (predicted)")
    )
    return [
        ("phase", status.phase),
        (
            "evaluated",
            f"{counts.evaluated} of {status.target} "
            f"({counts.failed} failed, {counts.duplicates} duplicates cost nothing)",
        ),
        ("now", f"{counts.running} running, {counts.waiting} waiting"),
        ("latency limit", status.limit_text),
        ("best within the limit", best),
        ("spent on evaluations", f"{status.evaluating_s / 60:.1f} min"),
        ("left", left),
        ("models trained", str(status.models)),
    ]
