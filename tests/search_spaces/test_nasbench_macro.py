"""NAS-Bench-Macro against its published table."""

import json

import numpy as np
import pytest

from gnomon.errors import SpaceError
from gnomon.search_spaces.nasbench_macro import NASBenchMacro


@pytest.fixture(scope="module")
def table(data_root):
    return json.loads((data_root / "nasbench_macro" / "nas-bench-macro_cifar10.json").read_text())


def test_parameters_and_flops_are_the_published_ones(table):
    space = NASBenchMacro()
    costs = space.costs(space.from_digits(list(table)))
    np.testing.assert_array_equal(costs.parameters, [entry["params"] for entry in table.values()])
    np.testing.assert_array_equal(costs.macs, [entry["flops"] for entry in table.values()])


def test_digits_cover_the_space(table):
    space = NASBenchMacro()
    rows = space.enumerate()
    assert len(rows) == 6_561
    assert set(space.digits(rows)) == set(table)
    np.testing.assert_array_equal(space.from_digits(space.digits(rows)), rows)


def test_first_digit_is_the_first_layer():
    space = NASBenchMacro()
    config = space.config(space.from_digits(["20000001"])[0])
    assert config["layer1"] == "mb6_k5"
    assert config["layer8"] == "mb3_k3"


@pytest.mark.parametrize("text", ["", "0000000", "00000003", "0000000a"])
def test_other_digits_are_refused(text):
    with pytest.raises(SpaceError, match="digits"):
        NASBenchMacro().from_digits([text])
