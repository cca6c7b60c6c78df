"""Weights on the unit sphere, as Nemotron-Flash (2511.18890) trains them.

After each step of the optimiser, matrices that are applied to the hidden state have rows of unit length, and matrices
whose output is added to it have columns of unit length. Which is which says the model's ``roles()``.

No learnable scale is added, and exported models are the same as without: every matrix that reads the hidden state comes
behind a norm with a gain, which stays free and sets the scale of what is read (of attention's scores, of gates, of
logits). What is lost is a scale of its own for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import nn

from ...errors import TaskError

SMALLEST = 1e-12
"""Rows and columns shorter than this are left alone: zeros stay zeros."""
AXES = {"reads": -1, "writes": -2}
"""Along which axis of ``(out, in)`` lengths are taken."""


@torch.no_grad()
def normalise_weights(model: nn.Module) -> None:
    """Sets rows of reading matrices and columns of writing matrices to unit length, in place; matrices that ask for no
    gradient stay as they are.

    Raises:
        TaskError: If the model does not say its matrices' roles.
    """
    for name, role in _roles(model).items():
        weight = model.get_parameter(name)
        if weight.requires_grad:
            weight.div_(weight.norm(dim=AXES[role], keepdim=True).clamp_min(SMALLEST))


def _roles(model: nn.Module) -> Mapping[str, str]:
    roles = getattr(model, "roles", None)
    if roles is None:
        raise TaskError(
            f"{type(model).__name__} does not say which matrices read and write the hidden state",
            field="task.weight_normalisation",
            value=True,
            allowed="models with a method `roles`, or false",
        )
    return cast(Callable[[], Mapping[str, str]], roles)()
