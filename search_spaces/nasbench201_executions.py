"""Which operations of a NAS-Bench-201 cell a runtime executes: three ways that devices show.

``as_built``: all of them. ``live``: those on a path from input to output. ``folded``: what is left
where ``none`` is a multiplication by zero that the converter handles as mobile runtimes do:

- ``0 * x`` where x comes straight from a convolution that nobody else reads is folded into that
  convolution's weights, so the convolution stays and still runs;
- any other ``0 * x`` is a constant: what only fed it is removed, and adding it costs nothing;
- an operation on such a constant still runs;
- a network whose output does not depend on its input at all is one constant.

The rule explains the latencies of TensorFlow Lite in HELP's tables (``pixel3``), which counts of
live operations or of all do not; other devices there run everything. A test compares the three.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .nasbench201_cells import CONV1, CONV3, NONE, POOL, SKIP, live_edges

EXECUTIONS = ("as_built", "live", "folded")
OPERATIONS = ("skips", "convs1", "convs3", "pools", "runs")
"""What is counted: operations by kind, and whether anything runs."""

BoolArray = npt.NDArray[np.bool_]


def execution_counts(cells: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """Operations that run, by execution and kind ``(N, 3, 5)``, for cells ``(N, 6)``."""
    executed = (cells != NONE, live_edges(cells), folded_edges(cells))
    counts = np.empty((len(cells), len(EXECUTIONS), len(OPERATIONS)), dtype=np.float32)
    for e, kept in enumerate(executed):
        for k, op in enumerate((SKIP, CONV1, CONV3, POOL)):
            counts[:, e, k] = ((cells == op) & kept).sum(axis=1)
        counts[:, e, -1] = kept.any(axis=1) if e else 1.0
    return counts


def folded_edges(cells: npt.NDArray[np.int8]) -> BoolArray:
    """Which edges run under ``folded`` ``(N, 6)``."""
    e01, e02, e12, e03, e13, e23 = cells.T
    is_conv = np.isin(cells, (CONV1, CONV3))
    conv01, conv02, conv12 = is_conv[:, 0], is_conv[:, 1], is_conv[:, 2]
    # Node 1 times zero, read by nothing but zeros: folded into its convolution, if it comes from one.
    only_zeros_read_1 = (e12 == NONE) & (e13 == NONE)
    foldable_1 = conv01 & only_zeros_read_1
    # Node 2 times zero: folded if node 2 is one convolution (or one folded zero) plus constants.
    brings_02, brings_12 = e02 != NONE, (e12 != NONE) & ~((e12 == SKIP) & (e01 == NONE))
    terms = brings_02.astype(np.int8) + brings_12 + foldable_1
    single_conv = (brings_02 & conv02) | (brings_12 & conv12) | foldable_1
    folded_2 = (e23 == NONE) & (terms == 1) & single_conv
    runs_2 = (e23 != NONE) | folded_2
    folded_1 = foldable_1 & runs_2
    runs_1 = (e13 != NONE) | ((e12 != NONE) & runs_2) | folded_1
    always = np.ones(len(cells), dtype=bool)
    feeds = np.stack([runs_1, runs_2, runs_2, always, always, always], axis=1)
    # Does the output depend on the input?
    depends_1 = e01 != NONE
    depends_2 = (e02 != NONE) | ((e12 != NONE) & depends_1) | folded_1
    depends = (e03 != NONE) | ((e13 != NONE) & depends_1) | ((e23 != NONE) & depends_2) | (folded_2 & depends_2)
    depends |= folded_1
    result: BoolArray = (cells != NONE) & feeds & depends[:, None]
    return result
