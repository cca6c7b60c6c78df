"""The searched layers and blocks of ``mobile_cnn`` as specifications."""

from __future__ import annotations

from functools import lru_cache

from ..errors import SpaceError
from .layer_specs import ConvSpec, LayerSpec, Shortcut

OPS = ("conv", "dconv", "mbconv3", "mbconv6")
KERNELS = (3, 5)
SE_RATIOS = (0.0, 0.25)
SKIPS = ("none", "identity", "pool")
MIN_SQUEEZE = 4


def squeeze_channels(ratio: float, in_channels: int) -> int:
    """MnasNet takes the ratio of the layer's *input* channels, not of the expanded ones."""
    return max(MIN_SQUEEZE, int(in_channels * ratio)) if ratio else 0


def make_layer(
    op: str, kernel: int, se: float, skip: str, in_channels: int, out_channels: int, stride: int, *, first: bool
) -> LayerSpec:
    """One layer of a block.

    ``identity`` adds the input wherever the shape is kept. ``pool`` does the same, and in the
    block's first layer adds the pooled input.
    """
    squeeze = squeeze_channels(se, in_channels)
    shortcut: Shortcut = "none"
    if skip == "pool" and first:
        shortcut = "pool"
    elif skip != "none" and stride == 1 and in_channels == out_channels:
        shortcut = "identity"
    if op == "conv":
        convs: tuple[ConvSpec, ...] = (ConvSpec(in_channels, out_channels, kernel, stride, relu=False),)
        return LayerSpec(convs, squeeze, shortcut, final_relu=True)
    if op == "dconv":
        expanded, convs = in_channels, ()
    elif op in ("mbconv3", "mbconv6"):
        expanded = in_channels * int(op[-1])
        convs = (ConvSpec(in_channels, expanded),)
    else:
        raise SpaceError("no such operation", field="op", value=op, allowed=OPS)
    depthwise = ConvSpec(expanded, expanded, kernel, stride, groups=expanded)
    return LayerSpec((*convs, depthwise, ConvSpec(expanded, out_channels, relu=False)), squeeze, shortcut)


@lru_cache(maxsize=16384)
def make_block(
    op: str, kernel: int, se: float, skip: str, in_channels: int, out_channels: int, layers: int, stride: int
) -> tuple[LayerSpec, ...]:
    """The layers of a block; only the first has the stride and changes the channels."""
    return tuple(
        make_layer(
            op,
            kernel,
            se,
            skip,
            in_channels if index == 0 else out_channels,
            out_channels,
            stride if index == 0 else 1,
            first=index == 0,
        )
        for index in range(layers)
    )
