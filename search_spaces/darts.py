"""The cells of DARTS (1806.09055): a normal and a reduction cell, stacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import SpaceError
from .cost_tables import CostTables
from .darts_cells import CELLS, DARTS_V2, NODES, cell_decisions, cell_plan, config_of
from .decision import Choice
from .image_shape import checked_classes, checked_image_shape
from .tabled import TabledSpace
from .workload import Workload

if TYPE_CHECKING:
    from torch import nn

    from .darts_modules import CellPlace
    from .darts_relaxed import RelaxedDarts

STEM = 3
"""Channels of the stem, in channels of a node."""


class Darts(TabledSpace):
    """Two cells of four nodes; each node adds up two edges from earlier nodes, each with one of eight operations.

    Which two edges a node keeps is a decision of its own, and the operation of an edge matters where it is kept: 34
    decisions. Unlike in DARTS, where a search weighs all 14 edges of a cell and keeps the strongest two of each node
    afterwards, the relaxed network is therefore exactly the discrete one at the corners.

    Where this space departs from the paper:

    - ``none`` may be chosen: it brings nothing, so that cells may have fewer edges.
    - Pools are not followed by batch norm; maps of odd size are rounded up.
    - Neither auxiliary heads nor drop-path. Small by default, for small images.

    Its peak of activations is an upper bound, the same for all networks.

    Args:
        input_shape: ``(channels, height, width)`` of an image.
        classes: Number of classes.
        channels: Of a node in the first cells; doubled by each of the two reduction cells.
        cells: In all, at least 3; those at one and two thirds of the depth are reduction cells.
    """

    name: ClassVar[str] = "darts"

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        channels: int = 16,
        cells: int = 8,
    ) -> None:
        self._image_channels, self._size = checked_image_shape(input_shape, smallest=4)
        for field, value, least in (("channels", channels, 2), ("cells", cells, 3)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SpaceError("out of range", field=field, value=value, allowed=f"an integer of {least} or more")
        self.classes, self.channels, self.cells = checked_classes(classes), channels, cells
        decisions = tuple(decision for cell in CELLS for decision in cell_decisions(cell))
        super().__init__(decisions, Workload(tuple(input_shape)))

    def arguments(self) -> dict[str, Any]:
        return {
            "input_shape": list(self.workload.input_shape),
            "classes": self.classes,
            "channels": self.channels,
            "cells": self.cells,
        }

    @property
    def stem(self) -> int:
        """Channels of the stem."""
        return STEM * self.channels

    @cached_property
    def places(self) -> tuple[CellPlace, ...]:
        """All cells of a network."""
        from .darts_modules import cell_places

        return cell_places(self.stem, self.channels, self.cells)

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """``darts_v2`` (the reference), ``all_sep_conv_3x3`` and ``all_skip`` on the same edges."""
        cells = {"darts_v2": DARTS_V2}
        for op, name in (("sep_conv_3x3", "all_sep_conv_3x3"), ("skip_connect", "all_skip")):
            cells[name] = {cell: [(op, source) for _, source in genes] for cell, genes in DARTS_V2.items()}
        return {name: config_of(genes) for name, genes in cells.items()}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Images ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        from .darts_modules import Cell, CellNetwork

        full = self.config(self.genotype(config))
        plans = {cell: cell_plan(full, cell) for cell in CELLS}
        cells = [Cell(plans[place.kind], place) for place in self.places]
        features = NODES * self.places[-1].channels
        return CellNetwork(cells, self._image_channels, self.stem, features, self.classes)

    def relaxed(self) -> RelaxedDarts:
        from .darts_relaxed import RelaxedDarts

        return RelaxedDarts(self)

    @cached_property
    def tables(self) -> CostTables:
        """Costs and features of every edge."""
        from .darts_tables import make_tables

        return make_tables(self.places, self.decisions, self._image_channels, self._size, self.stem, self.classes)
