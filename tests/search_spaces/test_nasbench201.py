"""Strings, liveness, features and function keys of NAS-Bench-201."""

import numpy as np
import pytest
import torch

from gnomon.errors import SpaceError
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench201_cells import OPS, all_cells, function_key, live_edges, parse_cell


@pytest.fixture(scope="module")
def space():
    return NASBench201()


@pytest.fixture(scope="module")
def small():
    return NASBench201((1, 8, 8), classes=2, channels=4, cells=1)


def cell_of(text):
    """A cell from one letter an edge: ``-`` none, ``s`` skip, ``1``, ``3``, ``p`` pool."""
    return tuple("-s13p".index(letter) for letter in text)


def test_published_sizes(space):
    """What the benchmark's authors print for the largest and the empty cell (CIFAR-10)."""
    costs = space.costs(space.named_genotype("all_conv3x3")[None])
    assert round(costs.macs[0] / 1e6, 2) == 220.12
    assert costs.parameters[0] == 1_531_546
    assert space.costs(space.enumerate()[:1]).parameters[0] == 73_306


def test_there_are_15625_cells(space):
    rows = space.enumerate()
    assert len(rows) == 15_625
    assert round(10**space.log10_size) == 15_625
    np.testing.assert_array_equal(rows, all_cells())


def test_strings_of_the_benchmark(space, data_root):
    globals_ = [
        (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Int64DType,
    ]
    with torch.serialization.safe_globals(globals_):
        index = torch.load(data_root / "help" / "nasbench201" / "str_arch2idx.pt", weights_only=True)
    assert len(index) == 15_625
    rows = np.array([space.from_arch_string(text) for text in index])
    assert [space.arch_string(row) for row in rows] == list(index)
    assert len(np.unique(rows, axis=0)) == 15_625


@pytest.mark.parametrize("text", ["", "|none~0|", "|none~0|+|none~0|none~1|+|none~0|none~1|conv~2|", "|none~1|+||+||"])
def test_other_strings_are_refused(space, text):
    with pytest.raises(SpaceError, match="arch_string"):
        space.from_arch_string(text)


@pytest.mark.parametrize(
    ("cell", "live"),
    [
        ("333333", "111111"),
        ("------", "000000"),
        ("3--3--", "000100"),  # 0-1 leads nowhere
        ("-3-3-3", "010101"),
        ("--3--3", "000000"),  # 1 comes from nothing
        ("3-3---", "000000"),  # 2 does not reach the output
        ("s-1--p", "101001"),
    ],
)
def test_live_edges(cell, live):
    found = live_edges(np.array([cell_of(cell)], dtype=np.int8))[0]
    assert "".join(map(str, found.astype(int))) == live


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("---3--", "3--3--", True),  # a dead convolution
        ("---3--", "3---s-", True),  # an identity folded
        ("3--3--", "3--33-", False),
        ("3sssss", "3--3ss", False),  # one convolution used more than once, against two
        ("pp----", "------", True),
        ("p---s-", "---p--", True),
        ("p--ps-", "---p--", False),  # twice the pool
        ("p--ps-", "-p-p-s", True),  # twice the pool, on either way
        ("1--3--", "3--1--", False),
        ("3--1s-", "1--3s-", True),  # the order of a sum
    ],
)
def test_function_keys(first, second, same):
    assert (function_key(cell_of(first)) == function_key(cell_of(second))) is same


def test_equal_function_keys_are_equal_functions(small):
    """Cells of one key, given the same weights in live order, answer alike."""
    simple = NASBench201((1, 8, 8), classes=2, channels=4, cells=1, simplify=True)
    rows = small.enumerate()
    keys = np.array(small.function_keys(rows))
    rng = np.random.default_rng(0)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    checked = 0
    for key in rng.permutation(np.unique(keys))[:40]:
        if key.count("c") > 1:
            continue  # which weight belongs to which convolution is not fixed
        outputs = []
        for row in rows[keys == key][:4]:
            torch.manual_seed(0)
            outputs.append(simple.build(simple.config(row)).eval()(x))
        checked += len(outputs) > 1
        for output in outputs[1:]:
            torch.testing.assert_close(output, outputs[0], rtol=1e-4, atol=1e-5)
    assert checked >= 3


def test_dead_operations_are_built_unless_simplified(small):
    simple = NASBench201((1, 8, 8), classes=2, channels=4, cells=1, simplify=True)
    row = np.array(cell_of("3--3--"), dtype=np.int8)
    kept, left_out = small.costs(row[None]), simple.costs(row[None])
    assert kept.parameters[0] > left_out.parameters[0]
    for space, costs in ((small, kept), (simple, left_out)):
        model = space.build(space.config(row))
        assert sum(p.numel() for p in model.parameters()) == costs.parameters[0]


def test_features_count_live_operations(space):
    features = dict(
        zip(space.feature_names, space.encode(np.array([cell_of("3--3sp")], dtype=np.int8))[0], strict=True)
    )
    assert features["convs3"] == 2
    assert features["live_convs3"] == 2
    assert features["pools"] == 1
    assert features["live_pools"] == 0
    assert features["live_skips"] == 1
    assert features["live_additions"] == 1
    assert features["path_operations"] == 1
    assert features["live_macs"] == 2


def test_parse_and_format_agree_on_the_order_of_edges():
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
    assert [OPS[op] for op in parse_cell(text)] == [
        "nor_conv_3x3",
        "none",
        "skip_connect",
        "avg_pool_3x3",
        "nor_conv_1x1",
        "none",
    ]


@pytest.mark.parametrize("arguments", [{"channels": 0}, {"cells": 0}, {"cells": 1.5}, {"classes": 0}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(SpaceError, match=next(iter(arguments))):
        NASBench201(**arguments)
