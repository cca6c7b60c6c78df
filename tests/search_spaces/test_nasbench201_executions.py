"""Which operations of a cell run: as built, live, and folded as mobile runtimes do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench201_cells import EDGES, all_cells, live_edges
from gnomon.search_spaces.nasbench201_executions import EXECUTIONS, OPERATIONS, execution_counts, folded_edges

NONE, SKIP, CONV1, CONV3, POOL = range(5)


def kept(*cell):
    """Edges that run under ``folded``, by (source, target)."""
    edges = folded_edges(np.array([cell], dtype=np.int8))[0]
    return {edge for edge, runs in zip(EDGES, edges, strict=True) if runs}


# Edges in order: 01, 02, 12, 03, 13, 23.
@pytest.mark.parametrize(
    ("cell", "runs"),
    [
        # Nothing is zero: all of it runs.
        ((CONV3, CONV1, POOL, SKIP, CONV3, CONV1), set(EDGES)),
        # Node 2 is a sum that is multiplied by zero: what only fed it is removed.
        ((CONV3, CONV1, CONV3, CONV3, CONV3, NONE), {(0, 1), (0, 3), (1, 3)}),
        # Node 2 is one convolution: the zero goes into its weights, and it runs.
        ((CONV3, NONE, CONV1, CONV3, CONV3, NONE), {(0, 1), (1, 2), (0, 3), (1, 3)}),
        # Node 2 is one pool: no weights to fold a zero into.
        ((CONV3, NONE, POOL, CONV3, CONV3, NONE), {(0, 1), (0, 3), (1, 3)}),
        # Node 1 is zeros: operations on them run all the same.
        ((NONE, CONV1, CONV3, CONV3, CONV3, CONV3), {(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)}),
        # Node 1 is one convolution that only zeros read.
        ((CONV3, CONV1, NONE, CONV3, NONE, CONV3), {(0, 1), (0, 2), (0, 3), (2, 3)}),
        # The output does not depend on the input: one constant.
        ((CONV3, CONV3, CONV3, NONE, NONE, NONE), set()),
        ((NONE, NONE, CONV3, NONE, CONV3, CONV3), set()),
    ],
)
def test_folded(cell, runs):
    assert kept(*cell) == runs


def test_counts_are_of_the_edges_that_run():
    cells = all_cells()
    counts = execution_counts(cells)
    assert counts.shape == (len(cells), len(EXECUTIONS), len(OPERATIONS))
    for index, edges in ((0, cells != NONE), (1, live_edges(cells)), (2, folded_edges(cells))):
        np.testing.assert_array_equal(counts[:, index, 2], ((cells == CONV3) & edges).sum(axis=1))
        assert (counts[:, index, :4].sum(axis=1) == edges.sum(axis=1)).all()
    assert (folded_edges(cells) <= (cells != NONE)).all()
    assert (live_edges(cells) & ~folded_edges(cells)).sum() == 0, "what reaches the output runs"


def test_folded_counts_explain_tensorflow_lite(data_root):
    from gnomon.records.tables import help_nasbench201

    table = help_nasbench201(data_root / "help" / "nasbench201", devices=["pixel3"])
    latency = table.columns["pixel3"][:900]
    counts = NASBench201().execution_counts(table.genotypes[:900]).astype(float)
    rank = {}
    for index, name in enumerate(EXECUTIONS):
        design = np.concatenate([counts[:, index], np.ones((900, 1))], axis=1)
        fitted = design @ np.linalg.lstsq(design, latency, rcond=None)[0]
        rank[name] = spearmanr(fitted, latency).statistic
    assert rank["folded"] > 0.97
    assert rank["live"] < 0.93
    assert rank["as_built"] < 0.93
