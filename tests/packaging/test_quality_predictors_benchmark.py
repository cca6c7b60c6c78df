from __future__ import annotations

import pytest

from benchmarks import quality_predictors


def test_all_that_ship_are_compared():
    assert {"gaussian_process", "ensemble", "boosted_trees", "mlp", "comparator"} <= set(
        quality_predictors.predictors()
    )


@pytest.mark.slow
def test_a_quick_run(data_root):
    metrics = quality_predictors.run(quick=True)
    for data in ("nasbench201", "nasbench_macro"):
        for name in quality_predictors.predictors():
            assert metrics[f"{data}.spearman.{name}.50"] > 0.7
            assert 0.5 < metrics[f"{data}.coverage_better_half.{name}.50"] <= 1
