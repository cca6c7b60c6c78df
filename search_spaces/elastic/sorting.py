"""Channels in the order of their importance, so that slicing the first keeps what matters most.

Once-for-All (1908.09791, Section 3.2) sorts channels by the L1 norm of their weights before widths shrink.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...errors import SpaceError
from .conv import ElasticConv2d


@torch.no_grad()
def sort_channels(
    writers: Sequence[nn.Module], readers: Sequence[nn.Module], through: Sequence[nn.Module] = ()
) -> torch.Tensor:
    """Permutes channels, the most important first; what the modules compute together stays the same.

    The moments of an optimiser are not permuted: start a new one.

    Args:
        writers: Linear layers, convolutions or embeddings that write the channels.
        readers: Linear layers and ungrouped convolutions that read them. A channel's importance is the sum of
            the absolute weights with which it is read.
        through: What acts on each channel alone: norms and depthwise convolutions.

    Returns:
        The order: channel ``order[i]`` became channel i.

    Raises:
        SpaceError: If a module is of none of these kinds.
    """
    order = importance(readers).argsort(descending=True, stable=True)
    for module in (*writers, *through):
        permute_outputs(module, order)
    for module in readers:
        permute_inputs(module, order)
    return order


def importance(readers: Sequence[nn.Module]) -> torch.Tensor:
    """The sum of the absolute weights by which each channel is read ``(channels,)``."""
    return torch.stack([_read_weight(reader).abs().transpose(0, 1).flatten(1).sum(1) for reader in readers]).sum(0)


@torch.no_grad()
def permute_outputs(module: nn.Module, order: torch.Tensor) -> None:
    """Channel i of the module's result becomes what channel ``order[i]`` was."""
    if isinstance(module, nn.Embedding):
        module.weight.copy_(module.weight[:, order].clone())
        return
    if not isinstance(module, (nn.Linear, nn.Conv2d, nn.LayerNorm, _BatchNorm)):
        raise SpaceError("channels of this module cannot be sorted", field="module", value=type(module).__name__)
    named = dict(module.named_parameters(recurse=False))
    tensors: list[torch.Tensor | None] = [named.get("weight"), named.get("bias")]
    if isinstance(module, _BatchNorm):
        tensors += [module.running_mean, module.running_var]
    if isinstance(module, ElasticConv2d) and module.sharing == "own":
        tensors += list(module.smaller.values())
    for tensor in tensors:
        if tensor is not None:
            tensor.copy_(tensor[order].clone())


@torch.no_grad()
def permute_inputs(module: nn.Module, order: torch.Tensor) -> None:
    """Channel i that the module reads becomes what channel ``order[i]`` was."""
    weight = _read_weight(module)
    tensors = [weight]
    if isinstance(module, ElasticConv2d) and module.sharing == "own":
        tensors += list(module.smaller.values())
    for tensor in tensors:
        tensor.copy_(tensor[:, order].clone())


def _read_weight(module: nn.Module) -> torch.Tensor:
    if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
        return module.weight
    raise SpaceError(
        "channels that this module reads cannot be sorted",
        field="module",
        value=type(module).__name__,
        allowed="linear layers and ungrouped convolutions",
    )
