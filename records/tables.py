"""Readers of published tables, by one name each: ``_target_: gnomon.records.tables.<function>``.

``path: null`` means the folder that ``$GNOMON_DATA`` names. Nothing is cached on disk.
"""

from .nasbench201_tables import help_nasbench201, hwnas360
from .nasbench_macro_table import nasbench_macro

__all__ = ["help_nasbench201", "hwnas360", "nasbench_macro"]
