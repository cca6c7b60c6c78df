"""What proxies have in common: layers with weights, their gradients, and watching what flows through a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ...errors import TaskError
from .base import Minibatch

Watcher = Callable[[nn.Module, torch.Tensor], None]
"""Called with a module and its output, or its first input."""


def weighted_layers(model: nn.Module) -> list[nn.Module]:
    """Convolutions and linear layers, in the order in which they were registered.

    Raises:
        TaskError: If there are none.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    found: list[nn.Module] = [module for module in model.modules() if isinstance(module, kinds)]
    if not found:
        raise TaskError(
            "the network has neither convolutions nor linear layers", field="model", value=type(model).__name__
        )
    return found


def weights(model: nn.Module) -> list[torch.Tensor]:
    """The weights of :func:`weighted_layers`, biases left out."""
    return [layer.get_parameter("weight") for layer in weighted_layers(model)]


def loss(model: nn.Module, batch: Minibatch) -> torch.Tensor:
    """Mean cross-entropy, without label smoothing."""
    value: torch.Tensor = nn.functional.cross_entropy(model(batch.inputs), batch.labels)
    return value


def gradients(value: torch.Tensor, of: Sequence[torch.Tensor], *, create_graph: bool = False) -> list[torch.Tensor]:
    """Of a scalar; zeros where it does not depend on a tensor."""
    found = torch.autograd.grad(value, list(of), create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(tensor) if grad is None else grad for tensor, grad in zip(of, found, strict=True)]


def any_nonzero(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether any element differs from zero."""
    return any(bool(tensor.ne(0).any()) for tensor in tensors)


@contextmanager
def watched(modules: Sequence[nn.Module], watcher: Watcher, *, entering: bool = False) -> Iterator[None]:
    """Calls ``watcher`` with each output of the modules inside the context, or with what enters them before they run
    (a module may work in place)."""

    def before(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        watcher(module, inputs[0])

    def after(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        watcher(module, output)

    if entering:
        handles = [module.register_forward_pre_hook(before) for module in modules]
    else:
        handles = [module.register_forward_hook(after) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
