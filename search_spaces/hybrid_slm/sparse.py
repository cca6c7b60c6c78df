"""Sparse linear layers in which every output reads the same number of inputs, which move while training.

SRigL (Lasby et al., 2305.02299): a layer is its condensed weights ``(outputs, fan_in)`` and which inputs they are of.
Left out: the paper's removal of whole neurons.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from ...errors import SpaceError


class ConstantFanInLinear(nn.Module):
    """A linear layer without bias, each output of ``fan_in`` inputs, at first chosen at random.

    Sequences ``(B, T, C)`` go through a dense product with the scattered weights, single tokens ``(B, C)`` through a
    gather of each output's inputs, whose file holds and whose step reads the condensed weights only. Runtimes without a
    kernel for it may gather slower than they multiply: then clear :attr:`gathers` before export.

    Args:
        inputs: Features in.
        outputs: Features out.
        fan_in: Inputs of each output.

    Raises:
        SpaceError: If there are not as many inputs.
    """

    index: torch.Tensor
    """Inputs of each output ``(outputs, fan_in)``, different ones: int64."""
    gathers: bool = True
    """Whether single tokens go through a gather; else through a dense product as well."""
    dense_gradient: torch.Tensor | None
    """Of all connections ``(outputs, inputs)``, from the last backward pass while :attr:`watched`."""

    def __init__(self, inputs: int, outputs: int, fan_in: int) -> None:
        super().__init__()
        if not 1 <= fan_in <= inputs:
            raise SpaceError("is not a number of inputs", field="fan_in", value=fan_in, allowed=f"1 to {inputs}")
        self.inputs, self.outputs, self.fan_in = inputs, outputs, fan_in
        chosen = torch.rand(outputs, inputs).argsort(dim=1)[:, :fan_in].sort(dim=1).values
        self.register_buffer("index", chosen)
        self.weight = nn.Parameter(torch.randn(outputs, fan_in) * fan_in**-0.5)
        self.watched = False
        self.dense_gradient = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., inputs)`` to ``(..., outputs)``."""
        if x.ndim == 2 and self.gathers:
            # Gathered as one row of indices, which runtimes do faster than a matrix of them.
            read: torch.Tensor = x.index_select(1, self.index.flatten()).unflatten(1, (self.outputs, self.fan_in))
            return (read * self.weight).sum(dim=-1)
        weight = self.dense_weight()
        if self.watched and weight.requires_grad:
            weight.register_hook(self._watch)
        return functional.linear(x, weight)

    def dense_weight(self) -> torch.Tensor:
        """``(outputs, inputs)``, zero where there is no connection."""
        empty = torch.zeros(self.outputs, self.inputs, dtype=self.weight.dtype, device=self.weight.device)
        return empty.scatter(1, self.index, self.weight)

    def _watch(self, gradient: torch.Tensor) -> None:
        known = self.dense_gradient
        self.dense_gradient = gradient.detach().clone() if known is None else known + gradient.detach()

    @torch.no_grad()
    def rewire(self, gradient: torch.Tensor, fraction: float) -> torch.Tensor:
        """Drops the connections of least magnitude in the layer, and gives each output as many back as it lost.

        New ones are those of the largest gradients, and begin at zero. What was dropped may return.

        Args:
            gradient: Of the loss to all connections ``(outputs, inputs)``.
            fraction: Of the connections that are dropped, 0 to 1.

        Returns:
            Which weights are new: bool ``(outputs, fan_in)``. An optimizer's moments of them are stale.
        """
        if not 0 <= fraction <= 1:
            raise SpaceError("is not a fraction", field="fraction", value=fraction, allowed="0 to 1")
        ranks = self.weight.abs().flatten().argsort().argsort().view_as(self.weight)
        dropped = ranks < round(fraction * self.weight.numel())
        # What stays cannot be grown: its score is below all others. Row by row the best come first.
        stays = torch.zeros_like(gradient, dtype=torch.bool).scatter(1, self.index, ~dropped)
        best = gradient.abs().masked_fill(stays, -1.0).argsort(dim=1, descending=True)
        turn = (dropped.cumsum(dim=1) - 1).clamp_min(0)
        self.index.copy_(torch.where(dropped, best.gather(1, turn), self.index))
        self.weight.masked_fill_(dropped, 0.0)
        return dropped


def watch(model: nn.Module, watched: bool = True) -> None:
    """Whether sparse layers keep the gradients of all connections from now on, which :func:`rewire` needs."""
    for layer in _sparse_layers(model):
        layer.watched, layer.dense_gradient = watched, None


def rewire(model: nn.Module, fraction: float, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Rewires all sparse layers by the gradients since :func:`watch`, and forgets these.

    Args:
        model: With :class:`ConstantFanInLinear` layers in it.
        fraction: Of each layer's connections that are dropped, see :func:`drop_fraction`.
        optimizer: Whose moments of new connections are set to zero.

    Returns:
        How many connections are new.

    Raises:
        SpaceError: If a layer has seen no backward pass while watched.
    """
    count = 0
    for layer in _sparse_layers(model):
        if layer.dense_gradient is None:
            raise SpaceError("no gradients of all connections", field="model", hint="Call watch() before the pass")
        new = layer.rewire(layer.dense_gradient, fraction)
        layer.dense_gradient = None
        count += int(new.sum())
        for moment in {} if optimizer is None else optimizer.state[layer.weight].values():
            if isinstance(moment, torch.Tensor) and moment.shape == new.shape:
                moment.masked_fill_(new, 0.0)
    return count


def drop_fraction(step: int, last_step: int, first: float = 0.3) -> float:
    """Part of the connections to drop at a step: from ``first`` down to none, as a cosine (RigL, 1911.11134)."""
    return first / 2 * (1 + math.cos(math.pi * min(step / last_step, 1.0)))


def _sparse_layers(model: nn.Module) -> list[ConstantFanInLinear]:
    return [module for module in model.modules() if isinstance(module, ConstantFanInLinear)]
