"""The fixed part of ``ofa_mobilenet``: stem, first block, the stages' widths, tail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .layer_specs import Activation, ConvSpec, LayerSpec

MAX_DEPTH = 4
STEM_FILTERS, EXPAND_FILTERS, MIX_FILTERS = 16, 960, 1280


class Stage(NamedTuple):
    """What is fixed for a stage; only its first layer has the stride."""

    filters: int
    stride: int
    activation: Activation
    squeeze: bool


STAGES = (
    Stage(24, 2, "relu", False),
    Stage(40, 2, "relu", True),
    Stage(80, 2, "hardswish", False),
    Stage(112, 1, "hardswish", True),
    Stage(160, 2, "hardswish", True),
)


@dataclass(frozen=True)
class OFASkeleton:
    """Stem, first block, filters of the stages, tail.

    Args:
        stem: The first convolution.
        first: The block before the stages, a depthwise-separable layer.
        filters: Output channels of each stage.
        head: The 1x1 convolution before pooling.
        mix_filters: Features of the hidden linear layer behind pooling.
        classes: Outputs.
    """

    stem: ConvSpec
    first: LayerSpec
    filters: tuple[int, ...]
    head: ConvSpec
    mix_filters: int
    classes: int


def divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor``, at least one of it and never more than 10 % below
    ``channels``, as the MobileNets round."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def make_skeleton(channels: int, classes: int, width: float) -> OFASkeleton:
    """The skeleton for images with ``channels``; ``width`` multiplies all filters."""
    stem_filters = divisible(STEM_FILTERS * width)
    filters = tuple(divisible(stage.filters * width) for stage in STAGES)
    first = LayerSpec(
        (
            ConvSpec(stem_filters, stem_filters, 3, groups=stem_filters),
            ConvSpec(stem_filters, stem_filters, relu=False),
        ),
        shortcut="identity",
    )
    return OFASkeleton(
        ConvSpec(channels, stem_filters, 3, 2, activation="hardswish"),
        first,
        filters,
        ConvSpec(filters[-1], divisible(EXPAND_FILTERS * width), activation="hardswish"),
        divisible(MIX_FILTERS * width),
        classes,
    )


def make_layer(skeleton: OFASkeleton, stage: int, layer: int, kernel: int, expansion: int) -> LayerSpec:
    """An inverted bottleneck: the ``layer``-th of a stage, both counted from 0."""
    plan, out_channels = STAGES[stage], skeleton.filters[stage]
    before = skeleton.filters[stage - 1] if stage else skeleton.first.out_channels
    in_channels = out_channels if layer else before
    stride = 1 if layer else plan.stride
    inner = in_channels * expansion
    return LayerSpec(
        (
            ConvSpec(in_channels, inner, activation=plan.activation),
            ConvSpec(inner, inner, kernel, stride, groups=inner, activation=plan.activation),
            ConvSpec(inner, out_channels, relu=False),
        ),
        squeeze=divisible(inner // 4) if plan.squeeze else 0,
        shortcut="identity" if stride == 1 and in_channels == out_channels else "none",
    )
