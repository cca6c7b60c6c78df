"""Pools that ship with the package: what other runtimes and settings took, for a new machine to start from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ..search_spaces import SearchSpace
from .pool import DevicePool
from .pool_file import load_pool

FOLDER = "pools"


def shipped_pools(space: SearchSpace) -> tuple[DevicePool, ...]:
    """Pools of ``space``: the one of its very arguments if there is one, else all that were measured at
    other sizes, by name; empty if none ships."""
    found = [pool for pool in _read(space.name) if type(pool.space) is type(space)]
    exact = [pool for pool in found if pool.space is not None and pool.space.spec() == space.spec()]
    return tuple(exact or found)


def shipped_pool_file(name: str) -> DevicePool:
    """One shipped pool by the name of its file without ending, for example ``mobile_cnn-96``; usable as a
    config's ``_target_``.

    Raises:
        SchemaError: If there is none.
    """
    return load_pool(_folder() / f"{name}.npz")


def _folder() -> Path:
    package = __package__.rpartition(".")[0]
    return Path(str(resources.files(package) / FOLDER))


def _read(space: str) -> list[DevicePool]:
    return [load_pool(path) for path in sorted(_folder().glob(f"{space}-*.npz"))]
