"""A network as a row of blocks, and what flows between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ...errors import TaskError
from .layers import weighted_layers


def blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a network: the members of its longest ``nn.Sequential`` or ``nn.ModuleList`` of which two or more
    are composite; where there is none, its convolutions and linear layers.

    The first of equally long ones is taken, so that a container wins over those inside it.
    """
    best: list[nn.Module] = []
    for module in model.modules():
        if not isinstance(module, (nn.Sequential, nn.ModuleList)):
            continue
        members = list(module.children())
        composite = sum(1 for member in members if any(True for _ in member.children()))
        if composite >= 2 and len(members) > len(best):
            best = members
    return best or weighted_layers(model)


def block_outputs(model: nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    """What each block puts out for ``inputs``, in the order in which they run; maps ``(B, C, H, W)`` only.

    Raises:
        TaskError: If fewer than two blocks put out maps.
    """
    found: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        if not isinstance(output, torch.Tensor) or output.dim() != 4:
            return output
        found.append(output)
        return output.clone()  # what comes next may work in place

    handles = [block.register_forward_hook(keep) for block in blocks(model)]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if len(found) < 2:
        raise TaskError("fewer than two blocks put out maps (B, C, H, W)", field="model", value=type(model).__name__)
    return found


def initialise_by_fan_in(model: nn.Module) -> None:
    """Kaiming's normal initialisation by fan-in, zero biases, batch norms of scale 1 and shift 0: what AZ-NAS uses."""
    layers: Sequence[nn.Module] = weighted_layers(model)
    for layer in layers:
        nn.init.kaiming_normal_(layer.get_parameter("weight"), mode="fan_in", nonlinearity="relu")
        if isinstance(bias := getattr(layer, "bias", None), nn.Parameter):
            nn.init.zeros_(bias)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
