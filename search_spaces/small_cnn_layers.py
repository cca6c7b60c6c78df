"""The searched layers of ``small_cnn`` as specifications."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import SpaceError
from .layer_specs import Activation, ConvSpec, LayerSpec

GENES = ("op", "kernel", "se", "filters", "layers")
"""Decisions of a stage, in the order of its columns."""
OPS = ("conv", "separable", "mbconv3", "fused3")
KERNELS = (3, 5)
SE_RATIOS = (0.0, 0.25)
ACTIVATIONS: tuple[Activation, ...] = ("relu", "hardswish")
EXPANSION = 3
MIN_SQUEEZE = 8


def make_layer(
    op: str, kernel: int, se: float, in_channels: int, out_channels: int, stride: int, activation: Activation
) -> LayerSpec:
    """One layer of a stage.

    Raises:
        SpaceError: If there is no such operation.
    """

    def spatial(source: int, filters: int, groups: int = 1) -> ConvSpec:
        return ConvSpec(source, filters, kernel, stride, groups, activation=activation)

    inner = EXPANSION * in_channels
    linear = ConvSpec(inner, out_channels, relu=False)
    convs: tuple[ConvSpec, ...]
    if op == "conv":
        convs = (spatial(in_channels, out_channels),)
    elif op == "separable":
        pointwise = ConvSpec(in_channels, out_channels, activation=activation)
        convs = (spatial(in_channels, in_channels, in_channels), pointwise)
    elif op == "mbconv3":
        convs = (ConvSpec(in_channels, inner, activation=activation), spatial(inner, inner, inner), linear)
    elif op == "fused3":
        convs = (spatial(in_channels, inner), linear)
    else:
        raise SpaceError("no such operation", field="op", value=op, allowed=OPS)
    gated = next(conv for conv in convs if conv.kernel == kernel).out_channels
    squeeze = max(MIN_SQUEEZE, int(se * gated)) if se else 0
    # As published: bottlenecks add their input, plain and separable convolutions do not.
    adds = op in ("mbconv3", "fused3") and stride == 1 and in_channels == out_channels
    return LayerSpec(convs, squeeze, "identity" if adds else "none")


def stage_layers(
    op: str,
    kernel: int,
    se: float,
    in_channels: int,
    out_channels: int,
    layers: int,
    stride: int,
    activation: Activation,
) -> Iterator[LayerSpec]:
    """The layers of a stage; only the first has the stride and changes the channels."""
    for index in range(layers):
        source, own = (in_channels, stride) if index == 0 else (out_channels, 1)
        yield make_layer(op, kernel, se, source, out_channels, own, activation)
