"""Readers of published tables, by one name each: ``_target_: gnomon.records.tables.<function>``.

``path: null`` means the folder that ``$GNOMON_DATA`` names. Nothing is cached on disk.
"""

from collections.abc import Sequence
from pathlib import Path

from .help_pools import help_fbnet_pool, help_ofa_pool
from .nasbench201_tables import help_nasbench201, hwnas360
from .nasbench_macro_table import nasbench_macro
from .table import ArchitectureTable
from .yolobench_table import yolobench

__all__ = ["help_fbnet", "help_nasbench201", "help_ofa", "hwnas360", "nasbench_macro", "yolobench"]


def help_fbnet(path: str | Path | None = None, devices: Sequence[str] | None = None) -> ArchitectureTable:
    """:func:`~gnomon.records.pools.help_fbnet_pool` as a table, for recorded devices."""
    return help_fbnet_pool(path, devices).to_table()


def help_ofa(path: str | Path | None = None, devices: Sequence[str] | None = None) -> ArchitectureTable:
    """:func:`~gnomon.records.pools.help_ofa_pool` as a table, for recorded devices."""
    return help_ofa_pool(path, devices).to_table()
