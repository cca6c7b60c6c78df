"""What ``gnomon predictor train`` learns from: a pool file, upstream data, one's own store, or a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

    from ...records import DevicePool
    from ...records.splits import DeviceSplit, Round

SOURCES = ("from", "data", "store", "split")


def read_pool(config: DictConfig) -> DevicePool:
    """The pool that the command line names, restricted to ``settings``.

    Raises:
        ConfigError: If it names none, or several.
        DataError: If data are missing or of another kind.
    """
    given = [name for name in SOURCES if config.get(name) is not None]
    if len(given) != 1:
        raise ConfigError(
            "one pool to learn from is needed",
            field="pool",
            value=given or None,
            allowed="from=POOL.npz, data=NAME, store=measurements.sqlite with space=NAME, or split=NAME",
        )
    pool = {"from": _file, "data": _data, "store": _store, "split": _split}[given[0]](config)
    return pool if config.settings is None else pool.select([str(name) for name in config.settings]).measured()


def _file(config: DictConfig) -> DevicePool:
    from ...records.pools import load_pool

    return load_pool(config["from"])


def _data(config: DictConfig) -> DevicePool:
    from ...records import ArchitectureTable, DevicePool
    from ...search.instantiate import instantiate

    found: Any = instantiate(config.data, "data", list(config.plugins))
    if isinstance(found, ArchitectureTable):
        return DevicePool.from_table(found).measured()
    if not isinstance(found, DevicePool):
        raise ConfigError("reads neither a table nor a pool", field="data._target_", value=config.data["_target_"])
    return found


def _store(config: DictConfig) -> DevicePool:
    from ...records.pools import pool_from_store
    from ...records.store import MeasurementStore
    from ...search.setup import make_space

    path = Path(config.store)
    if not path.is_file():
        raise ConfigError("no such measurement store", field="store", value=config.store)
    space = make_space(config.space, None, list(config.plugins))
    return pool_from_store(MeasurementStore(path.absolute()), space, config.statistic)


def _split(config: DictConfig) -> DevicePool:
    split = make_split(config)
    (chosen,) = chosen_rounds(split, [config["round"]] if config["round"] is not None else _only(split))
    return split.source_pool(split.pool(), chosen)


def _only(split: DeviceSplit) -> list[str]:
    names = [r.name for r in split.rounds]
    if len(names) > 1:
        raise ConfigError(f"split {split.name} has several rounds", field="round", value=None, allowed=names)
    return names


def make_split(config: DictConfig) -> DeviceSplit:
    """The split that the config names."""
    from ...records.splits import DeviceSplit
    from ...search.instantiate import instantiate

    found: Any = instantiate(config.split, "split", list(config.plugins))
    if not isinstance(found, DeviceSplit):
        raise ConfigError("not a split", field="split._target_", value=config.split["_target_"])
    return found


def chosen_rounds(split: DeviceSplit, names: Sequence[str] | None) -> list[Round]:
    """Rounds by name; all of them if ``names`` is None.

    Raises:
        ConfigError: With the rounds that there are.
    """
    known = {r.name: r for r in split.rounds}
    wanted = list(known) if names is None else [str(name) for name in names]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ConfigError("no such round", field="round", value=unknown, allowed=list(known))
    return [known[name] for name in wanted]
