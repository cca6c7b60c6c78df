"""An optimiser's state as named tensors and scalars, for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

PREFIX = "optimizer/"


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The state by ``optimizer/<parameter's index>/<slot>``: tensors, and what are plain numbers."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, float] = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{PREFIX}{index}/{slot}"] = value
            elif value is not None:
                scalars[f"{PREFIX}{index}/{slot}"] = value
    return tensors, scalars


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, float]
) -> None:
    """Puts back what :func:`optimizer_state` gave; other names are passed over.

    Raises:
        ValueError, KeyError, RuntimeError: If it does not fit the optimiser's parameters.
    """
    slots: dict[int, dict[str, Any]] = {}
    for name, value in {**under(tensors, PREFIX), **under(scalars, PREFIX)}.items():
        index, _, slot = name.partition("/")
        slots.setdefault(int(index), {})[slot] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, own in slots.items():
        for slot, value in own.items():
            known = number < len(parameters) and isinstance(value, torch.Tensor)
            if known and value.shape == parameters[number].shape:
                # Files hold plain layouts. A fused step reads parameter and moments in the order of their memory, so
                # a moment must lie as its parameter does (channels last).
                own[slot] = torch.empty_like(parameters[number], dtype=value.dtype).copy_(value)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def under(items: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The items whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in items.items() if name.startswith(prefix)}
