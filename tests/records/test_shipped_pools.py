"""The pools that ship can be read, and say how they were measured."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.records.shipped import _folder, shipped_pool_file, shipped_pools
from gnomon.search_spaces.mobile_cnn import MobileCNN

NAMES = sorted(path.stem for path in _folder().glob("*.npz"))


def test_there_is_one_of_mobile_cnn():
    assert "mobile_cnn-96" in NAMES
    (pool,) = shipped_pools(MobileCNN((1, 28, 28), 10, width=0.25))
    assert pool.space.workload.input_shape == (3, 96, 96)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_pool_is_whole(name):
    pool = shipped_pool_file(name)
    measured = np.isfinite(pool.latencies_ms)
    assert measured.sum(axis=0).min() >= 30, "a setting with hardly any measurements"
    assert measured[:30].mean(axis=0).min() >= 0.8, "the first rows are what every runtime is asked for"
    keys = pool.space.keys(pool.genotypes)
    assert len(set(keys)) == len(keys)
    np.testing.assert_array_equal(pool.space.canonical(pool.genotypes), pool.genotypes)
    for setting in pool.settings:
        known = pool.provenance[setting]
        assert known["fingerprint"]["cpu"]
        assert known["setting"]["runtime"]
        assert sum(known["verdicts"].values()) == measured[:, pool.settings.index(setting)].sum()
