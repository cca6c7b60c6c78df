"""Read a published table in its upstream format and keep it as one safe file.

    gnomon import data=help_nasbench201 from=HELP/data/nasbench201 to=tables/help.npz
    gnomon search experiment=nasbench201_recorded \\
        device.table._target_=gnomon.records.table_file.load_table device.table.path=tables/help.npz
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..cli import Options
    from ..records import ArchitectureTable

CONFIG = "import"


def run(config: DictConfig, options: Options) -> int:
    """Imports and prints what was found, column by column."""
    from ..records.table_file import save_table
    from ..search.instantiate import instantiate

    extra = {} if config["from"] is None else {"path": config["from"]}
    table: ArchitectureTable = instantiate(config.data, "data", list(config.plugins), **extra)
    to = Path(config.to or f"tables/{str(config.data['_target_']).rsplit('.', 1)[-1]}.npz")
    save_table(table, to)
    recorded = {name: int(np.isfinite(values).sum()) for name, values in table.columns.items()}
    if options.json:
        print(json.dumps({"file": str(to), "architectures": len(table.genotypes), "recorded": recorded}))
        return 0
    print(f"{to}: {len(table.genotypes)} architectures of {table.space.name}, from {table.source}")
    for name, count in recorded.items():
        print(f"  {name}: {count} recorded{'; ' + table.notes[name] if name in table.notes else ''}")
    return 0
