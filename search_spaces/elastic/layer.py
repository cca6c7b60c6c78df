"""Layers of convolutional networks that share weights, made from the specifications of all that they can be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias, cast

import torch
from torch import nn
from torch.nn import functional

from ..layer_modules import ConvNorm, Layer, PoolShortcut, SqueezeExcitation
from ..layer_specs import ConvSpec, LayerSpec
from .conv import ElasticBatchNorm, ElasticConv2d, KernelSharing
from .sizes import set_fast
from .sorting import permute_inputs, permute_outputs, sort_channels

MOST_KNOWN = 1024
"""Specifications that a layer remembers."""
NormSharing: TypeAlias = Literal["all", "shortcut"]
"""Which layers of one kind share batch norms: all, or those with the same shortcut. A body beside a shortcut adds a
correction, a body without one makes all of the features: an affine map of its own for either is a cheap way to let the
same filters do both. (Slimmable Networks, 1812.08928, have norms of their own for each width.)"""
SELECTED = ("active", "spec", "variant")
"""Attributes of modules that say which network is selected."""
ANY = "any"
"""The only variant of a layer whose norms are shared by all."""


class ElasticConvNorm(nn.Module):
    """Convolution, batch norm (unless it has a bias) and maybe an activation, of each size in ``specs``.

    Args:
        specs: All that this can be; they agree in stride, groups and norm.
        sharing: How a smaller kernel comes from a larger one.
        variants: Each has a batch norm of its own.
    """

    def __init__(self, specs: Sequence[ConvSpec], sharing: KernelSharing, variants: Sequence[str] = (ANY,)) -> None:
        super().__init__()
        first = specs[0]
        inputs, outputs = max(spec.in_channels for spec in specs), max(spec.out_channels for spec in specs)
        kernels = sorted({spec.kernel for spec in specs})
        self.conv = ElasticConv2d(
            inputs,
            outputs,
            kernels[-1],
            first.stride,
            groups=inputs if first.kind == "depthwise" else 1,
            bias=not first.norm,
            kernels=kernels,
            sharing=sharing,
        )
        self.norms = nn.ModuleDict({variant: ElasticBatchNorm(outputs) for variant in variants if first.norm})
        self.spec = first
        self.variant = variants[0]
        self.resize(first, self.variant)

    @property
    def norm(self) -> ElasticBatchNorm | None:
        """The norm that runs."""
        norms = self._modules["norms"]  # Torch's attribute look-up takes longer, and there are many norms.
        return cast("dict[str, ElasticBatchNorm]", norms._modules).get(self.variant) if norms is not None else None

    def resize(self, spec: ConvSpec, variant: str = ANY) -> None:
        """Becomes ``spec``, with the norm of ``variant``."""
        set_fast(self, "spec", spec)
        set_fast(self, "variant", variant)
        self.conv.resize(spec.in_channels, spec.out_channels, spec.kernel)
        if (norm := self.norm) is not None:
            norm.resize(spec.out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if (norm := self.norm) is not None:
            x = norm(x)
        if not self.spec.relu:
            return x
        return functional.relu_(x) if self.spec.activation == "relu" else functional.hardswish(x, inplace=True)

    def copy_to(self, plain: ConvNorm) -> None:
        """Copies the used weights and statistics into a stand-alone module of the same specification."""
        plain[0].load_state_dict(self.conv.extract().state_dict())
        if (norm := self.norm) is not None:
            plain[1].load_state_dict(norm.extract().state_dict())


class ElasticSqueeze(nn.Module):
    """Squeeze-and-excitation whose channels and squeezed channels are elastic."""

    def __init__(self, specs: Sequence[tuple[ConvSpec, ...]]) -> None:
        super().__init__()
        self.reduce, self.expand = (
            ElasticConvNorm([convs[index] for convs in specs], sharing="crop") for index in (0, 1)
        )

    def resize(self, convs: tuple[ConvSpec, ...]) -> None:
        """Becomes these two convolutions."""
        self.reduce.resize(convs[0])
        self.expand.resize(convs[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * functional.hardsigmoid(self.expand(self.reduce(x.mean((2, 3), keepdim=True))))

    def copy_to(self, plain: SqueezeExcitation) -> None:
        """Copies the used weights into a stand-alone module."""
        self.reduce.copy_to(cast(ConvNorm, plain.gate[0]))
        self.expand.copy_to(cast(ConvNorm, plain.gate[1]))


class ElasticBody(nn.Module):
    """The convolutions of one kind of layer, with squeeze-and-excitation if any of ``specs`` has it."""

    def __init__(self, specs: Sequence[LayerSpec], sharing: KernelSharing, norms: NormSharing = "all") -> None:
        super().__init__()
        variants = sorted({_variant(spec, norms) for spec in specs})
        self.norm_sharing = norms
        self.convs = nn.ModuleList(
            ElasticConvNorm(
                convs, sharing if convs[0].kind == "depthwise" or sharing == "transform" else "crop", variants
            )
            for convs in zip(*(spec.convs for spec in specs), strict=True)
        )
        squeezes = [spec.squeeze_convs for spec in specs if spec.squeeze]
        self.squeeze = ElasticSqueeze(squeezes) if squeezes else None
        self.spec = specs[0]
        self.resize(specs[0])

    def resize(self, spec: LayerSpec) -> None:
        """Becomes ``spec``."""
        set_fast(self, "spec", spec)
        variant = _variant(spec, self.norm_sharing)
        for conv, conv_spec in zip(self._convs, spec.convs, strict=True):
            conv.resize(conv_spec, variant)
        if self.squeeze is not None and spec.squeeze:
            self.squeeze.resize(spec.squeeze_convs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self.active:
            x = module(x)
        return x

    @property
    def active(self) -> list[ElasticConvNorm | ElasticSqueeze]:
        """What runs, in order."""
        modules: list[ElasticConvNorm | ElasticSqueeze] = list(self._convs)
        if self.squeeze is not None and self.spec.squeeze:
            modules.insert(self.spec.spatial + 1, self.squeeze)
        return modules

    def sort_channels(self) -> None:
        """Sorts the expanded channels of an inverted bottleneck by importance; other bodies have none."""
        if len(self.convs) != 3:
            return
        expand, depthwise, project = self._convs
        through = [*expand.norms.values(), depthwise.conv, *depthwise.norms.values()]
        order = sort_channels([expand.conv], [project.conv], through)
        if self.squeeze is not None:
            permute_inputs(self.squeeze.reduce.conv, order)
            permute_outputs(self.squeeze.expand.conv, order)

    @property
    def _convs(self) -> list[ElasticConvNorm]:
        return [cast(ElasticConvNorm, conv) for conv in self.convs]


class ElasticLayer(nn.Module):
    """One layer of a block, as any of ``specs``: a body for each kind of layer, and a shortcut without weights.

    Layers of the same kind share their body: an inverted bottleneck of expansion 3 is the first half of the
    channels of one of expansion 6. A depthwise-separable layer has a body of its own, although it looks like a
    bottleneck of expansion 1: its depthwise convolution reads the block's features rather than expanded ones.
    A plain convolution has its own, too.

    Args:
        specs: All layers that can be at this place; they agree in stride.
        sharing: How a smaller depthwise kernel comes from a larger one.
        norms: Which layers share batch norms.
    """

    def __init__(self, specs: Sequence[LayerSpec], sharing: KernelSharing, norms: NormSharing = "all") -> None:
        super().__init__()
        kinds: dict[str, list[LayerSpec]] = {}
        for spec in specs:
            kinds.setdefault(_kind(spec), []).append(spec)
        self.bodies = nn.ModuleDict({kind: ElasticBody(members, sharing, norms) for kind, members in kinds.items()})
        self.spec = specs[0]
        self._known: dict[int, tuple[LayerSpec, tuple[tuple[nn.Module, str, object], ...]]] = {}

    def resize(self, spec: LayerSpec) -> None:
        """Becomes ``spec``. The sizes of its modules are remembered by the object ``spec``."""
        set_fast(self, "spec", spec)
        known = self._known.get(id(spec))
        if known is not None and known[0] is spec:
            for module, name, value in known[1]:
                set_fast(module, name, value)
            return
        self.body.resize(spec)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        modules = tuple(self.body.modules())
        sizes = tuple((m, name, vars(m)[name]) for m in modules for name in SELECTED if name in vars(m))
        self._known[id(spec)] = spec, sizes

    @property
    def body(self) -> ElasticBody:
        """The body that runs."""
        return cast(ElasticBody, self.bodies[_kind(self.spec)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spec = self.spec
        if spec.shortcut == "none":
            x = self.body(x)
        else:
            held = x if spec.shortcut == "identity" else _pool(spec.in_channels, spec.out_channels, spec.stride)(x)
            x = self.body(x) + held
        return functional.relu_(x) if spec.final_relu else x

    def copy_to(self, plain: Layer) -> None:
        """Copies the used weights and statistics into a stand-alone layer of the same specification."""
        for elastic, module in zip(self.body.active, plain.body, strict=True):
            elastic.copy_to(module)  # type: ignore[arg-type]

    def sort_channels(self) -> None:
        """Sorts the expanded channels of its bottlenecks by importance."""
        for body in self.bodies.values():
            cast(ElasticBody, body).sort_channels()


def _variant(spec: LayerSpec, norms: NormSharing) -> str:
    return spec.shortcut if norms == "shortcut" else ANY


def _kind(spec: LayerSpec) -> str:
    return "_".join(conv.kind for conv in spec.convs)


@lru_cache(maxsize=1024)
def _pool(in_channels: int, out_channels: int, stride: int) -> PoolShortcut:
    return PoolShortcut(in_channels, out_channels, stride)
