"""Elastic convolution and batch norm: the first channels, and smaller kernels, of one set of weights.

Shapes: O output channels, I input channels of a group, K x K the largest kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeAlias, cast

import torch
from torch import nn
from torch.nn import functional

from ...errors import SpaceError
from .sizes import checked_size, filled, front, set_fast

KernelSharing = Literal["crop", "transform", "own"]
_FourTensors: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
KERNEL_SHARINGS: tuple[KernelSharing, ...] = ("crop", "transform", "own")


class ElasticConv2d(nn.Conv2d):
    """A convolution that uses its first channels and one of several square kernels.

    A grouped convolution keeps the channels of a group; it has fewer groups when it has fewer channels. A
    depthwise one has groups of one channel. Padding shrinks with the kernel, so that maps keep their size.

    Smaller kernels are, by ``sharing``:

    - ``crop``: the centre of the larger one.
    - ``transform``: the centre of the next larger one times a matrix, learnt for each size and shared by
      all channels of the layer; at first the identity (Once-for-All, 1908.09791, Section 3.2).
    - ``own``: weights of their own. Sensible for depthwise convolutions, which have few.

    Args:
        in_channels: Largest number of input channels.
        out_channels: Largest number of output channels.
        kernel_size: Largest kernel.
        stride: As in torch, as is what follows.
        padding: With the largest kernel; None for half of it, which keeps the map's size.
        dilation: Distance of the kernel's points.
        groups: With all channels.
        bias: Whether there is one.
        kernels: All kernels to choose from; None for ``kernel_size`` alone. They differ by even numbers.
        sharing: How smaller kernels come about.
    """

    active: tuple[int, int, int]
    """Present input channels, output channels, kernel."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | None = None,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        kernels: Sequence[int] | None = None,
        sharing: KernelSharing = "crop",
    ) -> None:
        padding = kernel_size // 2 if padding is None else padding
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.kernels = _checked_kernels(kernels, kernel_size)
        if sharing not in KERNEL_SHARINGS:
            raise SpaceError("unknown", field="sharing", value=sharing, allowed=KERNEL_SHARINGS)
        self.sharing = sharing
        self.active = (in_channels, out_channels, kernel_size)
        self.smaller = nn.ParameterDict()
        for kernel in self.kernels[:-1]:
            if sharing == "own":
                weight = nn.Parameter(self.weight.new_empty(*self.weight.shape[:2], kernel, kernel))
                nn.init.kaiming_uniform_(weight, a=5**0.5)  # torch's default for convolutions
                self.smaller[str(kernel)] = weight
            elif sharing == "transform":
                self.smaller[str(kernel)] = nn.Parameter(torch.eye(kernel**2))

    def resize(
        self, in_channels: int | None = None, out_channels: int | None = None, kernel_size: int | None = None
    ) -> None:
        """Sets the sizes that are given; with groups, either number of channels follows from the other.

        Raises:
            SpaceError: If one is larger than the layer, is no whole number of groups, or no such kernel.
        """
        inputs, outputs, kernel = self.active
        if self.groups > 1 and (in_channels is not None or out_channels is not None):
            inputs, outputs = self._whole_groups(in_channels, out_channels)
        else:
            if in_channels is not None:
                inputs = checked_size("in_channels", in_channels, self.in_channels)
            if out_channels is not None:
                outputs = checked_size("out_channels", out_channels, self.out_channels)
        if kernel_size is not None:
            if kernel_size not in self.kernels:
                raise SpaceError(
                    "no such kernel in this convolution", field="kernel_size", value=kernel_size, allowed=self.kernels
                )
            kernel = kernel_size
        set_fast(self, "active", (inputs, outputs, kernel))

    def sliced(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The weight ``(O, I, k, k)`` and bias ``(O,)`` that are used: views, unless kernels are transformed."""
        inputs, outputs, kernel = self.active
        weight = cast(torch.Tensor, self._parameters["weight"])
        if kernel < self.kernels[-1] and self.sharing == "own":
            weight = self.smaller[str(kernel)]
        weight = front(weight, outputs, inputs if self.groups == 1 else weight.shape[1])
        if kernel < weight.shape[2]:
            weight = self._shrunk(weight, kernel)
        bias = self._parameters["bias"]
        return weight, None if bias is None else front(bias, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, in_channels, height, width)`` to ``(batch, out_channels, ...)``."""
        weight, bias = self.sliced()
        return functional.conv2d(x, weight, bias, self.stride, self._padding(), self.dilation, self._groups())

    def extract(self) -> nn.Conv2d:
        """A plain convolution of the present sizes, with copied weights."""
        inputs, outputs, kernel = self.active
        weight, bias = self.sliced()
        module = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            self.stride,  # type: ignore[arg-type]
            self._padding(),
            self.dilation,  # type: ignore[arg-type]
            self._groups(),
            bias is not None,
            device="meta",
        )
        module = filled(module, self, weight=weight, bias=bias)
        if self.weight.is_contiguous(memory_format=torch.channels_last) and not self.weight.is_contiguous():
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module

    def _groups(self) -> int:
        return self.groups if self.groups == 1 else self.active[0] // (self.in_channels // self.groups)

    def _padding(self) -> tuple[int, int]:
        if self.active[2] == self.kernels[-1]:
            return cast("tuple[int, int]", self.padding)
        cut = (self.kernels[-1] - self.active[2]) // 2
        high, wide = (int(size) for size in self.padding)
        return high - cut * self.dilation[0], wide - cut * self.dilation[1]

    def _whole_groups(self, in_channels: int | None, out_channels: int | None) -> tuple[int, int]:
        """Input and output channels of the groups that one of them, or both, stand for."""
        sizes = {"in_channels": (in_channels, self.in_channels), "out_channels": (out_channels, self.out_channels)}
        counts = set()
        for field, (wanted, largest) in sizes.items():
            if wanted is not None:
                width = largest // self.groups
                if checked_size(field, wanted, largest) % width:
                    raise SpaceError(
                        "no whole number of groups", field=field, value=wanted, allowed=f"multiples of {width}"
                    )
                counts.add(wanted // width)
        if len(counts) > 1:
            raise SpaceError(
                "not the same number of groups", field="in_channels, out_channels", value=(in_channels, out_channels)
            )
        groups = counts.pop()
        return self.in_channels // self.groups * groups, self.out_channels // self.groups * groups

    def _shrunk(self, weight: torch.Tensor, kernel: int) -> torch.Tensor:
        if self.sharing == "crop":
            return centre(weight, kernel)
        for smaller in reversed(self.kernels[:-1]):
            weight = centre(weight, smaller)
            weight = (weight.flatten(2) @ self.smaller[str(smaller)]).unflatten(2, (smaller, smaller))
            if smaller == kernel:
                break
        return weight


class ElasticBatchNorm(nn.BatchNorm2d):
    """Batch norm of the first channels, with the first of one set of statistics."""

    active: int
    """Present channels."""

    def __init__(self, features: int, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        super().__init__(features, eps, momentum)
        self.active = features
        self._views: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def resize(self, features: int) -> None:
        """Sets the number of channels.

        Raises:
            SpaceError: If it is larger than the layer.
        """
        set_fast(self, "active", checked_size("features", features, self.num_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, channels, height, width)`` to the same shape."""
        weight, bias, mean, variance = self.sliced()
        step = self._step() if self.training else 0.0
        return functional.batch_norm(x, mean, variance, weight, bias, self.training, step, self.eps)

    def sliced(self) -> _FourTensors:
        """Views of weight, bias, running mean and running variance that are used, each ``(channels,)``."""
        size = self.active
        # Read from the dictionaries: half as expensive as torch's attribute look-up, and there are many norms.
        parameters = self._parameters["weight"], self._parameters["bias"]
        statistics = self._buffers["running_mean"], self._buffers["running_var"]
        weight, bias, mean, variance = cast("_FourTensors", (*parameters, *statistics))
        if size == self.num_features:
            return weight, bias, mean, variance
        return weight.narrow(0, 0, size), bias.narrow(0, 0, size), *self._first_statistics(mean, variance, size)

    def _first_statistics(
        self, mean: torch.Tensor, variance: torch.Tensor, size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Views, kept as long as the statistics lie where they lay: no gradient flows through them."""
        known = self._views.get(size)
        if known is None or known[0].data_ptr() != mean.data_ptr() or known[1].data_ptr() != variance.data_ptr():
            known = self._views[size] = mean.narrow(0, 0, size), variance.narrow(0, 0, size)
        return known

    def extract(self) -> nn.BatchNorm2d:
        """A plain batch norm of the present size, with copied weights and statistics."""
        weight, bias, mean, variance = self.sliced()
        return filled(
            nn.BatchNorm2d(self.active, self.eps, self.momentum, device="meta"),
            self,
            weight=weight,
            bias=bias,
            running_mean=mean,
            running_var=variance,
            num_batches_tracked=self.num_batches_tracked,
        )

    def _step(self) -> float:
        """How far the statistics move towards this batch's; without a momentum they become means of all batches."""
        count = cast(torch.Tensor, self._buffers["num_batches_tracked"])
        count.add_(1)
        return 1.0 / float(count) if self.momentum is None else self.momentum


def centre(weight: torch.Tensor, kernel: int) -> torch.Tensor:
    """The middle ``kernel x kernel`` points of a weight ``(O, I, K, K)``, as a view."""
    cut = (weight.shape[2] - kernel) // 2
    return weight if not cut else weight[:, :, cut:-cut, cut:-cut]


def _checked_kernels(kernels: Sequence[int] | None, largest: int) -> tuple[int, ...]:
    checked = (largest,) if kernels is None else tuple(sorted(set(kernels)))
    if not checked or checked[-1] != largest or checked[0] < 1 or any((b - a) % 2 for a, b in pairwise(checked)):
        raise SpaceError(
            "not kernels of one convolution",
            field="kernels",
            value=kernels,
            allowed=f"sizes of 1 to {largest}, which is among them, that differ by even numbers",
        )
    return checked
