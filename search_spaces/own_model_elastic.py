"""A user's own model with elastic modules in the place of its own, and how smaller models are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from .elastic import (
    ElasticBatchNorm,
    ElasticConv2d,
    ElasticLinear,
    ElasticModel,
    KernelSharing,
    sort_channels,
)
from .elastic.conv import centre
from .own_model_parts import SMALLEST_KERNEL, Parts

if TYPE_CHECKING:
    from .own_model import OwnModel

Modules = dict[str, ElasticConv2d | ElasticBatchNorm | ElasticLinear]
"""Elastic modules by the path of the module whose place they take."""


class KeptBlock(nn.Module):
    """A block that can be left out: then it gives what it gets."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.is_kept = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.block(*args, **kwargs) if self.is_kept else (*args, *kwargs.values())[0]


class ElasticOwnModel(ElasticModel):
    """All sub-networks of a user's model in the model's own weights.

    Channels are sorted by importance first (:func:`~gnomon.search_spaces.elastic.sorting.sort_channels`), which
    leaves the whole model's function as it was. Smaller kernels come from the given ones as ``space.sharing``
    says. Statistics of batch norm are the given ones; those of a smaller network have to be estimated anew.
    """

    def __init__(self, space: OwnModel) -> None:
        super().__init__()
        self.space = space
        model = space.given()
        self._elastic = elastic_modules(model, space.parts, space.sharing)
        for path, module in self._elastic.items():
            replace(model, path, module)
        for width in space.parts.widths:
            sort_channels(
                [self._elastic[path] for path in width.writers],
                [self._elastic[path] for path in width.readers],
                [self._elastic[path] for path in width.through],
            )
        # Modules by the paths of the user's model, before blocks are wrapped.
        self._sources = dict(model.named_modules())
        self._kept: dict[str, KeptBlock] = {}
        for run in space.parts.runs:
            for path in run:
                self._kept[path] = KeptBlock(model.get_submodule(path))
        for path, block in self._kept.items():
            replace(model, path, block)
        self.model = model
        self._config: dict[str, Any] = {}
        self.select(space.named["given"])

    def select(self, config: Mapping[str, Any]) -> None:
        checked = self.space.config(self.space.genotype(config))
        resize(self._elastic, self.space.parts, checked)
        left_out = dropped(self.space.parts, checked)
        for path, block in self._kept.items():
            block.is_kept = path not in left_out
        self._config = dict(checked)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.model(x)
        return result

    def extract(self, config: Mapping[str, Any]) -> nn.Module:
        before = self._config
        self.select(config)
        try:
            with torch.random.fork_rng(devices=[]):  # Whoever trains must not notice.
                plain = self.space.build(config)
            plain = plain.to(next(self.parameters()).device)
            with torch.no_grad():
                for path, module in plain.named_modules():
                    if path not in dropped(self.space.parts, self._config):
                        _copy(self._sources[path], module)
        finally:
            self.select(before)
        return plain.train(self.training)


def elastic_modules(model: nn.Module, parts: Parts, sharing: KernelSharing) -> Modules:
    """Elastic modules with the weights of the model's, for all that can change."""
    paths = {path for width in parts.widths for path in (*width.writers, *width.through, *width.readers)} | set(
        parts.kernels
    )
    return {path: _elastic(model.get_submodule(path), parts.kernels.get(path), sharing) for path in sorted(paths)}


def resize(modules: Modules, parts: Parts, config: Mapping[str, Any]) -> None:
    """Sets the sizes of a config. Widths and kernels of blocks that are left out become the largest."""
    for width in parts.widths:
        channels = int(config.get(f"{width.name}.width", width.channels))
        for path in (*width.writers, *width.through):
            module = modules.get(path)
            if isinstance(module, ElasticBatchNorm):
                module.resize(channels)
            elif isinstance(module, ElasticConv2d):
                module.resize(out_channels=channels)
            elif module is not None:
                module.resize(out_features=channels)
        for path in width.readers:
            module = modules.get(path)
            if isinstance(module, ElasticConv2d):
                module.resize(in_channels=channels)
            elif isinstance(module, ElasticLinear):
                module.resize(in_features=channels)
    for path, kernel in parts.kernels.items():
        if path in modules:
            cast(ElasticConv2d, modules[path]).resize(kernel_size=int(config.get(f"{path}.kernel", kernel)))


def shrink(model: nn.Module, modules: Modules, parts: Parts, config: Mapping[str, Any]) -> nn.Module:
    """``model`` with plain modules of the present sizes, and nothing in the place of blocks that are left out."""
    for path, module in modules.items():
        replace(model, path, module.extract())
    for path in dropped(parts, config):
        replace(model, path, nn.Identity())
    return model


def dropped(parts: Parts, config: Mapping[str, Any]) -> set[str]:
    """Paths of the blocks that a config leaves out."""
    return {path for run in parts.runs for path in run[int(config[f"{run[0]}.depth"]) :]}


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Puts ``module`` in the place of the submodule at ``path``."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _elastic(
    module: nn.Module, kernel: int | None, sharing: KernelSharing
) -> ElasticConv2d | ElasticBatchNorm | ElasticLinear:
    """An elastic module with the weights of a plain one."""
    elastic: ElasticConv2d | ElasticBatchNorm | ElasticLinear
    if isinstance(module, nn.Conv2d):
        elastic = ElasticConv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size[0],
            cast("tuple[int, int]", module.stride),
            cast("tuple[int, int]", module.padding),
            cast("tuple[int, int]", module.dilation),
            module.groups,
            module.bias is not None,
            None if kernel is None else range(SMALLEST_KERNEL, kernel + 1, 2),
            sharing,
        )
    elif isinstance(module, nn.BatchNorm2d):
        elastic = ElasticBatchNorm(module.num_features, module.eps, module.momentum)
    else:
        linear = cast(nn.Linear, module)
        elastic = ElasticLinear(linear.in_features, linear.out_features, linear.bias is not None)
    # The module's own parameters: their memory format, device and requires_grad with them.
    for name, parameter in module.named_parameters(recurse=False):
        setattr(elastic, name, parameter)
    for name, buffer in module.named_buffers(recurse=False):
        setattr(elastic, name, buffer)
    if isinstance(elastic, ElasticConv2d) and elastic.sharing == "own":
        with torch.no_grad():
            for size, weight in elastic.smaller.items():
                weight.copy_(centre(elastic.weight, int(size)))
    return elastic.train(module.training)


def _copy(source: nn.Module, target: nn.Module) -> None:
    """Copies a module's own parameters and buffers, those of an elastic one at its present sizes."""
    if isinstance(source, (ElasticConv2d, ElasticBatchNorm, ElasticLinear)):
        source = source.extract()
    for named in ("_parameters", "_buffers"):
        for name, tensor in getattr(source, named).items():
            if tensor is not None:
                getattr(target, named)[name].copy_(tensor)
