"""NAS-Bench-201: 15,625 cells with published accuracies and latencies (2001.00326)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError
from .algebra import Genotypes
from .base import SearchSpace
from .costs import Costs
from .decision import Choice, Decision
from .image_shape import checked_classes, checked_image_shape
from .nasbench201_cells import (
    CONV1,
    CONV3,
    EDGES,
    OPS,
    POOL,
    SKIP,
    all_cells,
    cell_plan,
    format_cell,
    function_key,
    live_edges,
    longest_paths,
    parse_cell,
)
from .nasbench201_costs import NetworkShape, cost_table
from .nasbench201_executions import EXECUTIONS, OPERATIONS, execution_counts
from .workload import Workload

if TYPE_CHECKING:
    from torch import nn

    from .nasbench201_relaxed import RelaxedNASBench201

FEATURE_NAMES = (
    "skips",
    "convs1",
    "convs3",
    "pools",
    "live_skips",
    "live_convs1",
    "live_convs3",
    "live_pools",
    "live_additions",
    "path_operations",
    "path_convs",
    "path_macs",
    "live_macs",
)


class NASBench201(SearchSpace):
    """Six edges between four nodes, five operations each; the same cell 3 x ``cells`` times.

    A node that ``none`` leaves without edges is zeros; ``none`` adds nothing to a sum (the
    benchmark multiplies by zero, which is the same).

    Args:
        input_shape: ``(channels, height, width)`` of an image.
        classes: Number of classes; the benchmark has 10, 100 and 120.
        channels: Of the first of three stages; doubled in each further one.
        cells: Cells per stage.
        simplify: Whether :meth:`build` leaves out operations that cannot reach the output or that
            start from nothing. By default they are kept, as when the benchmark was trained.
    """

    name: ClassVar[str] = "nasbench201"

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        channels: int = 16,
        cells: int = 5,
        simplify: bool = False,
    ) -> None:
        image_channels, size = checked_image_shape(input_shape, smallest=4)
        for field, value in (("channels", channels), ("cells", cells)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SpaceError("out of range", field=field, value=value, allowed="an integer of 1 or more")
        self._shape = NetworkShape(image_channels, size, checked_classes(classes), channels, cells)
        self._simplify = bool(simplify)
        decisions = tuple(Decision(f"edge_{source}_{target}", OPS) for source, target in EDGES)
        super().__init__(decisions, Workload(tuple(input_shape)))

    def arguments(self) -> dict[str, Any]:
        return {
            "input_shape": list(self.workload.input_shape),
            "classes": self._shape.classes,
            "channels": self._shape.channels,
            "cells": self._shape.cells,
            "simplify": self._simplify,
        }

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """``resnet_like`` (two 3x3 convolutions and a shortcut, the reference), ``all_conv3x3`` (the
        largest), ``all_conv1x1``."""
        cells = {
            "resnet_like": (CONV3, 0, CONV3, SKIP, 0, SKIP),
            "all_conv3x3": (CONV3,) * len(EDGES),
            "all_conv1x1": (CONV1,) * len(EDGES),
        }
        return {
            name: {d.name: OPS[op] for d, op in zip(self.decisions, cell, strict=True)} for name, cell in cells.items()
        }

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Images ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        from .nasbench201_modules import CellNetwork

        plan = cell_plan(self.genotype(config).tolist(), simplify=self._simplify)
        shape = self._shape
        return CellNetwork(plan, self.workload.input_shape, shape.channels, shape.cells, shape.stages, shape.classes)

    @property
    def shape(self) -> NetworkShape:
        """Everything about a network but its cell."""
        return self._shape

    def relaxed(self) -> RelaxedNASBench201:
        from .nasbench201_relaxed import RelaxedNASBench201

        return RelaxedNASBench201(self)

    def arch_string(self, row: Genotypes) -> str:
        """The benchmark's string of a row ``(6,)``."""
        return format_cell(row.tolist())

    def from_arch_string(self, text: str) -> Genotypes:
        """The row ``(6,)`` of a string of the benchmark.

        Raises:
            SpaceError: If it is not one.
        """
        row: Genotypes = self.algebra.validate(np.array([parse_cell(text)]))[0]
        return row

    @cached_property
    def _costs(self) -> Costs:
        return cost_table(self._shape, simplify=self._simplify)

    def costs(self, genotypes: Genotypes) -> Costs:
        codes = _codes(genotypes)
        table = self._costs
        return Costs(table.parameters[codes], table.macs[codes], table.cio[codes], table.peak_activation_bytes[codes])

    def encode(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Features ``(N, 13)``: operation counts as built and as live, and critical paths.

        Live counts matter most on runtimes that remove dead operations, raw counts on those that
        do not; which of them a device is, a predictor learns.
        """
        features: npt.NDArray[np.float32] = _feature_table()[_codes(genotypes)]
        return features

    @property
    def feature_names(self) -> tuple[str, ...]:
        return FEATURE_NAMES

    @property
    def executions(self) -> Mapping[str, tuple[str, ...]]:
        """``as_built``, ``live`` and ``folded``; see
        :mod:`~gnomon.search_spaces.nasbench201_executions`."""
        return dict.fromkeys(EXECUTIONS, OPERATIONS)

    def execution_counts(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Counts ``(N, 3, 5)``."""
        counts: npt.NDArray[np.float32] = _execution_table()[_codes(genotypes)]
        return counts

    def function_keys(self, genotypes: Genotypes) -> list[str]:
        """Keys under which cells compute the same function of their weights, dead edges and
        identities removed; see :func:`~gnomon.search_spaces.nasbench201_cells.function_key`."""
        return [function_key_of_code(code) for code in _codes(genotypes).tolist()]


def _codes(genotypes: Genotypes) -> npt.NDArray[np.int64]:
    """Row numbers ``(N,)`` in the table of all cells."""
    places = len(OPS) ** np.arange(len(EDGES) - 1, -1, -1)
    codes: npt.NDArray[np.int64] = genotypes.astype(np.int64) @ places
    return codes


@cache
def function_key_of_code(code: int) -> str:
    """The function key of a row of the table of all cells."""
    return function_key(np.unravel_index(code, (len(OPS),) * len(EDGES)))  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _execution_table() -> npt.NDArray[np.float32]:
    """Counts of all cells ``(15625, 3, 5)``."""
    table = execution_counts(all_cells())
    table.setflags(write=False)
    return table


@lru_cache(maxsize=1)
def _feature_table() -> npt.NDArray[np.float32]:
    """Features of all cells ``(15625, 13)``."""
    cells = all_cells()
    live = live_edges(cells)
    counted = (SKIP, CONV1, CONV3, POOL)
    raw = [(cells == op).sum(axis=1) for op in counted]
    used = [((cells == op) & live).sum(axis=1) for op in counted]
    targets = np.array([target for _, target in EDGES])
    additions = sum(np.maximum(live[:, targets == node].sum(axis=1) - 1, 0) for node in set(targets.tolist()))
    operations = longest_paths(cells, np.array([0.0, 0.0, 1.0, 1.0, 1.0]))
    convs = longest_paths(cells, np.array([0.0, 0.0, 1.0, 1.0, 0.0]))
    # In units of a 3x3 convolution.
    macs = np.array([0.0, 0.0, 1.0 / 9.0, 1.0, 0.0])
    live_macs = (macs[cells] * live).sum(axis=1)
    columns = [*raw, *used, additions, operations, convs, longest_paths(cells, macs), live_macs]
    table = np.stack(columns, axis=1).astype(np.float32)
    table.setflags(write=False)
    return table
