"""List the devices: what can run here, and why not the rest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..cli import Options

CONFIG = "devices"


def run(config: DictConfig, options: Options) -> int:
    """Prints every option of the device group with its state."""
    from dataclasses import asdict
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from ..devices.catalog import discover_devices

    entries = discover_devices([Path(folder) for folder in options.config_dirs])
    if options.json:
        print(json.dumps([asdict(entry) for entry in entries]))
        return 0
    table = Table()
    for column in ("device", "takes", "here", "what it is"):
        table.add_column(column)
    for entry in entries:
        table.add_row(entry.option, entry.accepts, "yes" if entry.unavailable is None else "no", entry.summary)
    Console().print(table)
    missing = [entry for entry in entries if entry.unavailable is not None]
    if missing:  # below and unwrapped: reasons hold commands to copy
        print("cannot run here:", *(f"  {entry.option}: {entry.unavailable}" for entry in missing), sep="\n")
    return 0
