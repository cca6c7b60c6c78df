"""Hand-made networks for small images, as front lines to beat: five families x widths x stages cut.

Each family is given by its published stages. For an image size its strides are kept as ``space=mobile_cnn`` keeps
them (dropped once the map would fall below 4x4), and its wide head, made for 1,000 classes, is left out below 64
pixels, as there. Two further departures: squeeze-and-excitation follows the activation of the depthwise convolution,
and ReLU6 is ReLU.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnomon.search_spaces import Deployable, Graph, TensorSpec, Workload
from gnomon.search_spaces.image_shape import kept_strides
from gnomon.search_spaces.layer_specs import (
    Activation,
    ConvSpec,
    LayerSpec,
    Tally,
    tally_classifier,
    tally_layer,
    tally_stem,
)
from gnomon.search_spaces.mobile_cnn_skeleton import MIN_MAP, SMALL_IMAGE, TINY_IMAGE, rounded

if TYPE_CHECKING:
    from torch import nn

WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.4)
CUTS = (0, 1, 2, 3)


@dataclass(frozen=True)
class Block:
    """One layer of a family at width 1.

    Args:
        kind: ``mbconv`` (expand, depthwise, project), ``separable`` (depthwise, pointwise) or ``conv``.
        kernel: Of the spatial convolution.
        filters: Output channels.
        stride: For large images.
        expanded: Channels inside an ``mbconv``, as a multiple of its input, or as a number above 10.
        squeeze: Channels of squeeze-and-excitation as a share: of the layer's input (MnasNet), or of the expanded
            channels; 0 for none.
        squeeze_input: Whether the share is of the layer's input.
        activation: ReLU or hard swish.
        linear: Whether the last convolution has no activation.
    """

    kind: str
    kernel: int
    filters: int
    stride: int = 1
    expanded: float = 1.0
    squeeze: float = 0.0
    squeeze_input: bool = False
    activation: Activation = "relu"
    linear: bool = True

    def spec(self, in_channels: int, out_channels: int, stride: int, width: float) -> LayerSpec:
        """The layer with these channels; an ``mbconv`` has a shortcut wherever it keeps the shape."""
        if self.kind == "conv":
            return LayerSpec((ConvSpec(in_channels, out_channels, self.kernel, stride),))
        inner = self._inner(in_channels, width)
        convs = [ConvSpec(inner, inner, self.kernel, stride, groups=inner, activation=self.activation)]
        if inner != in_channels:
            convs.insert(0, ConvSpec(in_channels, inner, activation=self.activation))
        convs.append(ConvSpec(inner, out_channels, relu=not self.linear, activation=self.activation))
        keeps_shape = stride == 1 and in_channels == out_channels
        return LayerSpec(
            tuple(convs),
            max(4, int(self.squeeze * (in_channels if self.squeeze_input else inner))) if self.squeeze else 0,
            "identity" if self.kind == "mbconv" and keeps_shape else "none",
        )

    def _inner(self, in_channels: int, width: float) -> int:
        if self.kind == "separable":
            return in_channels
        return rounded(self.expanded * width, 8) if self.expanded > 10 else int(in_channels * self.expanded)


@dataclass(frozen=True)
class Family:
    """A published network: stem, and stages that can be cut from the end."""

    stem: int
    stages: tuple[tuple[Block, ...], ...]
    activation: Activation = "relu"


def _mbconvs(
    kernel: int, filters: int, layers: int, stride: int, expanded: float, se: float = 0.0
) -> tuple[Block, ...]:
    return tuple(
        Block("mbconv", kernel, filters, stride if index == 0 else 1, expanded, se, squeeze_input=True)
        for index in range(layers)
    )


def _small(kernel: int, expanded: int, filters: int, stride: int, *, se: bool, hardswish: bool) -> Block:
    """A layer of MobileNetV3-small, whose expanded channels are numbers of their own."""
    activation: Activation = "hardswish" if hardswish else "relu"
    return Block("mbconv", kernel, filters, stride, expanded, 0.25 if se else 0.0, activation=activation)


def _separable(kernel: int, filters: int, layers: int, stride: int, *, se: bool = False) -> tuple[Block, ...]:
    """Layers of PP-LCNet: hard swish behind both convolutions, no shortcut."""
    return tuple(
        Block(
            "separable",
            kernel,
            filters,
            stride if index == 0 else 1,
            squeeze=0.25 if se else 0.0,
            activation="hardswish",
            linear=False,
        )
        for index in range(layers)
    )


def _convs(filters: int, layers: int, stride: int) -> tuple[Block, ...]:
    return tuple(Block("conv", 3, filters, stride if index == 0 else 1) for index in range(layers))


FAMILIES = {
    # 1801.04381, Table 2.
    "mobilenet_v2": Family(
        32,
        (
            (Block("separable", 3, 16),),
            _mbconvs(3, 24, 2, 2, 6),
            _mbconvs(3, 32, 3, 2, 6),
            _mbconvs(3, 64, 4, 2, 6),
            _mbconvs(3, 96, 3, 1, 6),
            _mbconvs(3, 160, 3, 2, 6),
            _mbconvs(3, 320, 1, 1, 6),
        ),
    ),
    # 1905.02244, Table 2.
    "mobilenet_v3_small": Family(
        16,
        (
            (_small(3, 16, 16, 2, se=True, hardswish=False),),
            (
                _small(3, 72, 24, 2, se=False, hardswish=False),
                _small(3, 88, 24, 1, se=False, hardswish=False),
            ),
            (
                _small(5, 96, 40, 2, se=True, hardswish=True),
                *(_small(5, 240, 40, 1, se=True, hardswish=True) for _ in range(2)),
            ),
            (
                _small(5, 120, 48, 1, se=True, hardswish=True),
                _small(5, 144, 48, 1, se=True, hardswish=True),
            ),
            (
                _small(5, 288, 96, 2, se=True, hardswish=True),
                *(_small(5, 576, 96, 1, se=True, hardswish=True) for _ in range(2)),
            ),
        ),
        "hardswish",
    ),
    # 1807.11626, Figure 7.
    "mnasnet_a1": Family(
        32,
        (
            (Block("separable", 3, 16),),
            _mbconvs(3, 24, 2, 2, 6),
            _mbconvs(5, 40, 3, 2, 3, 0.25),
            _mbconvs(3, 80, 4, 2, 6),
            _mbconvs(3, 112, 2, 1, 6, 0.25),
            _mbconvs(5, 160, 3, 2, 6, 0.25),
            _mbconvs(3, 320, 1, 1, 6),
        ),
    ),
    # 2109.15099, Table 1.
    "pp_lcnet": Family(
        16,
        (
            _separable(3, 32, 1, 1),
            _separable(3, 64, 2, 2),
            _separable(3, 128, 2, 2),
            (*_separable(3, 256, 1, 2), *_separable(5, 256, 5, 1)),
            _separable(5, 512, 2, 2, se=True),
        ),
        "hardswish",
    ),
    # 1409.1556's idea: plain 3x3 convolutions, twice the filters at half the size.
    "plain": Family(16, (_convs(16, 1, 1), _convs(32, 2, 2), _convs(64, 2, 2), _convs(128, 2, 2), _convs(256, 2, 2))),
}


@dataclass(frozen=True)
class HandMade:
    """One hand-made network, a ``Network`` of :mod:`benchmarks._trainings`.

    Args:
        family: One of ``FAMILIES``.
        width: Multiplies all channels, in multiples of 8.
        cut: Stages left out at the end.
        input_shape: ``(channels, height, width)``.
        classes: Number of classes.
    """

    family: str
    width: float
    cut: int
    input_shape: tuple[int, int, int]
    classes: int

    @property
    def name(self) -> str:
        """Family, width and stages cut."""
        return f"{self.family}-w{100 * self.width:.0f}-cut{self.cut}"

    @functools.cached_property
    def layers(self) -> tuple[ConvSpec, tuple[tuple[LayerSpec, ...], ...], ConvSpec | None]:
        """Stem, stages and head convolution (None for none)."""
        family = FAMILIES[self.family]
        stages = family.stages[: len(family.stages) - self.cut]
        edge = min(self.input_shape[1:])
        first = 2 if edge >= TINY_IMAGE else 1
        strides = kept_strides(edge, [first, *(block.stride for stage in stages for block in stage)], MIN_MAP)
        stem = ConvSpec(
            self.input_shape[0], rounded(family.stem * self.width, 8), 3, strides[0], activation=family.activation
        )
        channels, kept = stem.out_channels, iter(strides[1:])
        built = []
        for stage in stages:
            specs = []
            for block in stage:
                out_channels = rounded(block.filters * self.width, 8)
                specs.append(block.spec(channels, out_channels, next(kept), self.width))
                channels = out_channels
            built.append(tuple(specs))
        head = None
        if edge >= SMALL_IMAGE:
            head = ConvSpec(channels, rounded(1280 * max(1.0, self.width), 8), activation=family.activation)
        return stem, tuple(built), head

    def spec(self) -> dict[str, Any]:
        """With all layers, so that a change of a family is another network."""
        stem, stages, head = self.layers
        return {
            "kind": "handmade",
            "name": self.name,
            "stem": dataclasses.asdict(stem),
            "stages": [[dataclasses.asdict(layer) for layer in stage] for stage in stages],
            "head": None if head is None else dataclasses.asdict(head),
            "input_shape": list(self.input_shape),
            "classes": self.classes,
        }

    def build(self) -> nn.Module:
        from gnomon.search_spaces.layer_modules import ChainClassifier

        stem, stages, head = self.layers
        return ChainClassifier(stem, stages, head, self.classes)

    @functools.cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        stem, stages, head = self.layers
        tally = Tally()
        size = tally_stem(stem, self.input_shape[1:], tally)
        channels = stem.out_channels
        for layer in (layer for stage in stages for layer in stage):
            size, channels = tally_layer(layer, size, tally), layer.out_channels
        tally_classifier(head, channels, self.classes, size, tally)
        return int(tally.sums["macs"])

    def deployable(self) -> Deployable:
        """What a device runs, with fresh weights. Its name ends in a hash of the layers, so that a stored
        measurement is never taken for another network's."""
        digest = hashlib.sha256(repr(self.layers).encode()).hexdigest()[:8]
        inputs = (TensorSpec("input", (1, *self.input_shape), dynamic_axes={0: "batch"}),)
        graph = Graph(inputs, ("output",), module=self.build)
        return Deployable(f"{self.name}-{digest}", Workload(self.input_shape), {"main": graph})


def handmade_networks(
    input_shape: Sequence[int],
    classes: int,
    *,
    families: Iterable[str] = FAMILIES,
    widths: Iterable[float] = WIDTHS,
    cuts: Iterable[int] = CUTS,
) -> list[HandMade]:
    """All combinations, ascending in MACs; of networks with equal layers (narrow ones, rounded alike) only one."""
    channels, height, width_px = input_shape
    shape = (channels, height, width_px)
    widths, cuts = tuple(widths), tuple(cuts)
    found: dict[str, HandMade] = {}
    for family in families:
        for width in widths:
            for cut in cuts:
                network = HandMade(family, width, cut, shape, classes)
                found.setdefault(repr(network.layers), network)
    return sorted(found.values(), key=lambda network: network.macs)
