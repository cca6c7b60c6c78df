"""The quick run of the benchmark of differentiable search."""

import argparse

import numpy as np
import pytest

from benchmarks import differentiable


@pytest.mark.slow
def test_quick_run(tmp_path):
    metrics = differentiable.run(argparse.Namespace(quick=True, studies=tmp_path))
    assert np.isfinite(list(metrics.values())).all()
    assert metrics["latency_ratio"] > 0
    assert {"with.0.latency_ms", "without.0.test_accuracy", "accuracy_difference"} <= set(metrics)
