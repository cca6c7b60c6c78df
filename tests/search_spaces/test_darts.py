"""The space ``darts``."""

import numpy as np
import pytest
import torch

from gnomon.errors import SpaceError
from gnomon.search_spaces.darts import Darts
from gnomon.search_spaces.darts_cells import EDGES, OPS
from gnomon.search_spaces.operations import features
from gnomon.search_spaces.operations_torch import module_operations
from gnomon.testing import RelaxedSuite, SearchSpaceSuite


def small(**changes):
    return Darts(**{"input_shape": (1, 9, 9), "classes": 3, "channels": 4, "cells": 3, **changes})


class TestConformance(SearchSpaceSuite):
    classes = 3
    models = 2
    exported_directly = False
    counted_costs = ("parameters", "macs", "cio")

    @pytest.fixture
    def space(self):
        return small()

    def test_features_equal_the_graphs(self, space):
        """Of the graph as it was built: as it is executed, what reads a node without edges is a constant."""
        rows = space.sample(4, np.random.default_rng(0))
        graphs = [features(module_operations(space.build(space.config(row)), (1, 9, 9))) for row in rows]
        encoded = space.encode(rows) * space.feature_units
        for name in ("pointwise_macs", "depthwise3_macs", "depthwise5_macs", "dense_macs", "pools"):
            own = encoded[:, space.feature_names.index(name)]
            np.testing.assert_allclose(own, [graph.get(name, 0.0) for graph in graphs], rtol=1e-4, err_msg=name)


class TestRelaxed(RelaxedSuite):
    models = 2

    @pytest.fixture
    def space(self):
        return small()


def test_sizes():
    """14 edges and 8 operations a cell, as in the paper; darts_v2 at its size has the paper's 3.3M parameters."""
    space = Darts()
    assert len(EDGES) == 14
    assert len(OPS) == 8
    assert sum(len(d.choices) for d in space.decisions if ".op" in d.name) == 224
    paper = Darts(channels=36, cells=20)
    parameters = paper.costs(paper.named_genotype("darts_v2")[None]).parameters[0]
    assert parameters == pytest.approx(3.35e6, rel=0.03)


def test_a_node_keeps_two_edges():
    space = small()
    for row in space.sample(20, np.random.default_rng(0)):
        config = space.config(row)
        for node in range(2, 6):
            assert sum(f"normal.op{source}_{node}" in config for source in range(node)) == 2


def test_cells_of_nothing_still_answer():
    space = small()
    config = space.config(space.canonical(np.zeros((1, len(space.decisions)), dtype=np.int8))[0])
    assert space.build(config).eval()(torch.zeros(2, 1, 9, 9)).shape == (2, 3)


@pytest.mark.parametrize(("field", "value"), [("cells", 2), ("channels", 1), ("channels", True)])
def test_wrong_arguments(field, value):
    with pytest.raises(SpaceError, match=field):
        small(**{field: value})
