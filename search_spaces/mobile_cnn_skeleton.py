"""The fixed part of ``mobile_cnn``: stem, blocks' sizes and choices, head.

The skeleton is MobileNetV2's (1801.04381, Table 2). For small images the same skeleton is used
with fewer strides, so that the last map is never smaller than about 4x4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SpaceError
from .image_shape import checked_classes, checked_image_shape, checked_width, kept_strides
from .layer_specs import ConvSpec, Size, reduced

MOBILENET_V2_BLOCKS = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
"""(filters, layers, stride) of MobileNetV2's seven blocks."""
FILTER_RATIOS = (0.75, 1.0, 1.25)
STEM_FILTERS, HEAD_FILTERS = 32, 1280
MIN_MAP = 4
SMALL_IMAGE = 64
"""Below this size there is no wide head convolution, which would outweigh all blocks together."""
TINY_IMAGE = 24
"""Below this size the stem keeps the resolution."""


@dataclass(frozen=True)
class BlockPlan:
    """What is fixed for a block, and its choices of filters and layers.

    Args:
        filters: Output channels to choose from, ascending and distinct.
        layers: Numbers of layers to choose from, ascending and distinct.
        base_filters: Unrounded output channels of the base network at this width.
        base_layers: Layers of the base network.
        stride: Of the block's first layer.
        size: Height and width of the block's input.
    """

    filters: tuple[int, ...]
    layers: tuple[int, ...]
    base_filters: float
    base_layers: int
    stride: int
    size: Size


@dataclass(frozen=True)
class Skeleton:
    """Stem, blocks, optional head convolution (None for none), classifier."""

    stem: ConvSpec
    size: Size
    blocks: tuple[BlockPlan, ...]
    head_filters: int
    classes: int

    @property
    def final_size(self) -> Size:
        """Size of the last feature map."""
        return reduced(self.blocks[-1].size, self.blocks[-1].stride)

    def head(self, in_channels: int) -> ConvSpec | None:
        """The 1x1 convolution before pooling, if there is one."""
        return ConvSpec(in_channels, self.head_filters) if self.head_filters else None


def rounded(channels: float, multiple: int) -> int:
    """The nearest multiple, at least one of it."""
    return max(multiple, int(channels + multiple / 2) // multiple * multiple)


def filter_choices(base: float) -> tuple[int, ...]:
    """Distinct channel counts for the three ratios: multiples of 8, or of 4 where 8 would merge them."""
    by_eight = sorted({rounded(base * ratio, 8) for ratio in FILTER_RATIOS})
    by_four = sorted({rounded(base * ratio, 4) for ratio in FILTER_RATIOS})
    return tuple(by_four if len(by_four) > len(by_eight) else by_eight)


def make_skeleton(
    input_shape: Sequence[int],
    classes: int,
    width: float,
    blocks: int | Sequence[Mapping[str, Any]],
    stem_filters: int | None,
    head_filters: int | None,
) -> Skeleton:
    """The skeleton for a size of image.

    Raises:
        SpaceError: Naming the argument that is out of range.
    """
    channels, size = checked_image_shape(input_shape, smallest=MIN_MAP)
    classes = checked_classes(classes)
    width = checked_width(width)
    table = _block_table(blocks)
    wanted = [2 if min(size) >= TINY_IMAGE else 1, *(stride for _, _, stride in table)]
    strides = kept_strides(min(size), wanted, MIN_MAP)
    stem_filters = rounded(STEM_FILTERS * width, 8) if stem_filters is None else stem_filters
    if head_filters is None:
        # MobileNetV2 keeps the head's 1280 filters when it is made narrower, not when made wider.
        head_filters = 0 if min(size) < SMALL_IMAGE else rounded(HEAD_FILTERS * max(1.0, width), 8)
    if stem_filters < 1 or head_filters < 0:
        raise SpaceError(
            "out of range",
            field="stem_filters, head_filters",
            value=(stem_filters, head_filters),
            allowed="at least 1, at least 0 (0 for no head convolution)",
        )
    stem = ConvSpec(channels, stem_filters, kernel=3, stride=strides[0])
    plans = []
    current = reduced(size, strides[0])
    for (filters, layers, _), stride in zip(table, strides[1:], strict=True):
        counts = tuple(sorted({max(1, layers + delta) for delta in (-1, 0, 1)}))
        plans.append(BlockPlan(filter_choices(filters * width), counts, filters * width, layers, stride, current))
        current = reduced(current, stride)
    return Skeleton(stem, size, tuple(plans), head_filters, classes)


def _block_table(blocks: int | Sequence[Mapping[str, Any]]) -> tuple[tuple[int, int, int], ...]:
    """(filters, layers, stride) of each block."""
    if isinstance(blocks, int):
        if not 1 <= blocks <= len(MOBILENET_V2_BLOCKS):
            raise SpaceError(
                "no such number of blocks",
                field="blocks",
                value=blocks,
                allowed=f"1 to {len(MOBILENET_V2_BLOCKS)}, or a list of {{filters, layers, stride}}",
            )
        return MOBILENET_V2_BLOCKS[:blocks]
    table = []
    for block in blocks:
        try:
            filters, layers, stride = int(block["filters"]), int(block["layers"]), int(block.get("stride", 1))
        except (TypeError, ValueError, KeyError, AttributeError, IndexError):
            filters = layers = stride = 0
        if filters < 1 or layers < 1 or stride not in (1, 2):
            raise SpaceError(
                "not a block", field="blocks", value=block, allowed="{filters: 24, layers: 2, stride: 1 or 2}"
            )
        table.append((filters, layers, stride))
    if not table:
        raise SpaceError("needs at least one block", field="blocks", value=blocks)
    return tuple(table)
