"""Every option of every config group composes, and names a class that exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import get_class, get_object
from omegaconf import OmegaConf

from gnomon import conf
from gnomon.conf.compose import compose, groups

NOT_OF_SEARCH = ("data", "split", "pool")
OPTIONS = [(group, option) for group, options in groups().items() for option in options if group not in NOT_OF_SEARCH]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_composes_and_its_targets_exist(group: str, option: str) -> None:
    config = compose("search", [f"{group}={option}"])

    def targets(node: object) -> list[str]:
        if not isinstance(node, dict):
            return []
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [target for value in node.values() for target in targets(value)]

    found = targets(OmegaConf.to_container(config))
    assert len(found) >= 8, "space, device, protocol, task, quality, predictor, strategy and objective"
    for target in found:
        assert callable(get_object(target)), target


@pytest.mark.parametrize("option", groups()["data"])
def test_every_reader_of_tables_and_pools_exists(option: str) -> None:
    assert callable(get_object(compose("import", [f"data={option}"]).data["_target_"]))


def test_the_default_experiment_is_what_make_search_runs() -> None:
    config = compose("search", ["experiment=default"])
    assert (config.objective.latency, config.objective.reference) == ("100%", "mnasnet_a1")
    assert get_class(config.space["_target_"]).name == "mobile_cnn"


@pytest.mark.parametrize("option", groups()["split"])
def test_every_split_names_readers_that_exist(option: str) -> None:
    node = OmegaConf.load(Path(conf.__file__).parent / "split" / f"{option}.yaml")
    assert node.name == option
    for reader in node.data:
        assert callable(get_object(reader["_target_"]))
        assert reader["_partial_"], "data are read when they are needed"


@pytest.mark.parametrize("option", groups()["pool"])
def test_every_pool_names_devices_that_exist(option: str) -> None:
    pool = compose("measure_pool", [f"pool={option}"]).pool
    for name, node in pool.items():
        assert set(node) <= {"device", "change", "batch", "architectures"}, name
        device = compose("measure", [f"device={node.device}"]).device
        assert set(node.get("change", {})) <= set(device), name
