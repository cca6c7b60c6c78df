"""Layers of convolutional networks as plain specifications, from which costs and modules are made.

Because the torch modules are built from the same :class:`LayerSpec` from which the analytic costs
are counted, the two cannot disagree about channels, strides or squeeze widths. No torch here: the
tables of a space are made from thousands of these in a fraction of a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Size: TypeAlias = tuple[int, int]
"""Height and width of a feature map."""
Shortcut: TypeAlias = Literal["none", "identity", "pool"]
Activation: TypeAlias = Literal["relu", "hardswish"]

FLOAT_BYTES = 4


def reduced(size: Size, stride: int) -> Size:
    """Size behind a layer with "same" padding: divided by the stride, rounded up."""
    return -(-size[0] // stride), -(-size[1] // stride)


def area(size: Size) -> int:
    """Positions of a feature map."""
    return size[0] * size[1]


BLOCKS = (8, 16, 32)
"""Channels that runtimes compute at once: vector registers of 128 to 512 bits, of float32 or int8."""


def whole_blocks(channels: int, block: int) -> int:
    """``channels`` rounded up to a multiple of ``block``; 1, a depthwise convolution's, stays 1."""
    return channels if channels == 1 else -(-channels // block) * block


@dataclass(frozen=True)
class ConvSpec:
    """A convolution with "same" padding, followed by batch norm (or with a bias) and maybe an activation.

    ``relu`` says whether there is an activation, ``activation`` which one.
    """

    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    relu: bool = True
    norm: bool = True
    activation: Activation = "relu"

    @property
    def parameters(self) -> int:
        weights = self.out_channels * (self.in_channels // self.groups) * self.kernel**2
        return weights + self.out_channels * (2 if self.norm else 1)

    @property
    def kind(self) -> Literal["dense", "depthwise", "grouped", "pointwise"]:
        """``depthwise`` if each channel is its own group, ``grouped`` if there are fewer groups
        than channels, ``pointwise`` if 1x1 across all channels, else ``dense``."""
        if self.groups > 1:
            return "depthwise" if self.groups == self.in_channels else "grouped"
        return "pointwise" if self.kernel == 1 else "dense"

    def macs(self, size: Size) -> int:
        """Multiply-accumulates on an input of ``size``."""
        taps = self.out_channels * (self.in_channels // self.groups) * self.kernel**2
        return area(reduced(size, self.stride)) * taps

    def blocked_macs(self, size: Size, block: int) -> int:
        """Multiply-accumulates with channels rounded up to whole blocks, as runtimes compute them."""
        inner = self.in_channels // self.groups
        taps = whole_blocks(self.out_channels, block) * whole_blocks(inner, block) * self.kernel**2
        return area(reduced(size, self.stride)) * taps

    def cio(self, size: Size) -> int:
        """Elements read and written on an input of ``size``, without weights."""
        return self.in_channels * area(size) + self.out_channels * area(reduced(size, self.stride))


@dataclass(frozen=True)
class LayerSpec:
    """One layer of a block: convolutions in order, squeeze-and-excitation, shortcut.

    Args:
        convs: In order; the first one reads the layer's input.
        squeeze: Channels between the two squeeze-and-excitation convolutions, 0 for none. They
            gate the output of the only spatial convolution.
        shortcut: What is added to the output: nothing, the input, or the input average-pooled
            3x3 by the layer's stride with channels cut or zero-padded to fit.
        final_relu: Whether ReLU follows the addition.
        shuffle: Groups between which channels are exchanged behind the first convolution, 0 for
            none (ShuffleNet, 1707.01083).
    """

    convs: tuple[ConvSpec, ...]
    squeeze: int = 0
    shortcut: Shortcut = "none"
    final_relu: bool = False
    shuffle: int = 0

    @property
    def in_channels(self) -> int:
        return self.convs[0].in_channels

    @property
    def out_channels(self) -> int:
        return self.convs[-1].out_channels

    @property
    def stride(self) -> int:
        stride = 1
        for conv in self.convs:
            stride *= conv.stride
        return stride

    @property
    def spatial(self) -> int:
        """Index of the convolution that squeeze-and-excitation follows: the depthwise or dense one."""
        return next(i for i, conv in enumerate(self.convs) if conv.kind in ("dense", "depthwise"))

    @property
    def squeeze_convs(self) -> tuple[ConvSpec, ...]:
        """The two 1x1 convolutions of squeeze-and-excitation, on a map of 1x1."""
        if not self.squeeze:
            return ()
        channels = self.convs[self.spatial].out_channels
        return (
            ConvSpec(channels, self.squeeze, norm=False),
            ConvSpec(self.squeeze, channels, relu=False, norm=False),
        )


@dataclass
class Tally:
    """Additive figures of a chain of layers, and the largest sum of live activations."""

    sums: dict[str, float] = field(default_factory=dict)
    peak_elements: int = 0

    def add(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value

    def live(self, *elements: int) -> None:
        """Notes that these many elements are alive at once."""
        self.peak_elements = max(self.peak_elements, sum(elements))

    def conv(self, spec: ConvSpec, size: Size) -> None:
        """Counts a convolution on an input of ``size``."""
        self.add("parameters", spec.parameters)
        self.add("macs", spec.macs(size))
        self.add("cio", spec.cio(size))
        kind = spec.kind if area(size) > 1 else "squeeze"
        name = f"{kind}{spec.kernel}" if kind == "depthwise" else kind
        self.add(f"{name}_macs", spec.macs(size))
        self.add(f"{name}_cio", spec.cio(size))
        self.add(f"{name}_convs", 1)
        for block in BLOCKS:
            self.add(f"{name}_macs{block}", spec.blocked_macs(size, block))
        if spec.relu and spec.activation == "hardswish":
            self.add("hardswish_elements", spec.out_channels * area(reduced(size, spec.stride)))


def tally_layer(layer: LayerSpec, size: Size, tally: Tally) -> Size:
    """Counts one layer on an input of ``size`` in the order in which the module runs it; returns
    the size behind it."""
    out_size = reduced(size, layer.stride)
    source, result = layer.in_channels * area(size), layer.out_channels * area(out_size)
    held = _tally_shortcut(layer, size, tally)
    current, alive = size, source
    for index, conv in enumerate(layer.convs):
        tally.conv(conv, current)
        written = conv.out_channels * area(reduced(current, conv.stride))
        # An identity shortcut holds the input itself, which the first convolution reads anyway.
        tally.live(alive, written, 0 if index == 0 and layer.shortcut == "identity" else held)
        current, alive = reduced(current, conv.stride), written
        if layer.shuffle and index == 0:
            tally.live(alive, alive, held)
            tally.add("shuffles", 1)
            tally.add("shuffle_elements", 2 * alive)
        if layer.squeeze and index == layer.spatial:
            _tally_squeeze(layer, current, alive + held, tally)
    if layer.shortcut != "none":
        tally.add("shortcuts", 1)
        tally.add("shortcut_elements", result)
    tally.add("layers", 1)
    return out_size


def tally_stem(stem: ConvSpec, size: Size, tally: Tally) -> Size:
    """Counts the first convolution on images of ``size``; returns the size behind it."""
    out_size = reduced(size, stem.stride)
    tally.conv(stem, size)
    tally.live(stem.in_channels * area(size), stem.out_channels * area(out_size))
    return out_size


def tally_classifier(head: ConvSpec | None, channels: int, classes: int, size: Size, tally: Tally) -> None:
    """Counts head convolution, global pooling and linear layer on a map of ``size``."""
    if head is not None:
        tally.conv(head, size)
        tally.live(head.in_channels * area(size), head.out_channels * area(size))
        channels = head.out_channels
    tally.live(channels * area(size), channels)
    tally.live(channels, classes)
    tally.add("parameters", (channels + 1) * classes)
    tally.add("macs", channels * classes)


def _tally_shortcut(layer: LayerSpec, size: Size, tally: Tally) -> int:
    """Counts the shortcut, which runs first; returns the elements it holds until the addition."""
    source = layer.in_channels * area(size)
    if layer.shortcut == "none":
        return 0
    if layer.shortcut == "identity":
        return source
    pooled = layer.in_channels * area(reduced(size, layer.stride))
    held = layer.out_channels * area(reduced(size, layer.stride))
    tally.live(source, pooled)
    if held != pooled:
        tally.live(source, pooled, held)
    tally.add("pools", 1)
    tally.add("pool_elements", source + pooled)
    return held


def _tally_squeeze(layer: LayerSpec, size: Size, alive: int, tally: Tally) -> None:
    """Counts squeeze-and-excitation behind the spatial convolution, ``alive`` elements being held."""
    channels = layer.convs[layer.spatial].out_channels
    tally.live(alive, channels)
    for conv in layer.squeeze_convs:
        tally.conv(conv, (1, 1))
        tally.live(alive, conv.in_channels, conv.out_channels)
    tally.add("squeezes", 1)
    # The map is read twice (mean, product) and written once.
    tally.add("squeeze_elements", 3 * channels * area(size))
