"""Read published measurements in their upstream format and keep them as one safe file.

Latencies alone are a *pool* (HELP's FBNet and Once-for-All, HAT, YOLOBench): latency predictors learn from it.
Accuracies or latencies of a whole benchmark are a *table*: recorded devices and evaluators read it, and where it
holds latencies it is read as a pool, too.

    gnomon import data=help_fbnet from=HELP/data/fbnet to=pools/fbnet.npz
    gnomon import data=help_nasbench201 from=HELP/data/nasbench201 to=tables/help.npz
    gnomon search experiment=nasbench201_recorded \\
        device.table._target_=gnomon.records.table_file.load_table device.table.path=tables/help.npz
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig

    from ..cli import Options
    from ..records import ArchitectureTable, DevicePool

CONFIG = "import"


def run(config: DictConfig, options: Options) -> int:
    """Imports and prints what was found, setting by setting or column by column."""
    from ..errors import ConfigError
    from ..records import ArchitectureTable, DevicePool
    from ..records.pool_file import save_pool
    from ..records.table_file import save_table
    from ..search.instantiate import instantiate

    extra = {} if config["from"] is None else {"path": config["from"]}
    found: Any = instantiate(config.data, "data", list(config.plugins), **extra)
    reader = str(config.data["_target_"]).rsplit(".", 1)[-1]
    if isinstance(found, DevicePool):
        to = Path(config.to or f"pools/{reader.removesuffix('_pool')}.npz")
        save_pool(found, to)
        summary = _pool_summary(found)
    elif isinstance(found, ArchitectureTable):
        to = Path(config.to or f"tables/{reader}.npz")
        save_table(found, to)
        summary = _table_summary(found)
    else:
        raise ConfigError(
            "reads neither a table nor a pool",
            field="data._target_",
            value=config.data["_target_"],
            allowed="functions that return an ArchitectureTable or a DevicePool",
        )
    if options.json:
        print(json.dumps({"file": str(to), **summary}))
    else:
        _print(to, summary)
    return 0


def _pool_summary(pool: DevicePool) -> dict[str, Any]:
    return {
        "kind": "pool",
        "architectures": len(pool),
        "space": None if pool.space is None else pool.space.name,
        "features": list(pool.feature_names),
        "source": pool.source,
        "settings": list(pool.settings),
        "recorded": {name: int(np.isfinite(pool.column(name)).sum()) for name in pool.settings},
        "notes": dict(pool.notes),
    }


def _table_summary(table: ArchitectureTable) -> dict[str, Any]:
    return {
        "kind": "table",
        "architectures": len(table.genotypes),
        "space": table.space.name,
        "features": [],
        "source": table.source,
        "settings": list(table.settings.values()),
        "recorded": {name: int(np.isfinite(values).sum()) for name, values in table.columns.items()},
        "notes": dict(table.notes),
    }


def _print(to: Path, summary: Mapping[str, Any]) -> None:
    of = summary["space"] or f"{len(summary['features'])} features, no architectures"
    rows = "architectures" if summary["space"] else "rows"
    print(f"{to}: {summary['kind']}, {summary['architectures']} {rows} of {of}, from {summary['source']}")
    for name, count in summary["recorded"].items():
        note = summary["notes"].get(name)
        print(f"  {name}: {count} recorded{'; ' + note if note else ''}")
    if summary["kind"] == "table":
        settings = summary["settings"]
        if settings:
            print(f"Its latencies are also a pool for predictors ({_count(len(settings), 'setting')}).")
        else:
            print("It holds no latencies: a table for recorded quality, not a pool for latency predictors.")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
