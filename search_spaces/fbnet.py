"""FBNet's space: 22 layers, each one of nine blocks (Wu et al., 1812.03443, Tables 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError
from .algebra import Genotypes
from .cost_tables import CostTables, Group, Row
from .decision import Choice, Decision
from .fbnet_named import named_configs
from .image_shape import checked_classes, checked_image_shape, checked_width, kept_strides
from .layer_specs import ConvSpec, LayerSpec, Size, Tally, reduced, tally_classifier, tally_layer, tally_stem
from .mobile_cnn_skeleton import rounded
from .tabled import TabledSpace
from .workload import Workload

if TYPE_CHECKING:
    from torch import nn

BLOCKS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
"""In the order of the indices that HW-NAS-Bench and HELP publish."""
SHAPES: Mapping[str, tuple[int, int, int]] = {
    "k3_e1": (3, 1, 1),
    "k3_e1_g2": (3, 1, 2),
    "k3_e3": (3, 3, 1),
    "k3_e6": (3, 6, 1),
    "k5_e1": (5, 1, 1),
    "k5_e1_g2": (5, 1, 2),
    "k5_e3": (5, 3, 1),
    "k5_e6": (5, 6, 1),
}
"""(kernel, expansion, groups) of a block."""
STAGES = ((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))
"""(filters, layers, stride of the first layer)."""
STEM_FILTERS, HEAD_FILTERS = 16, 1984
MIN_MAP = 4


class FBNet(TabledSpace):
    """Stem, 22 searched layers, 1x1 convolution, global pooling, classifier.

    A block ``k<kernel>_e<expansion>`` is an inverted bottleneck: 1x1 convolution that multiplies the
    channels by the expansion, depthwise convolution, linear 1x1 convolution, with the input added
    where the shape is kept. ``_g2`` splits both 1x1 convolutions into two groups, with a channel
    shuffle behind the first. ``skip`` is the identity.

    Where the paper leaves things open or this space departs from it:

    - ``skip`` in a layer that changes the shape is a 1x1 convolution by the layer's stride with
      batch norm and ReLU, as in the authors' code.
    - The head has 1984 filters, as in the authors' released FBNet-B and C (FBNet-A: 1504). It is
      the same for all architectures.
    - Small images: strides are dropped once the map would fall below 4x4.

    Args:
        input_shape: ``(channels, height, width)`` of an image.
        classes: Number of classes.
        width: Multiplies all filters, then rounded to multiples of 8.
        head_filters: Output channels of the last 1x1 convolution before ``width``.
    """

    name: ClassVar[str] = "fbnet"

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 224, 224),
        classes: int = 1000,
        width: float = 1.0,
        head_filters: int = HEAD_FILTERS,
    ) -> None:
        channels, self._size = checked_image_shape(input_shape, smallest=MIN_MAP)
        self._classes = checked_classes(classes)
        self._width = checked_width(width)
        if isinstance(head_filters, bool) or not isinstance(head_filters, int) or head_filters < 1:
            raise SpaceError("out of range", field="head_filters", value=head_filters, allowed="1 or more")
        self._head_filters = head_filters
        wanted = [2, *(stride if first == 0 else 1 for _, layers, stride in STAGES for first in range(layers))]
        self._strides = kept_strides(min(self._size), wanted, MIN_MAP)
        self._stem = ConvSpec(channels, rounded(STEM_FILTERS * self._width, 8), 3, self._strides[0])
        self._filters = [rounded(filters * self._width, 8) for filters, layers, _ in STAGES for _ in range(layers)]
        self._head = ConvSpec(self._filters[-1], rounded(head_filters * self._width, 8))
        decisions = tuple(Decision(f"layer{index + 1}", BLOCKS) for index in range(len(self._filters)))
        super().__init__(decisions, Workload(tuple(input_shape)))

    def arguments(self) -> dict[str, Any]:
        return {
            "input_shape": list(self.workload.input_shape),
            "classes": self._classes,
            "width": self._width,
            "head_filters": self._head_filters,
        }

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """``fbnet_c`` (the reference), ``fbnet_a``, ``fbnet_b`` and networks of one block throughout."""
        return named_configs([decision.name for decision in self.decisions], BLOCKS)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Images ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        from .layer_modules import ChainClassifier

        row = self.genotype(config)
        blocks = [
            layer_specs(BLOCKS[int(gene)], *geometry[:3]) for gene, geometry in zip(row, self._geometry(), strict=True)
        ]
        return ChainClassifier(self._stem, blocks, self._head, self._classes)

    @cached_property
    def tables(self) -> CostTables:
        """Costs and features of every layer."""
        base = Tally()
        after = tally_stem(self._stem, self._size, base)
        groups = []
        for column, (source, filters, stride, size) in enumerate(self._geometry()):
            rows = []
            for block in BLOCKS:
                tally = Tally()
                for layer in layer_specs(block, source, filters, stride):
                    tally_layer(layer, size, tally)
                rows.append(Row.of(tally))
            groups.append(Group((column,), (len(BLOCKS),), rows))
            after = reduced(size, stride)
        tally_classifier(self._head, self._filters[-1], self._classes, after, base)
        return CostTables.make(Row.of(base), groups, self.decisions)

    def genotypes_from_indices(self, indices: npt.NDArray[np.integer[Any]]) -> Genotypes:
        """Rows ``(N, 22)`` of the block indices that HELP's ``arch.pt`` and HW-NAS-Bench list.

        Raises:
            SpaceError: If an index is not 0 to 8, or rows are not 22 long.
        """
        return self.canonical(self.algebra.validate(np.asarray(indices)))

    def _geometry(self) -> Iterator[tuple[int, int, int, Size]]:
        """(input channels, filters, stride, input size) of each layer."""
        source, size = self._stem.out_channels, reduced(self._size, self._stem.stride)
        for filters, stride in zip(self._filters, self._strides[1:], strict=True):
            yield source, filters, stride, size
            source, size = filters, reduced(size, stride)


def layer_specs(block: str, source: int, filters: int, stride: int) -> tuple[LayerSpec, ...]:
    """The layer that a block stands for; none where ``skip`` keeps the shape."""
    keeps_shape = source == filters and stride == 1
    if block == "skip":
        return () if keeps_shape else (LayerSpec((ConvSpec(source, filters, 1, stride),)),)
    kernel, expansion, groups = SHAPES[block]
    inner = source * expansion
    return (
        LayerSpec(
            (
                ConvSpec(source, inner, groups=groups),
                ConvSpec(inner, inner, kernel, stride, groups=inner),
                ConvSpec(inner, filters, groups=groups, relu=False),
            ),
            shortcut="identity" if keeps_shape else "none",
            shuffle=groups if groups > 1 else 0,
        ),
    )
