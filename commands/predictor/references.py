"""Say which architectures to measure on a new device, and write them to a file to fill in.

gnomon predictor references space=mobile_cnn n=10
gnomon predictor references bundle=bundles/gnomon-nasbench201 n=5 to=mine.json

Measure each, put its latency_ms into the file, then: gnomon predictor adapt from=mine.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ...cli import Options
    from ...search_spaces import Genotypes, SearchSpace

CONFIG = "predictor_references"


def run(config: DictConfig, options: Options) -> int:
    """Prints and writes the references."""
    from ...schema import SCHEMA_KEY, write_json
    from .._values import checked_integer
    from ._latencies import REFERENCES_SCHEMA
    from ._making import make_predictor, stamp

    n, seed = checked_integer(config.n, "n", 1), checked_integer(config.seed, "seed", 0)
    made = make_predictor(config, options)
    rows = made.predictor.references(n, seed=seed)
    data = {
        "space": made.space.spec(),
        "predictor": made.option,
        "bundle": made.bundle,
        "seed": seed,
        **stamp(),
        "architectures": architecture_entries(made.space, rows),
    }
    to = Path(config.to)
    write_json(to, REFERENCES_SCHEMA, data)
    if options.json:
        print(json.dumps({"file": str(to), SCHEMA_KEY: REFERENCES_SCHEMA, **data}))
    else:
        _print(made.space, rows, to, made.option, made.bundle)
    return 0


def architecture_entries(space: SearchSpace, rows: Genotypes) -> list[dict[str, Any]]:
    """One entry an architecture, ``latency_ms`` still to be filled in."""
    names = _names(space)
    return [
        {"architecture": key, "name": names.get(key), "config": space.config(row), "latency_ms": None}
        for key, row in zip(space.keys(rows), rows, strict=True)
    ]


def _names(space: SearchSpace) -> dict[str, str]:
    """Names of known networks by key."""
    return {space.keys(space.named_genotype(name)[None])[0]: name for name in space.named}


def _print(space: SearchSpace, rows: Genotypes, to: Path, option: str, bundle: str) -> None:
    from rich.console import Console
    from rich.table import Table

    names, macs = _names(space), space.costs(rows).macs
    print(f"{len(rows)} reference architectures of {space.name} for predictor={option}")
    table = Table()
    for column, justify in (("", "right"), ("architecture", "left"), ("known as", "left"), ("MACs (M)", "right")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for index, key in enumerate(space.keys(rows)):
        table.add_row(str(index + 1), key, names.get(key, ""), f"{macs[index] / 1e6:.4g}")
    Console().print(table)
    words = f" bundle={bundle}" if bundle else ""
    print(f"file: {to}: fill in latency_ms, then `gnomon predictor adapt{words} from={to}`")
