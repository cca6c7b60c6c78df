"""List the search spaces: sizes, decisions, known networks and an example.

gnomon spaces                        all of them, a line each
gnomon spaces space=mobile_cnn       one in full
gnomon spaces space=mobile_cnn space.blocks=5
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..cli import Options

CONFIG = "spaces"


def run(config: DictConfig, options: Options) -> int:
    """Prints one space in full, or all in short."""
    if config.get("space") is None:
        descriptions = [_describe(name, config, options) for name in _names()]
        if options.json:
            print(json.dumps(descriptions))
        else:
            _print_list(descriptions)
        return 0
    from ..search.setup import make_space

    description = make_space(config.space, None, list(config.plugins)).describe()
    if options.json:
        print(json.dumps(description))
    else:
        _print_space(description)
    return 0


def _names() -> list[str]:
    from ..conf.compose import groups

    return groups()["space"]


def _describe(name: str, config: DictConfig, options: Options) -> dict[str, Any]:
    from ..conf.compose import compose
    from ..search.setup import make_space

    composed = compose(CONFIG, [*options.overrides, f"space={name}"], options.config_dirs)
    if "model" in composed.space and composed.space.model is None:
        return {"option": name, "needs": "model"}  # A space of the user's own model is nothing without it.
    return {"option": name, **make_space(composed.space, None, list(config.plugins)).describe()}


def _print_list(descriptions: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("space", "architectures", "decisions", "known networks"):
        table.add_column(column)
    for d in descriptions:
        if "needs" in d:
            table.add_row(d["option"], "-", "-", f"needs space.{d['needs']}")
            continue
        table.add_row(d["option"], f"10^{d['log10_size']:.1f}", str(len(d["decisions"])), ", ".join(d["named"]) or "-")
    Console().print(table)


def _print_space(description: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(
        title=f"{description['name']}: 10^{description['log10_size']:.1f} architectures", title_justify="left"
    )
    for column in ("decision", "choices", "when"):
        table.add_column(column)
    for decision in description["decisions"]:
        when = ", ".join(f"{name} in {choices}" for name, choices in decision.get("active_when", {}).items())
        table.add_row(decision["name"], ", ".join(str(choice) for choice in decision["choices"]), when)
    console.print(table)
    console.print(f"known networks: {', '.join(description['named']) or 'none'}")
    console.print("an example (architecture=FILE.json takes such a file):")
    print(json.dumps(description["example"]["config"]))
