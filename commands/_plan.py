"""What a search will cost, before it starts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..search.setup import Components

EXPORT_S = 2.5
"""Typical seconds to export one small network; see docs/measuring.md."""


def plan(config: DictConfig) -> dict[str, Any]:
    """Counts and rough seconds of each phase; seconds are None where nothing is known."""
    from ..search.calibrate import reference_rows
    from ..search.setup import build

    c = build(config)
    per_model_s = c.protocol.time_cap_s * c.protocol.processes
    evaluation_s = c.evaluator.cost_hint_s()
    preparation_s = c.evaluator.preparation_hint_s()
    trained = c.evaluator.has_weights and c.finalise.enabled
    training_s = _training_s(c, evaluation_s) if trained else None
    export_s = EXPORT_S if c.device.accepts == "onnx" else 0.0
    live = c.device.accepts != "architecture"
    phases = {
        "reference measurements": (
            len(reference_rows(c)) + c.study.refinements,
            (export_s + per_model_s) if live else 0.0,
            1,
        ),
        **({"preparation": (1, preparation_s, 1)} if preparation_s != 0.0 else {}),
        "evaluations": (c.study.evaluations, evaluation_s, c.study.workers),
        "full trainings (at most)": (c.finalise.max_models if trained else 0, training_s, c.study.workers),
        "verification measurements (at most)": (
            c.finalise.max_models if c.finalise.enabled else 0,
            per_model_s if live else 0.0,
            1,
        ),
    }
    rows = {
        name: {"count": count, "each_s": each, "total_s": None if each is None else count * each / workers}
        for name, (count, each, workers) in phases.items()
    }
    known = [row["total_s"] for row in rows.values() if row["total_s"] is not None]
    return {
        "study": c.study.name,
        "folder": c.study.folder,
        "space": c.space.name,
        "log10_architectures": round(c.space.log10_size, 1),
        "device": c.device.name,
        "phases": rows,
        "total_s": sum(known),
        "complete": len(known) == len(rows),
    }


def _training_s(c: Components, evaluation_s: float | None) -> float | None:
    """Of one full training: as evaluations are, where they are trainings, else of the space's first named network."""
    epochs = getattr(c.evaluator, "epochs", None)
    if epochs and evaluation_s is not None:
        return float(evaluation_s / epochs * c.finalise.budget)
    name = next(iter(c.space.named), None)
    return None if name is None else c.task.cost_hint_s(c.space.build(c.space.named[name]), c.finalise.budget)


def print_plan(config: DictConfig, *, as_json: bool) -> None:
    """Prints :func:`plan`."""
    result = plan(config)
    if as_json:
        print(json.dumps(result))
        return
    table = Table(title=f"{result['study']}: what this search will cost", title_justify="left")
    for name, justify in (("phase", "left"), ("count", "right"), ("seconds each", "right"), ("minutes", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, row in result["phases"].items():
        each, total = row["each_s"], row["total_s"]
        table.add_row(
            name,
            str(row["count"]),
            "?" if each is None else f"{each:.1f}",
            "?" if total is None else f"{total / 60:.1f}",
        )
    console = Console()
    console.print(table)
    rough = "" if result["complete"] else ", without what is not known"
    console.print(
        f"about {result['total_s'] / 60:.1f} minutes{rough}; "
        f"{result['space']} holds 10^{result['log10_architectures']} architectures"
    )
    console.print(f"study folder: {result['folder']}")
