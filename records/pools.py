"""Readers of pools, by one name each: ``_target_: gnomon.records.pools.<function>``.

``path: null`` means the folder that ``$GNOMON_DATA`` names. Nothing is cached on disk.
"""

from .hat_pool import hat_pool
from .help_pools import help_fbnet_pool, help_nasbench201_pool, help_ofa_pool, help_pool
from .hwnas360_pool import hwnas360_pool
from .join_pools import join_pools
from .pool_file import load_pool, save_pool
from .store_pool import pool_from_store
from .yolobench_pool import yolobench_pool

__all__ = [
    "hat_pool",
    "help_fbnet_pool",
    "help_nasbench201_pool",
    "help_ofa_pool",
    "help_pool",
    "hwnas360_pool",
    "join_pools",
    "load_pool",
    "pool_from_store",
    "save_pool",
    "yolobench_pool",
]
