"""What elastic modules share: checked sizes, the first entries of a tensor, plain modules with copied weights."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from torch import nn

from ...errors import SpaceError

M = TypeVar("M", bound=nn.Module)


class Extractable(Protocol):
    """An elastic module: at its present sizes, it can be had as a plain torch module."""

    def extract(self) -> nn.Module:
        """A plain module of the present sizes with copies of the weights that they use."""


def checked_size(field: str, value: int, largest: int) -> int:
    """``value`` itself.

    Raises:
        SpaceError: If it is not an integer from 1 to ``largest``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise SpaceError("no such size of this elastic module", field=field, value=value, allowed=f"1 to {largest}")
    return value


def front(tensor: torch.Tensor, *sizes: int) -> torch.Tensor:
    """The first ``sizes[d]`` entries along dimension d, as a view; ``tensor`` itself where that is all of it.

    It is one step in the graph of gradients, however many dimensions are cut: each makes a tensor of zeros in the
    backward pass.
    """
    shape, cut = tensor.shape, -1
    for dimension, size in enumerate(sizes):
        if size < shape[dimension]:
            if cut >= 0:
                return tensor.as_strided((*sizes, *shape[len(sizes) :]), tensor.stride())
            cut = dimension
    return tensor if cut < 0 else tensor.narrow(cut, 0, sizes[cut])


def set_fast(module: nn.Module, name: str, value: object) -> None:
    """``module.name = value`` for what is neither tensor nor module, without torch's look into its registries.

    A network is selected at every step of a training; that look is most of what selecting would cost.
    """
    module.__dict__[name] = value


def filled(module: M, like: nn.Module, **tensors: torch.Tensor | None) -> M:
    """A module made on the meta device (which draws no random numbers), with copies of ``tensors``.

    Args:
        module: On the meta device.
        like: Gives the mode (training or evaluation).
        tensors: All its parameters and buffers by name; None for one that it lacks.
    """
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first = next(iter(given.values()))
    module = module.to_empty(device=first.device).to(first.dtype)
    with torch.no_grad():
        for name, tensor in given.items():
            getattr(module, name).copy_(tensor)
    return module.train(like.training)
