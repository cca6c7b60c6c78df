"""Conditional decisions: activity, exact sizes, enumeration."""

import math
from itertools import product

import numpy as np
import pytest

from gnomon.errors import SpaceError
from gnomon.search_spaces import Decision, GenotypeAlgebra
from gnomon.search_spaces.counting import count_canonical, enumerate_canonical


def all_rows(algebra):
    return np.array(list(product(*(range(len(d.choices)) for d in algebra.decisions))), dtype=np.int8)


@pytest.fixture
def nested():
    """Two levels of conditions, two parents, and an independent decision."""
    return GenotypeAlgebra(
        (
            Decision("depth", (1, 2, 3)),
            Decision("free", ("a", "b")),
            Decision("second", (0, 1, 2), active_when={"depth": (2, 3)}),
            Decision("third", (0, 1), active_when={"depth": (3,), "free": ("b",)}),
            Decision("deep", (0, 1, 2, 3), active_when={"second": (1,)}),
        )
    )


def test_count_equals_brute_force(nested):
    rows = np.unique(nested.canonical(all_rows(nested)), axis=0)
    assert count_canonical(nested) == len(rows)
    np.testing.assert_array_equal(enumerate_canonical(nested, 1_000), rows)


def test_count_of_forty_optional_layers_is_fast_and_exact():
    decisions = [Decision("depth", tuple(range(41)), ordered=True)]
    decisions += [Decision(f"layer{i}", (0, 1, 2), active_when={"depth": tuple(range(i + 1, 41))}) for i in range(40)]
    assert count_canonical(GenotypeAlgebra(decisions)) == sum(3**depth for depth in range(41))


def test_count_gives_up_where_it_cannot():
    bits = [Decision(f"bit{i}", (0, 1)) for i in range(16)]
    every = {bit.name: (1,) for bit in bits}
    assert count_canonical(GenotypeAlgebra([*bits, Decision("all", (0, 1), active_when=every)])) is None


def test_enumeration_refuses_large_spaces(nested):
    with pytest.raises(SpaceError, match="limit"):
        enumerate_canonical(nested, 10)


def test_canonical_follows_chains_of_conditions(nested):
    row = np.array([[0, 1, 1, 1, 3]], dtype=np.int8)  # depth 1 switches off second, hence deep
    np.testing.assert_array_equal(nested.canonical(row), [[0, 1, 0, 0, 0]])


def test_an_independent_space_is_the_product_of_its_choices():
    algebra = GenotypeAlgebra([Decision(f"d{i}", (0, 1, 2)) for i in range(30)])
    assert math.log10(count_canonical(algebra)) == pytest.approx(30 * math.log10(3))
