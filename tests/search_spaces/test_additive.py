"""Additive encodings against sums done by hand, and their speed."""

import time

import numpy as np
import pytest

from gnomon.errors import SpaceError
from gnomon.search_spaces import AdditiveEncoding
from gnomon.search_spaces.additive import CHUNK
from gnomon.search_spaces.mobile_cnn import MobileCNN


@pytest.fixture
def encoding():
    """Two groups that share column 1."""
    rng = np.random.default_rng(0)
    tables = (rng.random((6, 3), dtype=np.float32), rng.random((12, 3), dtype=np.float32))
    return AdditiveEncoding(((0, 1), (1, 2)), ((2, 3), (3, 4)), tables, np.array([1, 2, 3], dtype=np.float32))


def genes(n):
    return (np.random.default_rng(1).random((n, 3)) * [2, 3, 4]).astype(np.int8)


@pytest.mark.parametrize("n", [0, 1, CHUNK, CHUNK + 7])
def test_codes_features_and_sums(encoding, n):
    rows = genes(n)
    a, b, c = rows.astype(int).T
    np.testing.assert_array_equal(encoding.codes(rows), np.stack([a * 3 + b, b * 4 + c], axis=1))
    expected = encoding.bias + encoding.tables[0][a * 3 + b] + encoding.tables[1][b * 4 + c]
    np.testing.assert_allclose(encoding.encode(rows), expected, rtol=1e-6)
    one, two = np.array([0.5, -1.0, 2.0]), np.ones((3, 2))
    np.testing.assert_allclose(encoding.fold(one).sum(rows), expected @ one, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(encoding.fold(two).sum(rows), expected @ two, rtol=1e-5)


def test_wrong_shapes_are_refused(encoding):
    with pytest.raises(SpaceError, match="weights"):
        encoding.fold(np.ones(4))
    with pytest.raises(SpaceError, match="tables"):
        AdditiveEncoding(((0,),), ((2,),), (np.ones((3, 1), dtype=np.float32),), np.zeros(1, dtype=np.float32))


@pytest.mark.slow
def test_a_million_candidates_are_encoded_and_costed_in_seconds():
    """Well under half a second on a free machine; the limit here leaves room for a busy one."""
    space = MobileCNN((1, 28, 28), classes=10, width=0.5, blocks=7)
    rows = space.sample(1_000_000, np.random.default_rng(0))
    folded = space.additive_encoding().fold(np.ones(len(space.feature_names)))
    for work in (space.encode, space.costs, folded.sum):
        started = time.process_time()
        work(rows)
        assert time.process_time() - started < 2.0, work
